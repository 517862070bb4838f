//! Linear layers, computed so that a row's result does not depend on how many rows there are.
//!
//! The CPU backend's matrix product chooses its algorithm, and with it the order of its sums, by shape and layout. For a
//! weight in row-major order with two columns or more it gives a row the same bits whatever the other rows; for a
//! transposed weight and few rows, and for a single column, it does not. `tests/independence.rs` watches over it.

use burn::nn::Linear;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use burn::tensor::module::linear;

use crate::backend::ModelBackend;
use crate::product;

/// Applies a linear layer to every row.
///
/// - input: [rows, in]
/// - output: [rows, out]
pub(crate) fn apply<B: ModelBackend>(layer: &Linear<B>, input: Tensor<B, 2>) -> Tensor<B, 2> {
    affine(input, layer.weight.val(), layer.bias.as_ref().map(|bias| bias.val()))
}

/// Rows times a weight, plus a bias.
///
/// - input: [rows, in]
/// - weight: [in, out]
/// - bias: `[out]`
/// - output: [rows, out]
pub(crate) fn affine<B: ModelBackend>(
    input: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
) -> Tensor<B, 2> {
    match (product::by_kernel(&input, &weight), bias) {
        (Some(product), Some(bias)) => product + bias.unsqueeze(),
        (Some(product), None) => product,
        (None, bias) => linear(input, weight, bias),
    }
}

/// Applies a linear layer to every row of every cell, as one matrix product: a batch of small products is slower,
/// and so is the gradient of its weight.
///
/// - input: [cells, length, in]
/// - output: [cells, length, out]
pub(crate) fn rows<B: ModelBackend>(layer: &Linear<B>, input: Tensor<B, 3>) -> Tensor<B, 3> {
    let [cells, length, d] = input.dims();
    let output = apply(layer, input.reshape([cells * length, d]));
    let [_, d_output] = output.dims();
    output.reshape([cells, length, d_output])
}

/// Applies a linear layer with one output to every row of every cell, as products and their sum.
///
/// - input: [cells, length, in]
/// - output: [cells, length]
pub(crate) fn rows_to_numbers<B: Backend>(layer: &Linear<B>, input: Tensor<B, 3>) -> Tensor<B, 2> {
    let [_, _, d] = input.dims();
    let products = input * layer.weight.val().reshape([1, 1, d]);
    let numbers = products.sum_dim(2).squeeze_dim(2);
    match &layer.bias {
        Some(bias) => numbers + bias.val().reshape([1, 1]),
        None => numbers,
    }
}

/// The same tensor in row-major order: reshaping to one dimension copies what is not.
pub(crate) fn row_major<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Tensor<B, D> {
    let shape = tensor.shape();
    tensor.reshape([shape.num_elements()]).reshape(shape)
}
