/* bare.c: the symbols that kernels expect of their host, for machines without threads, heap and operating system.

   SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#include "graphopt_rt.h"

int graphopt_expect_units(int units) {
    (void)units;
    return 0;
}

static int launch(FTVMParallelLambda lambda, void *data, int task_count) {
    TVMParallelGroupEnv env = {NULL, task_count > 0 ? task_count : 1};
    for (int task = 0; task < env.num_task; task++)
        if (lambda(task, &env, data) != 0) return -1;
    return 0;
}

static int barrier(int task_id, TVMParallelGroupEnv *env) {
    (void)task_id;
    return env->num_task > 1 ? -1 : 0;
}

int (*__TVMBackendParallelLaunch)(FTVMParallelLambda, void *, int) = launch;
int (*__TVMBackendParallelBarrier)(int, TVMParallelGroupEnv *) = barrier;
