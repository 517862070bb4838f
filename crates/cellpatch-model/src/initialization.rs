//! How fresh weights are drawn.
//!
//! Every tensor is drawn at once, in the order of the model's fields, so that a seed gives one model: Burn's own
//! initialisers draw when a parameter is first looked at.

use burn::module::Param;
use burn::nn::{Embedding, LayerNorm, LayerNormConfig, Linear};
use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, Tensor};

use crate::block::NORM_EPSILON;

/// Uniform within `sqrt(6 / (fan_in + fan_out))` of 0 (Glorot and Bengio 2010, equation 16).
pub(crate) fn xavier_uniform<B: Backend>(
    shape: [usize; 2],
    fan_in: usize,
    fan_out: usize,
    device: &B::Device,
) -> Param<Tensor<B, 2>> {
    uniform(shape, (6.0 / (fan_in + fan_out) as f64).sqrt(), device)
}

/// A linear layer: Xavier-uniform weight, and the bias `torch.nn.Linear` starts with, uniform within
/// `1 / sqrt(n_in)` of 0.
pub(crate) fn linear<B: Backend>(n_in: usize, n_out: usize, device: &B::Device) -> Linear<B> {
    Linear {
        weight: xavier_uniform([n_in, n_out], n_in, n_out, device),
        bias: Some(uniform([n_out], (n_in as f64).powf(-0.5), device)),
    }
}

/// How much the attention of a fresh model's last head grows with a gene's value; the first head's does not.
///
/// A gene of log1p-normalised value v has a weight of about exp(slope * v) in the softmax. At 0 a patch starts as a mean over
/// the genes that a cell expresses at all, at 1 as one weighted by their normalised counts: together they tell what a linear
/// model of expression can tell, before anything is learnt.
pub(crate) const EXPRESSION_SLOPE: f64 = 1.5;

/// Deviation of the fresh rows by which a gene and its value enter.
///
/// A patch is a mean over many genes. Where rows are as large as the patch tokens, that mean is mostly of genes that tell
/// nothing; small rows grow where they are of use. Both are alike, or the mean value would drown which genes there are.
const INPUT_DEVIATION: f64 = 0.1;

/// `Linear(1, d)` on a value: normal rows as those of genes, and a bias no larger.
pub(crate) fn value_embedding<B: Backend>(embedding_dim: usize, device: &B::Device) -> Linear<B> {
    Linear {
        weight: Param::from_tensor(input_rows(1, embedding_dim, device)),
        bias: Some(uniform([embedding_dim], INPUT_DEVIATION, device)),
    }
}

/// Fresh rows of genes or values: normal, small beside everything else. `[n_rows, embedding_dim]`
pub(crate) fn input_rows<B: Backend>(
    n_rows: usize,
    embedding_dim: usize,
    device: &B::Device,
) -> Tensor<B, 2> {
    Tensor::random([n_rows, embedding_dim], Distribution::Normal(0.0, INPUT_DEVIATION), device)
}

/// A fresh table of embeddings of genes, or of binned values.
pub(crate) fn input_table<B: Backend>(
    n_rows: usize,
    embedding_dim: usize,
    device: &B::Device,
) -> Embedding<B> {
    Embedding { weight: Param::from_tensor(input_rows(n_rows, embedding_dim, device)) }
}

/// A standard normal tensor.
pub(crate) fn standard_normal<B: Backend, const D: usize>(
    shape: [usize; D],
    device: &B::Device,
) -> Param<Tensor<B, D>> {
    Param::from_tensor(Tensor::random(shape, Distribution::Normal(0.0, 1.0), device))
}

/// `torch.nn.LayerNorm(d, eps=1e-5)`.
pub(crate) fn layer_norm<B: Backend>(embedding_dim: usize, device: &B::Device) -> LayerNorm<B> {
    LayerNormConfig::new(embedding_dim).with_epsilon(NORM_EPSILON).init(device)
}

fn uniform<B: Backend, const D: usize>(
    shape: [usize; D],
    bound: f64,
    device: &B::Device,
) -> Param<Tensor<B, D>> {
    Param::from_tensor(Tensor::random(shape, Distribution::Uniform(-bound, bound), device))
}
