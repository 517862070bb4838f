// In place of CUDA's header of this name: a float of 16 bits that is stored, loaded and converted.
#pragma once

struct __align__(2) __half {
    unsigned short bits;

    __half() = default;
    __device__ __forceinline__ __half(float number) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(number)); }
    __device__ __forceinline__ operator float() const {
        float number;
        asm("cvt.f32.f16 %0, %1;" : "=f"(number) : "h"(bits));
        return number;
    }
};

struct __align__(4) __half2 {
    __half x, y;
};
