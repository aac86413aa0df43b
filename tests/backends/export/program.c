/* Runs the model `net` of test_emit.py twice, without a handle and with one, on inputs from files; compares both results, writes
   them to files, and lets every allocation fail once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net.h"

static _Alignas(NET_ALIGNMENT) float x[NET_X_SIZE], y[NET_Y_SIZE], features[NET_FEATURES_SIZE];
static _Alignas(NET_ALIGNMENT) int32_t scale[NET_SCALE_SIZE];
static _Alignas(NET_ALIGNMENT) unsigned char workspace[NET_WORKSPACE_BYTES + 1];
#if defined(SEPARATE)
static _Alignas(NET_ALIGNMENT) unsigned char weights[NET_WEIGHTS_BYTES];
#endif

static void transfer(const char *path, void *data, size_t bytes, int write) {
    FILE *file = fopen(path, write ? "wb" : "rb");
    if (file == NULL || (write ? fwrite(data, 1, bytes, file) : fread(data, 1, bytes, file)) != bytes) exit(10);
    fclose(file);
}

/* An allocator that counts, and fails when its time has come. */
typedef struct {
    int calls, blocks, failing_call;
} counter;

static void *allocate(void *context, size_t bytes, size_t alignment) {
    counter *c = context;
    if (++c->calls == c->failing_call) return NULL;
    c->blocks++;
    return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void release(void *context, void *memory) {
    ((counter *)context)->blocks--;
    free(memory);
}

/* Runs the model through a handle and gives the error, or -1 where there was no handle. */
static int run_by_handle(counter *c, int offset) {
    static float apart[NET_X_SIZE + NET_ALIGNMENT];
    net_allocator allocator = {allocate, release, c};
    net_options options = {.threads = 2, .allocator = &allocator};
#if defined(SEPARATE)
    options.weights = weights;
#endif
    net_model *model = net_create(&options);
    if (model == NULL) return -1;
    memcpy(apart + offset, x, sizeof x);
    const void *inputs[] = {apart + offset, scale};
    void *outputs[] = {y, features};
    int error = net_execute(model, 0, inputs, outputs);
    net_destroy(model);
    return error;
}

int main(int count, char **arguments) {
    (void)count, (void)arguments;
    transfer("x.bin", x, sizeof x, 0);
    transfer("scale.bin", scale, sizeof scale, 0);
#if defined(SEPARATE)
    transfer(arguments[1], weights, sizeof weights, 0);
    if (net_run(weights, x, scale, y, features, workspace) != NET_OK) return 1;
#else
    if (net_run(x, scale, y, features, workspace) != NET_OK) return 1;
    if (net_run(x, scale, y, features, workspace + 1) != NET_ERROR_ALIGNMENT) return 2;
#endif
    float first[NET_Y_SIZE];
    memcpy(first, y, sizeof y);
    counter whole = {0, 0, 0};
    for (int offset = 0; offset < 2; offset++) {
        memset(y, 0, sizeof y);
        if (run_by_handle(&whole, offset) != NET_OK || memcmp(first, y, sizeof y) != 0) return 3;
    }
    if (whole.blocks != 0) return 4;
    for (int failing = 1; failing <= whole.calls; failing++) {
        counter c = {0, 0, failing};
        int error = run_by_handle(&c, 1);
        if (error != -1 && error != NET_ERROR_MEMORY && error != NET_OK) return 5;
        if (c.blocks != 0) return 6;
    }
    if (strcmp(net_input(0, 1)->name, "scale") != 0 || net_output(0, 1)->dims[1] != 5 || net_input(0, 2) != NULL) return 7;
    transfer("y.bin", y, sizeof y, 1);
    transfer("features.bin", features, sizeof features, 1);
    return 0;
}
