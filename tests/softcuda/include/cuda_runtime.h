// CUDA's language for the host's compiler, as far as CubeCL's kernels use it.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "softcuda.h"

static SoftState* soft;

using std::isinf;
using std::isnan;
using std::max;
using std::min;
static inline unsigned max(int a, unsigned b) { return max(unsigned(a), b); }
static inline unsigned max(unsigned a, int b) { return max(a, unsigned(b)); }
static inline unsigned min(int a, unsigned b) { return min(unsigned(a), b); }
static inline unsigned min(unsigned a, int b) { return min(a, unsigned(b)); }

#define __global__
#define __device__
#define __host__
#define __shared__
#define __grid_constant__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __align__(n) __attribute__((aligned(n)))
#define threadIdx (soft->thread)
#define blockIdx (soft->block)
#define blockDim (soft->block_dim)
#define gridDim (soft->grid_dim)
#define warpSize 32

#define SOFT_VECTORS(type, name)                                                       \
    struct alignas(2 * sizeof(type)) name##2 { type x, y; };                           \
    struct name##3 { type x, y, z; };                                                  \
    struct alignas(sizeof(type) > 4 ? 16 : 4 * sizeof(type)) name##4 { type x, y, z, w; }; \
    static inline name##2 make_##name##2(type x, type y) { return {x, y}; }            \
    static inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; } \
    static inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
SOFT_VECTORS(float, float)
SOFT_VECTORS(double, double)
SOFT_VECTORS(char, char)
SOFT_VECTORS(unsigned char, uchar)
SOFT_VECTORS(short, short)
SOFT_VECTORS(unsigned short, ushort)
SOFT_VECTORS(int, int)
SOFT_VECTORS(unsigned, uint)
SOFT_VECTORS(long, long)
SOFT_VECTORS(unsigned long, ulong)

// Threads that wait for each other.
static inline void __syncthreads() { soft->sync_block(); }
static inline void __syncwarp(unsigned = 0xffffffffu) { soft->sync_warp(); }
static inline void __threadfence() {}

/// What each lane shows, once all have shown it.
template <class T>
static SoftSlots soft_show(const T& value) {
    static_assert(sizeof(T) <= 64, "lanes show each other 64 bytes");
    SoftSlots slots = soft->exchange();
    memcpy(slots[soft->lane], &value, sizeof(T));
    soft->sync_warp();
    return slots;
}

template <class T>
static T soft_shown(SoftSlots slots, unsigned lane) {
    T value;
    memcpy(&value, slots[lane], sizeof(T));
    return value;
}

template <class T>
static T soft_shuffle(T value, int from) {
    SoftSlots slots = soft_show(value);
    return from < 0 || from > 31 ? value : soft_shown<T>(slots, from);
}

template <class T>
static T __shfl_sync(unsigned, T value, int lane) { return soft_shuffle(value, lane & 31); }
template <class T>
static T __shfl_xor_sync(unsigned, T value, int mask) { return soft_shuffle(value, int(soft->lane) ^ mask); }
template <class T>
static T __shfl_up_sync(unsigned, T value, int by) { return soft_shuffle(value, int(soft->lane) - by); }
template <class T>
static T __shfl_down_sync(unsigned, T value, int by) { return soft_shuffle(value, int(soft->lane) + by); }

static inline unsigned __ballot_sync(unsigned, int predicate) {
    unsigned live = soft->live_lanes(), bits = 0;
    SoftSlots slots = soft_show(predicate != 0);
    for (unsigned lane = 0; lane < 32; lane++)
        if (live >> lane & 1 && soft_shown<bool>(slots, lane)) bits |= 1u << lane;
    return bits;
}
static inline int __all_sync(unsigned mask, int predicate) {
    unsigned live = soft->live_lanes();
    return __ballot_sync(mask, predicate) == live;
}
static inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }

// Functions of floats.
#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __tanf(x) tanf(x)
#define __tanhf(x) tanhf(x)
#define __powf(x, y) powf(x, y)
#define __fdividef(x, y) ((x) / (y))
#define __frcp_rn(x) (1.0f / (x))
#define __fsqrt_rn(x) sqrtf(x)
#define __frsqrt_rn(x) (1.0f / sqrtf(x))
static inline float rsqrt(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }

// Functions of bits.
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return uint64_t(a) * b >> 32; }
static inline int __mulhi(int a, int b) { return int64_t(a) * b >> 32; }

// There is one thread of the host: nothing comes between reading and writing.
#define SOFT_ATOMIC(name, result) \
    template <class T> static T name(T* at, T value) { T old = *at; *at = result; return old; }
SOFT_ATOMIC(atomicAdd, old + value)
SOFT_ATOMIC(atomicSub, old - value)
SOFT_ATOMIC(atomicMax, value > old ? value : old)
SOFT_ATOMIC(atomicMin, value < old ? value : old)
SOFT_ATOMIC(atomicAnd, old & value)
SOFT_ATOMIC(atomicOr, old | value)
SOFT_ATOMIC(atomicXor, old ^ value)
SOFT_ATOMIC(atomicExch, value)
template <class T>
static T atomicCAS(T* at, T expected, T value) {
    T old = *at;
    if (old == expected) *at = value;
    return old;
}

// A kernel's call with arguments as the driver is given them.
template <class... A, size_t... I>
static void soft_call_with(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_reference_t<A>*>(arguments[I])...);
}
template <class... A>
static void soft_call(void (*kernel)(A...), void** arguments) {
    soft_call_with(kernel, arguments, std::index_sequence_for<A...>{});
}
