//! AVX2 with fused multiply-add: eight lanes.

use std::arch::x86_64::*;

use super::{Simd, Vectorized};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2;

// SAFETY of every block below: `dispatch` runs this set of instructions only where the processor has it, and slices are
// as long as what is read from or written to them, which is asserted.
impl Simd for Avx2 {
    type Vector = __m256;
    type Bits = __m256i;
    type Mask = __m256i;
    const LANES: usize = 8;

    fn call<W: Vectorized>(work: W) -> W::Output {
        unsafe { super::with_avx2(work) }
    }

    #[inline(always)]
    fn splat(value: f32) -> __m256 {
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    fn load(from: &[f32]) -> __m256 {
        let from = &from[..8];
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(vector: __m256, to: &mut [f32]) {
        let to = &mut to[..8];
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), vector) }
    }

    #[inline(always)]
    fn add(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_div_ps(a, b) }
    }

    #[inline(always)]
    fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    fn abs(a: __m256) -> __m256 {
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
    }

    #[inline(always)]
    fn copy_sign(magnitude: __m256, sign: __m256) -> __m256 {
        let sign = unsafe { _mm256_and_ps(sign, _mm256_set1_ps(-0.0)) };
        unsafe { _mm256_or_ps(Self::abs(magnitude), sign) }
    }

    #[inline(always)]
    fn sum(a: __m256) -> f32 {
        unsafe {
            let half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps::<1>(pair, pair)))
        }
    }

    #[inline(always)]
    fn any_above(a: __m256, limit: __m256) -> bool {
        unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(a, limit)) != 0 }
    }

    #[inline(always)]
    fn times_power_of_two(a: __m256, rounded: __m256) -> __m256 {
        unsafe {
            let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(rounded));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), exponent))
        }
    }

    #[inline(always)]
    fn load_bits(from: &[u32]) -> __m256i {
        let from = &from[..8];
        unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn splat_bits(value: u32) -> __m256i {
        unsafe { _mm256_set1_epi32(value as i32) }
    }

    #[inline(always)]
    fn xor(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_xor_si256(a, b) }
    }

    #[inline(always)]
    fn wrapping_mul(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_mullo_epi32(a, b) }
    }

    #[inline(always)]
    fn shift_right_16(a: __m256i) -> __m256i {
        unsafe { _mm256_srli_epi32::<16>(a) }
    }

    #[inline(always)]
    fn shift_left_16(a: __m256i) -> __m256i {
        unsafe { _mm256_slli_epi32::<16>(a) }
    }

    #[inline(always)]
    fn below(a: __m256i, b: __m256i) -> __m256i {
        unsafe {
            let flip = _mm256_set1_epi32(i32::MIN);
            _mm256_cmpgt_epi32(_mm256_xor_si256(b, flip), _mm256_xor_si256(a, flip))
        }
    }

    #[inline(always)]
    fn keep(mask: __m256i, a: __m256) -> __m256 {
        unsafe { _mm256_and_ps(_mm256_castsi256_ps(mask), a) }
    }
}
