//! AVX-512: sixteen lanes.

use std::arch::x86_64::*;

use super::{Simd, Vectorized};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512;

// SAFETY of every block below: `dispatch` runs this set of instructions only where the processor has it, and slices are
// as long as what is read from or written to them, which is asserted.
impl Simd for Avx512 {
    type Vector = __m512;
    type Bits = __m512i;
    type Mask = __mmask16;
    const LANES: usize = 16;

    fn call<W: Vectorized>(work: W) -> W::Output {
        unsafe { super::with_avx512(work) }
    }

    #[inline(always)]
    fn splat(value: f32) -> __m512 {
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    fn load(from: &[f32]) -> __m512 {
        let from = &from[..16];
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(vector: __m512, to: &mut [f32]) {
        let to = &mut to[..16];
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), vector) }
    }

    #[inline(always)]
    fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn abs(a: __m512) -> __m512 {
        unsafe { _mm512_abs_ps(a) }
    }

    #[inline(always)]
    fn copy_sign(magnitude: __m512, sign: __m512) -> __m512 {
        unsafe { _mm512_or_ps(_mm512_abs_ps(magnitude), _mm512_and_ps(sign, _mm512_set1_ps(-0.0))) }
    }

    #[inline(always)]
    fn sum(a: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(a) }
    }

    #[inline(always)]
    fn any_above(a: __m512, limit: __m512) -> bool {
        unsafe { _mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, limit) != 0 }
    }

    #[inline(always)]
    fn times_power_of_two(a: __m512, rounded: __m512) -> __m512 {
        unsafe {
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(rounded));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), exponent))
        }
    }

    #[inline(always)]
    fn load_bits(from: &[u32]) -> __m512i {
        let from = &from[..16];
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn splat_bits(value: u32) -> __m512i {
        unsafe { _mm512_set1_epi32(value as i32) }
    }

    #[inline(always)]
    fn xor(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_xor_si512(a, b) }
    }

    #[inline(always)]
    fn wrapping_mul(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_mullo_epi32(a, b) }
    }

    #[inline(always)]
    fn shift_right_16(a: __m512i) -> __m512i {
        unsafe { _mm512_srli_epi32::<16>(a) }
    }

    #[inline(always)]
    fn shift_left_16(a: __m512i) -> __m512i {
        unsafe { _mm512_slli_epi32::<16>(a) }
    }

    #[inline(always)]
    fn below(a: __m512i, b: __m512i) -> __mmask16 {
        unsafe { _mm512_cmplt_epu32_mask(a, b) }
    }

    #[inline(always)]
    fn keep(mask: __mmask16, a: __m512) -> __m512 {
        unsafe { _mm512_maskz_mov_ps(mask, a) }
    }
}
