//! Eight lanes in plain Rust, for any processor, and to test the others against.

use super::{Simd, Vectorized};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

const LANES: usize = 8;

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> [f32; LANES] {
    std::array::from_fn(f)
}

#[inline(always)]
fn each_bits(f: impl Fn(usize) -> u32) -> [u32; LANES] {
    std::array::from_fn(f)
}

impl Simd for Portable {
    type Vector = [f32; LANES];
    type Bits = [u32; LANES];
    type Mask = [bool; LANES];
    const LANES: usize = LANES;

    fn call<W: Vectorized>(work: W) -> W::Output {
        super::portably(work)
    }

    #[inline(always)]
    fn splat(value: f32) -> [f32; LANES] {
        [value; LANES]
    }

    #[inline(always)]
    fn load(from: &[f32]) -> [f32; LANES] {
        let from = &from[..LANES];
        each(|lane| from[lane])
    }

    #[inline(always)]
    fn store(vector: [f32; LANES], to: &mut [f32]) {
        to[..LANES].copy_from_slice(&vector);
    }

    #[inline(always)]
    fn add(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        each(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn sub(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        each(|lane| a[lane] - b[lane])
    }

    #[inline(always)]
    fn mul(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        each(|lane| a[lane] * b[lane])
    }

    #[inline(always)]
    fn div(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        each(|lane| a[lane] / b[lane])
    }

    #[inline(always)]
    fn fma(a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        each(|lane| a[lane] * b[lane] + c[lane])
    }

    #[inline(always)]
    fn max(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        each(|lane| if a[lane] > b[lane] { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    fn abs(a: [f32; LANES]) -> [f32; LANES] {
        each(|lane| a[lane].abs())
    }

    #[inline(always)]
    fn copy_sign(magnitude: [f32; LANES], sign: [f32; LANES]) -> [f32; LANES] {
        each(|lane| magnitude[lane].copysign(sign[lane]))
    }

    #[inline(always)]
    fn sum(a: [f32; LANES]) -> f32 {
        let four: [f32; 4] = std::array::from_fn(|lane| a[lane] + a[lane + 4]);
        (four[0] + four[2]) + (four[1] + four[3])
    }

    #[inline(always)]
    fn any_above(a: [f32; LANES], limit: [f32; LANES]) -> bool {
        (0..LANES).any(|lane| a[lane] > limit[lane])
    }

    #[inline(always)]
    fn times_power_of_two(a: [f32; LANES], rounded: [f32; LANES]) -> [f32; LANES] {
        each(|lane| f32::from_bits(a[lane].to_bits().wrapping_add(rounded[lane].to_bits() << 23)))
    }

    #[inline(always)]
    fn load_bits(from: &[u32]) -> [u32; LANES] {
        let from = &from[..LANES];
        each_bits(|lane| from[lane])
    }

    #[inline(always)]
    fn splat_bits(value: u32) -> [u32; LANES] {
        [value; LANES]
    }

    #[inline(always)]
    fn xor(a: [u32; LANES], b: [u32; LANES]) -> [u32; LANES] {
        each_bits(|lane| a[lane] ^ b[lane])
    }

    #[inline(always)]
    fn wrapping_mul(a: [u32; LANES], b: [u32; LANES]) -> [u32; LANES] {
        each_bits(|lane| a[lane].wrapping_mul(b[lane]))
    }

    #[inline(always)]
    fn shift_right_16(a: [u32; LANES]) -> [u32; LANES] {
        each_bits(|lane| a[lane] >> 16)
    }

    #[inline(always)]
    fn shift_left_16(a: [u32; LANES]) -> [u32; LANES] {
        each_bits(|lane| a[lane] << 16)
    }

    #[inline(always)]
    fn below(a: [u32; LANES], b: [u32; LANES]) -> [bool; LANES] {
        std::array::from_fn(|lane| a[lane] < b[lane])
    }

    #[inline(always)]
    fn keep(mask: [bool; LANES], a: [f32; LANES]) -> [f32; LANES] {
        each(|lane| if mask[lane] { a[lane] } else { 0.0 })
    }
}
