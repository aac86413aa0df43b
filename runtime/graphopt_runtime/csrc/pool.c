/* pool.c: launches of parallel loops, and the pool as a handle sees it.

   SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "pool.h"

enum { MAX_THREADS = 1024, SPIN_NANOSECONDS = 100000 };

static _Thread_local graphopt_pool *current;
static _Thread_local int expected_units;

static void await_shares(graphopt_pool *pool) {
    spinner spinner = graphopt_start_spinning(pool);
    while (atomic_load_explicit(&pool->pending, memory_order_acquire) > 0) {
        if (spin(&spinner)) continue;
        pthread_mutex_lock(&pool->mutex);
        atomic_store(&pool->leader_sleeps, true);
        while (atomic_load(&pool->pending) > 0) pthread_cond_wait(&pool->finished, &pool->mutex);
        atomic_store(&pool->leader_sleeps, false);
        pthread_mutex_unlock(&pool->mutex);
    }
}

static bool try_to_own(graphopt_pool *pool) {
    return !atomic_load_explicit(&pool->busy, memory_order_relaxed) &&
           !atomic_exchange_explicit(&pool->busy, true, memory_order_acquire);
}

static void disown(graphopt_pool *pool) { atomic_store_explicit(&pool->busy, false, memory_order_release); }

static void publish(graphopt_pool *pool, int units, bool grouped, int threads) {
    int shares = units < threads ? units : threads;
    graphopt_share_out(pool, units, grouped, shares);
    atomic_store_explicit(&pool->failed, false, memory_order_relaxed);
    atomic_store_explicit(&pool->barrier.arrived, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->pending, shares - 1, memory_order_relaxed);
    for (int i = 0; i < shares - 1; i++) graphopt_post(&pool->workers[i], READY);
}

static void lead(graphopt_pool *pool) {
    current = NULL; /* launches from inside a task run serially */
    graphopt_run_share(pool, 0);
    for (int i = 0; i < pool->job.shares - 1; i++)
        if (graphopt_take_share(&pool->workers[i])) graphopt_finish_share(pool);
    current = pool;
    await_shares(pool);
}

int graphopt_expect_units(int units) {
    expected_units = units;
    return 0;
}

static bool run_side_by_side(graphopt_pool *pool, int tasks, int units, int threads) {
    bool announced = tasks <= 0 && units > 0;
    publish(pool, announced ? units : tasks > 0 ? tasks : threads, announced, threads);
    lead(pool);
    return !atomic_load_explicit(&pool->failed, memory_order_relaxed);
}

int graphopt_parallel_launch(FTVMParallelLambda lambda, void *data, int task_count) {
    graphopt_pool *pool = current;
    int units = expected_units;
    expected_units = 0;
    if (pool == NULL || atomic_load_explicit(&pool->threads, memory_order_relaxed) == 1 || !try_to_own(pool))
        return graphopt_run_serially(lambda, data, task_count);
    int threads = graphopt_start_workers(pool);
    pool->job.lambda = lambda;
    pool->job.data = data;
    bool done = threads == 1 ? graphopt_run_serially(lambda, data, task_count) == 0
                             : run_side_by_side(pool, task_count, units, threads);
    disown(pool);
    return done ? 0 : -1;
}

int graphopt_parallel_barrier(int task_id, TVMParallelGroupEnv *env) {
    (void)task_id;
    if (env->num_task <= 1) return 0;
    graphopt_barrier *b = env->sync_handle;
    if (b == NULL) return -1;
    unsigned phase = atomic_load(&b->phase);
    if (atomic_fetch_add(&b->arrived, 1) + 1 == env->num_task) {
        atomic_store(&b->arrived, 0);
        atomic_fetch_add(&b->phase, 1);
        return 0;
    }
    spinner spinner = graphopt_start_spinning(b->pool);
    while (atomic_load(&b->phase) == phase) {
        if (atomic_load(&b->pool->failed)) return -1;
        if (!spin(&spinner)) sched_yield();
    }
    return 0;
}

void graphopt_pool_reset(graphopt_pool *pool) {
    atomic_init(&pool->busy, false);
    atomic_init(&pool->pending, 0);
    atomic_init(&pool->leader_sleeps, false);
    pool->workers = NULL;
    pool->worker_count = 0;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->finished, NULL);
}

static int available_cpus(void) {
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int)online : 1;
}

static int clamp_threads(int threads) {
    if (threads <= 0) threads = available_cpus();
    return threads < MAX_THREADS ? threads : MAX_THREADS;
}

static void choose_spinning(graphopt_pool *pool) {
    bool sleep_at_once = atomic_load(&pool->passive) || atomic_load(&pool->threads) > available_cpus();
    atomic_store(&pool->spin_nanoseconds, sleep_at_once ? 0 : SPIN_NANOSECONDS);
}

graphopt_pool *graphopt_pool_create(int threads, const graphopt_allocator *allocator) {
    graphopt_pool *pool = graphopt_allocate(allocator, sizeof *pool);
    if (pool == NULL) return NULL;
    pool->allocator = allocator;
    graphopt_pool_reset(pool);
    atomic_init(&pool->threads, clamp_threads(threads));
    atomic_init(&pool->passive, 0);
    atomic_init(&pool->failed, false);
    atomic_init(&pool->barrier.arrived, 0);
    atomic_init(&pool->barrier.phase, 0);
    pool->barrier.pool = pool;
    choose_spinning(pool);
    graphopt_registry_add(pool);
    return pool;
}

void graphopt_pool_destroy(graphopt_pool *pool) {
    graphopt_registry_remove(pool);
    graphopt_stop_workers(pool);
    pthread_mutex_destroy(&pool->mutex);
    pthread_cond_destroy(&pool->finished);
    graphopt_release(pool->allocator, pool);
}

void graphopt_pool_set_threads(graphopt_pool *pool, int threads) {
    while (!try_to_own(pool)) sched_yield();
    graphopt_stop_workers(pool);
    atomic_store(&pool->threads, clamp_threads(threads));
    choose_spinning(pool);
    disown(pool);
}

void graphopt_pool_set_passive(graphopt_pool *pool, int passive) {
    atomic_store(&pool->passive, passive != 0);
    choose_spinning(pool);
}

graphopt_pool *graphopt_pool_enter(graphopt_pool *pool) {
    graphopt_pool *previous = current;
    current = pool;
    return previous;
}
