/* pool_single.c: the pool interface for builds without threads; every launch runs serially.

   SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#include "graphopt_rt.h"

struct graphopt_pool {
    int unused;
};

static graphopt_pool the_pool;

graphopt_pool *graphopt_pool_create(int threads, const graphopt_allocator *allocator) {
    (void)threads, (void)allocator;
    return &the_pool;
}

void graphopt_pool_destroy(graphopt_pool *pool) { (void)pool; }

void graphopt_pool_set_threads(graphopt_pool *pool, int threads) { (void)pool, (void)threads; }

void graphopt_pool_set_passive(graphopt_pool *pool, int passive) { (void)pool, (void)passive; }

graphopt_pool *graphopt_pool_enter(graphopt_pool *pool) { return pool; }

int graphopt_expect_units(int units) {
    (void)units;
    return 0;
}

int graphopt_parallel_launch(FTVMParallelLambda lambda, void *data, int task_count) {
    return graphopt_run_serially(lambda, data, task_count);
}

int graphopt_parallel_barrier(int task_id, TVMParallelGroupEnv *env) {
    (void)task_id;
    return env->num_task > 1 ? -1 : 0;
}
