/* y = x + weights, z = 2 * y, for vectors of 64 and of 128 elements. */
#include "launch.h"

#ifndef SCALE
#define SCALE 2
#endif

typedef struct {
    const float *x, *weights;
    float *y;
    int count;
} Add;

static int add(int task, Env *env, void *data) {
    Add *a = data;
    int step = (a->count + env->num_task - 1) / env->num_task;
    for (int i = task * step; i < (task + 1) * step && i < a->count; i++) a->y[i] = a->x[i] + a->weights[i];
    return 0;
}

/* Goes through the workspace, so that calls which share one would disturb each other. */
static int run(const void *weights, const void *x, void *y, void *z, void *workspace, int count) {
    if (((uintptr_t)x | (uintptr_t)y | (uintptr_t)z | (uintptr_t)workspace) % 64 != 0) return -1;
    Add to_workspace = {x, weights, workspace, count};
    int status = __TVMBackendParallelLaunch(add, &to_workspace, 0);
    for (int i = 0; i < count; i++) ((float *)y)[i] = ((float *)workspace)[i];
    for (int i = 0; i < count; i++) ((float *)z)[i] = SCALE * ((float *)y)[i];
    return status;
}

int32_t graphopt_variant_0(const uint8_t *weights, const uint8_t *x, uint8_t *y, uint8_t *z, uint8_t *workspace) {
    return run(weights, x, y, z, workspace, 64);
}

int32_t graphopt_variant_1(const uint8_t *weights, const uint8_t *x, uint8_t *y, uint8_t *z, uint8_t *workspace) {
    return run(weights, x, y, z, workspace, 128);
}
