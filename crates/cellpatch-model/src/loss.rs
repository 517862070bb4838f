//! The pretraining objective.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::lengths::GeneLengths;

/// Sum of squared errors over the real targets of a batch, and how many there are; the pretraining loss is the
/// one divided by the other, over however many batches.
///
/// - prediction, target: [cells, longest]
/// - output: (`[1]`, number of real targets)
pub fn masked_squared_error<B: Backend>(
    prediction: Tensor<B, 2>,
    target: Tensor<B, 2>,
    lengths: &GeneLengths,
) -> (Tensor<B, 1>, usize) {
    let error = prediction - target;
    let mut squared = error.clone() * error;
    if lengths.is_padded() {
        let real = lengths.real(&squared.device());
        squared = squared * real;
    }
    // A row at a time: the sum of a whole large tensor is taken by threads, in no fixed order.
    (squared.sum_dim(1).sum(), lengths.total())
}
