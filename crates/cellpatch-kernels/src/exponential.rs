//! Exponentials and the normal distribution, in vector instructions.

use crate::simd::Simd;

/// Below this a power of two is as good as 0; it is given as its value here, 2^-126, the least normal number.
const LOWEST: f32 = -126.0;
/// 1.5 * 2^23: a number added to it is rounded to an integer, which is left in the lowest bits.
const ROUNDER: f32 = 12_582_912.0;
/// 2^f for f in [-1/2, 1/2], lowest power first: a minimax fit of the relative error (7.5e-8 before rounding).
const POWERS: [f32; 6] =
    [1.000_000_1, 0.693_146_94, 0.240_221_2, 0.055_507_13, 0.009_675_541, 0.001_327_647_2];

/// 2^x with a relative error below 2.5e-7 for x in [-126, 127]; 2^-126 below, not a number where x is not.
/// Above 127 the result is undefined.
#[inline(always)]
pub(crate) fn exp2<S: Simd>(x: S::Vector) -> S::Vector {
    let x = S::max(S::splat(LOWEST), x);
    let rounded = S::add(x, S::splat(ROUNDER));
    let fraction = S::sub(x, S::sub(rounded, S::splat(ROUNDER)));
    let mut power = S::splat(POWERS[5]);
    for coefficient in POWERS[..5].iter().rev() {
        power = S::fma(power, fraction, S::splat(*coefficient));
    }
    S::times_power_of_two(power, rounded)
}

/// Of the fit of erfc(t) exp(t^2) in powers of 1 / (1 + SLOPE t), t >= 0: absolute error of erfc below 5e-8 before
/// rounding.
const SLOPE: f32 = 0.45;
const COMPLEMENT: [f32; 6] =
    [0.010_840_263, 0.151_625_4, 0.649_645_7, -0.566_660_1, 1.016_179_8, -0.261_631_07];

/// The standard normal distribution at x: the probability below x, with an absolute error below 3e-7, and the density.
#[inline(always)]
pub(crate) fn normal_distribution<S: Simd>(x: S::Vector) -> (S::Vector, S::Vector) {
    use std::f32::consts::{FRAC_1_SQRT_2, LOG2_E};
    let t = S::mul(S::abs(x), S::splat(FRAC_1_SQRT_2));
    let u = S::div(S::splat(1.0), S::fma(t, S::splat(SLOPE), S::splat(1.0)));
    // exp(-x^2 / 2)
    let bell = exp2::<S>(S::mul(S::mul(x, x), S::splat(-0.5 * LOG2_E)));
    let mut scaled = S::splat(COMPLEMENT[5]);
    for coefficient in COMPLEMENT[..5].iter().rev() {
        scaled = S::fma(scaled, u, S::splat(*coefficient));
    }
    let error_function = S::sub(S::splat(1.0), S::mul(scaled, bell));
    let probability = S::fma(S::copy_sign(error_function, x), S::splat(0.5), S::splat(0.5));
    // 1 / sqrt(2 pi)
    (probability, S::mul(bell, S::splat(0.398_942_3)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Instructions, Vectorized, dispatch};

    struct Each<'a> {
        x: &'a [f32],
        power: &'a mut [f32],
        probability: &'a mut [f32],
        density: &'a mut [f32],
    }

    impl Vectorized for Each<'_> {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd, const K: usize, const Q: usize>(self) {
            for at in (0..self.x.len()).step_by(S::LANES) {
                let x = S::load(&self.x[at..]);
                let (probability, density) = normal_distribution::<S>(x);
                S::store(exp2::<S>(x), &mut self.power[at..]);
                S::store(probability, &mut self.probability[at..]);
                S::store(density, &mut self.density[at..]);
            }
        }
    }

    /// Power of two, probability and density at each point.
    fn each(x: &[f32], instructions: Instructions) -> [Vec<f32>; 3] {
        let [mut power, mut probability, mut density] = [(); 3].map(|()| vec![0.0; x.len()]);
        let (into_power, into_probability, into_density) = (&mut power, &mut probability, &mut density);
        dispatch(
            instructions,
            Each { x, power: into_power, probability: into_probability, density: into_density },
        );
        [power, probability, density]
    }

    #[test]
    fn powers_of_two_have_the_stated_error() {
        let x: Vec<f32> = (0..1 << 20).map(|i| -126.0 + i as f32 * (253.0 / (1 << 20) as f32)).collect();
        for instructions in Instructions::available() {
            let [power, _, _] = each(&x, instructions);
            for (x, power) in x.iter().zip(power) {
                let exact = f64::from(*x).exp2();
                assert!((f64::from(power) / exact - 1.0).abs() < 2.5e-7, "2^{x} with {instructions:?}");
            }
        }
    }

    #[test]
    fn powers_of_two_are_small_below_and_not_a_number_where_the_exponent_is_none() {
        let x = [-127.0, -1e30, f32::NEG_INFINITY, f32::NAN].repeat(4);
        for instructions in Instructions::available() {
            let [power, _, _] = each(&x, instructions);
            assert!(power[..3].iter().all(|power| (0.0..=1.2e-38).contains(power)), "{power:?}");
            assert!(power[3].is_nan());
        }
    }

    /// Against the integral of the density by Simpson's rule in double precision.
    #[test]
    fn the_normal_distribution_has_the_stated_error() {
        let (n, width) = (4096, 16.0);
        let x: Vec<f32> = (0..n).map(|i| -8.0 + i as f32 * (width / n as f32)).collect();
        let exact_density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        for instructions in Instructions::available() {
            let [_, probability, density] = each(&x, instructions);
            let (mut exact, mut before) = (0.0, -20.0);
            for ((x, probability), density) in x.iter().zip(probability).zip(density) {
                let x = f64::from(*x);
                let steps = if before < -8.0 { 4000 } else { 8 };
                let h = (x - before) / f64::from(2 * steps);
                for i in 0..steps {
                    let left = before + f64::from(2 * i) * h;
                    let middle = 4.0 * exact_density(left + h);
                    exact += h / 3.0 * (exact_density(left) + middle + exact_density(left + 2.0 * h));
                }
                before = x;
                assert!((f64::from(probability) - exact).abs() < 3e-7, "at {x} with {instructions:?}");
                assert!((f64::from(density) - exact_density(x)).abs() < 2e-7, "at {x} with {instructions:?}");
            }
        }
    }
}
