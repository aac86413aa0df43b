/* tvm_abi.c: the symbols that objects built by TVM's LLVM backend expect from their host.

   Such objects hold weak function pointers named __TVM*; the definitions below replace them at link time.
   SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#include "graphopt_rt.h"

int graphopt_run_serially(FTVMParallelLambda lambda, void *data, int task_count) {
    TVMParallelGroupEnv env = {NULL, task_count > 0 ? task_count : 1};
    for (int task = 0; task < env.num_task; task++)
        if (lambda(task, &env, data) != 0) return -1;
    return 0;
}

static _Thread_local int failed;

void graphopt_note_failure(void) { failed = 1; }

int graphopt_take_failure(void) {
    int taken = failed;
    failed = 0;
    return taken;
}

int TVMBackendParallelLaunch(FTVMParallelLambda lambda, void *data, int task_count) {
    int status = graphopt_parallel_launch(lambda, data, task_count);
    if (status != 0) graphopt_note_failure();
    return status;
}

int TVMBackendParallelBarrier(int task_id, TVMParallelGroupEnv *env) {
    return graphopt_parallel_barrier(task_id, env);
}

void *TVMBackendAllocWorkspace(int device_type, int device_id, uint64_t bytes, int type_code, int type_bits) {
    (void)device_type, (void)device_id, (void)type_code, (void)type_bits;
    size_t enough = (size_t)bytes + GRAPHOPT_ALIGNMENT;
    void *workspace = enough > bytes ? graphopt_allocate(&graphopt_system_allocator, enough) : NULL;
    if (workspace == NULL) graphopt_note_failure();
    return workspace;
}

int TVMBackendFreeWorkspace(int device_type, int device_id, void *workspace) {
    (void)device_type, (void)device_id;
    graphopt_release(&graphopt_system_allocator, workspace);
    return 0;
}

/* The text is dropped; graphopt_run reports that a kernel failed. */
void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t part_count) {
    (void)kind, (void)parts, (void)part_count;
    graphopt_note_failure();
}

int (*__TVMBackendParallelLaunch)(FTVMParallelLambda, void *, int) = TVMBackendParallelLaunch;
int (*__TVMBackendParallelBarrier)(int, TVMParallelGroupEnv *) = TVMBackendParallelBarrier;
void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = TVMBackendAllocWorkspace;
int (*__TVMBackendFreeWorkspace)(int, int, void *) = TVMBackendFreeWorkspace;
void (*__TVMFFIErrorSetRaisedFromCStrParts)(const char *, const char **, int32_t) = TVMFFIErrorSetRaisedFromCStrParts;
