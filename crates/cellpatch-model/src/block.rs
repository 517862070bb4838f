//! The post-norm attention block everything is built of.

use burn::module::Module;
use burn::nn::{LayerNorm, Linear};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::activation::gelu;
use crate::attention::{Attention, Ragged};
use crate::backend::ModelBackend;
use crate::config::CellPatchConfig;
use crate::initialization;
use crate::linear::rows;

/// `Block(q, kv) = LN(x + MLP(x))` with `x = LN(q + MHA(q, kv, kv))`.
#[derive(Module, Debug)]
pub struct Block<B: Backend> {
    attention: Attention<B>,
    attention_norm: LayerNorm<B>,
    mlp: Mlp<B>,
    mlp_norm: LayerNorm<B>,
}

/// `Linear(d, hidden)`, exact GELU, `Linear(hidden, d)`.
#[derive(Module, Debug)]
struct Mlp<B: Backend> {
    expand: Linear<B>,
    contract: Linear<B>,
}

impl<B: ModelBackend> Block<B> {
    pub(crate) fn new(config: &CellPatchConfig, device: &B::Device) -> Self {
        let d = config.embedding_dim;
        Self {
            attention: Attention::new(d, config.n_heads, config.attention_dropout, device),
            attention_norm: initialization::layer_norm(d, device),
            mlp: Mlp {
                expand: initialization::linear(d, config.mlp_dim, device),
                contract: initialization::linear(config.mlp_dim, d, device),
            },
            mlp_norm: initialization::layer_norm(d, device),
        }
    }

    /// Cross-attention: queries read the memory.
    ///
    /// - query: [cells, queries, d], or [1, queries, d] where all cells ask the same
    /// - memory: [cells, keys, d]
    /// - output: [cells, queries, d]
    pub fn forward(&self, query: Tensor<B, 3>, memory: Tensor<B, 3>, ragged: Ragged<'_>) -> Tensor<B, 3> {
        let gathered = self.attention.forward(query.clone(), memory, ragged);
        self.after_attention(query, gathered)
    }

    /// Self-attention: every row reads all rows of its cell.
    ///
    /// - input, output: [cells, length, d]
    pub fn forward_self(&self, input: Tensor<B, 3>, ragged: Ragged<'_>) -> Tensor<B, 3> {
        self.forward(input.clone(), input, ragged)
    }

    /// [`Block::forward`] with its attention map, averaged over heads.
    ///
    /// - output: ([cells, queries, d], [cells, queries, keys])
    pub fn forward_with_scores(
        &self,
        query: Tensor<B, 3>,
        memory: Tensor<B, 3>,
        ragged: Ragged<'_>,
    ) -> (Tensor<B, 3>, Tensor<B, 3>) {
        let (gathered, scores) = self.attention.forward_with_scores(query.clone(), memory, ragged);
        (self.after_attention(query, gathered), scores)
    }

    fn after_attention(&self, query: Tensor<B, 3>, gathered: Tensor<B, 3>) -> Tensor<B, 3> {
        let attended = self.attention_norm.forward(gathered + query);
        let hidden = gelu(rows(&self.mlp.expand, attended.clone()));
        self.mlp_norm.forward(rows(&self.mlp.contract, hidden) + attended)
    }
}
