//! The model's own operations: what a backend may compute in one go, with a hand-written backward pass.
//!
//! Each stands beside the plain tensor operations that define it. The model asks [`ModelBackend::fused`](crate::ModelBackend::fused) first; where the
//! backend has no kernel for a call, the plain operations do, and they are what the kernels are tested against.

use std::fmt::Debug;

use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorPrimitive};
pub use cellpatch_kernels::adam::AdamStep;

use crate::config::ExpressionEmbedding;
use crate::lengths::GeneLengths;
use crate::tokens::HostTokens;

/// What an attention is, beside its tensors.
#[derive(Debug, Clone)]
pub struct AttentionSpec {
    /// Heads; head `h` of `n` owns the `h`-th of `n` equal slices of the last dimension.
    pub n_heads: usize,
    /// Where queries are padded: the true number of each cell. Outputs beyond it are 0.
    pub query_lengths: Option<GeneLengths>,
    /// Where keys are padded: the true number of each cell. Keys beyond it are not attended.
    pub key_lengths: Option<GeneLengths>,
    /// Probability with which a softmax weight is dropped (and the others scaled up); 0 outside training.
    pub dropout: f64,
}

/// Gene tokens as an operation reads them; `I` is the backend's tensor of integers.
#[derive(Debug, Clone)]
pub struct Genes<I> {
    /// [cells, genes]
    pub tensor: I,
    /// The same on the host, if it knows them: a kernel that needs them in order asks the device otherwise.
    pub host: Option<HostTokens>,
}

/// An operation, beside the float tensors it computes with; `I` is the backend's tensor of integers.
///
/// A block's weights are twelve tensors: the packed projection of query, key and value ([3 d, d]) and its bias, the output
/// projection ([d, d]) and its bias, gain and bias of the attention's norm, the expanding layer ([d, mlp]) and its bias, the
/// contracting layer ([mlp, d]) and its bias, gain and bias of the MLP's norm. All linear weights but the packed one
/// are input by output.
#[derive(Debug, Clone)]
pub enum Operation<I> {
    /// Multi-head scaled dot-product attention without projections. Of query ([cells or 1, queries, d]), key and value
    /// ([cells, keys, d]); to [cells, queries, d].
    Attention(AttentionSpec),
    /// A post-norm attention block whose queries read a memory. Of queries ([cells or 1, queries, d]), memory
    /// ([cells, keys, d]) and a block's weights; to [cells, queries, d].
    CrossBlock(AttentionSpec),
    /// A block whose rows read each other. Of rows ([cells, rows, d]) and a block's weights; to [cells, rows, d].
    SelfBlock(AttentionSpec),
    /// A block whose queries read genes and their values. Of queries ([1, queries, d]), the gene table ([capacity, d]), values
    /// ([cells, genes]), the expression's weights (a row [1, d] and a bias `[d]`, or bins [n, d]) and a block's weights;
    /// to [cells, queries, d].
    GeneBlock {
        /// The attention; its keys are the genes.
        attention: AttentionSpec,
        /// Tokens: [cells, genes].
        genes: Genes<I>,
        /// What the expression's weights are.
        expression: ExpressionEmbedding,
    },
    /// Rows of the gene table. Of the table ([capacity, d]); to [cells, genes, d].
    EmbedGenes {
        /// Tokens: [cells, genes].
        genes: Genes<I>,
    },
    /// One number a row, after dropout of the row's elements. Of rows ([cells, rows, d]), weight ([d, 1]) and bias
    /// (`[1]`); to [cells, rows].
    OutputLayer {
        /// Where rows are padded: the true number of each cell. Numbers beyond it are 0.
        lengths: Option<GeneLengths>,
        /// Probability with which an element is dropped (and the others scaled up); 0 outside training.
        dropout: f64,
    },
    /// The product of matrices of 32-bit floats, computed with 32 bits. Of left ([.., n, k]) and right ([.., k, m]), alike
    /// before the last two dimensions; to [.., n, m].
    Product,
}

impl<I> Operation<I> {
    /// The probability with which something is dropped.
    pub fn dropout(&self) -> f64 {
        match self {
            Self::Attention(attention)
            | Self::CrossBlock(attention)
            | Self::SelfBlock(attention)
            | Self::GeneBlock { attention, .. } => attention.dropout,
            Self::EmbedGenes { .. } | Self::Product => 0.0,
            Self::OutputLayer { dropout, .. } => *dropout,
        }
    }
}

/// What a kernel's forward pass computed.
#[derive(Debug, Clone)]
pub struct Computed<B: Backend> {
    /// The operation's output.
    pub output: FloatTensor<B>,
    /// What the backward pass needs beside inputs and output, if there will be one.
    pub kept: Vec<FloatTensor<B>>,
}

/// One call of an operation, computed in one go, with a backward pass of its own.
pub trait Kernel<B: Backend>: Debug + Send + Sync {
    /// Whether a call's dropout takes its seed from the host. One that does not has a seed of its own for forward and
    /// backward pass: reading a number that a card draws would make the host wait for the card.
    fn takes_seed(&self) -> bool {
        true
    }

    /// - inputs: the operation's, in its order
    /// - seed: of the call's dropout; the backward pass is given the same
    /// - keep: whether there will be a backward pass
    fn forward(&self, inputs: &[FloatTensor<B>], seed: u64, keep: bool) -> Computed<B>;

    /// The gradient of each input, in its shape.
    ///
    /// - gradient: of the output
    /// - wanted: for each input, whether its gradient will be used; what stands in place of one that is not is undefined
    fn backward(
        &self,
        inputs: &[FloatTensor<B>],
        computed: &Computed<B>,
        gradient: FloatTensor<B>,
        seed: u64,
        wanted: &[bool],
    ) -> Vec<FloatTensor<B>>;
}

/// What a step of Adam works with: four tensors of one shape.
#[derive(Debug, Clone)]
pub struct AdamTensors<B: Backend> {
    /// The parameter.
    pub parameter: FloatTensor<B>,
    /// Its gradient.
    pub gradient: FloatTensor<B>,
    /// Mean of past gradients.
    pub moment_1: FloatTensor<B>,
    /// Mean of past squared gradients.
    pub moment_2: FloatTensor<B>,
}

/// A tensor as backends see it.
pub fn primitive<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> FloatTensor<B> {
    tensor.into_primitive().tensor()
}

/// A kernel's output as a tensor.
pub fn tensor<B: Backend, const D: usize>(primitive: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}
