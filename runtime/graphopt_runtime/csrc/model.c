/* model.c: a handle on the model: its weights, its pool and the workspaces that its calls take turns with.

   SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#define _POSIX_C_SOURCE 200809L
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "graphopt_rt.h"

enum { SPARE_WORKSPACES = 32 };

/* Memory of one call: the arena of the kernels, and room for tensors that arrive misaligned. */
typedef struct {
    void *arena;
    void *staging;
    size_t staging_bytes;
} workspace;

struct graphopt_model {
    graphopt_allocator allocator;
    const void *weights;
    graphopt_pool *pool;
    size_t workspace_bytes;
    _Atomic(workspace *) spare[SPARE_WORKSPACES];
};

static size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

static size_t largest_workspace(void) {
    size_t largest = 0;
    for (int i = 0; i < graphopt_variant_count; i++)
        if (graphopt_variants[i].workspace_bytes > largest) largest = graphopt_variants[i].workspace_bytes;
    return largest;
}

static void free_workspace(const graphopt_allocator *allocator, workspace *space) {
    if (space == NULL) return;
    graphopt_release(allocator, space->arena);
    graphopt_release(allocator, space->staging);
    graphopt_release(allocator, space);
}

static workspace *new_workspace(const graphopt_allocator *allocator, size_t bytes) {
    workspace *space = graphopt_allocate(allocator, sizeof *space);
    if (space == NULL) return NULL;
    *space = (workspace){.arena = graphopt_allocate(allocator, bytes)};
    if (space->arena != NULL) return space;
    free_workspace(allocator, space);
    return NULL;
}

/* A list of slots that are taken and filled by one atomic exchange each: consistent at every instant, also for fork(). */
static workspace *take_workspace(graphopt_model *model) {
    for (int i = 0; i < SPARE_WORKSPACES; i++) {
        if (atomic_load_explicit(&model->spare[i], memory_order_relaxed) == NULL) continue;
        workspace *space = atomic_exchange_explicit(&model->spare[i], NULL, memory_order_acquire);
        if (space != NULL) return space;
    }
    return new_workspace(&model->allocator, model->workspace_bytes);
}

static void return_workspace(graphopt_model *model, workspace *space) {
    for (int i = 0; i < SPARE_WORKSPACES; i++) {
        workspace *expected = NULL;
        if (atomic_compare_exchange_strong_explicit(&model->spare[i], &expected, space, memory_order_release,
                                                    memory_order_relaxed))
            return;
    }
    free_workspace(&model->allocator, space);
}

static int any_misaligned(const void *const *pointers, int count) {
    uintptr_t bits = 0;
    for (int i = 0; i < count; i++) bits |= (uintptr_t)pointers[i];
    return bits % GRAPHOPT_ALIGNMENT != 0;
}

static int call_variant(const graphopt_model *model, const graphopt_variant *variant, const void *const *inputs,
                        void *const *outputs, const workspace *space) {
    graphopt_pool *previous = graphopt_pool_enter(model->pool);
    graphopt_take_failure();
    int status = variant->call(model->weights, inputs, outputs, space->arena);
    graphopt_pool_enter(previous);
    return status == 0 && !graphopt_take_failure() ? GRAPHOPT_OK : GRAPHOPT_ERROR_KERNEL;
}

static size_t staged_bytes(const size_t *sizes, int count) {
    size_t total = 0;
    for (int i = 0; i < count; i++) total += round_up(sizes[i], GRAPHOPT_ALIGNMENT);
    return total;
}

static int grow_staging(const graphopt_allocator *allocator, workspace *space, size_t bytes) {
    if (space->staging_bytes >= bytes) return GRAPHOPT_OK;
    graphopt_release(allocator, space->staging);
    space->staging = graphopt_allocate(allocator, bytes);
    space->staging_bytes = space->staging != NULL ? bytes : 0;
    return space->staging != NULL ? GRAPHOPT_OK : GRAPHOPT_ERROR_MEMORY;
}

/* The staging area holds the table of pointers first, then a 64-byte aligned copy of every tensor. */
static int call_staged(const graphopt_model *model, const graphopt_variant *variant, const void *const *inputs,
                       void *const *outputs, workspace *space) {
    if (variant->input_bytes == NULL || variant->output_bytes == NULL) return GRAPHOPT_ERROR_ALIGNMENT;
    int ins = variant->input_count, outs = variant->output_count;
    size_t table = round_up((size_t)(ins + outs) * sizeof(void *), GRAPHOPT_ALIGNMENT);
    size_t tensors = staged_bytes(variant->input_bytes, ins) + staged_bytes(variant->output_bytes, outs);
    int status = grow_staging(&model->allocator, space, table + tensors);
    if (status != GRAPHOPT_OK) return status;

    const void **staged_inputs = space->staging;
    void **staged_outputs = (void **)space->staging + ins;
    unsigned char *next = (unsigned char *)space->staging + table;
    for (int i = 0; i < ins; i++) {
        if (variant->input_bytes[i] > 0) memcpy(next, inputs[i], variant->input_bytes[i]);
        staged_inputs[i] = next;
        next += round_up(variant->input_bytes[i], GRAPHOPT_ALIGNMENT);
    }
    for (int i = 0; i < outs; i++) {
        staged_outputs[i] = next;
        next += round_up(variant->output_bytes[i], GRAPHOPT_ALIGNMENT);
    }
    status = call_variant(model, variant, staged_inputs, staged_outputs, space);
    if (status != GRAPHOPT_OK) return status;
    for (int i = 0; i < outs; i++)
        if (variant->output_bytes[i] > 0) memcpy(outputs[i], staged_outputs[i], variant->output_bytes[i]);
    return GRAPHOPT_OK;
}

graphopt_model *graphopt_create_with(const void *weights, int threads, const graphopt_allocator *allocator) {
    if (allocator == NULL) allocator = &graphopt_system_allocator;
    graphopt_model *model = graphopt_allocate(allocator, sizeof *model);
    if (model == NULL) return NULL;
    model->allocator = *allocator;
    model->weights = weights;
    model->workspace_bytes = largest_workspace();
    for (int i = 0; i < SPARE_WORKSPACES; i++) atomic_init(&model->spare[i], NULL);
    model->pool = graphopt_pool_create(threads, &model->allocator);
    if (model->pool != NULL) return model;
    graphopt_release(allocator, model);
    return NULL;
}

graphopt_model *graphopt_create(const void *weights, int threads) { return graphopt_create_with(weights, threads, NULL); }

int graphopt_run(graphopt_model *model, int index, const void *const *inputs, void *const *outputs) {
    if (index < 0 || index >= graphopt_variant_count) return GRAPHOPT_ERROR_VARIANT;
    const graphopt_variant *variant = &graphopt_variants[index];
    workspace *space = take_workspace(model);
    if (space == NULL) return GRAPHOPT_ERROR_MEMORY;
    int misaligned = any_misaligned(inputs, variant->input_count) ||
                     any_misaligned((const void *const *)outputs, variant->output_count);
    int status = misaligned ? call_staged(model, variant, inputs, outputs, space)
                            : call_variant(model, variant, inputs, outputs, space);
    return_workspace(model, space);
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

void graphopt_set_threads(graphopt_model *model, int threads) { graphopt_pool_set_threads(model->pool, threads); }

void graphopt_set_passive(graphopt_model *model, int passive) { graphopt_pool_set_passive(model->pool, passive); }

void graphopt_destroy(graphopt_model *model) {
    if (model == NULL) return;
    graphopt_pool_destroy(model->pool);
    graphopt_allocator allocator = model->allocator;
    for (int i = 0; i < SPARE_WORKSPACES; i++) free_workspace(&allocator, atomic_load(&model->spare[i]));
    graphopt_release(&allocator, model);
}
