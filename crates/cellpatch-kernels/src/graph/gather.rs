//! What spots gather from their neighbours.

use std::f32::consts::LOG2_E;

use rayon::prelude::*;

use super::{Adjacency, ROWS, add_scaled, dot};
use crate::exponential::exp2;
use crate::simd::{Instructions, Simd, Vectorized, dispatch};

/// Gradients of [`gather`].
#[derive(Debug, Clone)]
pub struct GatherGradients {
    /// [spots, d]
    pub rows: Vec<f32>,
    /// `[edges]`
    pub weights: Vec<f32>,
}

/// `ELU(sum over neighbours j of weight_ij rows_j)`, ELU being x above 0 and `exp(x) - 1` below (`torch.nn.functional.elu`).
///
/// - rows: [spots, d]
/// - weights: `[edges]`
/// - output: [spots, d]
pub fn gather(
    adjacency: &Adjacency,
    rows: &[f32],
    weights: &[f32],
    d: usize,
    instructions: Instructions,
) -> Vec<f32> {
    let mut output = vec![0.0; adjacency.n_spots() * d];
    output.par_chunks_mut(ROWS * d).enumerate().for_each(|(chunk, output)| {
        dispatch(instructions, Gather { adjacency, first: chunk * ROWS, rows, weights, d, output });
    });
    output
}

struct Gather<'a> {
    adjacency: &'a Adjacency,
    first: usize,
    rows: &'a [f32],
    weights: &'a [f32],
    d: usize,
    output: &'a mut [f32],
}

impl Vectorized for Gather<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const K: usize, const Q: usize>(self) {
        let d = self.d;
        for (spot, output) in (self.first..).zip(self.output.chunks_exact_mut(d)) {
            for edge in self.adjacency.edges(spot) {
                let source = self.adjacency.sources()[edge] as usize;
                add_scaled::<S>(output, self.weights[edge], &self.rows[source * d..][..d]);
            }
            elu::<S>(output);
        }
    }
}

#[inline(always)]
fn elu<S: Simd>(row: &mut [f32]) {
    let vectors = row.len() / S::LANES;
    let zero = S::splat(0.0);
    for vector in 0..vectors {
        let at = vector * S::LANES;
        let x = S::load(&row[at..]);
        let negative = S::sub(zero, S::max(zero, S::sub(zero, x)));
        let power = exp2::<S>(S::mul(negative, S::splat(LOG2_E)));
        S::store(S::add(S::max(zero, x), S::sub(power, S::splat(1.0))), &mut row[at..]);
    }
    for x in &mut row[vectors * S::LANES..] {
        if *x <= 0.0 {
            *x = x.exp_m1();
        }
    }
}

/// - output: of the forward pass, [spots, d]
/// - gradient: of it
pub fn gather_backward(
    adjacency: &Adjacency,
    rows: &[f32],
    weights: &[f32],
    output: &[f32],
    gradient: &[f32],
    d: usize,
    instructions: Instructions,
) -> GatherGradients {
    // ELU's slope is 1 above 0 and its value plus 1 below.
    let mut for_sums = vec![0.0; gradient.len()];
    let inputs = output.par_chunks(ROWS * d).zip(gradient.par_chunks(ROWS * d));
    for_sums.par_chunks_mut(ROWS * d).zip(inputs).for_each(|(for_sums, (output, gradient))| {
        for ((for_sum, output), gradient) in for_sums.iter_mut().zip(output).zip(gradient) {
            *for_sum = gradient * (1.0 + output.min(0.0));
        }
    });
    let (mut for_rows, mut for_weights) = (vec![0.0; rows.len()], vec![0.0; weights.len()]);
    let mut lists = Vec::with_capacity(adjacency.n_spots().div_ceil(ROWS));
    let mut rest = &mut for_weights[..];
    for first in (0..adjacency.n_spots()).step_by(ROWS) {
        let end = (first + ROWS).min(adjacency.n_spots());
        let n = adjacency.starts()[end] - adjacency.starts()[first];
        let (list, remaining) = rest.split_at_mut(n);
        lists.push(list);
        rest = remaining;
    }
    let chunks = for_rows.par_chunks_mut(ROWS * d).zip(lists);
    chunks.enumerate().for_each(|(chunk, (for_rows, for_weights))| {
        let first = chunk * ROWS;
        let for_sums = &for_sums;
        dispatch(
            instructions,
            GatherBackward { adjacency, first, rows, weights, for_sums, d, for_rows, for_weights },
        );
    });
    GatherGradients { rows: for_rows, weights: for_weights }
}

struct GatherBackward<'a> {
    adjacency: &'a Adjacency,
    first: usize,
    rows: &'a [f32],
    weights: &'a [f32],
    for_sums: &'a [f32],
    d: usize,
    for_rows: &'a mut [f32],
    for_weights: &'a mut [f32],
}

impl Vectorized for GatherBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const K: usize, const Q: usize>(self) {
        let d = self.d;
        let mut for_weights = self.for_weights.iter_mut();
        for (spot, for_row) in (self.first..).zip(self.for_rows.chunks_exact_mut(d)) {
            let for_sum = &self.for_sums[spot * d..][..d];
            for (edge, for_weight) in self.adjacency.edges(spot).zip(&mut for_weights) {
                let source = self.adjacency.sources()[edge] as usize;
                *for_weight = dot::<S>(for_sum, &self.rows[source * d..][..d]);
            }
            let (readers, edges) = self.adjacency.readers(spot);
            for (&reader, &edge) in readers.iter().zip(edges) {
                let for_sum = &self.for_sums[reader as usize * d..][..d];
                add_scaled::<S>(for_row, self.weights[edge as usize], for_sum);
            }
        }
    }
}
