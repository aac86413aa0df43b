/* gpu_model.c: a handle on a model that runs on a GPU: its context, and its code and weights there.

   SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>
#include <time.h>

#include "gpu.h"

static int enter(const graphopt_model *model) { return GPU_OK(model->driver, CtxPushCurrent, (model->context)); }

static void leave(const graphopt_model *model) {
    gpu_context previous;
    model->driver->CtxPopCurrent(&previous);
}

static int load_code(graphopt_model *model) {
    const gpu_driver *driver = model->driver;
    model->modules = calloc((size_t)gpu_image_count + 1, sizeof *model->modules);
    model->functions = calloc((size_t)gpu_kernel_count + 1, sizeof *model->functions);
    if (model->modules == NULL || model->functions == NULL) return 0;
    for (int i = 0; i < gpu_image_count; i++) {
        int result = driver->ModuleLoadData(&model->modules[i], gpu_images[i]);
        if (!gpu_succeeded("cuModuleLoadData", result)) return gpu_refuse_code(result);
    }
    for (int i = 0; i < gpu_kernel_count; i++) {
        gpu_module module = model->modules[gpu_kernels[i].image];
        if (!GPU_OK(driver, ModuleGetFunction, (&model->functions[i], module, gpu_kernels[i].name))) return 0;
    }
    return 1;
}

/* Asks for memory that blocks of threads share, of which they have little unasked. */
static int allow_shared(const graphopt_model *model) {
    for (int i = 0; i < gpu_variant_count; i++)
        for (int j = 0; j < gpu_variants[i].launch_count; j++) {
            const gpu_launch *launch = &gpu_variants[i].launches[j];
            gpu_function function = model->functions[launch->kernel];
            if (launch->shared > GPU_SHARED_UNASKED &&
                !GPU_OK(model->driver, FuncSetAttribute, (function, GPU_FUNCTION_MOST_SHARED, (int)launch->shared)))
                return 0;
        }
    return 1;
}

static int load_weights(graphopt_model *model, const void *weights) {
    if (gpu_weights_bytes == 0) return 1;
    return GPU_OK(model->driver, MemAlloc, (&model->weights, gpu_weights_bytes)) &&
           GPU_OK(model->driver, MemcpyHtoD, (model->weights, weights, gpu_weights_bytes));
}

static void release(graphopt_model *model) {
    const gpu_driver *driver = model->driver;
    for (int i = 0; i < GPU_SPARE_WORKSPACES; i++) gpu_free_workspace(driver, atomic_load(&model->spare[i]));
    for (int i = 0; model->modules != NULL && i < gpu_image_count; i++)
        if (model->modules[i] != NULL) driver->ModuleUnload(model->modules[i]);
    if (model->weights != 0) driver->MemFree(model->weights);
}

void graphopt_destroy(graphopt_model *model) {
    if (model == NULL) return;
    if (model->context != NULL) {
        if (enter(model)) {
            release(model);
            leave(model);
        }
        model->driver->DevicePrimaryCtxRelease(model->device);
    }
    free(model->modules);
    free(model->functions);
    free(model);
}

graphopt_model *graphopt_create(const void *weights, int threads) {
    (void)threads;
    const gpu_driver *driver = gpu_open_driver();
    graphopt_model *model = driver != NULL ? calloc(1, sizeof *model) : NULL;
    if (model == NULL) return NULL;
    model->driver = driver;
    int ready = GPU_OK(driver, DeviceGet, (&model->device, 0)) &&
                GPU_OK(driver, DevicePrimaryCtxRetain, (&model->context, model->device)) && enter(model);
    if (ready) {
        ready = load_code(model) && allow_shared(model) && load_weights(model, weights);
        leave(model);
    }
    if (ready) return model;
    graphopt_destroy(model);
    return NULL;
}

double graphopt_time(graphopt_model *model, int variant, const void *const *inputs, void *const *outputs, int repeats) {
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int i = 0; i < repeats; i++) {
        int status = graphopt_run(model, variant, inputs, outputs);
        if (status != GRAPHOPT_OK) return -status;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    return (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
}

/* Threads of the host have nothing to do. */
void graphopt_set_threads(graphopt_model *model, int threads) { (void)model, (void)threads; }

void graphopt_set_passive(graphopt_model *model, int passive) { (void)model, (void)passive; }
