//! The forward pass: one query a unit.

use cubecl::prelude::*;

use super::{AttentionInput, Plan, Sizes, denominator, place, query_vector, vector_of};
use crate::dropout::{Drawn, kept, pair_bits, row_state, stream_key, wide};
use crate::memory::{Floats, argument, f32_storage};
use crate::tile::{Four, Stored, add_multiple, fill, load, product, store, zeros};

/// Keys whose scores are taken together, between two looks at the highest.
const KEYS: usize = 8;

/// Below every score, and finite, because not every shading language knows infinity.
const LOWEST: f32 = -1.0e30;

/// What attention gathered.
#[derive(Debug, Clone)]
pub struct AttentionOutput {
    /// [cells, queries, width], 0 at padding.
    pub output: Floats,
    /// Natural logarithm of each softmax's denominator, for the backward pass: [cells, heads, queries], `f32`.
    pub log_sum_exp: Floats,
}

/// `softmax(Q K^T / sqrt(width / heads)) V` for each head of each cell.
///
/// # Panics
/// When there is [no kernel](super::serves) for the head's width, memory is smaller than stated, or there are more cells or tiles
/// of rows than the device has workgroups.
pub fn attention_forward<R: Runtime>(
    client: &ComputeClient<R>,
    input: &AttentionInput<'_>,
) -> AttentionOutput {
    let plan = input.plan(client);
    let storage = input.queries.storage;
    let output = Floats::empty(client, input.n_outputs(), storage);
    let log_sum_exp = Floats::empty(client, input.n_denominators(), f32_storage());
    // SAFETY: every argument's size was checked against its memory, and the kernel stays within these sizes.
    unsafe {
        forward_kernel::launch_unchecked::<R>(
            client,
            input.grid(client, input.query_rows.padded, &plan),
            CubeDim::new_1d(plan.units),
            input.queries.argument(input.n_queries()),
            input.keys.argument(input.n_keys()),
            input.values.argument(input.n_keys()),
            argument(&input.query_rows.lengths, input.n_cells, size_of::<u32>()),
            argument(&input.key_rows.lengths, input.n_cells, size_of::<u32>()),
            input.seed.argument(),
            output.argument(input.n_outputs()),
            log_sum_exp.argument(input.n_denominators()),
            input.sizes(),
            input.dropout().argument(),
            plan,
            storage,
        );
    }
    AttentionOutput { output, log_sum_exp }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "a kernel's bindings")]
fn forward_kernel<F: Float>(
    queries: &Array<Stored<F>>,
    keys: &Array<Stored<F>>,
    values: &Array<Stored<F>>,
    query_lengths: &Array<u32>,
    key_lengths: &Array<u32>,
    seed: &Array<u32>,
    output: &mut Array<Stored<F>>,
    log_sum_exp: &mut Array<f32>,
    sizes: &Sizes,
    drawn: &Drawn,
    #[comptime] plan: Plan,
    #[define(F)] _storage: StorageType,
) {
    let columns = comptime!(plan.columns);
    let tile = comptime!(plan.units as usize);
    let place = place(plan);
    let n_queries = query_lengths[place.cell] as usize;
    let n_keys = key_lengths[place.cell] as usize;
    let real = place.row < n_queries;
    let query =
        load::<F>(queries, query_vector(place, sizes, place.row, plan), real, sizes.inverse_root, columns);
    let stream = stream_key(seed, wide(place.cell as u32), wide(place.head as u32));
    let state = row_state(stream, place.row as u32);

    let mut key_tile = SharedMemory::<Four>::new(comptime!(tile * columns));
    let mut value_tile = SharedMemory::<Four>::new(comptime!(tile * columns));
    let mut gathered = zeros(columns);
    let mut reference = f32::new(comptime!(LOWEST));
    let mut sum = 0.0f32;
    // A tile of queries that are all padding reads nothing.
    let n_read = select(place.first < n_queries, n_keys, 0usize);
    for first in range_stepped(0usize, n_read, tile) {
        let n = (n_keys - first).min(tile);
        let source = vector_of(place, sizes.keys, first, plan);
        sync_cube();
        fill::<F>(keys, &mut key_tile, source, n, comptime!(plan.width), columns, tile);
        fill::<F>(values, &mut value_tile, source, n, comptime!(plan.width), columns, tile);
        sync_cube();
        for next in range_stepped(0usize, n, KEYS) {
            let mut scores = Array::<f32>::new(KEYS);
            let mut highest = reference;
            #[unroll]
            for key in 0..KEYS {
                let position = next + key;
                let score = product(&query, &key_tile, position * columns, columns);
                scores[key] = select(position < n, score, f32::new(comptime!(LOWEST)));
                highest = highest.max(scores[key]);
            }
            let fade = (reference - highest).exp();
            reference = highest;
            sum *= fade;
            #[unroll]
            for column in 0..columns {
                gathered[column] = gathered[column] * Four::new(fade);
            }
            #[unroll]
            for pair in 0..comptime!(KEYS / 2) {
                let mut bits = 0u32;
                if comptime!(plan.dropping) {
                    bits = pair_bits(state, (first + next) as u32 / 2u32 + pair as u32);
                }
                #[unroll]
                for half in 0..2usize {
                    let key = comptime!(2 * pair + half);
                    let mut weight = (scores[key] - reference).exp();
                    sum += weight;
                    if comptime!(plan.dropping) {
                        weight = kept(drawn, bits, comptime!(half as u32), weight);
                    }
                    add_multiple(&mut gathered, weight, &value_tile, (next + key) * columns, columns);
                }
            }
        }
    }

    if place.row < sizes.queries as usize {
        let mut scale = 0.0f32;
        let mut logarithm = 0.0f32;
        if real {
            scale = drawn.scale / sum;
            logarithm = reference + sum.ln();
        }
        let target = vector_of(place, sizes.queries, place.row, plan);
        store::<F>(&gathered, scale, output, target, columns);
        log_sum_exp[denominator(place, sizes, place.row)] = logarithm;
    }
}
