//! The operations of plain tensor operations: what every backend can do, and the reference for the kernels.

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use cellpatch_model::ModelBackend;
use cellpatch_model::product::product as matrix_product;

use crate::input::{PlainTensors, SpatialInput};
use crate::operation::SquaredError;

/// The expression times a matrix.
///
/// - matrix: [genes, d]
/// - output: [spots, d]
pub fn expression_product<B: ModelBackend>(input: &SpatialInput<B>, matrix: Tensor<B, 2>) -> Tensor<B, 2> {
    matrix_product(input.plain().expression.clone(), matrix)
}

/// Softmax over each spot's neighbours j of `sigmoid(source . h_j + target . h_i)`.
///
/// - rows: [spots, d]
/// - source, target: `[d]`
/// - pruned: over the neighbours in the pruned graph only; all others have weight 0
/// - output: `[edges]`
pub fn attention_weights<B: ModelBackend>(
    input: &SpatialInput<B>,
    rows: Tensor<B, 2>,
    source: Tensor<B, 1>,
    target: Tensor<B, 1>,
    pruned: bool,
) -> Tensor<B, 1> {
    let plain = input.plain();
    let PlainTensors { sources, targets, edges, real, pruned: kept, .. } = &*plain;
    let [n_spots, longest] = edges.dims();
    let project = |vector: Tensor<B, 1>| (rows.clone() * vector.unsqueeze()).sum_dim(1).squeeze_dim::<1>(1);
    let score = project(source).select(0, sources.clone()) + project(target).select(0, targets.clone());
    // Between 0 and 1: no maximum need be taken off before the exponential.
    let mut power = sigmoid(score).exp();
    if let Some(kept) = kept.as_ref().filter(|_| pruned) {
        power = power * kept.clone();
    }
    let lists =
        power.clone().select(0, edges.clone().reshape([n_spots * longest])).reshape([n_spots, longest]);
    let sums = (lists * real.clone()).sum_dim(1).squeeze_dim::<1>(1);
    power / sums.select(0, targets.clone())
}

/// ELU of the weighted sum of neighbours. One place of the neighbours' lists is read at a time.
///
/// - rows: [spots, d]
/// - weights: `[edges]`
/// - output: [spots, d]
pub fn gather<B: ModelBackend>(
    input: &SpatialInput<B>,
    rows: Tensor<B, 2>,
    weights: Tensor<B, 1>,
) -> Tensor<B, 2> {
    let plain = input.plain();
    let PlainTensors { sources, edges, real, .. } = &*plain;
    let [n_spots, longest] = edges.dims();
    let mut sum = rows.zeros_like();
    for place in 0..longest {
        let edges = edges.clone().slice([0..n_spots, place..place + 1]).reshape([n_spots]);
        let real = real.clone().slice([0..n_spots, place..place + 1]);
        let weight = weights.clone().select(0, edges.clone()).unsqueeze_dim(1) * real;
        sum = sum + rows.clone().select(0, sources.clone().select(0, edges)) * weight;
    }
    elu(sum)
}

/// x above 0 and `exp(x) - 1` below (`torch.nn.functional.elu`).
pub fn elu<B: ModelBackend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let positive = x.clone().greater_elem(0.0);
    (x.clone().clamp_max(0.0).exp() - 1.0).mask_where(positive, x)
}

/// Mean over spots and genes of `(X - H W^T - 1 b^T)^2`, without the reconstruction.
///
/// - product: X W, [spots, d]
/// - hidden: H, [spots, d]
/// - weight: W, [genes, d]
/// - bias: b, `[genes]`
/// - output: `[1]`
pub fn squared_error<B: ModelBackend>(
    known: &SquaredError,
    product: Tensor<B, 2>,
    hidden: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
) -> Tensor<B, 1> {
    let ([n_spots, _], [n_genes, _]) = (hidden.dims(), weight.dims());
    let gram = |rows: &Tensor<B, 2>| matrix_product(rows.clone().transpose(), rows.clone());
    let mut sum = (gram(&hidden) * gram(&weight)).sum() - (product * hidden.clone()).sum() * 2.0;
    if let Some(bias) = bias {
        let sums = Tensor::<B, 1>::from_floats(&known.sums_by_gene[..], &hidden.device());
        let decoded = matrix_product(weight, hidden.sum_dim(0).transpose()).squeeze_dim::<1>(1);
        sum =
            sum + (bias.clone() * (decoded - sums)).sum() * 2.0 + bias.powi_scalar(2).sum() * n_spots as f64;
    }
    (sum + known.sum_of_squares) / (n_spots * n_genes) as f64
}
