//! Weights of edges.

use cubecl::prelude::*;

use super::lanes::{dot, group, groups};
use super::{Adjacency, Edges, units, vector_size};
use crate::buffer::Buffer;

/// What an edge's score is made of.
#[derive(Debug, Clone, Copy)]
pub struct AttentionVectors<'a> {
    /// Of the neighbour that is read: `[d]`.
    pub source: &'a Buffer<f32>,
    /// Of the spot that reads: `[d]`.
    pub target: &'a Buffer<f32>,
    /// Which edges count. The others have weight 0.
    pub kept: &'a Edges,
}

/// What [`attention_weights`] computes.
#[derive(Debug, Clone)]
pub struct AttentionWeights {
    /// `[edges]`
    pub weights: Buffer<f32>,
    /// What the backward pass needs: products of rows and vectors, [spots, 2].
    pub products: Buffer<f32>,
}

/// Gradients of [`attention_weights`].
#[derive(Debug, Clone)]
pub struct WeightGradients {
    /// [spots, d]
    pub rows: Buffer<f32>,
    /// `[d]`
    pub source: Buffer<f32>,
    /// `[d]`
    pub target: Buffer<f32>,
}

/// `softmax` over each spot's neighbours of `sigmoid(source . h_j + target . h_i)`.
///
/// - rows: [spots, d]
///
/// # Panics
///
/// If there are not as many elements.
pub fn attention_weights<R: Runtime>(
    client: &ComputeClient<R>,
    adjacency: &Adjacency,
    rows: &Buffer<f32>,
    vectors: AttentionVectors<'_>,
) -> AttentionWeights {
    check(adjacency, rows, &vectors);
    let (n_spots, d) = (adjacency.n_spots(), vectors.source.len());
    let products = Buffer::empty(client, n_spots * 2);
    let weights = Buffer::empty(client, adjacency.n_edges());
    if n_spots == 0 {
        return AttentionWeights { weights, products };
    }
    let size = vector_size(client, d);
    let (count, dim) = groups(client, n_spots);
    // SAFETY: `check` has compared the lengths; a group beyond the spots reads and writes nothing of theirs.
    unsafe {
        products_of_rows::launch_unchecked::<R>(
            client,
            count,
            dim,
            size,
            rows.array(),
            vectors.source.array(),
            vectors.target.array(),
            products.array(),
            d / size,
        );
    }
    let (count, dim) = units(client, n_spots);
    // SAFETY: a unit writes the weights of its own spot's edges; these name spots, each of which has products.
    unsafe {
        softmax_by_spot::launch_unchecked::<R>(
            client,
            count,
            dim,
            adjacency.starts.array(),
            adjacency.sources.array(),
            vectors.kept.0.array(),
            products.array(),
            weights.array(),
            n_spots,
        );
    }
    AttentionWeights { weights, products }
}

/// - computed: as [`attention_weights`] gave it
/// - gradient: of the weights, `[edges]`
///
/// # Panics
///
/// If there are not as many elements.
pub fn attention_weights_backward<R: Runtime>(
    client: &ComputeClient<R>,
    adjacency: &Adjacency,
    rows: &Buffer<f32>,
    vectors: AttentionVectors<'_>,
    computed: &AttentionWeights,
    gradient: &Buffer<f32>,
) -> WeightGradients {
    check(adjacency, rows, &vectors);
    let (n_spots, n_edges, d) = (adjacency.n_spots(), adjacency.n_edges(), vectors.source.len());
    let AttentionWeights { weights, products } = computed;
    assert_eq!([weights.len(), gradient.len()], [n_edges; 2], "weights and their gradient");
    assert_eq!(products.len(), n_spots * 2, "products of rows and vectors");
    let for_rows = Buffer::empty(client, rows.len());
    let by_spot = Buffer::empty(client, n_spots * 2);
    if n_spots > 0 {
        let for_scores: Buffer<f32> = Buffer::empty(client, n_edges);
        let (count, dim) = units(client, n_spots);
        // SAFETY: a unit reads and writes what belongs to its own spot's edges; these name spots, each of which has products.
        unsafe {
            scores_backward::launch_unchecked::<R>(
                client,
                count,
                dim,
                adjacency.starts.array(),
                adjacency.sources.array(),
                products.array(),
                weights.array(),
                gradient.array(),
                for_scores.array(),
                n_spots,
            );
        }
        let (count, dim) = units(client, n_spots);
        // SAFETY: a unit writes its own spot's two sums; both kinds of lists name edges that are there.
        unsafe {
            scores_by_spot::launch_unchecked::<R>(
                client,
                count,
                dim,
                adjacency.starts.array(),
                adjacency.back_starts.array(),
                adjacency.back_edges.array(),
                for_scores.array(),
                by_spot.array(),
                n_spots,
            );
        }
    }
    if !for_rows.is_empty() {
        let size = vector_size(client, d);
        let (count, dim) = units(client, for_rows.len() / size);
        // SAFETY: a unit writes its own element; each spot has two sums, and `check` has compared the vectors.
        unsafe {
            rows_backward::launch_unchecked::<R>(
                client,
                count,
                dim,
                size,
                by_spot.array(),
                vectors.source.array(),
                vectors.target.array(),
                for_rows.array(),
                d / size,
            );
        }
    }
    let [source, target] = vectors_backward(client, rows, &by_spot, d);
    WeightGradients { rows: for_rows, source, target }
}

fn check(adjacency: &Adjacency, rows: &Buffer<f32>, vectors: &AttentionVectors<'_>) {
    let d = vectors.source.len();
    assert_eq!(vectors.target.len(), d, "elements of the vectors");
    assert_eq!(rows.len(), adjacency.n_spots() * d, "elements of rows");
    assert_eq!(vectors.kept.0.len(), adjacency.n_edges(), "choice among edges");
}

#[cube]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + f32::exp(-x))
}

#[cube(launch_unchecked)]
fn products_of_rows<N: Size>(
    rows: &Array<Vector<f32, N>>,
    source: &Array<Vector<f32, N>>,
    target: &Array<Vector<f32, N>>,
    products: &mut Array<f32>,
    vectors: usize,
) {
    let spot = group();
    let is_there = 2 * spot < products.len();
    // Beyond the last spot that one is read again, so that all units come by.
    let own = min(spot, products.len() / 2 - 1);
    let as_source = dot::<N>(rows, own * vectors, source, 0, vectors);
    let as_target = dot::<N>(rows, own * vectors, target, 0, vectors);
    if is_there && UNIT_POS_X == 0 {
        products[2 * spot] = as_source;
        products[2 * spot + 1] = as_target;
    }
}

/// A unit is a spot.
#[cube(launch_unchecked)]
fn softmax_by_spot(
    starts: &Array<u32>,
    sources: &Array<u32>,
    kept: &Array<u32>,
    products: &Array<f32>,
    weights: &mut Array<f32>,
    n_spots: usize,
) {
    let spot = ABSOLUTE_POS;
    if spot < n_spots {
        let (start, end) = (starts[spot], starts[spot + 1]);
        let as_target = products[2 * spot + 1];
        let mut sum = 0.0_f32;
        for edge in start..end {
            let edge = edge as usize;
            // Between 0 and 1: no maximum need be taken off before the exponential.
            let score = sigmoid(products[2 * sources[edge] as usize] + as_target);
            let weight = select(kept[edge] == 1, f32::exp(score), 0.0);
            weights[edge] = weight;
            sum += weight;
        }
        // Where no edge counts, nothing is divided by nothing.
        let scale = select(sum > 0.0, 1.0 / sum, 0.0);
        for edge in start..end {
            weights[edge as usize] *= scale;
        }
    }
}

/// A unit is a spot.
#[cube(launch_unchecked)]
fn scores_backward(
    starts: &Array<u32>,
    sources: &Array<u32>,
    products: &Array<f32>,
    weights: &Array<f32>,
    gradient: &Array<f32>,
    for_scores: &mut Array<f32>,
    n_spots: usize,
) {
    let spot = ABSOLUTE_POS;
    if spot < n_spots {
        let (start, end) = (starts[spot], starts[spot + 1]);
        let as_target = products[2 * spot + 1];
        let mut mean = 0.0_f32;
        for edge in start..end {
            mean += weights[edge as usize] * gradient[edge as usize];
        }
        for edge in start..end {
            let edge = edge as usize;
            let open = sigmoid(products[2 * sources[edge] as usize] + as_target);
            for_scores[edge] = weights[edge] * (gradient[edge] - mean) * open * (1.0 - open);
        }
    }
}

/// A unit is a spot: the gradients of its two products.
#[cube(launch_unchecked)]
fn scores_by_spot(
    starts: &Array<u32>,
    back_starts: &Array<u32>,
    back_edges: &Array<u32>,
    for_scores: &Array<f32>,
    by_spot: &mut Array<f32>,
    n_spots: usize,
) {
    let spot = ABSOLUTE_POS;
    if spot < n_spots {
        let mut as_target = 0.0_f32;
        for edge in starts[spot]..starts[spot + 1] {
            as_target += for_scores[edge as usize];
        }
        let mut as_source = 0.0_f32;
        for entry in back_starts[spot]..back_starts[spot + 1] {
            as_source += for_scores[back_edges[entry as usize] as usize];
        }
        by_spot[2 * spot] = as_source;
        by_spot[2 * spot + 1] = as_target;
    }
}

/// A unit is a vector of a row.
#[cube(launch_unchecked)]
fn rows_backward<N: Size>(
    by_spot: &Array<f32>,
    source: &Array<Vector<f32, N>>,
    target: &Array<Vector<f32, N>>,
    for_rows: &mut Array<Vector<f32, N>>,
    vectors: usize,
) {
    if ABSOLUTE_POS < for_rows.len() {
        let (spot, at) = (ABSOLUTE_POS / vectors, ABSOLUTE_POS % vectors);
        for_rows[ABSOLUTE_POS] =
            Vector::new(by_spot[2 * spot]) * source[at] + Vector::new(by_spot[2 * spot + 1]) * target[at];
    }
}

/// Spots of a part of a sum over all spots, at least.
const SPOTS: usize = 32;
/// Parts of a sum over all spots, at most: the second pass adds them one after the other.
const PARTS: usize = 256;

/// The gradients of both vectors: sums over parts of the spots, then over the parts.
fn vectors_backward<R: Runtime>(
    client: &ComputeClient<R>,
    rows: &Buffer<f32>,
    by_spot: &Buffer<f32>,
    d: usize,
) -> [Buffer<f32>; 2] {
    let n_spots = by_spot.len() / 2;
    let per_part = n_spots.div_ceil(PARTS).max(SPOTS);
    let n_parts = n_spots.div_ceil(per_part);
    let parts: [Buffer<f32>; 2] = std::array::from_fn(|_| Buffer::empty(client, n_parts * d));
    let sums: [Buffer<f32>; 2] = std::array::from_fn(|_| Buffer::empty(client, d));
    if d == 0 {
        return sums;
    }
    let size = vector_size(client, d);
    if n_parts > 0 {
        let (count, dim) = units(client, n_parts * d / size);
        // SAFETY: a unit writes its own element of both buffers and reads rows of its part's spots, which the kernel ends at
        // the last.
        unsafe {
            sums_by_part::launch_unchecked::<R>(
                client,
                count,
                dim,
                size,
                rows.array(),
                by_spot.array(),
                parts[0].array(),
                parts[1].array(),
                d / size,
                per_part,
                n_spots,
            );
        }
    }
    for (parts, sum) in parts.iter().zip(&sums) {
        let (count, dim) = units(client, d / size);
        // SAFETY: a unit writes its own element of the sum, of which each part has one.
        unsafe {
            sum_of_parts::launch_unchecked::<R>(
                client,
                count,
                dim,
                size,
                parts.array(),
                sum.array(),
                n_parts,
            );
        }
    }
    sums
}

/// A unit is a vector of a part of both sums.
#[cube(launch_unchecked)]
fn sums_by_part<N: Size>(
    rows: &Array<Vector<f32, N>>,
    by_spot: &Array<f32>,
    for_source: &mut Array<Vector<f32, N>>,
    for_target: &mut Array<Vector<f32, N>>,
    vectors: usize,
    per_part: usize,
    n_spots: usize,
) {
    if ABSOLUTE_POS < for_source.len() {
        let (part, at) = (ABSOLUTE_POS / vectors, ABSOLUTE_POS % vectors);
        let first = part * per_part;
        let end = min(first + per_part, n_spots);
        let mut as_source = Vector::<f32, N>::new(0.0);
        let mut as_target = Vector::<f32, N>::new(0.0);
        for spot in first..end {
            let row = rows[spot * vectors + at];
            as_source += Vector::new(by_spot[2 * spot]) * row;
            as_target += Vector::new(by_spot[2 * spot + 1]) * row;
        }
        for_source[ABSOLUTE_POS] = as_source;
        for_target[ABSOLUTE_POS] = as_target;
    }
}

/// A unit is a vector of the sum.
#[cube(launch_unchecked)]
fn sum_of_parts<N: Size>(parts: &Array<Vector<f32, N>>, sum: &mut Array<Vector<f32, N>>, n_parts: usize) {
    let vectors = sum.len();
    if ABSOLUTE_POS < vectors {
        let mut own = Vector::<f32, N>::new(0.0);
        for part in 0..n_parts {
            own += parts[part * vectors + ABSOLUTE_POS];
        }
        sum[ABSOLUTE_POS] = own;
    }
}
