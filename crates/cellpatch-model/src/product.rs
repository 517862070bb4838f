//! Products of matrices that keep 32 bits.
//!
//! Burn lets a card with tensor cores multiply 32-bit floats as TF32, which keeps 11 of their 24 binary digits, and picks the
//! algorithm by timing it, so that two runs may round differently. Where a backend has a kernel for it
//! ([`Operation::Product`]), products here keep 32 bits and one algorithm, as `torch.matmul` does unless told otherwise.

use burn::tensor::Tensor;

use crate::backend::ModelBackend;
use crate::operation::{Operation, primitive, tensor};

/// The product of the last two dimensions; all before them are alike.
///
/// - left: [.., n, k]
/// - right: [.., k, m]
/// - output: [.., n, m]
pub fn product<B: ModelBackend, const D: usize>(left: Tensor<B, D>, right: Tensor<B, D>) -> Tensor<B, D> {
    by_kernel(&left, &right).unwrap_or_else(|| left.matmul(right))
}

/// The same by the backend's kernel, if it has one.
pub(crate) fn by_kernel<B: ModelBackend, const D: usize>(
    left: &Tensor<B, D>,
    right: &Tensor<B, D>,
) -> Option<Tensor<B, D>> {
    let inputs = [primitive(left.clone()), primitive(right.clone())];
    B::fused(&Operation::Product, inputs).map(tensor)
}
