/* gpu_model.c: a handle on a model that runs on a GPU: its context, code and weights there, and the workspaces that its calls
   take turns with. The launches of a variant are captured once, and again when the tensors of a call lie elsewhere.

   SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#define _POSIX_C_SOURCE 200809L
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gpu.h"

/* More arguments of a kernel, or tensors of a model, are refused when a model is compiled. */
enum { SPARE_WORKSPACES = 32, MOST_ARGUMENTS = 256 };

struct graphopt_model {
    const gpu_driver *driver;
    gpu_context context;
    int device;
    gpu_module *modules;
    gpu_function *functions;
    gpu_address weights;
    _Atomic(gpu_workspace *) spare[SPARE_WORKSPACES];
};

static int enter(const graphopt_model *model) { return GPU_OK(model->driver, CtxPushCurrent, (model->context)); }

static void leave(const graphopt_model *model) {
    gpu_context previous;
    model->driver->CtxPopCurrent(&previous);
}

static gpu_workspace *take_workspace(graphopt_model *model) {
    for (int i = 0; i < SPARE_WORKSPACES; i++) {
        if (atomic_load_explicit(&model->spare[i], memory_order_relaxed) == NULL) continue;
        gpu_workspace *space = atomic_exchange_explicit(&model->spare[i], NULL, memory_order_acquire);
        if (space != NULL) return space;
    }
    return gpu_new_workspace(model->driver);
}

static void return_workspace(graphopt_model *model, gpu_workspace *space) {
    for (int i = 0; i < SPARE_WORKSPACES; i++) {
        gpu_workspace *expected = NULL;
        if (atomic_compare_exchange_strong(&model->spare[i], &expected, space)) return;
    }
    gpu_free_workspace(model->driver, space);
}

static int load_code(graphopt_model *model) {
    const gpu_driver *driver = model->driver;
    model->modules = calloc((size_t)gpu_image_count + 1, sizeof *model->modules);
    model->functions = calloc((size_t)gpu_kernel_count + 1, sizeof *model->functions);
    if (model->modules == NULL || model->functions == NULL) return 0;
    for (int i = 0; i < gpu_image_count; i++)
        if (!GPU_OK(driver, ModuleLoadData, (&model->modules[i], gpu_images[i]))) return 0;
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
    for (int i = 0; i < SPARE_WORKSPACES; i++) gpu_free_workspace(driver, atomic_load(&model->spare[i]));
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
                      const gpu_address *tensors) {
    gpu_address values[MOST_ARGUMENTS];
    void *pointers[MOST_ARGUMENTS];
    for (int i = 0; i < variant->launch_count; i++) {
        const gpu_launch *launch = &variant->launches[i];
        for (int j = 0; j < launch->argument_count; j++) {
            values[j] = address_of(model, space, tensors, variant->arguments[launch->first_argument + j]);
            pointers[j] = &values[j];
        }
        int early = i > 0 && starts_early(model->driver);
        if (!launch_one(model->driver, model->functions[launch->kernel], launch, space->stream, pointers, early))
            return 0;
    }
    return 1;
}

/* Captures the launches for tensors at these addresses, in place of those captured before. */
static int capture(const graphopt_model *model, int index, gpu_workspace *space, const gpu_address *tensors) {
    const gpu_driver *driver = model->driver;
    const gpu_variant *variant = &gpu_variants[index];
    gpu_graph graph = NULL;
    if (space->executables[index] != NULL) driver->GraphExecDestroy(space->executables[index]);
    space->executables[index] = NULL;
    if (!GPU_OK(driver, StreamBeginCapture, (space->stream, GPU_CAPTURE_THREAD))) return 0;
    int launched = launch_all(model, variant, space, tensors);
    int ended = driver->StreamEndCapture(space->stream, &graph);
    int made = launched && gpu_succeeded("cuStreamEndCapture", ended) &&
               GPU_OK(driver, GraphInstantiateWithFlags, (&space->executables[index], graph, 0));
    if (graph != NULL) driver->GraphDestroy(graph);
    if (made)
        memcpy(space->captured[index], tensors,
               (size_t)(variant->input_count + variant->output_count) * sizeof *tensors);
    return made;
}

static gpu_address as_address(const void *pointer) { return (gpu_address)(uintptr_t)pointer; }

static int is_usable(const graphopt_model *model, gpu_address tensor) {
    static const int attribute = GPU_ATTRIBUTE_MEMORY_TYPE;
    unsigned kind = 0;
    void *value = &kind;
    return model->driver->PointerGetAttributes(1, &attribute, &value, tensor) == 0 && kind == GPU_MEMORY_DEVICE &&
           tensor % GPU_ALIGNMENT == 0;
}

/* Where each tensor lies on the GPU: where its caller has it, if that is there and aligned, or in the workspace. */
static void place_tensors(const graphopt_model *model, const gpu_variant *variant, const gpu_workspace *space,
                          const void *const *inputs, void *const *outputs, gpu_address *tensors) {
    gpu_address next = space->staging;
    for (int i = 0; i < variant->input_count + variant->output_count; i++) {
        gpu_address given = as_address(i < variant->input_count ? inputs[i] : outputs[i - variant->input_count]);
        tensors[i] = is_usable(model, given) ? given : next;
        next += (variant->tensor_bytes[i] + 255) / 256 * 256;
    }
}

static int copy_in(const graphopt_model *model, const gpu_variant *variant, const gpu_workspace *space,
                   const void *const *inputs, const gpu_address *tensors) {
    for (int i = 0; i < variant->input_count; i++)
        if (tensors[i] != as_address(inputs[i]) && variant->tensor_bytes[i] > 0 &&
            !GPU_OK(model->driver, MemcpyAsync,
                    (tensors[i], as_address(inputs[i]), variant->tensor_bytes[i], space->stream)))
            return 0;
    return 1;
}

static int copy_out(const graphopt_model *model, const gpu_variant *variant, const gpu_workspace *space,
                    void *const *outputs, const gpu_address *tensors) {
    for (int i = 0; i < variant->output_count; i++) {
        int number = variant->input_count + i;
        if (tensors[number] != as_address(outputs[i]) && variant->tensor_bytes[number] > 0 &&
            !GPU_OK(model->driver, MemcpyAsync,
                    (as_address(outputs[i]), tensors[number], variant->tensor_bytes[number], space->stream)))
            return 0;
    }
    return 1;
}

/* Whether a tensor of the caller is used where it lies. */
static int shares_memory(const gpu_variant *variant, const void *const *inputs, void *const *outputs,
                         const gpu_address *tensors) {
    for (int i = 0; i < variant->input_count; i++)
        if (tensors[i] == as_address(inputs[i])) return 1;
    for (int i = 0; i < variant->output_count; i++)
        if (tensors[variant->input_count + i] == as_address(outputs[i])) return 1;
    return 0;
}

/* What callers have asked for on the default stream comes first. */
static int follow_default_stream(const graphopt_model *model, const gpu_workspace *space) {
    return GPU_OK(model->driver, EventRecord, (space->ready, NULL)) &&
           GPU_OK(model->driver, StreamWaitEvent, (space->stream, space->ready, 0));
}

static int call(const graphopt_model *model, int index, gpu_workspace *space, const void *const *inputs,
                void *const *outputs) {
    const gpu_variant *variant = &gpu_variants[index];
    int count = variant->input_count + variant->output_count;
    gpu_address tensors[MOST_ARGUMENTS];
    place_tensors(model, variant, space, inputs, outputs, tensors);
    int is_captured = space->executables[index] != NULL &&
                      memcmp(space->captured[index], tensors, (size_t)count * sizeof *tensors) == 0;
    if (shares_memory(variant, inputs, outputs, tensors) && !follow_default_stream(model, space)) return 0;
    return (is_captured || capture(model, index, space, tensors)) && copy_in(model, variant, space, inputs, tensors) &&
           GPU_OK(model->driver, GraphLaunch, (space->executables[index], space->stream)) &&
           copy_out(model, variant, space, outputs, tensors) &&
           GPU_OK(model->driver, StreamSynchronize, (space->stream));
}

int graphopt_run(graphopt_model *model, int index, const void *const *inputs, void *const *outputs) {
    if (index < 0 || index >= gpu_variant_count) return GRAPHOPT_ERROR_VARIANT;
    if (!enter(model)) return GRAPHOPT_ERROR_DEVICE;
    gpu_workspace *space = take_workspace(model);
    int status = GRAPHOPT_ERROR_MEMORY;
    if (space != NULL) {
        status = call(model, index, space, inputs, outputs) ? GRAPHOPT_OK : GRAPHOPT_ERROR_DEVICE;
        return_workspace(model, space);
    }
    leave(model);
    return status;
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
