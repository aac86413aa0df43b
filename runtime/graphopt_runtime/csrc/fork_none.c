/* fork_none.c: the registry of pools for programs that do not fork: there is none, and so no state outside of handles.

   SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#define _GNU_SOURCE
#include "pool.h"

void graphopt_registry_add(graphopt_pool *pool) { (void)pool; }

void graphopt_registry_remove(graphopt_pool *pool) { (void)pool; }
