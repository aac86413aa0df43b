/* Eight threads call one handle of the model `net` of test_sanitizers.py, most of them at the same time, 10,000 times together; then
   allocations fail, one after the other, while four threads call. Results never change, and nothing is left. The handle has as many
   threads as the first argument says. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net.h"

enum { CALLERS = 8, CALLS = 10000, FAILING_CALLERS = 4, FAILURES = 60 };

typedef struct {
    atomic_int calls, blocks;
    int failing_call;
} counter;

static float x[NET_X_SIZE], expected[NET_Y_SIZE];

static void *allocate(void *context, size_t bytes, size_t alignment) {
    counter *c = context;
    if (atomic_fetch_add(&c->calls, 1) + 1 == c->failing_call) return NULL;
    void *memory = aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    if (memory != NULL) atomic_fetch_add(&c->blocks, 1);
    return memory;
}

static void release(void *context, void *memory) {
    atomic_fetch_sub(&((counter *)context)->blocks, 1);
    free(memory);
}

typedef struct {
    net_model *model;
    int calls;
    int may_fail;
    int wrong;
} caller;

/* Every other call gives tensors that have to be copied. */
static void *call(void *argument) {
    caller *c = argument;
    static _Thread_local _Alignas(NET_ALIGNMENT) float apart[NET_X_SIZE + 1], y[NET_Y_SIZE];
    for (int i = 0; i < c->calls; i++) {
        memcpy(apart + i % 2, x, sizeof x);
        memset(y, 0, sizeof y);
        const void *inputs[] = {apart + i % 2};
        void *outputs[] = {y};
        int error = net_execute(c->model, 0, inputs, outputs);
        if (error == NET_OK)
            c->wrong += memcmp(y, expected, sizeof y) != 0;
        else
            c->wrong += !c->may_fail || error != NET_ERROR_MEMORY;
    }
    return NULL;
}

static int wrong_calls(net_model *model, int count, int calls, int may_fail) {
    pthread_t threads[CALLERS];
    caller callers[CALLERS];
    int wrong = 0;
    for (int i = 0; i < count; i++) {
        callers[i] = (caller){model, calls / count, may_fail, 0};
        if (pthread_create(&threads[i], NULL, call, &callers[i]) != 0) exit(20);
    }
    for (int i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
        wrong += callers[i].wrong;
    }
    return wrong;
}

static net_model *create(counter *c, int threads) {
    const net_allocator allocator = {allocate, release, c};
    return net_create(&(net_options){.threads = threads, .allocator = &allocator});
}

int main(int count, char **arguments) {
    int workers = count > 1 ? atoi(arguments[1]) : 2;
    for (int i = 0; i < NET_X_SIZE; i++) x[i] = (float)(i % 7) - 3;
    static _Alignas(NET_ALIGNMENT) unsigned char workspace[NET_WORKSPACE_BYTES + 1];
    static _Alignas(NET_ALIGNMENT) float aligned[NET_X_SIZE], first[NET_Y_SIZE];
    memcpy(aligned, x, sizeof x);
    if (net_run(aligned, first, workspace) != NET_OK) return 1;
    memcpy(expected, first, sizeof first);

    counter whole = {0};
    net_model *model = create(&whole, workers);
    if (model == NULL || wrong_calls(model, CALLERS, CALLS, 0) != 0) return 2;
    net_destroy(model);
    if (atomic_load(&whole.blocks) != 0) return 3;

    for (int failing = 1; failing <= FAILURES; failing++) {
        counter c = {.failing_call = failing};
        model = create(&c, workers);
        if (model != NULL && wrong_calls(model, FAILING_CALLERS, 2 * FAILING_CALLERS, 1) != 0) return 4;
        net_destroy(model);
        if (atomic_load(&c.blocks) != 0) return 5;
    }
    printf("%d calls", CALLS);
    return 0;
}
