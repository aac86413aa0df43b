/* gpu_workspace.c: memory, a stream and captured launches for one call at a time.

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
           GPU_OK(driver, EventCreate, (&space->ready, GPU_EVENT_WITHOUT_TIME));
}

static int allocate_tables(gpu_workspace *space) {
    space->executables = calloc((size_t)gpu_variant_count, sizeof *space->executables);
    space->captured = calloc((size_t)gpu_variant_count, sizeof *space->captured);
    if (space->executables == NULL || space->captured == NULL) return 0;
    for (int i = 0; i < gpu_variant_count; i++) {
        space->captured[i] = calloc((size_t)tensor_count(&gpu_variants[i]) + 1, sizeof **space->captured);
        if (space->captured[i] == NULL) return 0;
    }
    return 1;
}

gpu_workspace *gpu_new_workspace(const gpu_driver *driver) {
    gpu_workspace *space = calloc(1, sizeof *space);
    if (space == NULL) return NULL;
    if (allocate_tables(space) && allocate(driver, space)) return space;
    gpu_free_workspace(driver, space);
    return NULL;
}

void gpu_free_workspace(const gpu_driver *driver, gpu_workspace *space) {
    if (space == NULL) return;
    if (space->stream != NULL) driver->StreamSynchronize(space->stream);
    for (int i = 0; i < gpu_variant_count; i++) {
        if (space->executables != NULL && space->executables[i] != NULL) driver->GraphExecDestroy(space->executables[i]);
        if (space->captured != NULL) free(space->captured[i]);
    }
    if (space->ready != NULL) driver->EventDestroy(space->ready);
    if (space->stream != NULL) driver->StreamDestroy(space->stream);
    if (space->staging != 0) driver->MemFree(space->staging);
    if (space->arena != 0) driver->MemFree(space->arena);
    free(space->captured);
    free(space->executables);
    free(space);
}
