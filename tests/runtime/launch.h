/* The interface to TVM's parallel loops as an object from its LLVM backend sees it: weak function pointers. */
#include <stddef.h>
#include <stdint.h>

typedef struct {
    void *sync_handle;
    int32_t num_task;
} Env;

typedef int (*Lambda)(int task, Env *env, void *data);

__attribute__((weak)) int (*__TVMBackendParallelLaunch)(Lambda, void *, int);
__attribute__((weak)) int (*__TVMBackendParallelBarrier)(int, Env *);
__attribute__((weak)) void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int);
__attribute__((weak)) int (*__TVMBackendFreeWorkspace)(int, int, void *);
