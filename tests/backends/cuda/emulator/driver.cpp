// driver.cpp: a libcuda.so.1 whose GPU is this machine. Images are shared libraries made from the same CUDA C, and a captured graph is a
// list of launches. What is asked of a stream runs as late as it may: when someone waits for it, so that results are wrong where an
// order is missing. The GPU of number 1 has memory, and nothing else.
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

struct dimensions {
    unsigned x;
};

enum { OK = 0, INVALID = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_IMAGE = 200, NO_BINARY = 209, NOT_FOUND = 500, NOT_READY = 600 };
enum { SHARED_UNASKED = 48 << 10, MOST_SHARED = 227 << 10 };
enum { WARP = 32, MOST_THREADS = 1024, MOST_CLUSTER = 8, STACK = 64 << 10, MOST_PARAMETERS = 32 };

static size_t memory_of_children() {
    const char *given = getenv("GRAPHOPT_EMULATED_MEMORY");
    return given != nullptr ? strtoull(given, nullptr, 10) : 0;
}
static int generation_of_children() {
    const char *given = getenv("GRAPHOPT_EMULATED_GENERATION");
    return given != nullptr ? atoi(given) : 9;
}
static int generation = generation_of_children();  // the first part of its compute capability
static size_t memory = memory_of_children();  // 0 where there is no GPU
static std::recursive_mutex lock;
using holding = std::lock_guard<std::recursive_mutex>;

struct allocation {
    size_t bytes;
    int device;
};
static std::map<uintptr_t, allocation> allocations;

extern "C" {
dimensions emulated_thread, emulated_block;
static uint64_t exchanged[MOST_CLUSTER][MOST_THREADS];
alignas(1024) static char memories[MOST_CLUSTER][MOST_SHARED];
static unsigned rank;  // of the running block within its cluster
char *emulated_shared;
uint64_t *emulated_exchange(int thread) { return &exchanged[rank][thread]; }
char *emulated_peer(void *own, int other) { return (char *)own - memories[rank] + memories[other]; }
size_t emulated_enable(size_t bytes) {
    size_t before = memory;
    return memory = bytes, before;
}
int emulated_generation(int number) {
    int before = generation;
    return generation = number, before;
}
}

// Fibers: their stacks, and where each waits.
enum waiting { RUNNABLE, AT_WARP_BARRIER, AT_BLOCK_BARRIER, AT_CLUSTER_BARRIER, FINISHED };

struct function {
    void (*code)();
    int parameters;
    unsigned most_shared, cluster;
};

struct launch {
    function *kernel;
    unsigned blocks, threads, shared;
    std::vector<void *> arguments;
};

static void *scheduler;
static void *fibers[MOST_CLUSTER * MOST_THREADS];
static char *stacks[MOST_CLUSTER * MOST_THREADS];
static waiting states[MOST_CLUSTER * MOST_THREADS];
static unsigned running;
static const launch *current;

// Saves the callee's registers on the stack at *from, and goes on with those at `to`.
extern "C" void switch_stack(void **from, void *to);
__asm__(R"(
.text
.globl switch_stack
.hidden switch_stack
switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

static void call(const launch &one) {
    void *a[MOST_PARAMETERS] = {};
    for (size_t i = 0; i < one.arguments.size(); i++) a[i] = one.arguments[i];
    using pointer = void *;
    using kernel = void (*)(pointer, pointer, pointer, pointer, pointer, pointer, pointer, pointer, pointer, pointer, pointer,
                            pointer, pointer, pointer, pointer, pointer, pointer, pointer, pointer, pointer, pointer, pointer,
                            pointer, pointer, pointer, pointer, pointer, pointer, pointer, pointer, pointer, pointer);
    ((kernel)one.kernel->code)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13], a[14],
                               a[15], a[16], a[17], a[18], a[19], a[20], a[21], a[22], a[23], a[24], a[25], a[26], a[27],
                               a[28], a[29], a[30], a[31]);
}

static void wait_in(waiting state) {
    states[running] = state;
    switch_stack(&fibers[running], scheduler);
}

extern "C" void emulated_barrier(int which) { wait_in((waiting)(AT_WARP_BARRIER + which)); }

static void begin() {
    call(*current);
    wait_in(FINISHED);
}

static void prepare(unsigned thread) {
    if (stacks[thread] == nullptr) stacks[thread] = (char *)aligned_alloc(64, STACK);
    void **top = (void **)(stacks[thread] + STACK - 64);
    *--top = nullptr;
    *--top = (void *)begin;
    for (int saved = 0; saved < 6; saved++) *--top = nullptr;
    fibers[thread] = top;
    states[thread] = RUNNABLE;
}

// Lets threads [first, last) go on if every one that has not finished waits at such a barrier.
static void release(unsigned first, unsigned last, waiting barrier) {
    for (unsigned i = first; i < last; i++)
        if (states[i] != barrier && states[i] != FINISHED) return;
    for (unsigned i = first; i < last; i++)
        if (states[i] == barrier) states[i] = RUNNABLE;
}

static void go_on(unsigned fiber, unsigned first_block, unsigned threads) {
    running = fiber;
    rank = fiber / threads;
    emulated_thread.x = fiber % threads;
    emulated_block.x = first_block + rank;
    emulated_shared = memories[rank];
    switch_stack(&scheduler, fibers[fiber]);
}

// Blocks that see each other's shared memory.
static int run_cluster(unsigned first_block, unsigned blocks, unsigned threads) {
    unsigned all = blocks * threads;
    for (unsigned i = 0; i < all; i++) prepare(i);
    for (;;) {
        int progress = 0, finished = 1;
        for (unsigned i = 0; i < all; i++) {
            if (states[i] == RUNNABLE) {
                go_on(i, first_block, threads);
                progress = 1;
            }
            finished &= states[i] == FINISHED;
        }
        if (finished) return OK;
        if (!progress) return INVALID;
        for (unsigned block = 0; block < all; block += threads) {
            for (unsigned i = 0; i < threads; i += WARP)
                release(block + i, block + (i + WARP < threads ? i + WARP : threads), AT_WARP_BARRIER);
            release(block, block + threads, AT_BLOCK_BARRIER);
        }
        release(0, all, AT_CLUSTER_BARRIER);
    }
}

static int run(const launch &one) {
    holding guard(lock);
    current = &one;
    unsigned together = one.kernel->cluster;
    for (unsigned block = 0; block < one.blocks; block += together) {
        for (unsigned i = 0; i < together; i++) memset(memories[i], 0xFF, one.shared);
        if (int error = run_cluster(block, together, one.threads)) return error;
    }
    return OK;
}

struct stream {
    bool is_capturing = false;
    std::vector<launch> captured;
    std::deque<std::function<int()>> waiting;
    size_t asked = 0, done = 0;
    int error = OK;
    void *context = &lock;
};

struct event {
    stream *on = nullptr;
    size_t number = 0;
    double *time = nullptr;  // milliseconds; of events that nobody takes the time of there is none
};

static stream default_stream;
static std::atomic<int> graphs_launched;
static std::set<stream *> streams = {&default_stream};

static stream *stream_of(void *handle) { return (uintptr_t)handle <= 2 ? &default_stream : (stream *)handle; }

// Runs what was asked of a stream up to a number.
static int drain(stream *one, size_t number) {
    holding guard(lock);
    while (one->done < number) {
        std::function<int()> next = std::move(one->waiting.front());
        one->waiting.pop_front();
        one->done++;
        if (int error = next()) one->error = error;
    }
    return one->error;
}

static int drain(void *handle) { return drain(stream_of(handle), stream_of(handle)->asked); }

static int drain(const event &one) { return streams.count(one.on) ? drain(one.on, one.number) : OK; }

static int ask(void *handle, std::function<int()> what) {
    holding guard(lock);
    stream *one = stream_of(handle);
    one->waiting.push_back(std::move(what));
    one->asked++;
    return OK;
}

static double now() {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

static void drain_all() {
    holding guard(lock);
    for (stream *one : std::set<stream *>(streams)) drain(one);
}

extern "C" {
typedef unsigned long long address;

int cuInit(unsigned) { return memory > 0 ? OK : NO_DEVICE; }

int cuGetErrorString(int error, const char **sentence) {
    static const std::map<int, const char *> sentences = {{INVALID, "invalid argument"}, {OUT_OF_MEMORY, "out of memory"}};
    auto found = sentences.find(error);
    *sentence = found == sentences.end() ? "an emulated error" : found->second;
    return OK;
}

int cuDeviceGet(int *device, int ordinal) { return *device = ordinal, ordinal == 0 && memory > 0 ? OK : NO_DEVICE; }

int cuDeviceGetAttribute(int *value, int attribute, int) {
    const std::map<int, int> attributes = {{38, 1 << 16}, {75, generation}};
    auto found = attributes.find(attribute);
    return *value = found == attributes.end() ? 0 : found->second, OK;
}

int cuDevicePrimaryCtxRetain(void **context, int) { return *context = &lock, OK; }
int cuDevicePrimaryCtxRelease_v2(int) { return OK; }
int cuCtxPushCurrent_v2(void *) { return OK; }
int cuCtxPopCurrent_v2(void **) { return OK; }

// Images use what is defined here, however this library was loaded.
static void show_everything() {
    Dl_info own;
    if (dladdr((void *)emulated_exchange, &own)) dlopen(own.dli_fname, RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD);
}

int cuModuleLoadData(void **module, const void *image) {
    show_everything();
    uint64_t bytes;
    memcpy(&bytes, image, sizeof bytes);
    if (bytes == 0) return NO_BINARY;  // an image without code stands for that of another GPU
    char path[] = "/tmp/graphopt-emulated-XXXXXX";
    int file = mkstemp(path);
    size_t written = 0;
    while (written < bytes) written += (size_t)write(file, (const char *)image + sizeof bytes + written, bytes - written);
    close(file);
    *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    unlink(path);
    return *module != nullptr ? OK : INVALID_IMAGE;
}

int cuModuleUnload(void *module) { return drain_all(), dlclose(module), OK; }

int cuModuleGetFunction(void **found, void *module, const char *name) {
    void *code = dlsym(module, name);
    auto *parameters = (int *)dlsym(module, (std::string(name) + "_parameters").c_str());
    if (code == nullptr || parameters == nullptr || *parameters > MOST_PARAMETERS) return NOT_FOUND;
    auto *cluster = (unsigned *)dlsym(module, (std::string(name) + "_cluster").c_str());
    *found = new function{(void (*)())code, *parameters, SHARED_UNASKED, cluster == nullptr ? 1 : *cluster};
    return OK;
}

int cuFuncSetAttribute(void *one, int attribute, int value) {
    if (attribute != 8 || value > MOST_SHARED) return INVALID;
    return ((function *)one)->most_shared = (unsigned)value, OK;
}

static int allocate(address *made, size_t bytes, int device) {
    void *block = bytes <= memory ? aligned_alloc(256, (bytes + 255) / 256 * 256) : nullptr;
    if (block == nullptr) return OUT_OF_MEMORY;
    memset(block, 0xFF, bytes);
    holding guard(lock);
    allocations[(uintptr_t)block] = {bytes, device};
    return *made = (address)(uintptr_t)block, OK;
}

int cuMemAlloc_v2(address *made, size_t bytes) { return allocate(made, bytes, 0); }
int emulated_allocate_on_other_gpu(address *made, size_t bytes) { return allocate(made, bytes, 1); }

int cuMemFree_v2(address block) {
    drain_all();
    holding guard(lock);
    if (allocations.erase(block) == 0) return INVALID;
    return free((void *)(uintptr_t)block), OK;
}

int emulated_allocations() { return (int)allocations.size(); }

int cuPointerGetAttributes(unsigned count, const int *attributes, void **values, address place) {
    holding guard(lock);
    auto next = allocations.upper_bound(place);
    bool is_ours = next != allocations.begin() && place < (--next)->first + next->second.bytes;
    for (unsigned i = 0; i < count; i++) {
        if (attributes[i] == 2) *(unsigned *)values[i] = is_ours ? 2 : 0;
        if (attributes[i] == 9) *(int *)values[i] = is_ours ? next->second.device : -2;
    }
    return OK;
}

static int copy(address to, address from, size_t bytes) {
    return memcpy((void *)(uintptr_t)to, (const void *)(uintptr_t)from, bytes), OK;
}

int cuMemcpyHtoD_v2(address to, const void *from, size_t bytes) {
    int error = drain(nullptr);
    return error ? error : copy(to, (address)(uintptr_t)from, bytes);
}

int cuMemcpyDtoH_v2(void *to, address from, size_t bytes) {
    int error = drain(nullptr);
    return error ? error : copy((address)(uintptr_t)to, from, bytes);
}

int cuMemcpyAsync(address to, address from, size_t bytes, void *on) {
    return ask(on, [=] { return copy(to, from, bytes); });
}

int cuMemsetD8Async(address to, unsigned char value, size_t bytes, void *on) {
    return ask(on, [=] { return memset((void *)(uintptr_t)to, value, bytes), (int)OK; });
}

int cuStreamCreate(void **made, unsigned) {
    holding guard(lock);
    return *made = *streams.insert(new stream).first, OK;
}

int cuStreamDestroy_v2(void *one) {
    drain(one);
    holding guard(lock);
    return streams.erase((stream *)one), delete (stream *)one, OK;
}

int cuStreamSynchronize(void *one) { return drain(one); }
int cuStreamGetCtx(void *one, void **context) { return *context = stream_of(one)->context, OK; }
void emulated_move_to_other_gpu(void *one) { stream_of(one)->context = nullptr; }
int cuStreamIsCapturing(void *one, int *status) { return *status = stream_of(one)->is_capturing, OK; }

int cuStreamWaitEvent(void *one, void *before, unsigned) {
    event recorded = *(event *)before;
    return ask(one, [=] { return drain(recorded); });
}

int cuEventCreate(void **made, unsigned flags) {
    return *made = new event{nullptr, 0, flags & 2 ? nullptr : new double(0)}, OK;
}
int cuEventDestroy_v2(void *one) { return delete (event *)one, OK; }

int cuEventRecord(void *one, void *on) {
    holding guard(lock);
    double *time = ((event *)one)->time;
    if (time != nullptr) ask(on, [time] { return *time = now(), (int)OK; });
    return *(event *)one = {stream_of(on), stream_of(on)->asked, time}, OK;
}

int cuEventElapsedTime(float *milliseconds, void *from, void *to) {
    const double *begin = ((event *)from)->time, *end = ((event *)to)->time;
    if (begin == nullptr || end == nullptr) return INVALID;
    return *milliseconds = (float)(*end - *begin), OK;
}

int cuEventQuery(void *one) {
    holding guard(lock);
    auto *asked = (event *)one;
    return streams.count(asked->on) && asked->on->done < asked->number ? NOT_READY : OK;
}

int cuEventSynchronize(void *one) { return drain(*(event *)one); }

int cuStreamBeginCapture_v2(void *one, int) { return ((stream *)one)->is_capturing = true, OK; }

int cuStreamEndCapture(void *one, void **graph) {
    auto *captured = (stream *)one;
    *graph = new std::vector<launch>(std::move(captured->captured));
    captured->captured.clear();
    return captured->is_capturing = false, OK;
}

int cuGraphInstantiateWithFlags(void **made, void *graph, unsigned long long) {
    return *made = new std::vector<launch>(*(std::vector<launch> *)graph), OK;
}

int cuGraphDestroy(void *graph) { return delete (std::vector<launch> *)graph, OK; }
int cuGraphExecDestroy(void *graph) { return delete (std::vector<launch> *)graph, OK; }

int cuGraphLaunch(void *graph, void *on) {
    graphs_launched++;
    return ask(on, [launches = *(std::vector<launch> *)graph] {
        for (const launch &one : launches)
            if (int error = run(one)) return error;
        return (int)OK;
    });
}

int emulated_graphs_launched() { return graphs_launched; }

int cuLaunchKernel(void *kernel, unsigned blocks, unsigned, unsigned, unsigned threads, unsigned, unsigned, unsigned shared,
                   void *on, void **arguments, void **) {
    launch one{(function *)kernel, blocks, threads, shared, {}};
    if (blocks == 0 || threads == 0 || threads > MOST_THREADS || shared > one.kernel->most_shared ||
        blocks % one.kernel->cluster != 0)
        return INVALID;
    for (int i = 0; i < one.kernel->parameters; i++) one.arguments.push_back(*(void **)arguments[i]);
    if (!stream_of(on)->is_capturing) return ask(on, [one] { return run(one); });
    return stream_of(on)->captured.push_back(one), OK;
}

struct configuration {
    unsigned blocks[3], threads[3], shared;
    void *on;
    void *attributes;
    unsigned attribute_count;
};

int cuLaunchKernelEx(const configuration *c, void *kernel, void **arguments, void **extra) {
    if (c->attribute_count != 1 || *(int *)c->attributes != 6) return INVALID;
    return cuLaunchKernel(kernel, c->blocks[0], 1, 1, c->threads[0], 1, 1, c->shared, c->on, arguments, extra);
}

int cuDriverGetVersion(int *version) { return *version = 13000, OK; }
}
