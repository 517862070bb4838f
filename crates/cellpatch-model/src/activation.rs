//! The activation of the blocks' MLPs.

use std::f64::consts::FRAC_1_SQRT_2;

use burn::tensor::{Tensor, activation};

use crate::backend::ModelBackend;

/// `torch.nn.GELU()`: `x Phi(x)` with the error function, not its tanh approximation, in both directions (Hendrycks
/// and Gimpel 2016).
///
/// - input, output: any shape
pub fn gelu<B: ModelBackend, const D: usize>(input: Tensor<B, D>) -> Tensor<B, D> {
    if B::EXACT_GELU_GRADIENT {
        return activation::gelu(input);
    }
    let double_probability = input.clone().mul_scalar(FRAC_1_SQRT_2).erf().add_scalar(1.0);
    input * double_probability * 0.5
}
