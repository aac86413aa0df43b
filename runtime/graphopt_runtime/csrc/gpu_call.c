/* gpu_call.c: one call: where its tensors lie, what is copied, and what it waits for.

   SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#include "gpu.h"

static gpu_address as_address(const void *pointer) { return (gpu_address)(uintptr_t)pointer; }

/* What was found of the tensors of a call. */
typedef struct {
    gpu_address places[GPU_MOST_ARGUMENTS];
    int any_shared;  /* used where its caller has it */
    int any_on_host;
} tensors_of_call;

/* Whether memory belongs to a GPU, and to this model's. */
static int is_on_gpu(const graphopt_model *model, gpu_address tensor, int *is_here) {
    static const int attributes[] = {GPU_ATTRIBUTE_MEMORY_TYPE, GPU_ATTRIBUTE_DEVICE};
    unsigned kind = 0;
    int device = -1;
    void *values[] = {&kind, &device};
    int is_known = model->driver->PointerGetAttributes(2, attributes, values, tensor) == 0;
    *is_here = device == model->device;
    return is_known && kind == GPU_MEMORY_DEVICE;
}

/* Tensors that lie on this GPU and are aligned are used there; others are copied to the workspace or from it. */
static void place_tensors(const graphopt_model *model, const gpu_variant *variant, const gpu_workspace *space,
                          const void *const *inputs, void *const *outputs, tensors_of_call *found) {
    gpu_address next = space->staging;
    found->any_shared = found->any_on_host = 0;
    for (int i = 0; i < variant->input_count + variant->output_count; i++) {
        gpu_address given = as_address(i < variant->input_count ? inputs[i] : outputs[i - variant->input_count]);
        int is_here = 0, on_gpu = is_on_gpu(model, given, &is_here);
        int is_shared = on_gpu && is_here && given % GPU_ALIGNMENT == 0;
        found->places[i] = is_shared ? given : next;
        found->any_shared |= is_shared;
        found->any_on_host |= !on_gpu && variant->tensor_bytes[i] > 0;
        next += (variant->tensor_bytes[i] + 255) / 256 * 256;
    }
}

static int copy_in(const graphopt_model *model, const gpu_variant *variant, gpu_stream stream,
                   const void *const *inputs, const gpu_address *tensors) {
    for (int i = 0; i < variant->input_count; i++)
        if (tensors[i] != as_address(inputs[i]) && variant->tensor_bytes[i] > 0 &&
            !GPU_OK(model->driver, MemcpyAsync,
                    (tensors[i], as_address(inputs[i]), variant->tensor_bytes[i], stream)))
            return 0;
    return 1;
}

static int copy_out(const graphopt_model *model, const gpu_variant *variant, gpu_stream stream,
                    void *const *outputs, const gpu_address *tensors) {
    for (int i = 0; i < variant->output_count; i++) {
        int number = variant->input_count + i;
        if (tensors[number] != as_address(outputs[i]) && variant->tensor_bytes[number] > 0 &&
            !GPU_OK(model->driver, MemcpyAsync,
                    (as_address(outputs[i]), tensors[number], variant->tensor_bytes[number], stream)))
            return 0;
    }
    return 1;
}

/* What callers have asked for on the default stream comes first. */
static int follow_default_stream(const graphopt_model *model, const gpu_workspace *space) {
    return GPU_OK(model->driver, EventRecord, (space->ready, NULL)) &&
           GPU_OK(model->driver, StreamWaitEvent, (space->stream, space->ready, 0));
}

/* Calls that used the workspace before come first; those on its own stream have ended. */
static int follow_last_call(const graphopt_model *model, const gpu_workspace *space, gpu_stream stream) {
    return !space->is_pending || GPU_OK(model->driver, StreamWaitEvent, (stream, space->ended, 0));
}

static int wait_for(const graphopt_model *model, gpu_workspace *space, gpu_stream stream) {
    space->is_pending = 0;
    return GPU_OK(model->driver, StreamSynchronize, (stream));
}

static int note_end(const graphopt_model *model, gpu_workspace *space, gpu_stream stream) {
    space->user = stream;
    space->is_pending = 1;
    return GPU_OK(model->driver, EventRecord, (space->ended, stream));
}

static int call(const graphopt_model *model, int index, gpu_workspace *space, const void *const *inputs,
                void *const *outputs, gpu_stream stream) {
    const gpu_variant *variant = &gpu_variants[index];
    int is_own = stream == space->stream;
    tensors_of_call found;
    place_tensors(model, variant, space, inputs, outputs, &found);
    if (is_own && found.any_shared && !follow_default_stream(model, space)) return 0;
    int asked = follow_last_call(model, space, stream) && copy_in(model, variant, stream, inputs, found.places) &&
                gpu_launch_variant(model, index, space, found.places, stream) &&
                copy_out(model, variant, stream, outputs, found.places);
    int ended = is_own || found.any_on_host ? wait_for(model, space, stream) : note_end(model, space, stream);
    return asked && ended;
}

static int is_fitting(const graphopt_model *model, gpu_stream stream) {
    int capturing = 0;
    gpu_context context = NULL;
    if (!GPU_OK(model->driver, StreamIsCapturing, (stream, &capturing))) return 0;
    if (capturing) return gpu_refuse("the stream is being captured, which models of graphopt cannot be part of");
    if (!GPU_OK(model->driver, StreamGetCtx, (stream, &context))) return 0;
    return context == model->context || gpu_refuse("the stream belongs to another GPU or context than the model");
}

/* On a stream of the caller's, or on that of the workspace. */
static int run(graphopt_model *model, int index, const void *const *inputs, void *const *outputs, int is_own,
               gpu_stream stream) {
    gpu_workspace *space = gpu_take_workspace(model, stream);
    if (space == NULL) return GRAPHOPT_ERROR_MEMORY;
    int succeeded = call(model, index, space, inputs, outputs, is_own ? space->stream : stream);
    gpu_return_workspace(model, space);
    return succeeded ? GRAPHOPT_OK : GRAPHOPT_ERROR_DEVICE;
}

static int enter_and_run(graphopt_model *model, int index, const void *const *inputs, void *const *outputs, int is_own,
                         gpu_stream stream) {
    gpu_context previous;
    if (index < 0 || index >= gpu_variant_count) return GRAPHOPT_ERROR_VARIANT;
    if (!GPU_OK(model->driver, CtxPushCurrent, (model->context))) return GRAPHOPT_ERROR_DEVICE;
    int status = GRAPHOPT_ERROR_DEVICE;
    if (is_own || is_fitting(model, stream)) status = run(model, index, inputs, outputs, is_own, stream);
    model->driver->CtxPopCurrent(&previous);
    return status;
}

int graphopt_run(graphopt_model *model, int index, const void *const *inputs, void *const *outputs) {
    return enter_and_run(model, index, inputs, outputs, 1, NULL);
}

int graphopt_run_on(graphopt_model *model, int index, const void *const *inputs, void *const *outputs, void *stream) {
    return enter_and_run(model, index, inputs, outputs, 0, stream);
}
