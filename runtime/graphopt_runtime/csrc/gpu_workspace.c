/* gpu_workspace.c: memory, a stream and captured launches for one call at a time, and the turns that calls take.

   SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#include <stdlib.h>

#include "gpu.h"

static size_t round_up(size_t bytes) { return (bytes + 255) / 256 * 256; }

static int tensor_count(const gpu_variant *variant) { return variant->input_count + variant->output_count; }

static size_t staged_bytes(const gpu_variant *variant) {
    size_t total = 0;
    for (int i = 0; i < tensor_count(variant); i++) total += round_up(variant->tensor_bytes[i]);
    return total;
}

static int allocate(const gpu_driver *driver, gpu_workspace *space) {
    size_t arena = 1, staging = 1;
    for (int i = 0; i < gpu_variant_count; i++) {
        const gpu_variant *variant = &gpu_variants[i];
        if (variant->workspace_bytes > arena) arena = variant->workspace_bytes;
        if (staged_bytes(variant) > staging) staging = staged_bytes(variant);
    }
    return GPU_OK(driver, MemAlloc, (&space->arena, arena)) && GPU_OK(driver, MemAlloc, (&space->staging, staging)) &&
           GPU_OK(driver, StreamCreate, (&space->stream, GPU_STREAM_NON_BLOCKING)) &&
           GPU_OK(driver, EventCreate, (&space->ready, GPU_EVENT_WITHOUT_TIME)) &&
           GPU_OK(driver, EventCreate, (&space->ended, GPU_EVENT_WITHOUT_TIME));
}

static int allocate_tables(gpu_workspace *space) {
    space->captures = calloc((size_t)gpu_variant_count, sizeof *space->captures);
    space->oldest = calloc((size_t)gpu_variant_count, sizeof *space->oldest);
    if (space->captures == NULL || space->oldest == NULL) return 0;
    for (int i = 0; i < gpu_variant_count; i++)
        for (int j = 0; j < GPU_CAPTURES; j++) {
            gpu_capture *one = &space->captures[i][j];
            one->tensors = calloc((size_t)tensor_count(&gpu_variants[i]) + 1, sizeof *one->tensors);
            if (one->tensors == NULL) return 0;
        }
    return 1;
}

static gpu_workspace *new_workspace(const gpu_driver *driver) {
    gpu_workspace *space = calloc(1, sizeof *space);
    if (space == NULL) return NULL;
    if (allocate_tables(space) && allocate(driver, space)) return space;
    gpu_free_workspace(driver, space);
    return NULL;
}

static void free_captures(const gpu_driver *driver, gpu_workspace *space) {
    for (int i = 0; space->captures != NULL && i < gpu_variant_count; i++)
        for (int j = 0; j < GPU_CAPTURES; j++) {
            if (space->captures[i][j].executable != NULL)
                driver->GraphExecDestroy(space->captures[i][j].executable);
            free(space->captures[i][j].tensors);
        }
    free(space->captures);
}

void gpu_free_workspace(const gpu_driver *driver, gpu_workspace *space) {
    if (space == NULL) return;
    if (space->stream != NULL) driver->StreamSynchronize(space->stream);
    if (space->is_pending) driver->EventSynchronize(space->ended);
    free_captures(driver, space);
    if (space->ready != NULL) driver->EventDestroy(space->ready);
    if (space->ended != NULL) driver->EventDestroy(space->ended);
    if (space->stream != NULL) driver->StreamDestroy(space->stream);
    if (space->staging != 0) driver->MemFree(space->staging);
    if (space->arena != 0) driver->MemFree(space->arena);
    free(space->oldest);
    free(space);
}

static gpu_workspace *take_from(graphopt_model *model, int slot) {
    if (atomic_load_explicit(&model->spare[slot], memory_order_relaxed) == NULL) return NULL;
    return atomic_exchange_explicit(&model->spare[slot], NULL, memory_order_acquire);
}

/* Whether a call on this stream would wait for nothing but what the stream holds already. */
static int is_free(const graphopt_model *model, gpu_workspace *space, gpu_stream stream) {
    if (space->is_pending && space->user != stream) space->is_pending = model->driver->EventQuery(space->ended) != 0;
    return !space->is_pending || space->user == stream;
}

gpu_workspace *gpu_take_workspace(graphopt_model *model, gpu_stream stream) {
    for (int i = 0; i < GPU_SPARE_WORKSPACES; i++) {
        gpu_workspace *space = take_from(model, i);
        if (space == NULL) continue;
        if (is_free(model, space, stream)) return space;
        gpu_return_workspace(model, space);
    }
    gpu_workspace *space = new_workspace(model->driver);
    for (int i = 0; space == NULL && i < GPU_SPARE_WORKSPACES; i++) space = take_from(model, i);
    return space;
}

void gpu_return_workspace(graphopt_model *model, gpu_workspace *space) {
    for (int i = 0; i < GPU_SPARE_WORKSPACES; i++) {
        gpu_workspace *expected = NULL;
        if (atomic_compare_exchange_strong(&model->spare[i], &expected, space)) return;
    }
    gpu_free_workspace(model->driver, space);
}
