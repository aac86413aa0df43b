// kernel.h: CUDA C as C++ for this machine. The threads of a block are fibers of one thread, which take turns at every barrier.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <limits>
#include <vector>

struct dimensions {
    unsigned x;
};

extern "C" dimensions emulated_thread, emulated_block;
extern "C" char *emulated_shared;
extern "C" void emulated_barrier(int which);  // 0: of a warp, 1: of a block, 2: of a cluster
extern "C" char *emulated_peer(void *own, int other);
extern "C" uint64_t *emulated_exchange(int thread);

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __cluster_dims__(x, y, z)
#define __shared__ static
#define threadIdx emulated_thread
#define blockIdx emulated_block
#define CUDART_INF_F std::numeric_limits<float>::infinity()
#define CUDART_NAN_F std::numeric_limits<float>::quiet_NaN()
#define CUDART_INF std::numeric_limits<double>::infinity()
#define CUDART_NAN std::numeric_limits<double>::quiet_NaN()

static inline void __syncthreads() { emulated_barrier(1); }

template <typename T> T __shfl_xor_sync(unsigned, T value, int distance, int) {
    static_assert(sizeof(T) <= sizeof(uint64_t), "a register");
    int thread = (int)emulated_thread.x;
    std::memcpy(emulated_exchange(thread), &value, sizeof value);
    emulated_barrier(0);
    T other;
    std::memcpy(&other, emulated_exchange(thread ^ distance), sizeof other);
    emulated_barrier(0);
    return other;
}

template <typename A, typename B> auto max(A a, B b) -> decltype(a + b) { return a > b ? a : b; }
template <typename A, typename B> auto min(A a, B b) -> decltype(a + b) { return a < b ? a : b; }

#define VECTOR_OF_TWO(name, element) \
    struct name {                    \
        element x, y;                \
    };
VECTOR_OF_TWO(float2, float)
VECTOR_OF_TWO(double2, double)
VECTOR_OF_TWO(int2, int)
VECTOR_OF_TWO(uint2, unsigned)
VECTOR_OF_TWO(longlong2, int64_t)

// Halves, and the instructions of tensor cores. Threads of a warp see each other's registers through pointers to them.
typedef _Float16 half;
typedef half __half;
struct __half2 {
    half x, y;
};
#define __host__
#define __align__(bytes) alignas(bytes)
static inline bool __hgt(half a, half b) { return a > b; }
static inline bool __hlt(half a, half b) { return a < b; }
static inline half __float2half_rn(float x) { return (half)x; }
static inline float __half2float(half x) { return (float)x; }
static inline bool __hisnan(half x) { return x != x; }

// Accesses must be aligned, as those of a GPU.
static inline const void *emulated_aligned(const void *address, uintptr_t bytes) {
    if ((uintptr_t)address % bytes) abort();
    return address;
}
#define ACCESS(bytes)                                                                                                 \
    static inline void graphopt_read##bytes(void *to, const void *from) {                                             \
        std::memcpy(to, emulated_aligned(from, bytes), bytes);                                                        \
    }                                                                                                                 \
    static inline void graphopt_read##bytes##_where(void *to, const void *from, bool exists) {                        \
        std::memset(to, 0, bytes);                                                                                    \
        if (exists) graphopt_read##bytes(to, from);                                                                   \
    }                                                                                                                 \
    static inline void graphopt_write##bytes(void *to, const void *from) {                                            \
        std::memcpy((void *)emulated_aligned(to, bytes), from, bytes);                                                \
    }
ACCESS(4) ACCESS(8) ACCESS(16)

// Copies to shared memory happen as late as they may: when their group is waited for. Until then there are NaNs.
struct emulated_copy {
    void *to;
    const void *from;
    size_t bytes;
    bool exists;
};
struct emulated_copies {
    std::vector<emulated_copy> asked;
    std::deque<std::vector<emulated_copy>> groups;
};
static inline emulated_copies &emulated_queue() {
    static emulated_copies queues[8][1024];  // of the blocks of a cluster
    return queues[emulated_block.x % 8][emulated_thread.x];
}
static inline void emulated_copy_later(void *to, const void *from, size_t bytes, bool exists) {
    std::memset((void *)emulated_aligned(to, bytes), 0xFF, bytes);
    emulated_queue().asked.push_back({to, emulated_aligned(from, bytes), bytes, exists});
}
#define COPY(bytes)                                                                                                   \
    static inline void graphopt_copy##bytes(void *to, const void *from, int exists) {                                 \
        emulated_copy_later(to, from, bytes, exists);                                                                 \
    }
COPY(4) COPY(8) COPY(16)
static inline void graphopt_commit() {
    emulated_copies &queue = emulated_queue();
    queue.groups.push_back(std::move(queue.asked));
    queue.asked.clear();
}
static inline void emulated_await(size_t pending) {
    emulated_copies &queue = emulated_queue();
    for (; queue.groups.size() > pending; queue.groups.pop_front())
        for (const emulated_copy &each : queue.groups.front()) {
            std::memset(each.to, 0, each.bytes);
            if (each.exists) std::memcpy(each.to, each.from, each.bytes);
        }
}
#define AWAIT(pending) \
    static inline void graphopt_await##pending() { emulated_await(pending); }
AWAIT(0) AWAIT(1) AWAIT(2) AWAIT(3) AWAIT(4) AWAIT(5) AWAIT(6)
static inline void graphopt_fence() {}
static inline void graphopt_meet() { emulated_barrier(2); }
template <typename T> void add_up(int teams, T *own) {
    T total[4] = {};
    for (int team = 0; team < teams; team++)
        for (int i = 0; i < 4; i++) total[i] += ((T *)emulated_peer(own, team))[i];
    std::memcpy(own, total, sizeof total);
}
#define CLUSTER(teams)                                                                        \
    static inline void graphopt_add_up##teams##_f32(float *own) { add_up<float>(teams, own); } \
    static inline void graphopt_add_up##teams##_s32(int *own) { add_up<int>(teams, own); }
CLUSTER(2) CLUSTER(4) CLUSTER(8)
static inline void graphopt_begin() {
    emulated_queue().asked.clear();
    emulated_queue().groups.clear();
}
static inline float graphopt_inverse(float x) { return 1 / x; }
static inline float graphopt_larger(float x, float y) { return std::fmax(x, y); }
static inline float graphopt_power(float x) { return std::exp2(x); }
static inline half graphopt_larger_half(half x, half y) { return (half)std::fmax((float)x, (float)y); }
// Elements of operands in memory, and as floats. Of tf32 the lower bits are not seen.
struct f16 {
    half bits;
    operator float() const { return (float)bits; }
};
struct bf16 {
    uint16_t bits;
    operator float() const {
        uint32_t wide = (uint32_t)bits << 16;
        float value;
        return std::memcpy(&value, &wide, sizeof value), value;
    }
};
struct tf32 {
    uint32_t bits;
    operator float() const {
        uint32_t kept = bits & ~0x1FFFu;
        float value;
        return std::memcpy(&value, &kept, sizeof value), value;
    }
};
static inline unsigned short graphopt_round_bf16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return x != x ? 0x7FFF : (unsigned short)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
static inline float graphopt_round_tf32(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x1000) & ~0x1FFFu;
    return x != x ? x : (std::memcpy(&x, &bits, sizeof x), x);
}
static inline void graphopt_pack_f16(void *to, float x, float y) {
    ((half *)to)[0] = (half)x;
    ((half *)to)[1] = (half)y;
}
static inline void graphopt_pack_bf16(void *to, float x, float y) {
    ((unsigned short *)to)[0] = graphopt_round_bf16(x);
    ((unsigned short *)to)[1] = graphopt_round_bf16(y);
}

static inline const void *emulated_pointer(int thread) { return (const void *)*emulated_exchange(thread); }

static inline void load_matrices(void *to, const void *from, bool transposed) {
    int thread = (int)emulated_thread.x, lane = thread % 32, warp = thread - lane;
    *emulated_exchange(thread) = (uint64_t)from;
    emulated_barrier(0);
    for (int matrix = 0; matrix < 4; matrix++)
        for (int i = 0; i < 2; i++) {
            int row = transposed ? lane % 4 * 2 + i : lane / 4, column = transposed ? lane / 4 : lane % 4 * 2 + i;
            ((half *)to)[matrix * 2 + i] = ((const half *)emulated_pointer(warp + matrix * 8 + row))[column];
        }
    emulated_barrier(0);
}
static inline void graphopt_load(void *to, const void *from) { load_matrices(to, from, false); }
static inline void graphopt_load_transposed(void *to, const void *from) { load_matrices(to, from, true); }

// Registers of 4 bytes hold neighbours along the depth; a thread has those of its quarter of either 16 bytes of a row.
template <typename T, typename U, typename S> void multiply(S *c, const unsigned *a, const unsigned *b) {
    constexpr int each = 4 / sizeof(T), depth = 32 / sizeof(T);
    int thread = (int)emulated_thread.x, lane = thread % 32, warp = thread - lane;
    const void *registers[2] = {a, b};
    *emulated_exchange(thread) = (uint64_t)registers;
    emulated_barrier(0);
    for (int i = 0; i < 4; i++) {
        int row = lane / 4, column = lane % 4 * 2 + i % 2;
        for (int k = 0; k < depth; k++) {
            int owner = k / each % 4, upper = k / each / 4;
            auto left = (const void *const *)emulated_pointer(warp + row * 4 + owner);
            auto right = (const void *const *)emulated_pointer(warp + column * 4 + owner);
            c[i] += (S)((const T *)left[0])[(i / 2 + upper * 2) * each + k % each] *
                    (S)((const U *)right[1])[upper * each + k % each];
        }
    }
    emulated_barrier(0);
}

// Rows of 128 bytes whose chunks of 16 are shuffled by the bits of their addresses.
template <typename T> T shuffled(const void *first, int row, int column) {
    uintptr_t place = (uintptr_t)first + (uintptr_t)(row * 128 + column * sizeof(T));
    return *(const T *)(place ^ (place >> 7 & 7) << 4);
}
template <typename T, typename U, typename S> void multiply_group(int columns, S *c, const void *left, const void *right) {
    int lane = (int)emulated_thread.x % 32, warp = (int)emulated_thread.x / 32 % 4;
    for (int i = 0; i < columns / 2; i++) {
        int row = warp * 16 + lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
        for (int k = 0; k < 128 / sizeof(T); k++)
            c[i] += (S)shuffled<T>(left, row, k) * (S)shuffled<U>(right, column, k);
    }
}
// Attention: rows of halves in blocks of 64, and values whose rows lie along the depth, by fragments of weights.
template <typename T>
void multiply_rows(int columns, float *c, const void *left, const void *right, int steps, int left_rows, int right_rows) {
    int lane = (int)emulated_thread.x % 32, warp = (int)emulated_thread.x / 32 % 4;
    for (int i = 0; i < columns / 2; i++) {
        int row = warp * 16 + lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
        c[i] = 0;
        for (int k = 0; k < steps * 16; k++)
            c[i] += shuffled<T>(left, row + k / 64 * left_rows, k % 64) * shuffled<T>(right, column + k / 64 * right_rows, k % 64);
    }
}
template <typename T> void multiply_weights(int columns, float *c, const unsigned *left, const void *right, int steps, int rows) {
    int thread = (int)emulated_thread.x, lane = thread % 32, warp = thread - lane;
    *emulated_exchange(thread) = (uint64_t)left;
    emulated_barrier(0);
    for (int i = 0; i < columns / 2; i++) {
        int column = i / 4 * 8 + lane % 4 * 2 + i % 2;
        for (int k = 0; k < steps * 16; k++) {
            auto weights = (const T *)emulated_pointer(warp + lane / 4 * 4 + k / 2 % 4);
            int at = k / 16 * 8 + k / 8 % 2 * 4 + i / 2 % 2 * 2 + k % 2;
            c[i] += weights[at] * shuffled<T>(right, k + column / 64 * rows, column % 64);
        }
    }
    emulated_barrier(0);
}
#define ATTENTION(columns, name)                                                                                         \
    static inline void graphopt_rows##columns##_##name(float *c, const void *left, const void *right, int steps,         \
                                                       int left_rows, int right_rows) {                                  \
        multiply_rows<name>(columns, c, left, right, steps, left_rows, right_rows);                                      \
    }                                                                                                                    \
    static inline void graphopt_weights##columns##_##name(float *c, const unsigned *left, const void *right, int steps,  \
                                                          int rows) {                                                    \
        multiply_weights<name>(columns, c, left, right, steps, rows);                                                    \
    }
#define ATTENTION_EIGHT(name, a, b, c, d, e, f, g, h)                                                                    \
    ATTENTION(a, name) ATTENTION(b, name) ATTENTION(c, name) ATTENTION(d, name)                                          \
    ATTENTION(e, name) ATTENTION(f, name) ATTENTION(g, name) ATTENTION(h, name)
#define ATTENTION_ALL(name)                                                                                              \
    ATTENTION_EIGHT(name, 16, 32, 48, 64, 80, 96, 112, 128) ATTENTION_EIGHT(name, 144, 160, 176, 192, 208, 224, 240, 256)
ATTENTION_ALL(f16) ATTENTION_ALL(bf16)
typedef int8_t s8;
typedef uint8_t u8;
#define GROUP(columns, name, right, sum)                                                                       \
    static inline void graphopt_group##columns##_##name(sum *c, const void *left, const void *columns_of) {    \
        multiply_group<name, right>(columns, c, left, columns_of);                                             \
    }                                                                                                          \
    static inline void graphopt_await_group##columns##_##name(sum *) {}
#define ELEMENT(name, right, sum)                                                                              \
    static inline void graphopt_multiply_##name(sum *c, const unsigned *a, const unsigned *b) {                \
        multiply<name, right>(c, a, b);                                                                        \
    }                                                                                                          \
    GROUP(32, name, right, sum) GROUP(48, name, right, sum) GROUP(80, name, right, sum) GROUP(144, name, right, sum) GROUP(64, name, right, sum) GROUP(96, name, right, sum)                        \
    GROUP(128, name, right, sum) GROUP(192, name, right, sum) GROUP(256, name, right, sum)
ELEMENT(f16, f16, float) ELEMENT(bf16, bf16, float) ELEMENT(tf32, tf32, float) ELEMENT(s8, s8, int) ELEMENT(u8, s8, int)
