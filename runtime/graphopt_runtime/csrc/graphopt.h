/* graphopt.h: the C interface of a compiled model.

   A library built by graphopt holds one model in one or more variants (one per set of input shapes, in the order of the
   manifest). Tensors are dense and row-major. Every function is safe to call from several threads, except that
   graphopt_destroy must be the last call on its handle.

   Part of graphopt, under the Apache License v2.0 with LLVM Exceptions.
   SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#ifndef GRAPHOPT_H
#define GRAPHOPT_H

#include <stddef.h>

#if defined(__GNUC__)
#define GRAPHOPT_API __attribute__((visibility("default")))
#else
#define GRAPHOPT_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum {
    GRAPHOPT_OK = 0,
    GRAPHOPT_ERROR_VARIANT = 1,   /* no variant of that number */
    GRAPHOPT_ERROR_MEMORY = 2,    /* the workspace could not be allocated */
    GRAPHOPT_ERROR_KERNEL = 3,    /* a kernel reported a failure */
    GRAPHOPT_ERROR_ALIGNMENT = 4, /* a tensor is not 64-byte aligned and its size is unknown, so it cannot be staged */
    GRAPHOPT_ERROR_DEVICE = 5     /* the driver of a GPU reported an error */
};

typedef struct graphopt_model graphopt_model;

/* Where a handle takes its memory from. `allocate` gives at least `bytes` at a multiple of `alignment` (a power of 2), or NULL
   when memory is short; both are called from the threads that call the handle, and may be called by several at once. */
typedef struct {
    void *(*allocate)(void *context, size_t bytes, size_t alignment);
    void (*release)(void *context, void *memory);
    void *context;
} graphopt_allocator;

/* A handle on the model, or NULL when memory is short. `weights` (64-byte aligned, the bytes of weights.bin) stay the
   caller's and must outlive the handle. `threads` counts the calling thread; 0 or less means one per available CPU.
   Worker threads belong to the handle and start with the first parallel kernel. */
GRAPHOPT_API graphopt_model *graphopt_create(const void *weights, int threads);

/* The same with memory from `allocator`, which is copied; NULL stands for the system's. Not in libraries for a GPU: those copy the
   weights, which may lie anywhere, have no threads of their own, and say in graphopt_failure why there is no handle. */
GRAPHOPT_API graphopt_model *graphopt_create_with(const void *weights, int threads, const graphopt_allocator *allocator);

/* Runs one variant. Returns GRAPHOPT_OK or an error. Tensors that are not 64-byte aligned are copied through an internal
   buffer. Concurrent calls on one handle get a workspace each; a kernel that finds the handle's workers taken by another
   call runs on its caller's thread alone. */
GRAPHOPT_API int graphopt_run(graphopt_model *model, int variant, const void *const *inputs, void *const *outputs);

/* Runs one variant `repeats` times and returns the seconds that all of them took, or minus an error code. */
GRAPHOPT_API double graphopt_time(graphopt_model *model, int variant, const void *const *inputs, void *const *outputs,
                                  int repeats);

/* Changes the number of threads, waiting for a running parallel kernel to finish. */
GRAPHOPT_API void graphopt_set_threads(graphopt_model *model, int threads);

/* Passive (1): idle workers sleep at once. Active (0, the default): they first spin for a fraction of a millisecond, which
   makes the next parallel kernel start sooner. Handles with more threads than CPUs never spin. */
GRAPHOPT_API void graphopt_set_passive(graphopt_model *model, int passive);

/* Stops the workers and frees everything but the weights. NULL is ignored. */
GRAPHOPT_API void graphopt_destroy(graphopt_model *model);

/* One English sentence for a code returned by graphopt_run. */
GRAPHOPT_API const char *graphopt_error_string(int error);

/* Of libraries for a GPU, whose functions take pointers to the memory of the first GPU and of the host alike: runs one variant on a
   stream of the caller's, a CUstream or cudaStream_t of the device's primary context; NULL is the default stream. The call waits for what
   the stream holds, and what is asked of the stream later waits for the call. It returns before results are there if every tensor
   lies on a GPU, which its caller then leaves alone until the stream has come so far; otherwise it waits. Errors of kernels show in later
   calls. Streams that are being captured are refused. Calls on several streams run side by side, with a workspace for each.

   graphopt_run uses a stream of its own and waits for the results. Tensors on a GPU must be complete on the default stream. */
GRAPHOPT_API int graphopt_run_on(graphopt_model *model, int variant, const void *const *inputs, void *const *outputs,
                                 void *stream);

/* Of libraries for a GPU: what went wrong in the last call of this thread that failed, graphopt_create included. */
GRAPHOPT_API const char *graphopt_failure(void);

#ifdef __cplusplus
}
#endif
#endif
