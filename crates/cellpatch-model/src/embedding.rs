//! From expression values to vectors.

use burn::module::Module;
use burn::nn::{Embedding, Linear};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::backend::ModelBackend;
use crate::config::ExpressionEmbedding;
use crate::initialization;
use crate::linear::rows;

/// The layer behind [`ExpressionEmbedding`].
#[derive(Module, Debug)]
pub enum ExpressionLayer<B: Backend> {
    /// `Linear(1, d)` on the value.
    Continuous(Linear<B>),
    /// A row for each of the values 0, 1, ..., `max_value`.
    Binned(Embedding<B>),
}

impl<B: ModelBackend> ExpressionLayer<B> {
    pub(crate) fn new(kind: ExpressionEmbedding, embedding_dim: usize, device: &B::Device) -> Self {
        match kind {
            ExpressionEmbedding::Continuous => {
                Self::Continuous(initialization::value_embedding(embedding_dim, device))
            }
            ExpressionEmbedding::Binned { max_value } => {
                Self::Binned(initialization::input_table(max_value + 1, embedding_dim, device))
            }
        }
    }

    /// By how much a vector grows with the value: `[d]`; none where values are looked up.
    pub(crate) fn slope(&self) -> Option<Tensor<B, 1>> {
        match self {
            Self::Continuous(layer) => Some(layer.weight.val().squeeze_dim(0)),
            Self::Binned(_) => None,
        }
    }

    /// - values: [cells, genes], log1p-normalised
    /// - output: [cells, genes, d]
    pub fn forward(&self, values: Tensor<B, 2>) -> Tensor<B, 3> {
        match self {
            Self::Continuous(layer) => rows(layer, values.unsqueeze_dim(2)),
            Self::Binned(table) => {
                let [n_bins, _] = table.weight.dims();
                table.forward(values.clamp(0.0, (n_bins - 1) as f64).round().int())
            }
        }
    }
}
