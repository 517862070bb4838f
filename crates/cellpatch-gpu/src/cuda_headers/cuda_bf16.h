// In place of CUDA's header of this name: a float of 16 bits with the range of 32 that is stored, loaded and converted.
#pragma once

struct __align__(2) __nv_bfloat16 {
    unsigned short bits;

    __nv_bfloat16() = default;
    __device__ __forceinline__ __nv_bfloat16(float number) {
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(number));
    }
    __device__ __forceinline__ operator float() const { return __uint_as_float(unsigned(bits) << 16); }
};

struct __align__(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
