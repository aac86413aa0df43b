/* placement.c: see placement.h.

   SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#define _GNU_SOURCE
#include <sys/types.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "placement.h"

void graphopt_placement_reset(graphopt_placement *placement) { atomic_init(&placement->cpu, -1); }

#if defined(__linux__)

void graphopt_placement_start(graphopt_placement *placement) {
    placement->thread = (int)syscall(SYS_gettid);
    if (sched_getaffinity(0, sizeof placement->allowed, &placement->allowed) != 0) CPU_ZERO(&placement->allowed);
}

void graphopt_placement_sleep(graphopt_placement *placement) { atomic_store(&placement->cpu, sched_getcpu()); }

void graphopt_placement_wake(graphopt_placement *placement) {
    int here = sched_getcpu();
    if (here < 0 || atomic_load(&placement->cpu) != here) return;
    cpu_set_t others = placement->allowed;
    CPU_CLR((size_t)here, &others);
    if (CPU_COUNT(&others) > 0) sched_setaffinity(placement->thread, sizeof others, &others);
}

#else

void graphopt_placement_start(graphopt_placement *placement) { (void)placement; }
void graphopt_placement_sleep(graphopt_placement *placement) { (void)placement; }
void graphopt_placement_wake(graphopt_placement *placement) { (void)placement; }

#endif
