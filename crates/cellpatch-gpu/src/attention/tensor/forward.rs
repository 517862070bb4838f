//! The forward pass: each plane owns 16 queries.

use cubecl::prelude::*;

use super::tile::{Kept, columns, fill_slots, tile, transposed_rows};
use super::{
    BLOCK, Pair, Plan, TILE, Wide2, add_product, grid, lane, left_factor, nothing, pair, pair_of, place,
    query_pair, sum_of_row, units,
};
use crate::attention::{AttentionInput, AttentionOutput, LOWEST, Sizes, denominator};
use crate::dropout::{Drawn, RowState, kept, pair_bits, row_state, stream_key, wide};
use crate::memory::{Floats, argument, f32_storage};

pub(in crate::attention) fn attention_forward<R: Runtime>(
    client: &ComputeClient<R>,
    input: &AttentionInput<'_>,
) -> AttentionOutput {
    let storage = input.queries.storage;
    let output = Floats::empty(client, input.n_outputs(), storage);
    let log_sum_exp = Floats::empty(client, input.n_denominators(), f32_storage());
    let [gene_rows, expression, slopes] = input.gene_arguments();
    // SAFETY: every argument's size was checked against its memory, and the kernel stays within these sizes.
    unsafe {
        tensor_forward_kernel::launch_unchecked::<R>(
            client,
            grid(client, input, input.query_rows.padded),
            units(),
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
            Plan::new(input),
            storage,
        );
    }
    AttentionOutput { output, log_sum_exp }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "a kernel's bindings")]
fn tensor_forward_kernel<F: Float>(
    queries: &Array<Pair<F>>,
    keys: &Array<Pair<F>>,
    values: &Array<Pair<F>>,
    gene_rows: &Array<u32>,
    expression: &Array<f32>,
    slopes: &Array<Pair<F>>,
    query_lengths: &Array<u32>,
    key_lengths: &Array<u32>,
    seed: &Array<u32>,
    output: &mut Array<Pair<F>>,
    log_sum_exp: &mut Array<f32>,
    sizes: &Sizes,
    drawn: &Drawn,
    #[comptime] plan: Plan,
    #[define(F)] _storage: StorageType,
) {
    let place = place();
    let lane = lane(place);
    let (group, member) = (lane.group, lane.member);
    let n_queries = query_lengths[place.cell] as usize;
    let n_keys = key_lengths[place.cell] as usize;
    let stream = stream_key(seed, wide(place.cell as u32), wide(place.head as u32));
    let query = left_factor::<F>(
        queries,
        lane,
        query_pair(place, sizes, lane.row, plan),
        query_pair(place, sizes, lane.row + 8usize, plan),
        n_queries,
    );
    let mut offsets = Array::<u32>::new(2usize);
    let mut multipliers = Array::<u32>::new(2usize);
    let mut references = Array::<f32>::new(2usize);
    let mut sums = Array::<f32>::new(2usize);
    #[unroll]
    for row in 0..2usize {
        let state = row_state(stream, (lane.row + comptime!(row * 8)) as u32);
        offsets[row] = state.offset;
        multipliers[row] = state.multiplier;
        references[row] = f32::new(comptime!(LOWEST));
        sums[row] = 0.0f32;
    }

    let mut key_tile = tile::<F>(comptime!(Kept { rows: true, columns: false }));
    let mut value_tile = tile::<F>(comptime!(Kept { rows: false, columns: true }));
    let mut gathered = Sequence::<Array<Wide2>>::new();
    #[unroll]
    for _half in 0..2usize {
        gathered.push(nothing());
    }
    // A workgroup whose queries are all padding reads nothing.
    let n_read = select(place.first < n_queries, n_keys, 0usize);
    for first in range_stepped(0usize, n_read, TILE) {
        let n = (n_keys - first).min(TILE);
        sync_cube();
        fill_slots::<F>(
            &mut key_tile,
            keys,
            gene_rows,
            expression,
            slopes,
            place,
            sizes.keys,
            first,
            n,
            0usize,
            plan,
        );
        fill_slots::<F>(
            &mut value_tile,
            values,
            gene_rows,
            expression,
            slopes,
            place,
            sizes.keys,
            first,
            n,
            1usize,
            plan,
        );
        sync_cube();
        let mut scores = Array::<f32>::new(comptime!(TILE / BLOCK * 4));
        let mut highest = Array::<f32>::new(2usize);
        #[unroll]
        for row in 0..2usize {
            highest[row] = references[row];
        }
        #[unroll]
        for block in 0..comptime!(TILE / BLOCK) {
            let mut products = nothing();
            add_product::<F>(&query, &transposed_rows::<F>(&key_tile, group, member, block), &mut products);
            #[unroll]
            for row in 0..2usize {
                #[unroll]
                for half in 0..2usize {
                    let real = comptime!(block * BLOCK + half) + 2usize * member < n;
                    let product = products[row][half] * sizes.inverse_root;
                    let score = select(real, product, f32::new(comptime!(LOWEST)));
                    scores[comptime!(block * 4 + row * 2 + half)] = score;
                    highest[row] = highest[row].max(score);
                }
            }
        }
        #[unroll]
        for row in 0..2usize {
            // Of all units that share the row.
            let both = highest[row].max(plane_shuffle_xor(highest[row], 1u32));
            let all = both.max(plane_shuffle_xor(both, 2u32));
            let fade = (references[row] - all).exp();
            references[row] = all;
            sums[row] *= fade;
            #[unroll]
            for half in 0..2usize {
                let gathered = gathered.index_mut(half);
                gathered[row] = gathered[row] * Wide2::new(fade);
            }
        }
        #[unroll]
        for step in 0..comptime!(TILE / 16) {
            let mut weights = Array::<Pair<F>>::new(4usize);
            #[unroll]
            for part in 0..4usize {
                let (row, block) = comptime!((part % 2, 2 * step + part / 2));
                let mut bits = 0u32;
                if comptime!(plan.dropping) {
                    let state = RowState { offset: offsets[row], multiplier: multipliers[row] };
                    bits = pair_bits(state, (first / 2usize + comptime!(block * 4) + member) as u32);
                }
                let mut both = Array::<f32>::new(2usize);
                #[unroll]
                for half in 0..2usize {
                    let score = scores[comptime!(block * 4 + row * 2 + half)];
                    let weight = (score - references[row]).exp();
                    sums[row] += weight;
                    let mut drawn_weight = weight;
                    if comptime!(plan.dropping) {
                        drawn_weight = kept(drawn, bits, comptime!(half as u32), weight);
                    }
                    both[half] = drawn_weight;
                }
                weights[part] = pair::<F>(both[0], both[1]);
            }
            #[unroll]
            for half in 0..2usize {
                let factor = columns::<F>(&value_tile, group, member, step, half);
                add_product::<F>(&weights, &factor, gathered.index_mut(half));
            }
        }
    }

    #[unroll]
    for row in 0..2usize {
        let own = lane.row + comptime!(row * 8);
        let sum = sum_of_row(sums[row]);
        if own < sizes.queries as usize {
            let mut scale = 0.0f32;
            let mut logarithm = 0.0f32;
            if own < n_queries {
                scale = drawn.scale / sum;
                logarithm = references[row] + sum.ln();
            }
            let target = pair_of(place, sizes.queries, own, plan);
            #[unroll]
            for half in 0..2usize {
                let numbers = gathered.index(half)[row] * Wide2::new(scale);
                output[target + comptime!(half * 4) + member] = pair::<F>(numbers[0], numbers[1]);
            }
            if member == 0usize {
                log_sum_exp[denominator(place, sizes, own)] = logarithm;
            }
        }
    }
}
