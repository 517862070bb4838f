//! The backward pass: one kernel where each plane owns 16 queries, and one where each owns 16 keys.

use cubecl::prelude::*;

use super::tile::{Kept, columns, fill_rows, fill_slots, slot_pair, tile, transposed_rows};
use super::{
    Pair, Plan, TILE, Wide2, add_product, grid, lane, left_factor, nothing, pair, pair_of, place, query_pair,
    sum_of_row, units,
};
use crate::attention::backward::Targets;
use crate::attention::{AttentionGradient, AttentionInput, Sizes, denominator};
use crate::dropout::{Drawn, RowState, kept, pair_bits, row_state, stream_key, wide};
use crate::memory::argument;

pub(in crate::attention) fn attention_backward<R: Runtime>(
    client: &ComputeClient<R>,
    input: &AttentionInput<'_>,
    gradient: &AttentionGradient<'_>,
    targets: &Targets<'_>,
) {
    let AttentionGradient { computed, for_output } = gradient;
    let storage = input.queries.storage;
    let [gene_rows, expression, slopes] = input.gene_arguments();
    // SAFETY: every argument's size was checked against its memory, and the kernel stays within these sizes.
    unsafe {
        tensor_queries_kernel::launch_unchecked::<R>(
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
            computed.output.argument(input.n_outputs()),
            for_output.argument(input.n_outputs()),
            computed.log_sum_exp.argument(input.n_denominators()),
            targets.delta.argument(input.n_denominators()),
            targets.for_queries.argument(input.n_outputs()),
            input.sizes(),
            input.dropout().argument(),
            Plan::new(input),
            storage,
            targets.for_queries.storage,
        );
    }
    let [gene_rows, expression, slopes] = input.gene_arguments();
    // SAFETY: as above.
    unsafe {
        tensor_keys_kernel::launch_unchecked::<R>(
            client,
            grid(client, input, input.key_rows.padded),
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
            for_output.argument(input.n_outputs()),
            computed.log_sum_exp.argument(input.n_denominators()),
            targets.delta.argument(input.n_denominators()),
            targets.for_keys.argument(input.n_keys()),
            targets.for_values.argument(input.n_keys()),
            input.sizes(),
            input.dropout().argument(),
            Plan::new(input),
            storage,
        );
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "a kernel's bindings")]
fn tensor_queries_kernel<F: Float, G: Float>(
    queries: &Array<Pair<F>>,
    keys: &Array<Pair<F>>,
    values: &Array<Pair<F>>,
    gene_rows: &Array<u32>,
    expression: &Array<f32>,
    slopes: &Array<Pair<F>>,
    query_lengths: &Array<u32>,
    key_lengths: &Array<u32>,
    seed: &Array<u32>,
    output: &Array<Pair<F>>,
    for_output: &Array<Pair<F>>,
    log_sum_exp: &Array<f32>,
    delta: &mut Array<f32>,
    for_queries: &mut Array<Pair<G>>,
    sizes: &Sizes,
    drawn: &Drawn,
    #[comptime] plan: Plan,
    #[define(F)] _storage: StorageType,
    #[define(G)] _gradient_storage: StorageType,
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
    let first_row = pair_of(place, sizes.queries, lane.row, plan);
    let second_row = pair_of(place, sizes.queries, lane.row + 8usize, plan);
    let gradient = left_factor::<F>(for_output, lane, first_row, second_row, n_queries);
    let result = left_factor::<F>(output, lane, first_row, second_row, n_queries);
    let mut offsets = Array::<u32>::new(2usize);
    let mut multipliers = Array::<u32>::new(2usize);
    let mut logarithms = Array::<f32>::new(2usize);
    let mut pulls = Array::<f32>::new(2usize);
    #[unroll]
    for row in 0..2usize {
        let own = lane.row + comptime!(row * 8);
        let state = row_state(stream, own as u32);
        offsets[row] = state.offset;
        multipliers[row] = state.multiplier;
        logarithms[row] = 0.0f32;
        if own < n_queries {
            logarithms[row] = log_sum_exp[denominator(place, sizes, own)];
        }
        let mut pull = 0.0f32;
        #[unroll]
        for half in 0..2usize {
            let part = comptime!(half * 2 + row);
            #[unroll]
            for number in 0..2usize {
                pull += f32::cast_from(gradient[part][number]) * f32::cast_from(result[part][number]);
            }
        }
        pulls[row] = sum_of_row(pull);
    }

    let mut key_tile = tile::<F>(comptime!(Kept { rows: true, columns: true }));
    let mut value_tile = tile::<F>(comptime!(Kept { rows: true, columns: false }));
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
        #[unroll]
        for step in 0..comptime!(TILE / 16) {
            let mut of_scores = Array::<Pair<F>>::new(4usize);
            #[unroll]
            for which in 0..2usize {
                let block = comptime!(2 * step + which);
                let mut products = nothing();
                add_product::<F>(
                    &query,
                    &transposed_rows::<F>(&key_tile, group, member, block),
                    &mut products,
                );
                let mut of_weights = nothing();
                let factor = transposed_rows::<F>(&value_tile, group, member, block);
                add_product::<F>(&gradient, &factor, &mut of_weights);
                #[unroll]
                for row in 0..2usize {
                    let mut bits = 0u32;
                    if comptime!(plan.dropping) {
                        let state = RowState { offset: offsets[row], multiplier: multipliers[row] };
                        bits = pair_bits(state, (first / 2usize + comptime!(block * 4) + member) as u32);
                    }
                    let mut both = Array::<f32>::new(2usize);
                    #[unroll]
                    for half in 0..2usize {
                        let real = comptime!(block * 8 + half) + 2usize * member < n;
                        let score = products[row][half] * sizes.inverse_root;
                        let weight = select(real, (score - logarithms[row]).exp(), 0.0f32);
                        let mut drawn_weight = weight;
                        if comptime!(plan.dropping) {
                            drawn_weight = kept(drawn, bits, comptime!(half as u32), weight) * drawn.scale;
                        }
                        both[half] = drawn_weight * of_weights[row][half] - weight * pulls[row];
                    }
                    of_scores[comptime!(which * 2 + row)] = pair::<F>(both[0], both[1]);
                }
            }
            #[unroll]
            for half in 0..2usize {
                let factor = columns::<F>(&key_tile, group, member, step, half);
                add_product::<F>(&of_scores, &factor, gathered.index_mut(half));
            }
        }
    }

    #[unroll]
    for row in 0..2usize {
        let own = lane.row + comptime!(row * 8);
        if own < sizes.queries as usize {
            let target = pair_of(place, sizes.queries, own, plan);
            #[unroll]
            for half in 0..2usize {
                let numbers = gathered.index(half)[row] * Wide2::new(sizes.inverse_root);
                for_queries[target + comptime!(half * 4) + member] = pair::<G>(numbers[0], numbers[1]);
            }
            if member == 0usize {
                delta[denominator(place, sizes, own)] = pulls[row];
            }
        }
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "a kernel's bindings")]
fn tensor_keys_kernel<F: Float>(
    queries: &Array<Pair<F>>,
    keys: &Array<Pair<F>>,
    values: &Array<Pair<F>>,
    gene_rows: &Array<u32>,
    expression: &Array<f32>,
    slopes: &Array<Pair<F>>,
    query_lengths: &Array<u32>,
    key_lengths: &Array<u32>,
    seed: &Array<u32>,
    for_output: &Array<Pair<F>>,
    log_sum_exp: &Array<f32>,
    delta: &Array<f32>,
    for_keys: &mut Array<Pair<F>>,
    for_values: &mut Array<Pair<F>>,
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
    let mut key = Array::<Pair<F>>::new(4usize);
    let mut value = Array::<Pair<F>>::new(4usize);
    #[unroll]
    for part in 0..4usize {
        let row = lane.row + comptime!(part % 2 * 8);
        let column = comptime!(part / 2 * 4) + member;
        let real = row < n_keys;
        key[part] = slot_pair::<F>(
            keys, gene_rows, expression, slopes, place, sizes.keys, row, column, real, 0usize, plan,
        );
        value[part] = slot_pair::<F>(
            values, gene_rows, expression, slopes, place, sizes.keys, row, column, real, 1usize, plan,
        );
    }
    // Rows that are 8 apart are even or odd alike.
    let parity = lane.row as u32 % 2u32;

    let mut query_tile = tile::<F>(comptime!(Kept { rows: true, columns: true }));
    let mut gradient_tile = tile::<F>(comptime!(Kept { rows: true, columns: true }));
    let mut logarithms = SharedMemory::<f32>::new(TILE);
    let mut pulls = SharedMemory::<f32>::new(TILE);
    let mut offsets = SharedMemory::<u32>::new(comptime!(if plan.dropping { TILE } else { 1 }));
    let mut multipliers = SharedMemory::<u32>::new(comptime!(if plan.dropping { TILE } else { 1 }));
    let mut for_key = Sequence::<Array<Wide2>>::new();
    let mut for_value = Sequence::<Array<Wide2>>::new();
    #[unroll]
    for _half in 0..2usize {
        for_key.push(nothing());
        for_value.push(nothing());
    }
    // A tile of keys that are all padding is read by nobody.
    let n_reading = select(place.first < n_keys, n_queries, 0usize);
    for first in range_stepped(0usize, n_reading, TILE) {
        let n = (n_queries - first).min(TILE);
        let unit = UNIT_POS as usize;
        sync_cube();
        fill_rows::<F>(&mut query_tile, queries, query_pair(place, sizes, first, plan), n, plan);
        let from = pair_of(place, sizes.queries, first, plan);
        fill_rows::<F>(&mut gradient_tile, for_output, from, n, plan);
        if unit < TILE {
            // Rows of 0 beyond the last query give nothing to any key.
            logarithms[unit] = 0.0f32;
            pulls[unit] = 0.0f32;
            if unit < n {
                let position = denominator(place, sizes, first + unit);
                logarithms[unit] = log_sum_exp[position];
                pulls[unit] = delta[position];
            }
            if comptime!(plan.dropping) {
                let state = row_state(stream, (first + unit) as u32);
                offsets[unit] = state.offset;
                multipliers[unit] = state.multiplier;
            }
        }
        sync_cube();
        #[unroll]
        for step in 0..comptime!(TILE / 16) {
            let mut weights = Array::<Pair<F>>::new(4usize);
            let mut of_scores = Array::<Pair<F>>::new(4usize);
            #[unroll]
            for which in 0..2usize {
                let block = comptime!(2 * step + which);
                let mut products = nothing();
                let factor = transposed_rows::<F>(&query_tile, group, member, block);
                add_product::<F>(&key, &factor, &mut products);
                let mut of_weights = nothing();
                let factor = transposed_rows::<F>(&gradient_tile, group, member, block);
                add_product::<F>(&value, &factor, &mut of_weights);
                #[unroll]
                for row in 0..2usize {
                    let mut drawn_weights = Array::<f32>::new(2usize);
                    let mut both = Array::<f32>::new(2usize);
                    #[unroll]
                    for half in 0..2usize {
                        let position = comptime!(block * 8 + half) + 2usize * member;
                        let score = products[row][half] * sizes.inverse_root;
                        let weight = (score - logarithms[position]).exp();
                        let mut drawn_weight = weight;
                        if comptime!(plan.dropping) {
                            let state =
                                RowState { offset: offsets[position], multiplier: multipliers[position] };
                            let own = (lane.row + comptime!(row * 8)) as u32;
                            let bits = pair_bits(state, own / 2u32);
                            drawn_weight = kept(drawn, bits, parity, weight) * drawn.scale;
                        }
                        drawn_weights[half] = drawn_weight;
                        both[half] = drawn_weight * of_weights[row][half] - weight * pulls[position];
                    }
                    weights[comptime!(which * 2 + row)] = pair::<F>(drawn_weights[0], drawn_weights[1]);
                    of_scores[comptime!(which * 2 + row)] = pair::<F>(both[0], both[1]);
                }
            }
            #[unroll]
            for half in 0..2usize {
                let factor = columns::<F>(&gradient_tile, group, member, step, half);
                add_product::<F>(&weights, &factor, for_value.index_mut(half));
                let factor = columns::<F>(&query_tile, group, member, step, half);
                add_product::<F>(&of_scores, &factor, for_key.index_mut(half));
            }
        }
    }

    #[unroll]
    for row in 0..2usize {
        let own = lane.row + comptime!(row * 8);
        if own < sizes.keys as usize {
            // A row beyond the cell's keys gathered what it must not keep.
            let wanted = select(own < n_keys, 1.0f32, 0.0f32);
            let target = pair_of(place, sizes.keys, own, plan);
            #[unroll]
            for half in 0..2usize {
                let numbers = for_key.index(half)[row] * Wide2::new(sizes.inverse_root * wanted);
                for_keys[target + comptime!(half * 4) + member] = pair::<F>(numbers[0], numbers[1]);
                let numbers = for_value.index(half)[row] * Wide2::new(wanted);
                for_values[target + comptime!(half * 4) + member] = pair::<F>(numbers[0], numbers[1]);
            }
        }
    }
}
