//! Weights of edges.

use rayon::prelude::*;

use super::{Adjacency, ROWS, add_scaled, dot};
use crate::reduce::sum_of_parts;
use crate::simd::{Instructions, Simd, Vectorized, dispatch};

/// What an edge's score is made of.
#[derive(Debug, Clone, Copy)]
pub struct AttentionVectors<'a> {
    /// Of the neighbour that is read: `[d]`.
    pub source: &'a [f32],
    /// Of the spot that reads: `[d]`.
    pub target: &'a [f32],
    /// Which edges count, if not all do: `[edges]`. The others have weight 0.
    pub kept: Option<&'a [bool]>,
}

/// Gradients of [`attention_weights`].
#[derive(Debug, Clone)]
pub struct WeightGradients {
    /// [spots, d]
    pub rows: Vec<f32>,
    /// `[d]`
    pub source: Vec<f32>,
    /// `[d]`
    pub target: Vec<f32>,
}

/// `softmax` over each spot's neighbours of `sigmoid(source . h_j + target . h_i)`.
///
/// - rows: [spots, d]
/// - output: weights, `[edges]`, and what the backward pass needs: products of rows and vectors, [spots, 2]
pub fn attention_weights(
    adjacency: &Adjacency,
    rows: &[f32],
    vectors: &AttentionVectors<'_>,
    instructions: Instructions,
) -> (Vec<f32>, Vec<f32>) {
    let d = vectors.source.len();
    let mut products = vec![0.0; adjacency.n_spots() * 2];
    products.par_chunks_mut(2 * ROWS).zip(rows.par_chunks(ROWS * d)).for_each(|(products, rows)| {
        dispatch(instructions, Products { rows, vectors, products });
    });
    let mut weights = vec![0.0; adjacency.n_edges()];
    by_spot(adjacency, &mut weights).into_par_iter().with_min_len(ROWS).for_each(|(spot, weights)| {
        let first = adjacency.edges(spot).start;
        let mut sum = 0.0;
        for (position, weight) in weights.iter_mut().enumerate() {
            if vectors.kept.is_none_or(|kept| kept[first + position]) {
                let source = adjacency.sources()[first + position] as usize;
                // Between 0 and 1: no maximum need be taken off before the exponential.
                *weight = sigmoid(products[2 * source] + products[2 * spot + 1]).exp();
                sum += *weight;
            }
        }
        if sum > 0.0 {
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
    });
    (weights, products)
}

/// - weights, products: as [`attention_weights`] gave them
/// - gradient: of the weights, `[edges]`
pub fn attention_weights_backward(
    adjacency: &Adjacency,
    rows: &[f32],
    vectors: &AttentionVectors<'_>,
    (weights, products): (&[f32], &[f32]),
    gradient: &[f32],
    instructions: Instructions,
) -> WeightGradients {
    let (d, n_spots) = (vectors.source.len(), adjacency.n_spots());
    let mut for_scores = vec![0.0; adjacency.n_edges()];
    by_spot(adjacency, &mut for_scores).into_par_iter().with_min_len(ROWS).for_each(|(spot, for_scores)| {
        let edges = adjacency.edges(spot);
        let (weights, gradient) = (&weights[edges.clone()], &gradient[edges.clone()]);
        let mean: f32 = weights.iter().zip(gradient).map(|(weight, gradient)| weight * gradient).sum();
        for (position, for_score) in for_scores.iter_mut().enumerate() {
            let source = adjacency.sources()[edges.start + position] as usize;
            let open = sigmoid(products[2 * source] + products[2 * spot + 1]);
            *for_score = weights[position] * (gradient[position] - mean) * open * (1.0 - open);
        }
    });
    let mut for_rows = vec![0.0; rows.len()];
    let n_parts = n_spots.div_ceil(ROWS);
    let mut parts = vec![0.0; n_parts * 2 * d];
    let chunks = for_rows.par_chunks_mut(ROWS * d).zip(parts.par_chunks_exact_mut(2 * d));
    chunks.enumerate().for_each(|(chunk, (for_rows, part))| {
        let (for_source, for_target) = part.split_at_mut(d);
        let first = chunk * ROWS;
        let for_scores = &for_scores;
        dispatch(
            instructions,
            RowsBackward { adjacency, first, rows, vectors, for_scores, for_rows, for_source, for_target },
        );
    });
    let mut source = sum_of_parts(&parts, 2 * d);
    let target = source.split_off(d);
    WeightGradients { rows: for_rows, source, target }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// A buffer of edges cut into the lists of spots.
fn by_spot<'a>(adjacency: &Adjacency, edges: &'a mut [f32]) -> Vec<(usize, &'a mut [f32])> {
    let mut rest = edges;
    let mut cut = |spot: usize| {
        let (list, remaining) = std::mem::take(&mut rest).split_at_mut(adjacency.edges(spot).len());
        rest = remaining;
        (spot, list)
    };
    (0..adjacency.n_spots()).map(&mut cut).collect()
}

struct Products<'a> {
    rows: &'a [f32],
    vectors: &'a AttentionVectors<'a>,
    products: &'a mut [f32],
}

impl Vectorized for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const K: usize, const Q: usize>(self) {
        let d = self.vectors.source.len();
        for (row, products) in self.rows.chunks_exact(d).zip(self.products.chunks_exact_mut(2)) {
            products[0] = dot::<S>(row, self.vectors.source);
            products[1] = dot::<S>(row, self.vectors.target);
        }
    }
}

struct RowsBackward<'a> {
    adjacency: &'a Adjacency,
    first: usize,
    rows: &'a [f32],
    vectors: &'a AttentionVectors<'a>,
    /// `[edges]`
    for_scores: &'a [f32],
    for_rows: &'a mut [f32],
    for_source: &'a mut [f32],
    for_target: &'a mut [f32],
}

impl Vectorized for RowsBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const K: usize, const Q: usize>(self) {
        let d = self.vectors.source.len();
        for (spot, for_row) in (self.first..).zip(self.for_rows.chunks_exact_mut(d)) {
            let as_target: f32 = self.for_scores[self.adjacency.edges(spot)].iter().sum();
            let (_, edges) = self.adjacency.readers(spot);
            let as_source: f32 = edges.iter().map(|&edge| self.for_scores[edge as usize]).sum();
            let row = &self.rows[spot * d..][..d];
            add_scaled::<S>(for_row, as_source, self.vectors.source);
            add_scaled::<S>(for_row, as_target, self.vectors.target);
            add_scaled::<S>(self.for_source, as_source, row);
            add_scaled::<S>(self.for_target, as_target, row);
        }
    }
}
