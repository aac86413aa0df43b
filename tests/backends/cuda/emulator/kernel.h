// kernel.h: CUDA C as C++ for this machine. The threads of a block are fibers of one thread, which take turns at every barrier.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

struct dimensions {
    unsigned x;
};

extern "C" dimensions emulated_thread, emulated_block;
extern "C" void emulated_barrier(int whole_block);
extern "C" uint64_t *emulated_exchange(int thread);

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(threads)
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
