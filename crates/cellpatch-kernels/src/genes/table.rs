//! Projections of many rows at once, and back.

use rayon::prelude::*;

use crate::matrix::{Layout, Start, add_column_sums, add_outer_products, multiply, transposed};
use crate::reduce::sum_of_parts;
use crate::simd::{Instructions, Simd, Vectorized, dispatch};

/// Rows that one task projects.
const ROWS: usize = 256;

/// `rows W^T + bias`: keys and values of rows by the lower two thirds of a packed projection, say.
///
/// - rows: [n, d]
/// - weights: [width, d], as PyTorch keeps them; both a multiple of the lanes
/// - bias: `[width]`; none is 0
/// - output: [n, width]
pub fn project_rows(
    rows: &[f32],
    d: usize,
    weights: &[f32],
    bias: Option<&[f32]>,
    instructions: Instructions,
) -> Vec<f32> {
    let width = weights.len() / d;
    let weights = transposed(weights, d);
    let mut output = vec![0.0; rows.len() / d * width];
    let chunks = rows.par_chunks(ROWS * d).zip(output.par_chunks_mut(ROWS * width));
    chunks.for_each(|(rows, output)| {
        let start = bias.map_or(Start::Zero, Start::Bias);
        dispatch(instructions, Project { rows, d, weights: &weights, width, start, output });
    });
    output
}

struct Project<'a> {
    rows: &'a [f32],
    d: usize,
    weights: &'a [f32],
    width: usize,
    start: Start<'a>,
    output: &'a mut [f32],
}

impl Vectorized for Project<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const K: usize, const Q: usize>(self) {
        multiply::<S>(
            (self.rows, Layout::row_major(self.d)),
            self.rows.len() / self.d,
            self.weights,
            self.width,
            self.start,
            (self.output, Layout::row_major(self.width)),
        );
    }
}

/// The gradient of [`project_rows`].
///
/// - gradient: of the output, [n, width]
/// - output: gradients of the rows, [n, d], the weights, [width, d], and the bias, `[width]`
pub fn project_rows_backward(
    rows: &[f32],
    d: usize,
    weights: &[f32],
    gradient: &[f32],
    instructions: Instructions,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let width = weights.len() / d;
    let n_part = weights.len() + width;
    let mut for_rows = vec![0.0; rows.len()];
    let n_parts = rows.len().div_ceil(ROWS * d);
    let mut parts = vec![0.0; n_parts * n_part];
    let inputs = rows.par_chunks(ROWS * d).zip(gradient.par_chunks(ROWS * width));
    let outputs = for_rows.par_chunks_mut(ROWS * d).zip(parts.par_chunks_exact_mut(n_part));
    inputs.zip(outputs).for_each(|((rows, gradient), (for_rows, part))| {
        let (for_weights, for_bias) = part.split_at_mut(weights.len());
        let work = ProjectBackward { rows, d, weights, width, gradient, for_rows, for_weights, for_bias };
        dispatch(instructions, work);
    });
    let mut sums = sum_of_parts(&parts, n_part);
    let for_bias = sums.split_off(weights.len());
    (for_rows, sums, for_bias)
}

struct ProjectBackward<'a> {
    rows: &'a [f32],
    d: usize,
    weights: &'a [f32],
    width: usize,
    gradient: &'a [f32],
    for_rows: &'a mut [f32],
    for_weights: &'a mut [f32],
    for_bias: &'a mut [f32],
}

impl Vectorized for ProjectBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const K: usize, const Q: usize>(self) {
        let (d, width) = (self.d, self.width);
        let n = self.rows.len() / d;
        let gradient = (self.gradient, Layout::row_major(width));
        multiply::<S>(gradient, n, self.weights, d, Start::Zero, (self.for_rows, Layout::row_major(d)));
        add_outer_products::<S>(gradient, width, self.rows, d, n, self.for_weights);
        add_column_sums::<S>(gradient, n, width, self.for_bias);
    }
}
