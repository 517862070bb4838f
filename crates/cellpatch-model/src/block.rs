//! The post-norm attention block everything is built of.

use burn::module::Module;
use burn::nn::{LayerNorm, Linear};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use burn::tensor::ops::{FloatTensor, IntTensor};

use crate::activation::gelu;
use crate::attention::{Attention, Ragged};
use crate::backend::ModelBackend;
use crate::config::CellPatchConfig;
use crate::embedding::ExpressionLayer;
use crate::initialization;
use crate::linear::rows;
use crate::operation::{AttentionSpec, Operation, primitive, tensor};

/// Added to the variance in every layer normalisation.
pub(crate) const NORM_EPSILON: f64 = 1e-5;

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

    /// The block that reads genes: its attention starts to grow with their values.
    pub(crate) fn reading(config: &CellPatchConfig, values: &ExpressionLayer<B>, device: &B::Device) -> Self {
        let block = Self::new(config, device);
        match values.slope() {
            Some(slope) => {
                let attention = block.attention.drawn_to(slope, initialization::EXPRESSION_SLOPE);
                Self { attention, ..block }
            }
            None => block,
        }
    }

    /// Cross-attention: queries read the memory.
    ///
    /// - query: [cells, queries, d], or [1, queries, d] where all cells ask the same
    /// - memory: [cells, keys, d]
    /// - output: [cells, queries, d]
    pub fn forward(&self, query: Tensor<B, 3>, memory: Tensor<B, 3>, ragged: Ragged<'_>) -> Tensor<B, 3> {
        let operation = Operation::CrossBlock(self.spec(ragged, &query.device()));
        let inputs = vec![primitive(query.clone()), primitive(memory.clone())];
        self.fused::<14>(&operation, inputs).unwrap_or_else(|| self.forward_plain(query, memory, ragged))
    }

    /// [`Block::forward`] of plain operations around the attention.
    pub(crate) fn forward_plain(
        &self,
        query: Tensor<B, 3>,
        memory: Tensor<B, 3>,
        ragged: Ragged<'_>,
    ) -> Tensor<B, 3> {
        let gathered = self.attention.forward(query.clone(), memory, ragged);
        self.after_attention(query, gathered)
    }

    /// Self-attention: every row reads all rows of its cell.
    ///
    /// - input, output: [cells, length, d]
    pub fn forward_self(&self, input: Tensor<B, 3>, ragged: Ragged<'_>) -> Tensor<B, 3> {
        let operation = Operation::SelfBlock(self.spec(ragged, &input.device()));
        let inputs = vec![primitive(input.clone())];
        self.fused::<13>(&operation, inputs)
            .unwrap_or_else(|| self.forward_plain(input.clone(), input, ragged))
    }

    /// The block by the backend's kernel, if it has one.
    ///
    /// - operation: one that ends with a block's weights
    /// - inputs: what comes before them; `N` is 12 more
    pub(crate) fn fused<const N: usize>(
        &self,
        operation: &Operation<IntTensor<B>>,
        mut inputs: Vec<FloatTensor<B>>,
    ) -> Option<Tensor<B, 3>> {
        inputs.extend(self.weights()?);
        let inputs: [FloatTensor<B>; N] = inputs.try_into().ok()?;
        B::fused(operation, inputs).map(tensor)
    }

    /// The block's twelve weights, in the order of [`Operation`]; `None` if a layer lacks a bias.
    pub(crate) fn weights(&self) -> Option<Vec<FloatTensor<B>>> {
        let (in_projection, in_projection_bias, out_projection) = self.attention.weights();
        let mut weights = vec![primitive(in_projection), primitive(in_projection_bias)];
        let norm = |norm: &LayerNorm<B>| Some((norm.gamma.val(), norm.beta.as_ref()?.val()));
        let linear = |linear: &Linear<B>| Some((linear.weight.val(), linear.bias.as_ref()?.val()));
        let (gain, bias) = norm(&self.attention_norm)?;
        let (mlp_gain, mlp_bias) = norm(&self.mlp_norm)?;
        let (weight, out_bias) = linear(out_projection)?;
        weights.extend([primitive(weight), primitive(out_bias), primitive(gain), primitive(bias)]);
        for layer in [&self.mlp.expand, &self.mlp.contract] {
            let (weight, bias) = linear(layer)?;
            weights.extend([primitive(weight), primitive(bias)]);
        }
        weights.extend([primitive(mlp_gain), primitive(mlp_bias)]);
        Some(weights)
    }

    pub(crate) fn spec(&self, ragged: Ragged<'_>, device: &B::Device) -> AttentionSpec {
        self.attention.spec(ragged, device)
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
