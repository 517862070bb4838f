//! Multi-head attention with PyTorch's packed projection.

pub mod plain;

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use crate::backend::ModelBackend;
use crate::initialization;
use crate::lengths::GeneLengths;
use crate::linear::{affine, row_major, rows};
use crate::operation::{AttentionSpec, Operation, primitive, tensor};
use crate::product::product;

/// Which rows of an attention call are padding; `None` where there is none, or where it is attended.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ragged<'a> {
    /// Of the queries.
    pub queries: Option<&'a GeneLengths>,
    /// Of the keys and values.
    pub keys: Option<&'a GeneLengths>,
}

/// Multi-head scaled dot-product attention over projected queries, keys and values, without the output projection: by
/// the backend's kernel, or by [`plain::attention`].
///
/// - query: [cells or 1, queries, d]
/// - key, value: [cells, keys, d]
/// - output: [cells, queries, d]
pub fn ragged_attention<B: ModelBackend>(
    query: Tensor<B, 3>,
    key: Tensor<B, 3>,
    value: Tensor<B, 3>,
    spec: &AttentionSpec,
) -> Tensor<B, 3> {
    let inputs = [&query, &key, &value].map(|input| primitive(input.clone()));
    match B::fused(&Operation::Attention(spec.clone()), inputs) {
        Some(output) => tensor(output),
        None => plain::attention(query, key, value, spec).output,
    }
}

/// `torch.nn.MultiheadAttention(d, n_heads, batch_first=True)`: the three projections in one parameter, rows in
/// the order query, key, value; heads as contiguous slices.
#[derive(Module, Debug)]
pub struct Attention<B: Backend> {
    /// [3 d, d]
    in_proj_weight: Param<Tensor<B, 2>>,
    /// [3 d]
    in_proj_bias: Param<Tensor<B, 1>>,
    out_proj: Linear<B>,
    n_heads: usize,
    dropout: f64,
}

#[derive(Clone, Copy)]
enum Role {
    Query,
    Key,
    Value,
}

impl<B: ModelBackend> Attention<B> {
    pub(crate) fn new(embedding_dim: usize, n_heads: usize, dropout: f64, device: &B::Device) -> Self {
        let d = embedding_dim;
        Self {
            in_proj_weight: initialization::xavier_uniform([3 * d, d], d, 3 * d, device),
            in_proj_bias: Param::from_tensor(Tensor::zeros([3 * d], device)),
            out_proj: Linear {
                weight: initialization::xavier_uniform([d, d], d, d, device),
                bias: Some(Param::from_tensor(Tensor::zeros([d], device))),
            },
            n_heads,
            dropout,
        }
    }

    /// The same with query biases by which scores grow along a direction of the memory.
    ///
    /// - direction: `[d]`
    /// - steepest: what a score of the last head gains for one step in that direction, beside what the queries give it; the
    ///   first head's gains nothing, those between them gain evenly more
    pub(crate) fn drawn_to(self, direction: Tensor<B, 1>, steepest: f64) -> Self {
        let ([d], device) = (direction.dims(), direction.device());
        let head_dim = d / self.n_heads;
        let keys = self.in_proj_weight.val().slice([d..2 * d, 0..d]);
        let keys: Tensor<B, 2> = product(keys, direction.unsqueeze_dim(1)).reshape([self.n_heads, head_dim]);
        let squares = keys.clone().powi_scalar(2).sum_dim(1).clamp_min(f32::MIN_POSITIVE);
        let last = (self.n_heads - 1).max(1) as f32;
        let gains: Vec<f32> = (0..self.n_heads).map(|head| steepest as f32 * head as f32 / last).collect();
        let gains: Tensor<B, 2> = Tensor::from_data(TensorData::new(gains, [self.n_heads, 1]), &device);
        let queries: Tensor<B, 2> = keys * gains * (head_dim as f64).sqrt() / squares;
        let others = Tensor::zeros([2 * d], &device);
        let bias = self.in_proj_bias.val() + Tensor::cat(vec![queries.reshape([d]), others], 0);
        Self { in_proj_bias: Param::from_tensor(bias.detach()), ..self }
    }

    /// What the queries gather from the memory.
    ///
    /// - query: [cells, queries, d], or [1, queries, d] where all cells ask the same
    /// - memory: [cells, keys, d]
    /// - output: [cells, queries, d]
    pub fn forward(&self, query: Tensor<B, 3>, memory: Tensor<B, 3>, ragged: Ragged<'_>) -> Tensor<B, 3> {
        let [query, key, value] = self.project(query, memory);
        let spec = self.spec(ragged, &query.device());
        rows(&self.out_proj, ragged_attention(query, key, value, &spec))
    }

    /// The same, and how much each query attended each key, averaged over heads. Made of plain operations on
    /// every backend: the score matrix is what a kernel never holds.
    ///
    /// - output: ([cells, queries, d], [cells, queries, keys])
    pub fn forward_with_scores(
        &self,
        query: Tensor<B, 3>,
        memory: Tensor<B, 3>,
        ragged: Ragged<'_>,
    ) -> (Tensor<B, 3>, Tensor<B, 3>) {
        let [query, key, value] = self.project(query, memory);
        let spec = self.spec(ragged, &query.device());
        let attention = plain::attention(query, key, value, &spec);
        (rows(&self.out_proj, attention.output), attention.weights.mean_dim(1).squeeze_dim(1))
    }

    /// The packed projection, its bias, and the output projection.
    pub(crate) fn weights(&self) -> (Tensor<B, 2>, Tensor<B, 1>, &Linear<B>) {
        (self.in_proj_weight.val(), self.in_proj_bias.val(), &self.out_proj)
    }

    fn project(&self, query: Tensor<B, 3>, memory: Tensor<B, 3>) -> [Tensor<B, 3>; 3] {
        [
            self.in_projection(query, Role::Query),
            self.in_projection(memory.clone(), Role::Key),
            self.in_projection(memory, Role::Value),
        ]
    }

    fn in_projection(&self, input: Tensor<B, 3>, role: Role) -> Tensor<B, 3> {
        let [cells, length, d] = input.dims();
        let part = (role as usize) * d..(role as usize + 1) * d;
        let weight = row_major(self.in_proj_weight.val().slice([part.clone(), 0..d]).transpose());
        let bias = self.in_proj_bias.val().slice([part]);
        affine(input.reshape([cells * length, d]), weight, Some(bias)).reshape([cells, length, d])
    }

    pub(crate) fn spec(&self, ragged: Ragged<'_>, device: &B::Device) -> AttentionSpec {
        let padded = |lengths: Option<&GeneLengths>| lengths.filter(|lengths| lengths.is_padded()).cloned();
        AttentionSpec {
            n_heads: self.n_heads,
            query_lengths: padded(ragged.queries),
            key_lengths: padded(ragged.keys),
            dropout: if B::ad_enabled(device) { self.dropout } else { 0.0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;

    #[test]
    fn scores_grow_with_the_direction_they_are_drawn_to() {
        let device = Default::default();
        let direction: Tensor<Flex, 1> =
            Tensor::from_floats([1.0, -2.0, 0.5, 0.3, 1.5, -0.2, 0.7, 2.0], &device);
        let attention = Attention::new(8, 2, 0.0, &device).drawn_to(direction.clone(), 0.75);
        // A query of zeros has no wish of its own.
        let query = attention.in_projection(Tensor::zeros([1, 1, 8], &device), Role::Query);
        let key = |steps: f32| {
            let memory = (direction.clone() * steps).reshape([1, 1, 8]);
            attention.in_projection(memory, Role::Key)
        };
        let scores = |steps| {
            let product = (query.clone() * key(steps)).reshape([2, 4]).sum_dim(1) / 2.0;
            product.into_data().iter::<f32>().collect::<Vec<_>>()
        };
        for (head, (far, near)) in scores(3.0).into_iter().zip(scores(1.0)).enumerate() {
            let gain = 1.5 * head as f32;
            assert!((far - near - gain).abs() < 1e-5, "head {head}: {far} - {near}");
        }
    }
}
