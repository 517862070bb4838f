//! Layer normalisation of rows (`torch.nn.LayerNorm`), forward and backward.

use crate::simd::Simd;

/// Gain and bias of a layer normalisation.
#[derive(Debug, Clone, Copy)]
pub struct NormWeights<'a> {
    /// `[d]`
    pub gain: &'a [f32],
    /// `[d]`
    pub bias: &'a [f32],
    /// Added to the variance.
    pub epsilon: f32,
}

struct Moments<S: Simd> {
    mean: S::Vector,
    inverse_deviation: S::Vector,
}

impl<S: Simd> Moments<S> {
    #[inline(always)]
    fn of(row: &[f32], epsilon: f32) -> Self {
        let n = row.len() as f32;
        let mut sum = S::splat(0.0);
        for elements in row.chunks_exact(S::LANES) {
            sum = S::add(sum, S::load(elements));
        }
        let mean = S::splat(S::sum(sum) / n);
        let mut squares = S::splat(0.0);
        for elements in row.chunks_exact(S::LANES) {
            let distance = S::sub(S::load(elements), mean);
            squares = S::fma(distance, distance, squares);
        }
        Self { mean, inverse_deviation: S::splat(1.0 / (S::sum(squares) / n + epsilon).sqrt()) }
    }

    #[inline(always)]
    fn normalized(&self, elements: &[f32]) -> S::Vector {
        S::mul(S::sub(S::load(elements), self.mean), self.inverse_deviation)
    }
}

impl NormWeights<'_> {
    fn width(&self) -> usize {
        self.gain.len()
    }

    /// - input, output: [rows, d]; `d` a multiple of the lanes
    #[inline(always)]
    pub(crate) fn forward<S: Simd>(&self, input: &[f32], output: &mut [f32]) {
        let d = self.width();
        for (row, output) in input.chunks_exact(d).zip(output.chunks_exact_mut(d)) {
            let moments = Moments::<S>::of(row, self.epsilon);
            for lanes in (0..d).step_by(S::LANES) {
                let normalized = moments.normalized(&row[lanes..]);
                let result = S::fma(normalized, S::load(&self.gain[lanes..]), S::load(&self.bias[lanes..]));
                S::store(result, &mut output[lanes..]);
            }
        }
    }

    /// - input: of the forward pass, [rows, d]
    /// - gradient: of its output; becomes that of its input
    /// - for_gain, for_bias: `[d]`, added to
    #[inline(always)]
    pub(crate) fn backward<S: Simd>(
        &self,
        input: &[f32],
        gradient: &mut [f32],
        for_gain: &mut [f32],
        for_bias: &mut [f32],
    ) {
        let d = self.width();
        let n = d as f32;
        for (row, gradient) in input.chunks_exact(d).zip(gradient.chunks_exact_mut(d)) {
            let moments = Moments::<S>::of(row, self.epsilon);
            let (mut sum, mut product) = (S::splat(0.0), S::splat(0.0));
            for lanes in (0..d).step_by(S::LANES) {
                let normalized = moments.normalized(&row[lanes..]);
                let outer = S::load(&gradient[lanes..]);
                S::store(S::fma(outer, normalized, S::load(&for_gain[lanes..])), &mut for_gain[lanes..]);
                S::store(S::add(outer, S::load(&for_bias[lanes..])), &mut for_bias[lanes..]);
                let inner = S::mul(outer, S::load(&self.gain[lanes..]));
                sum = S::add(sum, inner);
                product = S::fma(inner, normalized, product);
            }
            let (sum, product) = (S::splat(S::sum(sum) / n), S::splat(S::sum(product) / n));
            for lanes in (0..d).step_by(S::LANES) {
                let normalized = moments.normalized(&row[lanes..]);
                let inner = S::mul(S::load(&gradient[lanes..]), S::load(&self.gain[lanes..]));
                let centred = S::sub(inner, S::fma(normalized, product, sum));
                S::store(S::mul(centred, moments.inverse_deviation), &mut gradient[lanes..]);
            }
        }
    }
}
