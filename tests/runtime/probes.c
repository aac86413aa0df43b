/* Variants that look at the thread pool from inside. Each takes one int32 and fills 64. Like the compiler's drivers they
   ignore what their kernels return. */
#define _GNU_SOURCE
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "launch.h"

int graphopt_expect_units(int units);

typedef struct {
    int32_t *out;
    int32_t argument;
} Probe;

static int count_tasks(int task, Env *env, void *data) {
    int32_t *out = ((Probe *)data)->out;
    out[task] = env->num_task;
    return 0;
}

/* Every task waits for all others: only possible if each has a thread of its own. */
static int meet(int task, Env *env, void *data) {
    int32_t *out = ((Probe *)data)->out;
    out[task] = gettid();
    for (int i = 0; i < 20; i++)
        if (__TVMBackendParallelBarrier(task, env) != 0) return -1;
    int sum = 0;
    for (int i = 0; i < env->num_task; i++) sum += out[i] != 0;
    if (__TVMBackendParallelBarrier(task, env) != 0) return -1;
    out[task + 32] = sum;
    return 0;
}

static int nested(int task, Env *env, void *data) {
    Probe inner = {((Probe *)data)->out + 8, ((Probe *)data)->argument};
    (void)env;
    return task > 0 ? 0 : __TVMBackendParallelLaunch(count_tasks, &inner, inner.argument);
}

static int fail(int task, Env *env, void *data) {
    (void)env;
    return task == ((Probe *)data)->argument ? -1 : 0;
}

/* One task fails before the barrier that the others wait at. */
static int fail_before_barrier(int task, Env *env, void *data) {
    return task == ((Probe *)data)->argument ? -1 : __TVMBackendParallelBarrier(task, env);
}

static int nap(int task, Env *env, void *data) {
    int32_t *out = ((Probe *)data)->out;
    (void)env;
    struct timespec time = {0, 2000000};
    nanosleep(&time, NULL);
    out[task] = gettid();
    return 0;
}

static int use_workspace(int task, Env *env, void *data) {
    int32_t *out = ((Probe *)data)->out;
    (void)env;
    float *memory = __TVMBackendAllocWorkspace(1, 0, 1000, 2, 32);
    out[task] = memory != NULL && (uintptr_t)memory % 64 == 0;
    return __TVMBackendFreeWorkspace(1, 0, memory);
}

#define PROBE(index, lambda, tasks)                                                                              \
    int32_t graphopt_variant_##index(const uint8_t *w, const uint8_t *in, uint8_t *result, uint8_t *workspace) { \
        (void)w, (void)workspace;                                                                                \
        Probe probe = {(int32_t *)result, *(const int32_t *)in};                                                 \
        __TVMBackendParallelLaunch(lambda, &probe, tasks);                                                       \
        return 0;                                                                                                \
    }

PROBE(0, count_tasks, probe.argument)
PROBE(1, meet, 0)
PROBE(2, nested, 0)
PROBE(3, fail, 0)
PROBE(4, fail_before_barrier, 0)
PROBE(5, nap, 0)
PROBE(6, use_workspace, 0)
PROBE(7, meet, probe.argument)

static int allocate_too_much(int task, Env *env, void *data) {
    (void)task, (void)env, (void)data;
    return __TVMBackendAllocWorkspace(1, 0, UINT64_MAX - 8, 2, 32) == NULL ? 0 : -1;
}

PROBE(8, allocate_too_much, 1)

int32_t graphopt_variant_9(const uint8_t *w, const uint8_t *in, uint8_t *result, uint8_t *workspace) {
    (void)w, (void)in;
    memset(workspace, 1, 3 << 20);
    ((int32_t *)result)[0] = (uintptr_t)workspace % (2 << 20) == 0;
    ((int32_t *)result)[1] = (int32_t)((uintptr_t)workspace >> 12);
    return 0;
}

/* Counts how often each of the announced units is computed, modulo the 64 results; divides the work as TVM's loops do. */
static int count_units(int task, Env *env, void *data) {
    Probe *probe = data;
    int size = (probe->argument + env->num_task - 1) / env->num_task;
    for (int unit = task * size; unit < (task + 1) * size && unit < probe->argument; unit++)
        __atomic_fetch_add(&probe->out[unit % 64], 1, __ATOMIC_RELAXED);
    return 0;
}

/* The first unit lasts until all others are done, for at most two seconds. */
static int hold_first(int task, Env *env, void *data) {
    int32_t *done = ((Probe *)data)->out;
    struct timespec time = {0, 1000000};
    for (int i = 0; task == 0 && i < 2000 && __atomic_load_n(done, __ATOMIC_RELAXED) < env->num_task - 1; i++)
        nanosleep(&time, NULL);
    __atomic_fetch_add(done + (task == 0), 1, __ATOMIC_RELAXED);
    if (task == 0) done[2] = done[0];
    return 0;
}

#define PROBE_UNITS(index, lambda)                                                                               \
    int32_t graphopt_variant_##index(const uint8_t *w, const uint8_t *in, uint8_t *result, uint8_t *workspace) { \
        (void)w, (void)workspace;                                                                                \
        Probe probe = {(int32_t *)result, *(const int32_t *)in};                                                 \
        graphopt_expect_units(probe.argument);                                                                   \
        __TVMBackendParallelLaunch(lambda, &probe, 0);                                                           \
        return 0;                                                                                                \
    }

PROBE_UNITS(10, count_units)
PROBE_UNITS(11, hold_first)
