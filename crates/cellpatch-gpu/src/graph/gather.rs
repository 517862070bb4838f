//! What spots gather from their neighbours.

use cubecl::prelude::*;

use super::lanes::{dot, group, groups};
use super::lists::{WeightedLists, weighted_sums};
use super::{Adjacency, units, vector_size};
use crate::buffer::Buffer;

/// Gradients of [`gather`].
#[derive(Debug, Clone)]
pub struct GatherGradients {
    /// [spots, d]
    pub rows: Buffer<f32>,
    /// `[edges]`
    pub weights: Buffer<f32>,
}

/// `ELU(sum over neighbours j of weight_ij rows_j)`, ELU being x above 0 and `exp(x) - 1` below (`torch.nn.functional.elu`).
///
/// - rows: [spots, d]
/// - weights: `[edges]`
/// - output: [spots, d]
///
/// # Panics
///
/// If there are not as many elements.
pub fn gather<R: Runtime>(
    client: &ComputeClient<R>,
    adjacency: &Adjacency,
    rows: &Buffer<f32>,
    weights: &Buffer<f32>,
    d: usize,
) -> Buffer<f32> {
    assert_eq!(rows.len(), adjacency.n_spots() * d, "elements of rows");
    let Adjacency { starts, sources, .. } = adjacency;
    let lists = WeightedLists { starts, rows: sources, places: None, weights };
    weighted_sums(client, lists, rows, d, true)
}

/// - output: of the forward pass, [spots, d]
/// - gradient: of it
///
/// # Panics
///
/// If there are not as many elements.
pub fn gather_backward<R: Runtime>(
    client: &ComputeClient<R>,
    adjacency: &Adjacency,
    rows: &Buffer<f32>,
    weights: &Buffer<f32>,
    (output, gradient): (&Buffer<f32>, &Buffer<f32>),
    d: usize,
) -> GatherGradients {
    for buffer in [rows, output, gradient] {
        assert_eq!(buffer.len(), adjacency.n_spots() * d, "elements of rows");
    }
    let for_sums = elu_backward(client, output, gradient, d);
    let Adjacency { back_starts, back_targets, back_edges, .. } = adjacency;
    let readers =
        WeightedLists { starts: back_starts, rows: back_targets, places: Some(back_edges), weights };
    GatherGradients {
        rows: weighted_sums(client, readers, &for_sums, d, false),
        weights: products_by_edge(client, adjacency, &for_sums, rows, d),
    }
}

fn elu_backward<R: Runtime>(
    client: &ComputeClient<R>,
    output: &Buffer<f32>,
    gradient: &Buffer<f32>,
    d: usize,
) -> Buffer<f32> {
    let for_sums = Buffer::empty(client, gradient.len());
    if for_sums.is_empty() {
        return for_sums;
    }
    let size = vector_size(client, d);
    let (count, dim) = units(client, for_sums.len() / size);
    // SAFETY: a unit reads and writes its own element, and all buffers have as many: the caller compares.
    unsafe {
        slopes_of_elu::launch_unchecked::<R>(
            client,
            count,
            dim,
            size,
            output.array(),
            gradient.array(),
            for_sums.array(),
        );
    }
    for_sums
}

/// ELU's slope is 1 above 0 and its value plus 1 below.
#[cube(launch_unchecked)]
fn slopes_of_elu<N: Size>(
    output: &Array<Vector<f32, N>>,
    gradient: &Array<Vector<f32, N>>,
    for_sums: &mut Array<Vector<f32, N>>,
) {
    if ABSOLUTE_POS < for_sums.len() {
        let below = min(output[ABSOLUTE_POS], Vector::new(0.0));
        for_sums[ABSOLUTE_POS] = gradient[ABSOLUTE_POS] * (below + Vector::new(1.0));
    }
}

/// Of each edge, the product of the reading spot's row and the other's row that it reads.
fn products_by_edge<R: Runtime>(
    client: &ComputeClient<R>,
    adjacency: &Adjacency,
    reading: &Buffer<f32>,
    read: &Buffer<f32>,
    d: usize,
) -> Buffer<f32> {
    let output = Buffer::empty(client, adjacency.n_edges());
    if output.is_empty() {
        return output;
    }
    let size = vector_size(client, d);
    let (count, dim) = groups(client, output.len());
    // SAFETY: edges name spots, and both buffers hold a row of each: the caller compares. A group beyond the edges reads and
    // writes nothing.
    unsafe {
        dots_by_edge::launch_unchecked::<R>(
            client,
            count,
            dim,
            size,
            adjacency.targets.array(),
            adjacency.sources.array(),
            reading.array(),
            read.array(),
            output.array(),
            d / size,
        );
    }
    output
}

#[cube(launch_unchecked)]
fn dots_by_edge<N: Size>(
    targets: &Array<u32>,
    sources: &Array<u32>,
    reading: &Array<Vector<f32, N>>,
    read: &Array<Vector<f32, N>>,
    output: &mut Array<f32>,
    vectors: usize,
) {
    let edge = group();
    let is_there = edge < output.len();
    // Beyond the last edge that one is read again, so that all units come by.
    let own = min(edge, output.len() - 1);
    let (target, source) = (targets[own] as usize, sources[own] as usize);
    let product = dot::<N>(reading, target * vectors, read, source * vectors, vectors);
    if is_there && UNIT_POS_X == 0 {
        output[edge] = product;
    }
}
