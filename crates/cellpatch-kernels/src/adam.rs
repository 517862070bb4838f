//! Adam in one pass over memory.

use rayon::prelude::*;

use crate::simd::{Instructions, Simd, Vectorized, dispatch};

/// Elements that one task updates.
const ELEMENTS: usize = 16 * 1024;

/// A step of Adam with coupled L2 (`torch.optim.Adam(weight_decay)`; Kingma and Ba 2015).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamStep {
    /// The step size.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta_1: f64,
    /// Decay of the second moment.
    pub beta_2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Times the parameter is added to the gradient.
    pub weight_decay: f32,
    /// Which step this is; the first is 1.
    pub time: usize,
}

/// Updates every element and its moments, each read and written once.
///
/// - parameter, gradient, moment_1, moment_2: of one length
///
/// # Panics
/// When the lengths differ.
pub fn adam(
    step: &AdamStep,
    parameter: &mut [f32],
    gradient: &[f32],
    moment_1: &mut [f32],
    moment_2: &mut [f32],
) {
    let n = parameter.len();
    assert_eq!([gradient.len(), moment_1.len(), moment_2.len()], [n; 3], "lengths of Adam's tensors");
    let instructions = Instructions::detect();
    let moments = moment_1.par_chunks_mut(ELEMENTS).zip(moment_2.par_chunks_mut(ELEMENTS));
    let parts = parameter.par_chunks_mut(ELEMENTS).zip(gradient.par_chunks(ELEMENTS)).zip(moments);
    parts.for_each(|((parameter, gradient), (moment_1, moment_2))| {
        dispatch(instructions, Part { step, parameter, gradient, moment_1, moment_2 });
    });
}

struct Part<'a> {
    step: &'a AdamStep,
    parameter: &'a mut [f32],
    gradient: &'a [f32],
    moment_1: &'a mut [f32],
    moment_2: &'a mut [f32],
}

impl Vectorized for Part<'_> {
    type Output = ();

    /// The compiler makes vectors of the loop: it has the instructions here.
    #[inline(always)]
    fn run<S: Simd, const K: usize, const Q: usize>(self) {
        let AdamStep { epsilon, weight_decay, .. } = *self.step;
        let correction = |beta: f64| 1.0 - beta.powf(self.step.time as f64);
        let rate = (self.step.learning_rate / correction(self.step.beta_1)) as f32;
        let inverse_root = (1.0 / correction(self.step.beta_2).sqrt()) as f32;
        let (old_1, new_1) = (self.step.beta_1 as f32, (1.0 - self.step.beta_1) as f32);
        let (old_2, new_2) = (self.step.beta_2 as f32, (1.0 - self.step.beta_2) as f32);
        let moments = self.moment_1.iter_mut().zip(self.moment_2);
        for ((parameter, gradient), (moment_1, moment_2)) in
            self.parameter.iter_mut().zip(self.gradient).zip(moments)
        {
            let gradient = gradient + weight_decay * *parameter;
            *moment_1 = old_1 * *moment_1 + new_1 * gradient;
            *moment_2 = old_2 * *moment_2 + new_2 * gradient * gradient;
            *parameter -= rate * *moment_1 / (moment_2.sqrt() * inverse_root + epsilon);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kingma and Ba's algorithm 1, element by element in double precision.
    #[test]
    fn it_is_the_published_algorithm() {
        let n = 20_000;
        let mut parameter: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
        let (mut moment_1, mut moment_2) = (vec![0.0; n], vec![0.0; n]);
        let mut expected: Vec<f64> = parameter.iter().map(|&p| f64::from(p)).collect();
        let (mut m, mut v) = (vec![0.0_f64; n], vec![0.0_f64; n]);
        for time in 1..=20 {
            let gradient: Vec<f32> = (0..n).map(|i| ((i * time) as f32 * 0.11).cos()).collect();
            let step = AdamStep {
                learning_rate: 1e-3,
                beta_1: 0.9,
                beta_2: 0.999,
                epsilon: 1e-8,
                weight_decay: 5e-2,
                time,
            };
            adam(&step, &mut parameter, &gradient, &mut moment_1, &mut moment_2);
            for i in 0..n {
                let g = f64::from(gradient[i]) + 5e-2 * expected[i];
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.999 * v[i] + 0.001 * g * g;
                let (m, v) =
                    (m[i] / (1.0 - 0.9_f64.powi(time as i32)), v[i] / (1.0 - 0.999_f64.powi(time as i32)));
                expected[i] -= 1e-3 * m / (v.sqrt() + 1e-8);
            }
        }
        let apart =
            parameter.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
        assert!(apart < 3e-6, "{apart}");
    }
}
