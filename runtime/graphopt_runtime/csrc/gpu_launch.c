/* gpu_launch.c: the kernels of a variant, asked for one by one, or as a graph that was captured from such launches. Addresses that come
   a second time are worth a capture.

   SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#include <string.h>

#include "gpu.h"

static gpu_address address_of(const graphopt_model *model, const gpu_workspace *space, const gpu_address *tensors,
                              gpu_argument argument) {
    if (argument.base == GPU_WEIGHTS) return model->weights + argument.offset;
    if (argument.base == GPU_WORKSPACE) return space->arena + argument.offset;
    return tensors[argument.base] + argument.offset;
}

/* Whether a kernel may be brought up while the one before it still runs. */
static int starts_early(const gpu_driver *driver) {
    int version = 0;
    return gpu_kernels_wait && driver->DriverGetVersion(&version) == 0 && version >= GPU_EARLY_STARTS_IN_GRAPHS;
}

static int launch_one(const gpu_driver *driver, gpu_function function, const gpu_launch *launch, gpu_stream stream,
                      void **arguments, int early) {
    gpu_attribute attribute = {GPU_EARLY_START, 0, {1}};
    gpu_configuration configuration = {
        {launch->blocks, 1, 1}, {launch->threads, 1, 1}, launch->shared, stream, &attribute, 1};
    if (early) return GPU_OK(driver, LaunchKernelEx, (&configuration, function, arguments, NULL));
    return GPU_OK(driver, LaunchKernel,
                  (function, launch->blocks, 1, 1, launch->threads, 1, 1, launch->shared, stream, arguments, NULL));
}

static int launch_all(const graphopt_model *model, const gpu_variant *variant, const gpu_workspace *space,
                      const gpu_address *tensors, gpu_stream stream) {
    gpu_address values[GPU_MOST_ARGUMENTS];
    void *pointers[GPU_MOST_ARGUMENTS];
    for (int i = 0; i < variant->launch_count; i++) {
        const gpu_launch *launch = &variant->launches[i];
        for (int j = 0; j < launch->argument_count; j++) {
            values[j] = address_of(model, space, tensors, variant->arguments[launch->first_argument + j]);
            pointers[j] = &values[j];
        }
        int early = i > 0 && starts_early(model->driver);
        if (!launch_one(model->driver, model->functions[launch->kernel], launch, stream, pointers, early))
            return 0;
    }
    return 1;
}

/* Captures the launches on the workspace's own stream, whichever runs them later. */
static int capture(const graphopt_model *model, const gpu_variant *variant, const gpu_workspace *space,
                   gpu_capture *made) {
    const gpu_driver *driver = model->driver;
    gpu_graph graph = NULL;
    if (!GPU_OK(driver, StreamBeginCapture, (space->stream, GPU_CAPTURE_THREAD))) return 0;
    int launched = launch_all(model, variant, space, made->tensors, space->stream);
    int ended = driver->StreamEndCapture(space->stream, &graph);
    int succeeded = launched && gpu_succeeded("cuStreamEndCapture", ended) &&
                    GPU_OK(driver, GraphInstantiateWithFlags, (&made->executable, graph, 0));
    if (graph != NULL) driver->GraphDestroy(graph);
    return succeeded;
}

static size_t tensors_bytes(const gpu_variant *variant) {
    return (size_t)(variant->input_count + variant->output_count) * sizeof(gpu_address);
}

static gpu_capture *find_capture(gpu_workspace *space, int index, const gpu_address *tensors) {
    for (int i = 0; i < GPU_CAPTURES; i++) {
        gpu_capture *known = &space->captures[index][i];
        if (memcmp(known->tensors, tensors, tensors_bytes(&gpu_variants[index])) == 0) return known;
    }
    return NULL;
}

/* Remembers addresses in place of those that were remembered first. */
static void remember(const graphopt_model *model, int index, gpu_workspace *space, const gpu_address *tensors) {
    gpu_capture *next = &space->captures[index][space->oldest[index]];
    space->oldest[index] = (space->oldest[index] + 1) % GPU_CAPTURES;
    if (next->executable != NULL) model->driver->GraphExecDestroy(next->executable);
    next->executable = NULL;
    memcpy(next->tensors, tensors, tensors_bytes(&gpu_variants[index]));
}

int gpu_launch_variant(const graphopt_model *model, int index, gpu_workspace *space, const gpu_address *tensors,
                       gpu_stream stream) {
    const gpu_variant *variant = &gpu_variants[index];
    gpu_capture *known = find_capture(space, index, tensors);
    if (known == NULL) {
        remember(model, index, space, tensors);
        return launch_all(model, variant, space, tensors, stream);
    }
    if (known->executable == NULL && !capture(model, variant, space, known)) return 0;
    return GPU_OK(model->driver, GraphLaunch, (known->executable, stream));
}
