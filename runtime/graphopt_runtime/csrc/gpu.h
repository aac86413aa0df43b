/* gpu.h: what the generated glue of a GPU's library defines, and the part of NVIDIA's driver API that the runtime uses. Not
   installed.

   SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#ifndef GRAPHOPT_GPU_H
#define GRAPHOPT_GPU_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "graphopt.h"

/* More arguments of a kernel, or tensors of a model, are refused when a model is compiled. */
enum { GPU_SPARE_WORKSPACES = 32, GPU_MOST_ARGUMENTS = 256 };

/* Where an argument of a kernel points: an offset into weights or workspace, or a tensor of the caller, inputs first. */
enum { GPU_WEIGHTS = -1, GPU_WORKSPACE = -2 };

typedef struct {
    int base;
    size_t offset;
} gpu_argument;

/* One call of a kernel: its number, blocks of threads that share bytes of memory, and `argument_count` arguments from
   `first_argument`. */
typedef struct {
    int kernel;
    unsigned blocks;
    unsigned threads;
    unsigned shared;
    int first_argument;
    int argument_count;
} gpu_launch;

typedef struct {
    int image;
    const char *name;
} gpu_kernel;

/* One set of input shapes. */
typedef struct {
    int input_count;
    int output_count;
    size_t workspace_bytes;
    const size_t *tensor_bytes;
    const gpu_launch *launches;
    int launch_count;
    const gpu_argument *arguments;
} gpu_variant;

/* Defined by the generated glue. */
extern const unsigned char *const gpu_images[];
extern const int gpu_image_count;
extern const gpu_kernel gpu_kernels[];
extern const int gpu_kernel_count;
extern const gpu_variant gpu_variants[];
extern const int gpu_variant_count;
extern const size_t gpu_weights_bytes;
/* Whether kernels wait for the ones before them by themselves, so that they can be brought up while those still run. */
extern const int gpu_kernels_wait;

/* Names of the driver's types: handles are pointers, addresses on a GPU are integers. */
typedef struct gpu_context_s *gpu_context;
typedef struct gpu_module_s *gpu_module;
typedef struct gpu_function_s *gpu_function;
typedef struct gpu_stream_s *gpu_stream;
typedef struct gpu_event_s *gpu_event;
typedef struct gpu_graph_s *gpu_graph;
typedef struct gpu_executable_s *gpu_executable;
typedef unsigned long long gpu_address;

enum { GPU_ATTRIBUTE_MEMORY_TYPE = 2, GPU_ATTRIBUTE_DEVICE = 9, GPU_MEMORY_DEVICE = 2 };
enum { GPU_STREAM_NON_BLOCKING = 1, GPU_CAPTURE_THREAD = 1 };
enum { GPU_FUNCTION_MOST_SHARED = 8, GPU_SHARED_UNASKED = 48 << 10 };
enum { GPU_EVENT_WITHOUT_TIME = 2, GPU_ALIGNMENT = 64 };

/* A launch with one attribute, as the driver wants it. */
typedef struct {
    int number;
    int padding;
    union {
        int allowed;
        char bytes[64];
    } value;
} gpu_attribute;

typedef struct {
    unsigned blocks[3];
    unsigned threads[3];
    unsigned shared_bytes;
    gpu_stream stream;
    gpu_attribute *attributes;
    unsigned attribute_count;
} gpu_configuration;

enum { GPU_INVALID_IMAGE = 200, GPU_NO_BINARY = 209, GPU_UNSUPPORTED_VERSION = 222 };
enum { GPU_EARLY_START = 6, GPU_EARLY_STARTS_IN_GRAPHS = 12030 };

/* Every function that the runtime calls: result name, suffix of the symbol, parameters. */
#define GPU_DRIVER_FUNCTIONS(X)                                                                                       \
    X(Init, "", (unsigned flags))                                                                                     \
    X(DriverGetVersion, "", (int *version))                                                                           \
    X(GetErrorString, "", (int error, const char **sentence))                                                         \
    X(DeviceGet, "", (int *device, int ordinal))                                                                      \
    X(DevicePrimaryCtxRetain, "", (gpu_context * context, int device))                                                \
    X(DevicePrimaryCtxRelease, "_v2", (int device))                                                                   \
    X(CtxPushCurrent, "_v2", (gpu_context context))                                                                   \
    X(CtxPopCurrent, "_v2", (gpu_context * context))                                                                  \
    X(ModuleLoadData, "", (gpu_module * module, const void *image))                                                   \
    X(ModuleUnload, "", (gpu_module module))                                                                          \
    X(ModuleGetFunction, "", (gpu_function * function, gpu_module module, const char *name))                          \
    X(FuncSetAttribute, "", (gpu_function function, int attribute, int value))                                        \
    X(MemAlloc, "_v2", (gpu_address * address, size_t bytes))                                                         \
    X(MemFree, "_v2", (gpu_address address))                                                                          \
    X(MemcpyHtoD, "_v2", (gpu_address to, const void *from, size_t bytes))                                            \
    X(MemcpyAsync, "", (gpu_address to, gpu_address from, size_t bytes, gpu_stream stream))                           \
    X(PointerGetAttributes, "", (unsigned count, const int *attributes, void **values, gpu_address address))          \
    X(StreamCreate, "", (gpu_stream * stream, unsigned flags))                                                        \
    X(StreamDestroy, "_v2", (gpu_stream stream))                                                                      \
    X(StreamSynchronize, "", (gpu_stream stream))                                                                     \
    X(StreamGetCtx, "", (gpu_stream stream, gpu_context * context))                                                   \
    X(StreamIsCapturing, "", (gpu_stream stream, int *status))                                                        \
    X(StreamWaitEvent, "", (gpu_stream stream, gpu_event event, unsigned flags))                                      \
    X(StreamBeginCapture, "_v2", (gpu_stream stream, int mode))                                                       \
    X(StreamEndCapture, "", (gpu_stream stream, gpu_graph *graph))                                                    \
    X(EventCreate, "", (gpu_event * event, unsigned flags))                                                           \
    X(EventDestroy, "_v2", (gpu_event event))                                                                         \
    X(EventQuery, "", (gpu_event event))                                                                              \
    X(EventSynchronize, "", (gpu_event event))                                                                        \
    X(EventRecord, "", (gpu_event event, gpu_stream stream))                                                          \
    X(GraphInstantiateWithFlags, "", (gpu_executable * executable, gpu_graph graph, unsigned long long flags))        \
    X(GraphDestroy, "", (gpu_graph graph))                                                                            \
    X(GraphExecDestroy, "", (gpu_executable executable))                                                              \
    X(GraphLaunch, "", (gpu_executable executable, gpu_stream stream))                                                \
    X(LaunchKernel, "",                                                                                               \
      (gpu_function function, unsigned blocks_x, unsigned blocks_y, unsigned blocks_z, unsigned threads_x,            \
       unsigned threads_y, unsigned threads_z, unsigned shared_bytes, gpu_stream stream, void **arguments,            \
       void **extra))                                                                                                 \
    X(LaunchKernelEx, "",                                                                                             \
      (const gpu_configuration *configuration, gpu_function function, void **arguments, void **extra))

#define GPU_MEMBER(name, suffix, parameters) int(*name) parameters;
typedef struct {
    GPU_DRIVER_FUNCTIONS(GPU_MEMBER)
} gpu_driver;

/* gpu_driver.c: the driver, loaded at the first call; NULL where it is missing or finds no GPU. */
const gpu_driver *gpu_open_driver(void);

/* Whether a call of the driver succeeded; its complaint becomes the calling thread's failure otherwise. */
int gpu_succeeded(const char *call, int result);
#define GPU_OK(driver, name, arguments) gpu_succeeded("cu" #name, (driver)->name arguments)

/* Notes why something is refused, as the calling thread's failure; 0. */
int gpu_refuse(const char *why);
/* Adds to what the driver said of code that it does not load what may be wrong with it; 0. */
int gpu_refuse_code(int result);

/* The launches of a variant for tensors at some addresses; `executable` is NULL until these come a second time. */
typedef struct {
    gpu_address *tensors;
    gpu_executable executable;
} gpu_capture;

/* Sets of addresses that are remembered for each variant: callers take turns with a few buffers. */
enum { GPU_CAPTURES = 4 };

/* gpu_workspace.c: what one call at a time needs. `stream` is its own. `ended` is the end of the last call on a stream of a caller,
   `user`, which may still be under way while `is_pending`. Tensors of callers are copied to `staging`. */
typedef struct {
    gpu_stream stream;
    gpu_event ready;
    gpu_event ended;
    gpu_stream user;
    int is_pending;
    gpu_address arena;
    gpu_address staging;
    gpu_capture (*captures)[GPU_CAPTURES];
    int *oldest;
} gpu_workspace;

struct graphopt_model {
    const gpu_driver *driver;
    gpu_context context;
    int device;
    gpu_module *modules;
    gpu_function *functions;
    gpu_address weights;
    _Atomic(gpu_workspace *) spare[GPU_SPARE_WORKSPACES];
};

/* A workspace for a call on a stream: one that is idle, or whose last call was on this stream. NULL where memory is short. */
gpu_workspace *gpu_take_workspace(graphopt_model *model, gpu_stream stream);
void gpu_return_workspace(graphopt_model *model, gpu_workspace *space);
void gpu_free_workspace(const gpu_driver *driver, gpu_workspace *space);

/* gpu_launch.c: asks for all kernels of a variant on a stream, for tensors at these addresses. */
int gpu_launch_variant(const graphopt_model *model, int index, gpu_workspace *space, const gpu_address *tensors,
                       gpu_stream stream);

#endif
