// Floats of 16 bits, computed with as floats of 32 that are rounded after each step.
#pragma once
#include "cuda_runtime.h"

static inline uint16_t soft_to_half(float number) {
    _Float16 half = static_cast<_Float16>(number);
    uint16_t bits;
    memcpy(&bits, &half, 2);
    return bits;
}

static inline float soft_from_half(uint16_t bits) {
    _Float16 half;
    memcpy(&half, &bits, 2);
    return half;
}

static inline uint16_t soft_to_bfloat16(float number) {
    uint32_t bits;
    memcpy(&bits, &number, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
    // To the nearest, to the even of two.
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

static inline float soft_from_bfloat16(uint16_t half) {
    uint32_t bits = uint32_t(half) << 16;
    float number;
    memcpy(&number, &bits, 4);
    return number;
}

#define SOFT_HALF(half, half2, to_bits, from_bits)                                                          \
    struct half {                                                                                           \
        uint16_t bits;                                                                                      \
        half() = default;                                                                                   \
        template <class T, class = std::enable_if_t<std::is_arithmetic<T>::value>>                          \
        half(T number) : bits(to_bits(static_cast<float>(number))) {}                                       \
        operator float() const { return from_bits(bits); }                                                  \
        half& operator+=(half other) { return *this = half(float(*this) + float(other)); }                  \
        half& operator-=(half other) { return *this = half(float(*this) - float(other)); }                  \
        half& operator*=(half other) { return *this = half(float(*this) * float(other)); }                  \
        half& operator/=(half other) { return *this = half(float(*this) / float(other)); }                  \
    };                                                                                                      \
    struct alignas(4) half2 {                                                                               \
        half x, y;                                                                                          \
        half2() = default;                                                                                  \
        half2(half x, half y) : x(x), y(y) {}                                                               \
        half2(half both) : x(both), y(both) {}                                                              \
    };                                                                                                      \
    static inline half operator+(half a, half b) { return half(float(a) + float(b)); }                      \
    static inline half operator-(half a, half b) { return half(float(a) - float(b)); }                      \
    static inline half operator*(half a, half b) { return half(float(a) * float(b)); }                      \
    static inline half operator/(half a, half b) { return half(float(a) / float(b)); }                      \
    static inline half operator-(half a) { return half(-float(a)); }                                        \
    static inline bool operator<(half a, half b) { return float(a) < float(b); }                            \
    static inline bool operator>(half a, half b) { return float(a) > float(b); }                            \
    static inline bool operator<=(half a, half b) { return float(a) <= float(b); }                          \
    static inline bool operator>=(half a, half b) { return float(a) >= float(b); }                          \
    static inline bool operator==(half a, half b) { return float(a) == float(b); }                          \
    static inline bool operator!=(half a, half b) { return float(a) != float(b); }                          \
    static inline half2 operator+(half2 a, half2 b) { return {a.x + b.x, a.y + b.y}; }                      \
    static inline half2 operator-(half2 a, half2 b) { return {a.x - b.x, a.y - b.y}; }                      \
    static inline half2 operator*(half2 a, half2 b) { return {a.x * b.x, a.y * b.y}; }                      \
    static inline half2 operator/(half2 a, half2 b) { return {a.x / b.x, a.y / b.y}; }                      \
    static inline half __hmax(half a, half b) { return float(a) > float(b) ? a : b; }                       \
    static inline half __hmin(half a, half b) { return float(a) < float(b) ? a : b; }                       \
    static inline half2 __hmax2(half2 a, half2 b) { return {__hmax(a.x, b.x), __hmax(a.y, b.y)}; }          \
    static inline half2 __hmin2(half2 a, half2 b) { return {__hmin(a.x, b.x), __hmin(a.y, b.y)}; }          \
    static inline half __hfma(half a, half b, half c) { return half(std::fma(float(a), float(b), float(c))); } \
    static inline half2 __hfma2(half2 a, half2 b, half2 c) {                                                \
        return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};                                              \
    }                                                                                                       \
    static inline half __habs(half a) { return half(std::fabs(float(a))); }                                 \
    static inline bool __hisnan(half a) { return std::isnan(float(a)); }                                    \
    static inline bool __hisinf(half a) { return std::isinf(float(a)); }                                    \
    static inline half hexp(half a) { return half(expf(a)); }                                               \
    static inline half hlog(half a) { return half(logf(a)); }                                               \
    static inline half hsqrt(half a) { return half(sqrtf(a)); }                                             \
    static inline half hrsqrt(half a) { return half(1.0f / sqrtf(a)); }                                     \
    static inline half hrcp(half a) { return half(1.0f / float(a)); }                                       \
    static inline half hfloor(half a) { return half(floorf(a)); }                                           \
    static inline half hceil(half a) { return half(ceilf(a)); }                                             \
    static inline half htrunc(half a) { return half(truncf(a)); }                                           \
    static inline half hrint(half a) { return half(rintf(a)); }
SOFT_HALF(__half, __half2, soft_to_half, soft_from_half)
SOFT_HALF(__nv_bfloat16, __nv_bfloat162, soft_to_bfloat16, soft_from_bfloat16)

static inline __half __float2half(float number) { return __half(number); }
static inline float __half2float(__half number) { return number; }
static inline __half2 __float22half2_rn(float2 pair) { return {__half(pair.x), __half(pair.y)}; }
static inline float2 __half22float2(__half2 pair) { return {float(pair.x), float(pair.y)}; }
static inline __nv_bfloat16 __float2bfloat16(float number) { return __nv_bfloat16(number); }
static inline float __bfloat162float(__nv_bfloat16 number) { return number; }
static inline __nv_bfloat162 __float22bfloat162_rn(float2 pair) {
    return {__nv_bfloat16(pair.x), __nv_bfloat16(pair.y)};
}
static inline float2 __bfloat1622float2(__nv_bfloat162 pair) { return {float(pair.x), float(pair.y)}; }

// Tensor cores: PTX's mma.sync.m16n8k16 with factors of 16 bits and sums of 32.
struct SoftFactors {
    unsigned a[4], b[2];
};

/// Element (`row`, `k`) of the left factor, which 32 lanes hold together.
template <class Number>
static float soft_left(SoftSlots slots, unsigned row, unsigned k, Number number) {
    auto held = soft_shown<SoftFactors>(slots, row % 8 * 4 + k % 8 / 2);
    return number(held.a[row / 8 + k / 8 * 2] >> k % 2 * 16);
}

/// Element (`k`, `column`) of the right factor.
template <class Number>
static float soft_right(SoftSlots slots, unsigned k, unsigned column, Number number) {
    auto held = soft_shown<SoftFactors>(slots, column * 4 + k % 8 / 2);
    return number(held.b[k / 8] >> k % 2 * 16);
}

template <class Number>
static void soft_product(const SoftFactors& factors, const float (&c)[4], float* (&d)[4], Number number) {
    SoftSlots slots = soft_show(factors);
    for (unsigned i = 0; i < 4; i++) {
        unsigned row = soft->lane / 4 + i / 2 * 8, column = soft->lane % 4 * 2 + i % 2;
        float sum = c[i];
        for (unsigned k = 0; k < 16; k++) sum += soft_left(slots, row, k, number) * soft_right(slots, k, column, number);
        *d[i] = sum;
    }
}

#define SOFT_PRODUCT(name, from_bits)                                                                      \
    static inline void soft_product_##name(const unsigned (&a)[4], const unsigned (&b)[2], const float (&c)[4], \
                                           float& d0, float& d1, float& d2, float& d3) {                   \
        float* d[4] = {&d0, &d1, &d2, &d3};                                                                \
        soft_product({{a[0], a[1], a[2], a[3]}, {b[0], b[1]}}, c, d, [](unsigned bits) { return from_bits(bits); }); \
    }
SOFT_PRODUCT(f16, soft_from_half)
SOFT_PRODUCT(bf16, soft_from_bfloat16)
