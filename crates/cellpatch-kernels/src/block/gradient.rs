//! Gradients of a block's weights, side by side in one buffer.

use super::BlockShape;

/// The gradient of each weight, in the shapes of [`BlockWeights`](super::BlockWeights).
#[derive(Debug)]
pub struct WeightGradients<'a> {
    /// [3 d, d]
    pub in_projection: &'a mut [f32],
    /// `[3 d]`
    pub in_projection_bias: &'a mut [f32],
    /// [d, d]
    pub out_projection: &'a mut [f32],
    /// `[d]`
    pub out_projection_bias: &'a mut [f32],
    /// `[d]`
    pub attention_gain: &'a mut [f32],
    /// `[d]`
    pub attention_bias: &'a mut [f32],
    /// [d, mlp]
    pub expand: &'a mut [f32],
    /// `[mlp]`
    pub expand_bias: &'a mut [f32],
    /// [mlp, d]
    pub contract: &'a mut [f32],
    /// `[d]`
    pub contract_bias: &'a mut [f32],
    /// `[d]`
    pub mlp_gain: &'a mut [f32],
    /// `[d]`
    pub mlp_bias: &'a mut [f32],
}

impl<'a> WeightGradients<'a> {
    /// Elements of each gradient, in the order of the fields.
    pub fn sizes(shape: &BlockShape) -> [usize; 12] {
        let (d, m) = (shape.embedding_dim, shape.mlp_dim);
        [3 * d * d, 3 * d, d * d, d, d, d, d * m, m, m * d, d, d, d]
    }

    /// Elements of all.
    pub(super) fn total(shape: &BlockShape) -> usize {
        Self::sizes(shape).iter().sum()
    }

    /// The gradients in a buffer of [`WeightGradients::total`] elements.
    pub(super) fn in_buffer(shape: &BlockShape, buffer: &'a mut [f32]) -> Self {
        let mut rest = buffer;
        let [
            in_projection,
            in_projection_bias,
            out_projection,
            out_projection_bias,
            attention_gain,
            attention_bias,
            expand,
            expand_bias,
            contract,
            contract_bias,
            mlp_gain,
            mlp_bias,
        ] = Self::sizes(shape).map(|size| {
            let (part, remaining) = std::mem::take(&mut rest).split_at_mut(size);
            rest = remaining;
            part
        });
        Self {
            in_projection,
            in_projection_bias,
            out_projection,
            out_projection_bias,
            attention_gain,
            attention_bias,
            expand,
            expand_bias,
            contract,
            contract_bias,
            mlp_gain,
            mlp_bias,
        }
    }
}
