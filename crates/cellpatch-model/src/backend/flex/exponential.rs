//! An exponential that the compiler turns into vector instructions.

/// `a * b + c`, in one rounding where the processor has the instruction.
#[inline(always)]
pub(super) fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// Below this the exponential is as good as 0; it is given as its value here, 1.6e-38.
const LOWEST: f32 = -87.0;
/// 1.5 * 2^23: a number added to it is rounded to an integer, which is left in the lowest bits.
const ROUNDER: f32 = 12_582_912.0;
/// ln 2 in two parts; products of the first with small integers are exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// e^x for x <= 0, within 2.5e-7 of its value; NaN stays NaN.
///
/// x is split into n ln 2 + r with |r| <= ln 2 / 2; e^r is its Taylor polynomial of degree 7, whose remainder is
/// below 6e-9; 2^n is written into the exponent.
#[inline(always)]
pub(super) fn exp<const FUSED: bool>(x: f32) -> f32 {
    let x = if x < LOWEST { LOWEST } else { x };
    let shifted = multiply_add::<FUSED>(x, std::f32::consts::LOG2_E, ROUNDER);
    let n = shifted - ROUNDER;
    let r = multiply_add::<FUSED>(n, -LN_2_LOW, multiply_add::<FUSED>(n, -LN_2_HIGH, x));
    let mut sum = 1.0 / 5040.0;
    sum = multiply_add::<FUSED>(sum, r, 1.0 / 720.0);
    sum = multiply_add::<FUSED>(sum, r, 1.0 / 120.0);
    sum = multiply_add::<FUSED>(sum, r, 1.0 / 24.0);
    sum = multiply_add::<FUSED>(sum, r, 1.0 / 6.0);
    sum = multiply_add::<FUSED>(sum, r, 0.5);
    sum = multiply_add::<FUSED>(sum, r, 1.0);
    sum = multiply_add::<FUSED>(sum, r, 1.0);
    let power_of_two = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    sum * power_of_two
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_within_its_bound() {
        for step in 0..=870_000 {
            let x = step as f32 * -1e-4;
            let exact = f64::from(x).exp();
            for found in [exp::<true>(x), exp::<false>(x)] {
                let error = (f64::from(found) - exact).abs() / exact;
                assert!(error < 2.5e-7, "exp({x}) = {found} is off by {error:e}");
            }
        }
        assert_eq!(exp::<true>(0.0), 1.0);
        assert!(exp::<true>(f32::NEG_INFINITY) < 1e-37);
        assert!(exp::<true>(f32::NAN).is_nan());
    }
}
