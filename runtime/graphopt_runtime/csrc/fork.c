/* fork.c: a forked child has the pools but none of their workers; it resets them and starts workers when it needs them.

   SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#define _GNU_SOURCE
#include "pool.h"

static pthread_mutex_t registry_mutex = PTHREAD_MUTEX_INITIALIZER;
static graphopt_pool *registry;
static pthread_once_t watch_forks_once = PTHREAD_ONCE_INIT;

static void lock_registry(void) { pthread_mutex_lock(&registry_mutex); }

static void unlock_registry(void) { pthread_mutex_unlock(&registry_mutex); }

static void forget_workers(void) {
    for (graphopt_pool *pool = registry; pool != NULL; pool = pool->next) graphopt_pool_reset(pool);
    unlock_registry();
}

static void watch_forks(void) { pthread_atfork(lock_registry, unlock_registry, forget_workers); }

void graphopt_registry_add(graphopt_pool *pool) {
    pthread_once(&watch_forks_once, watch_forks);
    lock_registry();
    pool->next = registry;
    registry = pool;
    unlock_registry();
}

void graphopt_registry_remove(graphopt_pool *pool) {
    lock_registry();
    graphopt_pool **link = &registry;
    while (*link != pool) link = &(*link)->next;
    *link = pool->next;
    unlock_registry();
}
