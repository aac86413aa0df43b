/* gpu_driver.c: NVIDIA's driver, found at run time so that libraries load without it, and its complaints in words.

   SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#define _POSIX_C_SOURCE 200809L
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "gpu.h"

static gpu_driver driver;
static int is_open;
static char reason[256];
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Thread_local char failure[256];

static void load(void) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        snprintf(reason, sizeof reason, "NVIDIA's driver is not installed (libcuda.so.1)");
        return;
    }
#define GPU_LOAD(name, suffix, parameters)                                                                            \
    *(void **)&driver.name = dlsym(library, "cu" #name suffix);                                                       \
    if (driver.name == NULL) {                                                                                        \
        snprintf(reason, sizeof reason, "NVIDIA's driver is too old: it has no cu" #name);                            \
        return;                                                                                                       \
    }
    GPU_DRIVER_FUNCTIONS(GPU_LOAD)
    int device;
    if (driver.Init(0) != 0 || driver.DeviceGet(&device, 0) != 0)
        snprintf(reason, sizeof reason, "NVIDIA's driver finds no GPU");
    else
        is_open = 1;
}

const gpu_driver *gpu_open_driver(void) {
    pthread_once(&once, load);
    if (is_open) return &driver;
    gpu_refuse(reason);
    return NULL;
}

int gpu_succeeded(const char *call, int result) {
    if (result == 0) return 1;
    const char *sentence = NULL;
    driver.GetErrorString(result, &sentence);
    snprintf(failure, sizeof failure, "%s: %s", call, sentence != NULL ? sentence : "unknown error");
    return 0;
}

int gpu_refuse_code(int result) {
    size_t used = strlen(failure);
    int version = 0;
    if (result == GPU_NO_BINARY)
        snprintf(failure + used, sizeof failure - used, " (the code is for another GPU)");
    else if ((result == GPU_INVALID_IMAGE || result == GPU_UNSUPPORTED_VERSION) && driver.DriverGetVersion(&version) == 0)
        snprintf(failure + used, sizeof failure - used, " (the driver knows CUDA %d.%d; code of a newer nvcc needs a newer one)",
                 version / 1000, version % 1000 / 10);
    return 0;
}

int gpu_refuse(const char *why) {
    snprintf(failure, sizeof failure, "%s", why);
    return 0;
}

const char *graphopt_failure(void) { return failure; }

const char *graphopt_error_string(int error) {
    static const char *const sentences[] = {
        [GRAPHOPT_OK] = "no error",
        [GRAPHOPT_ERROR_VARIANT] = "the model has no variant of that number",
        [GRAPHOPT_ERROR_MEMORY] = "the workspace could not be allocated",
    };
    if (error == GRAPHOPT_ERROR_DEVICE) return failure;
    int known = error >= 0 && error < (int)(sizeof sentences / sizeof *sentences);
    return known ? sentences[error] : "unknown error";
}
