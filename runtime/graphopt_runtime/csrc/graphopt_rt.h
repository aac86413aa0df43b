/* graphopt_rt.h: what the generated glue defines and what the parts of the runtime offer one another. Not installed.

   SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#ifndef GRAPHOPT_RT_H
#define GRAPHOPT_RT_H

#include <stddef.h>
#include <stdint.h>

#include "graphopt.h"

#define GRAPHOPT_ALIGNMENT 64

/* One set of input shapes. The byte counts may be NULL; misaligned tensors are then an error instead of a copy. */
typedef struct {
    int (*call)(const void *weights, const void *const *inputs, void *const *outputs, void *workspace);
    int input_count;
    int output_count;
    size_t workspace_bytes;
    const size_t *input_bytes;
    const size_t *output_bytes;
} graphopt_variant;

/* Defined by the generated glue. */
extern const graphopt_variant graphopt_variants[];
extern const int graphopt_variant_count;

/* TVM's calling convention for parallel loops (tvm/runtime/c_backend_api.h). */
typedef struct {
    void *sync_handle;
    int32_t num_task;
} TVMParallelGroupEnv;

typedef int (*FTVMParallelLambda)(int task_id, TVMParallelGroupEnv *env, void *data);

/* Kernels tell so before a launch of their own how many iterations its loop has: threads can then take them one by one. */
int graphopt_expect_units(int units);

/* Runs `task_count` tasks on the calling thread's current pool; for 0, as many as were announced, or one per thread. Tasks
   that launch again, and launches without a free pool, run serially. Returns 0, or -1 if any task failed. */
int graphopt_parallel_launch(FTVMParallelLambda lambda, void *data, int task_count);

/* Waits until every task of the launch arrives. Returns -1 when a task has failed or the tasks do not run side by side. */
int graphopt_parallel_barrier(int task_id, TVMParallelGroupEnv *env);

/* Runs the tasks one after the other on the calling thread. */
int graphopt_run_serially(FTVMParallelLambda lambda, void *data, int task_count);

/* Notes that a kernel on the calling thread failed: drivers do not look at what their kernels return. */
void graphopt_note_failure(void);

/* Whether a failure was noted on the calling thread since the last call. */
int graphopt_take_failure(void);

/* memory.c: the system's memory, and the use of an allocator: blocks start at multiples of GRAPHOPT_ALIGNMENT. */
extern const graphopt_allocator graphopt_system_allocator;
void *graphopt_allocate(const graphopt_allocator *allocator, size_t bytes);
void graphopt_release(const graphopt_allocator *allocator, void *memory);

/* The thread pool of one handle, whose allocator outlives it: pool.c, or pool_single.c where there are no threads. */
typedef struct graphopt_pool graphopt_pool;

graphopt_pool *graphopt_pool_create(int threads, const graphopt_allocator *allocator);
void graphopt_pool_destroy(graphopt_pool *pool);
void graphopt_pool_set_threads(graphopt_pool *pool, int threads);
void graphopt_pool_set_passive(graphopt_pool *pool, int passive);

/* Makes `pool` (NULL: none) the one that the calling thread's kernels use, and returns the one before. */
graphopt_pool *graphopt_pool_enter(graphopt_pool *pool);

#endif
