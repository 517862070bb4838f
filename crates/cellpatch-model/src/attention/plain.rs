//! Attention of plain tensor operations: what every backend can do, and the reference for the kernels.

use burn::tensor::activation::softmax;
use burn::tensor::{Distribution, Tensor};

use crate::backend::ModelBackend;
use crate::operation::AttentionSpec;
use crate::product::product;

/// Added to the score of a key that must not be attended. Finite, because not every shading language knows
/// infinity, and so far below any score that its exponential is exactly 0.
const MASKED: f32 = -1.0e30;

/// What plain attention computes.
#[derive(Debug, Clone)]
pub struct PlainAttention<B: ModelBackend> {
    /// [cells, queries, d], 0 at padded queries.
    pub output: Tensor<B, 3>,
    /// Softmax weights before dropout: [cells, heads, queries, keys].
    pub weights: Tensor<B, 4>,
}

/// `softmax(Q K^T / sqrt(d / heads)) V` for each head, heads side by side in the last dimension
/// (`torch.nn.functional.scaled_dot_product_attention`).
///
/// - query: [cells or 1, queries, d]
/// - key, value: [cells, keys, d]
pub fn attention<B: ModelBackend>(
    query: Tensor<B, 3>,
    key: Tensor<B, 3>,
    value: Tensor<B, 3>,
    spec: &AttentionSpec,
) -> PlainAttention<B> {
    let device = query.device();
    let [_, n_queries, d] = query.dims();
    let [n_cells, n_keys, _] = key.dims();
    let head_dim = d / spec.n_heads;
    let split = |tensor: Tensor<B, 3>| {
        let [cells, length, _] = tensor.dims();
        tensor.reshape([cells, length, spec.n_heads, head_dim]).swap_dims(1, 2)
    };

    let query = split(query.mul_scalar((head_dim as f64).powf(-0.5)));
    let query = query.expand([n_cells, spec.n_heads, n_queries, head_dim]);
    let mut scores = product(query, split(key).transpose());
    if let Some(lengths) = &spec.key_lengths {
        let bias: Tensor<B, 2> =
            lengths.per_slot(&device, |cell, slot| if slot < lengths.attended(cell) { 0.0 } else { MASKED });
        scores = scores + bias.reshape([n_cells, 1, 1, n_keys]);
    }
    let weights = softmax(scores, 3);
    let mut kept = weights.clone();
    if spec.dropout > 0.0 {
        let keep = 1.0 - spec.dropout;
        kept = kept.clone() * kept.random_like(Distribution::Bernoulli(keep)) / keep;
    }
    let mut output = product(kept, split(value)).swap_dims(1, 2).reshape([n_cells, n_queries, d]);
    if let Some(lengths) = &spec.query_lengths {
        let real: Tensor<B, 2> =
            lengths.per_slot(&device, |cell, slot| if slot < lengths.attended(cell) { 1.0 } else { 0.0 });
        output = output * real.reshape([n_cells, n_queries, 1]);
    }
    PlainAttention { output, weights }
}
