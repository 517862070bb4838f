//! What a block does with what attention gathered, row by row: projection, residual, norm, MLP, residual, norm.

use super::Prepared;
use super::gradient::WeightGradients;
use crate::exponential::normal_distribution;
use crate::matrix::{Layout, Start, add_column_sums, add_outer_products, multiply, transposed};
use crate::simd::Simd;
use crate::workspace::{FeedforwardRows, sized};

/// Rows that are worked on together: few enough for all their states to stay in the first cache.
const CHUNK: usize = 32;

/// - gathered, queries, output: [rows, d]
#[inline(always)]
pub(super) fn forward<S: Simd>(
    block: &Prepared<'_>,
    gathered: &[f32],
    queries: &[f32],
    output: &mut [f32],
    scratch: &mut FeedforwardRows,
) {
    let d = block.shape.embedding_dim;
    let chunks = gathered.chunks(CHUNK * d).zip(queries.chunks(CHUNK * d));
    for ((gathered, queries), output) in chunks.zip(output.chunks_mut(CHUNK * d)) {
        let results = forward_chunk::<S>(block, gathered, queries, scratch);
        block.weights.mlp_norm.forward::<S>(&scratch.results[..results], output);
    }
}

/// Leaves all intermediate states of a chunk in the scratch memory, up to the last norm's input; returns the number of
/// elements of the latter.
#[inline(always)]
fn forward_chunk<S: Simd>(
    block: &Prepared<'_>,
    gathered: &[f32],
    queries: &[f32],
    scratch: &mut FeedforwardRows,
) -> usize {
    let (d, m) = (block.shape.embedding_dim, block.shape.mlp_dim);
    let n = gathered.len() / d;
    let weights = &block.weights;
    let (narrow, wide) = (Layout::row_major(d), Layout::row_major(m));

    let sums = sized(&mut scratch.sums, n * d);
    let start = Start::Bias(weights.out_projection_bias);
    multiply::<S>((gathered, narrow), n, weights.out_projection, d, start, (sums, narrow));
    add::<S>(sums, queries);
    let attended = sized(&mut scratch.attended, n * d);
    weights.attention_norm.forward::<S>(sums, attended);

    let hidden = sized(&mut scratch.hidden, n * m);
    let start = Start::Bias(weights.expand_bias);
    multiply::<S>((attended, narrow), n, weights.expand, m, start, (hidden, wide));
    let activated = sized(&mut scratch.activated, n * m);
    for (hidden, activated) in hidden.chunks_exact(S::LANES).zip(activated.chunks_exact_mut(S::LANES)) {
        let hidden = S::load(hidden);
        S::store(S::mul(hidden, normal_distribution::<S>(hidden).0), activated);
    }
    let results = sized(&mut scratch.results, n * d);
    let start = Start::Bias(weights.contract_bias);
    multiply::<S>((activated, wide), n, weights.contract, d, start, (results, narrow));
    add::<S>(results, attended);
    n * d
}

/// Weights of the way back.
pub(super) struct Transposed {
    /// [d, d]
    pub(super) out_projection: Vec<f32>,
    /// [mlp, d]
    pub(super) expand: Vec<f32>,
    /// [d, mlp]
    pub(super) contract: Vec<f32>,
}

impl Transposed {
    pub(super) fn new(block: &Prepared<'_>) -> Self {
        let (d, weights) = (block.shape.embedding_dim, &block.weights);
        Self {
            out_projection: transposed(weights.out_projection, d),
            expand: transposed(weights.expand, block.shape.mlp_dim),
            contract: transposed(weights.contract, d),
        }
    }
}

/// - gathered, queries: as in the forward pass, [rows, d]
/// - for_output: gradient of the output, [rows, d]
/// - for_gathered, for_queries: gradients, [rows, d]; what they hold is replaced
#[inline(always)]
pub(super) fn backward<S: Simd>(
    (block, transposed): (&Prepared<'_>, &Transposed),
    (gathered, queries): (&[f32], &[f32]),
    for_output: &[f32],
    (for_gathered, for_queries): (&mut [f32], &mut [f32]),
    gradients: &mut WeightGradients<'_>,
    scratch: &mut FeedforwardRows,
) {
    let d = block.shape.embedding_dim;
    let size = CHUNK * d;
    let inputs = gathered.chunks(size).zip(queries.chunks(size)).zip(for_output.chunks(size));
    let outputs = for_gathered.chunks_mut(size).zip(for_queries.chunks_mut(size));
    for (((gathered, queries), for_output), outputs) in inputs.zip(outputs) {
        forward_chunk::<S>(block, gathered, queries, scratch);
        backward_chunk::<S>((block, transposed), gathered, for_output, outputs, gradients, scratch);
    }
}

#[inline(always)]
fn backward_chunk<S: Simd>(
    (block, transposed): (&Prepared<'_>, &Transposed),
    gathered: &[f32],
    for_output: &[f32],
    (for_gathered, for_sums): (&mut [f32], &mut [f32]),
    gradients: &mut WeightGradients<'_>,
    scratch: &mut FeedforwardRows,
) {
    let (d, m) = (block.shape.embedding_dim, block.shape.mlp_dim);
    let n = gathered.len() / d;
    let weights = &block.weights;
    let (narrow, wide) = (Layout::row_major(d), Layout::row_major(m));

    let for_results = sized(&mut scratch.for_attended, n * d);
    for_results.copy_from_slice(for_output);
    let norm = (&mut *gradients.mlp_gain, &mut *gradients.mlp_bias);
    weights.mlp_norm.backward::<S>(&scratch.results[..n * d], for_results, norm.0, norm.1);

    add_outer_products::<S>((&scratch.activated, wide), m, for_results, d, n, gradients.contract);
    add_column_sums::<S>((for_results, narrow), n, d, gradients.contract_bias);
    let for_hidden = sized(&mut scratch.for_hidden, n * m);
    multiply::<S>((for_results, narrow), n, &transposed.contract, m, Start::Zero, (for_hidden, wide));
    let hidden = scratch.hidden.chunks_exact(S::LANES);
    for (hidden, for_hidden) in hidden.zip(for_hidden.chunks_exact_mut(S::LANES)) {
        let hidden = S::load(hidden);
        let (probability, density) = normal_distribution::<S>(hidden);
        let slope = S::fma(hidden, density, probability);
        S::store(S::mul(S::load(for_hidden), slope), for_hidden);
    }
    add_outer_products::<S>((&scratch.attended, narrow), d, for_hidden, m, n, gradients.expand);
    add_column_sums::<S>((for_hidden, wide), n, m, gradients.expand_bias);
    // The residual's gradient is in place already.
    multiply::<S>((for_hidden, wide), n, &transposed.expand, d, Start::Accumulate, (for_results, narrow));

    let norm = (&mut *gradients.attention_gain, &mut *gradients.attention_bias);
    weights.attention_norm.backward::<S>(&scratch.sums[..n * d], for_results, norm.0, norm.1);
    for_sums.copy_from_slice(for_results);
    add_outer_products::<S>((gathered, narrow), d, for_sums, d, n, gradients.out_projection);
    add_column_sums::<S>((for_sums, narrow), n, d, gradients.out_projection_bias);
    multiply::<S>((for_sums, narrow), n, &transposed.out_projection, d, Start::Zero, (for_gathered, narrow));
}

#[inline(always)]
fn add<S: Simd>(into: &mut [f32], from: &[f32]) {
    for (into, from) in into.chunks_exact_mut(S::LANES).zip(from.chunks_exact(S::LANES)) {
        S::store(S::add(S::load(into), S::load(from)), into);
    }
}
