/* pool.h: the thread pool of one handle, shared by pool.c, shares.c, workers.c and fork.c.

   The caller of a launch leads it: it offers share 0..n-1 of the units of work to itself and to n-1 workers. Each thread
   works on its own share from the front, then on those of others from the back; in the end the leader withdraws what it
   offered to workers that have not woken up yet, and waits for the rest. A worker owns one state word; all hand-over goes
   through it. One launch uses the pool at a time; others run serially on their callers' threads.
   SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#ifndef GRAPHOPT_POOL_H
#define GRAPHOPT_POOL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "graphopt_rt.h"
#include "placement.h"
#include "spin.h"

enum { CACHE_LINE = 64 };

/* IDLE -> READY by the leader, READY -> IDLE by whoever takes the share, IDLE -> ASLEEP by the worker. */
enum { IDLE, READY, ASLEEP, STOP };

/* The units of a share that nobody has taken: the first in the upper half, the one after the last in the lower half. */
typedef _Atomic int64_t graphopt_range;

typedef struct {
    _Alignas(CACHE_LINE) atomic_int state;
    int share;
    graphopt_range units;
    graphopt_pool *pool;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t woken;
    graphopt_placement placement;
} graphopt_worker;

/* Units are run one by one as tasks of `singles`, or as whole groups, which are tasks of `groups`. */
typedef struct {
    FTVMParallelLambda lambda;
    void *data;
    int shares;
    int group;
    TVMParallelGroupEnv singles;
    TVMParallelGroupEnv groups;
} graphopt_job;

typedef struct {
    graphopt_pool *pool;
    _Alignas(CACHE_LINE) atomic_int arrived;
    atomic_uint phase;
} graphopt_barrier;

struct graphopt_pool {
    atomic_int threads;
    atomic_int passive;
    atomic_long spin_nanoseconds;
    graphopt_pool *next; /* in the registry of pools */
    const graphopt_allocator *allocator;

    _Alignas(CACHE_LINE) atomic_bool busy; /* whoever sets it owns the fields up to the next line */
    graphopt_worker *workers;              /* workers[share - 1] */
    int worker_count;
    graphopt_job job;
    graphopt_barrier barrier;

    _Alignas(CACHE_LINE) graphopt_range units; /* of share 0 */

    _Alignas(CACHE_LINE) atomic_int pending; /* shares that are not finished, the leader's own excluded */
    atomic_bool failed;
    atomic_bool leader_sleeps;
    pthread_mutex_t mutex;
    pthread_cond_t finished;
};

/* A spinner that gives up at the pool's limit. */
static inline spinner graphopt_start_spinning(graphopt_pool *pool) {
    return (spinner){.limit = atomic_load_explicit(&pool->spin_nanoseconds, memory_order_relaxed)};
}

/* Sets a worker's state and wakes it if it sleeps. */
void graphopt_post(graphopt_worker *w, int state);

/* Takes the share that was offered to a worker; true for exactly one of all who try. */
bool graphopt_take_share(graphopt_worker *w);

/* Divides units 0..units-1 of the pool's job into shares. Each is a task, which meets the others at barriers if there are no
   more of them than shares; or some are `grouped` into one task, for lambdas that divide their work by the number of tasks. */
void graphopt_share_out(graphopt_pool *pool, int units, bool grouped, int shares);

/* Runs the units of a share, then what is left of others. */
void graphopt_run_share(graphopt_pool *pool, int share);

/* Counts a share as finished, and wakes the leader if it was the last. */
void graphopt_finish_share(graphopt_pool *pool);

/* Brings the workers to threads - 1 and returns how many threads there are; a system that grants fewer gets fewer. */
int graphopt_start_workers(graphopt_pool *pool);

void graphopt_stop_workers(graphopt_pool *pool);

/* Puts a pool into its state without workers, whatever it was before. */
void graphopt_pool_reset(graphopt_pool *pool);

/* The pools that a forked child has to reset. */
void graphopt_registry_add(graphopt_pool *pool);
void graphopt_registry_remove(graphopt_pool *pool);

#endif
