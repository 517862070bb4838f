//! Sums of the rows that lists name.

use cubecl::prelude::*;

use super::{units, vector_size};
use crate::buffer::Buffer;

/// Lists of rows, each row with its weight.
#[derive(Debug, Clone, Copy)]
pub(super) struct WeightedLists<'a> {
    /// Where each list begins, and where the last ends: [lists + 1].
    pub(super) starts: &'a Buffer<u32>,
    /// The rows they name: `[entries]`.
    pub(super) rows: &'a Buffer<u32>,
    /// Where an entry's weight stands, if not at the entry's own place: `[entries]`.
    pub(super) places: Option<&'a Buffer<u32>>,
    /// `[entries]`
    pub(super) weights: &'a Buffer<f32>,
}

/// Of each list, the sum of its rows times their weights.
///
/// - rows: [rows, width], all that lists name
/// - elu: whether the sums go through ELU: x above 0 and `exp(x) - 1` below
/// - output: [lists, width]
pub(super) fn weighted_sums<R: Runtime>(
    client: &ComputeClient<R>,
    lists: WeightedLists<'_>,
    rows: &Buffer<f32>,
    width: usize,
    elu: bool,
) -> Buffer<f32> {
    assert_eq!(lists.weights.len(), lists.rows.len(), "weights of lists");
    let output = Buffer::empty(client, (lists.starts.len() - 1) * width);
    if output.is_empty() {
        return output;
    }
    let size = vector_size(client, width);
    let (count, dim) = units(client, output.len() / size);
    // SAFETY: a unit writes its own element, which is there. Lists begin and end within their entries, and these name rows
    // and places that are there: the types of `cellpatch_kernels` from which they are copied have checked it, and callers
    // compare the number of rows.
    unsafe {
        sums_of_lists::launch_unchecked::<R>(
            client,
            count,
            dim,
            size,
            lists.starts.array(),
            lists.rows.array(),
            lists.places.unwrap_or(lists.rows).array(),
            lists.weights.array(),
            rows.array(),
            output.array(),
            width / size,
            lists.places.is_some(),
            elu,
        );
    }
    output
}

/// A unit is a vector of a list's sum: neighbouring units read neighbouring numbers of the same rows.
#[cube(launch_unchecked)]
fn sums_of_lists<N: Size>(
    starts: &Array<u32>,
    named: &Array<u32>,
    places: &Array<u32>,
    weights: &Array<f32>,
    rows: &Array<Vector<f32, N>>,
    output: &mut Array<Vector<f32, N>>,
    vectors: usize,
    #[comptime] placed: bool,
    #[comptime] elu: bool,
) {
    if ABSOLUTE_POS < output.len() {
        let (list, at) = (ABSOLUTE_POS / vectors, ABSOLUTE_POS % vectors);
        let mut sum = Vector::<f32, N>::new(0.0);
        for entry in starts[list]..starts[list + 1] {
            let entry = entry as usize;
            let weight = if placed { weights[places[entry] as usize] } else { weights[entry] };
            sum += Vector::new(weight) * rows[named[entry] as usize * vectors + at];
        }
        if elu {
            let zero = Vector::<f32, N>::new(0.0);
            sum = max(sum, zero) + Vector::exp(min(sum, zero)) - Vector::new(1.0);
        }
        output[ABSOLUTE_POS] = sum;
    }
}
