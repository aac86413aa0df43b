/* workers.c: the threads that wait for shares of a launch, spinning first and sleeping then.

   SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#define _GNU_SOURCE
#include <signal.h>

#include "pool.h"

enum { WORKER_STACK = 8 << 20 };

bool graphopt_take_share(graphopt_worker *w) {
    int expected = READY;
    return atomic_load_explicit(&w->state, memory_order_relaxed) == READY &&
           atomic_compare_exchange_strong_explicit(&w->state, &expected, IDLE, memory_order_acquire,
                                                   memory_order_relaxed);
}

void graphopt_finish_share(graphopt_pool *pool) {
    if (atomic_fetch_sub(&pool->pending, 1) > 1 || !atomic_load(&pool->leader_sleeps)) return;
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_signal(&pool->finished);
    pthread_mutex_unlock(&pool->mutex);
}

void graphopt_post(graphopt_worker *w, int state) {
    if (atomic_exchange_explicit(&w->state, state, memory_order_acq_rel) != ASLEEP) return;
    graphopt_placement_wake(&w->placement);
    pthread_mutex_lock(&w->mutex);
    pthread_cond_signal(&w->woken);
    pthread_mutex_unlock(&w->mutex);
}

static void sleep_until_posted(graphopt_worker *w) {
    int expected = IDLE;
    graphopt_placement_sleep(&w->placement);
    pthread_mutex_lock(&w->mutex);
    if (atomic_compare_exchange_strong(&w->state, &expected, ASLEEP))
        while (atomic_load(&w->state) == ASLEEP) pthread_cond_wait(&w->woken, &w->mutex);
    pthread_mutex_unlock(&w->mutex);
}

static int await_post(graphopt_worker *w) {
    spinner spinner = graphopt_start_spinning(w->pool);
    for (;;) {
        int state = atomic_load_explicit(&w->state, memory_order_acquire);
        if (state != IDLE) return state;
        if (!spin(&spinner)) sleep_until_posted(w);
    }
}

static void *work(void *argument) {
    graphopt_worker *w = argument;
    graphopt_placement_start(&w->placement);
    while (await_post(w) != STOP) {
        if (!graphopt_take_share(w)) continue;
        graphopt_run_share(w->pool, w->share);
        graphopt_finish_share(w->pool);
    }
    return NULL;
}

static int create_thread(graphopt_worker *w) {
    pthread_attr_t attributes;
    sigset_t all, before;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, WORKER_STACK);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals stay with the threads of the host program */
    int status = pthread_create(&w->thread, &attributes, work, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return status;
}

static bool start_worker(graphopt_pool *pool) {
    graphopt_worker *w = &pool->workers[pool->worker_count];
    atomic_init(&w->state, IDLE);
    graphopt_placement_reset(&w->placement);
    w->pool = pool;
    w->share = pool->worker_count + 1;
    pthread_mutex_init(&w->mutex, NULL);
    pthread_cond_init(&w->woken, NULL);
    if (create_thread(w) != 0) return false;
    pool->worker_count++;
    return true;
}

int graphopt_start_workers(graphopt_pool *pool) {
    int threads = atomic_load_explicit(&pool->threads, memory_order_relaxed);
    if (pool->worker_count == threads - 1) return threads;
    pool->workers = graphopt_allocate(pool->allocator, sizeof(graphopt_worker) * (size_t)(threads - 1));
    while (pool->workers != NULL && pool->worker_count < threads - 1 && start_worker(pool)) continue;
    threads = pool->worker_count + 1;
    atomic_store_explicit(&pool->threads, threads, memory_order_relaxed);
    return threads;
}

void graphopt_stop_workers(graphopt_pool *pool) {
    for (int i = 0; i < pool->worker_count; i++) graphopt_post(&pool->workers[i], STOP);
    for (int i = 0; i < pool->worker_count; i++) {
        pthread_join(pool->workers[i].thread, NULL);
        pthread_mutex_destroy(&pool->workers[i].mutex);
        pthread_cond_destroy(&pool->workers[i].woken);
    }
    graphopt_release(pool->allocator, pool->workers);
    pool->workers = NULL;
    pool->worker_count = 0;
}
