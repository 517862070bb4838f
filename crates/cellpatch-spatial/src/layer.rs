//! Parameters of STAGATE's layers, under their released names.

use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, Tensor};

/// As the authors' code draws them.
const GAIN: f64 = 1.414;

/// A projection with the attention among neighbours.
#[derive(Module, Debug)]
pub(crate) struct AttentionLayer<B: Backend> {
    /// [in, out]
    pub(crate) lin_src: Param<Tensor<B, 2>>,
    /// [1, 1, out]
    pub(crate) att_src: Param<Tensor<B, 3>>,
    /// [1, 1, out]
    pub(crate) att_dst: Param<Tensor<B, 3>>,
}

/// A projection; released checkpoints hold an attention that is never used.
#[derive(Module, Debug)]
pub(crate) struct ProjectionLayer<B: Backend> {
    /// [in, out]
    pub(crate) lin_src: Param<Tensor<B, 2>>,
    att_src: Option<Param<Tensor<B, 3>>>,
    att_dst: Option<Param<Tensor<B, 3>>>,
}

/// The attention of the pruned graph.
#[derive(Module, Debug)]
pub(crate) struct AttentionPair<B: Backend> {
    /// [1, 1, d]
    pub(crate) att_src: Param<Tensor<B, 3>>,
    /// [1, 1, d]
    pub(crate) att_dst: Param<Tensor<B, 3>>,
}

impl<B: Backend> AttentionLayer<B> {
    pub(crate) fn new(n_in: usize, n_out: usize, device: &B::Device) -> Self {
        Self {
            lin_src: matrix(n_in, n_out, device),
            att_src: vector(n_out, device),
            att_dst: vector(n_out, device),
        }
    }
}

impl<B: Backend> ProjectionLayer<B> {
    /// - released: with the unused attention of released checkpoints
    pub(crate) fn new(n_in: usize, n_out: usize, released: bool, device: &B::Device) -> Self {
        Self {
            lin_src: matrix(n_in, n_out, device),
            att_src: released.then(|| vector(n_out, device)),
            att_dst: released.then(|| vector(n_out, device)),
        }
    }
}

impl<B: Backend> AttentionPair<B> {
    pub(crate) fn new(d: usize, device: &B::Device) -> Self {
        Self { att_src: vector(d, device), att_dst: vector(d, device) }
    }
}

/// Normal with the deviation of Glorot and Bengio 2010.
fn matrix<B: Backend>(n_in: usize, n_out: usize, device: &B::Device) -> Param<Tensor<B, 2>> {
    let deviation = GAIN * (2.0 / (n_in + n_out) as f64).sqrt();
    Param::from_tensor(Tensor::random([n_in, n_out], Distribution::Normal(0.0, deviation), device))
}

/// PyTorch takes both fans of a [1, 1, d] tensor as d.
fn vector<B: Backend>(d: usize, device: &B::Device) -> Param<Tensor<B, 3>> {
    let deviation = GAIN / (d as f64).sqrt();
    Param::from_tensor(Tensor::random([1, 1, d], Distribution::Normal(0.0, deviation), device))
}
