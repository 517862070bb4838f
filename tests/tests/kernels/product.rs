//! Products of matrices keep 32 bits, whatever tensor cores a card has.

use burn::backend::Autodiff;
use burn::tensor::{Distribution, Tensor};
use cellpatch_model::ModelBackend;
use cellpatch_model::product::product;

/// Rounding of sums of up to 128 products of numbers around 1. TF32 alone is off by 1e-3 of the largest.
const TOLERANCE: f64 = 1e-5;

fn numbers<B: ModelBackend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

/// The sum over k of `left[i, k] right[k, j]`, matrix by matrix.
fn expected([batch, n, k, m]: [usize; 4], left: &[f64], right: &[f64]) -> Vec<f64> {
    let mut product = Vec::with_capacity(batch * n * m);
    for matrix in 0..batch {
        for (i, j) in (0..n).flat_map(|i| (0..m).map(move |j| (i, j))) {
            let term = |l: usize| left[(matrix * n + i) * k + l] * right[(matrix * k + l) * m + j];
            product.push((0..k).map(term).sum());
        }
    }
    product
}

fn transposed([batch, n, m]: [usize; 3], matrices: &[f64]) -> Vec<f64> {
    let at = |matrix: usize, i: usize, j: usize| matrices[(matrix * n + i) * m + j];
    let places = |matrix| (0..m).flat_map(move |j| (0..n).map(move |i| (matrix, i, j)));
    (0..batch).flat_map(places).map(|(matrix, i, j)| at(matrix, i, j)).collect()
}

fn compare(what: &str, shape: [usize; 4], found: &[f64], expected: &[f64]) {
    let largest = expected.iter().fold(1.0_f64, |largest, number| largest.max(number.abs()));
    assert_eq!(found.len(), expected.len(), "{what} of {shape:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= TOLERANCE * largest, "{what} of {shape:?}: {found} {expected}");
    }
}

/// Forward and both gradients against sums in 64 bits.
pub(crate) fn check_product<B: ModelBackend>() {
    let device = Default::default();
    for [batch, n, k, m] in [
        [1, 1, 1, 1],
        [1, 64, 128, 32],
        [1, 33, 7, 1],
        [1, 1, 40, 9],
        [3, 17, 16, 21],
        [2, 64, 64, 64],
        [1, 5, 1, 32],
    ] {
        let random = |shape: [usize; 3]| {
            Tensor::<Autodiff<B>, 3>::random(shape, Distribution::Normal(0.0, 1.0), &device).require_grad()
        };
        let (left, right, weight) = (random([batch, n, k]), random([batch, k, m]), random([batch, n, m]));
        let output = product(left.clone(), right.clone());
        let gradients = (output.clone() * weight.clone().detach()).sum().backward();
        let [for_left, for_right] = [&left, &right].map(|leaf| numbers(leaf.grad(&gradients).unwrap()));
        let [left, right, weight, output] = [left, right, weight, output].map(numbers);
        let shape = [batch, n, k, m];
        compare("product", shape, &output, &expected(shape, &left, &right));
        let right = transposed([batch, k, m], &right);
        compare("gradient of the left", shape, &for_left, &expected([batch, n, m, k], &weight, &right));
        let left = transposed([batch, n, k], &left);
        compare("gradient of the right", shape, &for_right, &expected([batch, k, n, m], &left, &weight));
    }
}
