//! The forward pass: each query has an owner.

use cubecl::prelude::*;

use super::{
    AttentionInput, LOWEST, Plan, Sizes, denominator, fill_part, owned_row, place, query_vector, tensor,
    vector_of,
};
use crate::dropout::{Drawn, RowState, kept, pair_bits, row_state, stream_key, wide};
use crate::memory::{Floats, argument, f32_storage};
use crate::tile::{Four, Stored, add_multiple, load, product, store, zeros};

/// Keys whose scores are taken together, between two looks at the highest.
const KEYS: usize = 8;

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
    if tensor::serves(client, input) {
        return tensor::attention_forward(client, input);
    }
    let plan = input.plan(client, input.query_rows.padded, 2);
    let storage = input.queries.storage;
    let output = Floats::empty(client, input.n_outputs(), storage);
    let log_sum_exp = Floats::empty(client, input.n_denominators(), f32_storage());
    let [gene_rows, expression, slopes] = input.gene_arguments();
    // SAFETY: every argument's size was checked against its memory, and the kernel stays within these sizes.
    unsafe {
        forward_kernel::launch_unchecked::<R>(
            client,
            input.grid(client, input.query_rows.padded, &plan),
            CubeDim::new_1d(plan.units),
            input.queries.argument(input.n_queries()),
            input.keys.argument(input.n_key_floats()),
            input.values.argument(input.n_key_floats()),
            gene_rows,
            expression,
            slopes,
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
    gene_rows: &Array<u32>,
    expression: &Array<f32>,
    slopes: &Array<Stored<F>>,
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
    let (columns, owned) = comptime!((plan.columns, plan.owned));
    let tile = comptime!(plan.units as usize);
    let place = place(plan);
    let n_queries = query_lengths[place.cell] as usize;
    let n_keys = key_lengths[place.cell] as usize;
    let stream = stream_key(seed, wide(place.cell as u32), wide(place.head as u32));
    let mut query = zeros(comptime!(owned * columns));
    let mut offsets = Array::<u32>::new(owned);
    let mut multipliers = Array::<u32>::new(owned);
    let mut references = Array::<f32>::new(owned);
    let mut sums = Array::<f32>::new(owned);
    #[unroll]
    for own in 0..owned {
        let row = owned_row(place, own, plan);
        let source = query_vector(place, sizes, row, plan);
        load::<F>(&mut query, own, queries, source, row < n_queries, sizes.inverse_root, columns);
        let state = row_state(stream, row as u32);
        offsets[own] = state.offset;
        multipliers[own] = state.multiplier;
        references[own] = f32::new(comptime!(LOWEST));
        sums[own] = 0.0f32;
    }

    let mut key_tile = SharedMemory::<Four>::new(comptime!(tile * columns));
    let mut value_tile = SharedMemory::<Four>::new(comptime!(tile * columns));
    let mut gathered = zeros(comptime!(owned * columns));
    // A workgroup whose queries are all padding reads nothing.
    let n_read = select(place.first < n_queries, n_keys, 0usize);
    for first in range_stepped(0usize, n_read, tile) {
        let n = (n_keys - first).min(tile);
        sync_cube();
        fill_part::<F>(
            keys,
            gene_rows,
            expression,
            slopes,
            &mut key_tile,
            place,
            sizes.keys,
            first,
            n,
            0usize,
            plan,
        );
        fill_part::<F>(
            values,
            gene_rows,
            expression,
            slopes,
            &mut value_tile,
            place,
            sizes.keys,
            first,
            n,
            1usize,
            plan,
        );
        sync_cube();
        for next in range_stepped(0usize, n, KEYS) {
            let mut scores = Array::<f32>::new(comptime!(KEYS * owned));
            #[unroll]
            for own in 0..owned {
                let mut highest = references[own];
                #[unroll]
                for key in 0..KEYS {
                    let position = next + key;
                    let score = product(&query, own, &key_tile, position * columns, columns);
                    let score = select(position < n, score, f32::new(comptime!(LOWEST)));
                    scores[comptime!(own * KEYS + key)] = score;
                    highest = highest.max(score);
                }
                let fade = (references[own] - highest).exp();
                references[own] = highest;
                sums[own] *= fade;
                #[unroll]
                for column in 0..columns {
                    let element = comptime!(own * columns + column);
                    gathered[element] = gathered[element] * Four::new(fade);
                }
            }
            #[unroll]
            for pair in 0..comptime!(KEYS / 2) {
                #[unroll]
                for own in 0..owned {
                    let mut bits = 0u32;
                    if comptime!(plan.dropping) {
                        let state = RowState { offset: offsets[own], multiplier: multipliers[own] };
                        bits = pair_bits(state, (first + next) as u32 / 2u32 + pair as u32);
                    }
                    #[unroll]
                    for half in 0..2usize {
                        let key = comptime!(2 * pair + half);
                        let mut weight = (scores[comptime!(own * KEYS + key)] - references[own]).exp();
                        sums[own] += weight;
                        if comptime!(plan.dropping) {
                            weight = kept(drawn, bits, comptime!(half as u32), weight);
                        }
                        add_multiple(
                            &mut gathered,
                            own,
                            weight,
                            &value_tile,
                            (next + key) * columns,
                            columns,
                        );
                    }
                }
            }
        }
    }

    #[unroll]
    for own in 0..owned {
        let row = owned_row(place, own, plan);
        if row < sizes.queries as usize {
            let mut scale = 0.0f32;
            let mut logarithm = 0.0f32;
            if row < n_queries {
                scale = drawn.scale / sums[own];
                logarithm = references[own] + sums[own].ln();
            }
            let target = vector_of(place, sizes.queries, row, plan);
            store::<F>(&gathered, own, scale, output, target, columns);
            log_sum_exp[denominator(place, sizes, row)] = logarithm;
        }
    }
}
