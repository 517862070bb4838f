//! The backward pass: one kernel for the gradient of queries, each with an owner, and one for those of keys and values, each with an
//! owner.

use cubecl::prelude::*;

use super::{
    AttentionInput, AttentionOutput, Plan, Sizes, denominator, fill_part, load_part, owned_row, place,
    query_vector, tensor, vector_of,
};
use crate::dropout::{Drawn, RowState, kept, pair_bits, row_state, stream_key, wide};
use crate::memory::{Floats, argument, f32_storage};
use crate::sum::{Columns, sum_of_columns};
use crate::tile::{Four, Stored, add_multiple, fill, lanes_sum, load, product, store, zeros};

/// Keys, or queries, that are worked on together so that one's arithmetic hides another's.
const TOGETHER: usize = 4;

/// What an attention's backward pass is given.
#[derive(Debug, Clone)]
pub struct AttentionGradient<'a> {
    /// From the forward pass.
    pub computed: &'a AttentionOutput,
    /// Gradient of the output: [cells, queries, width].
    pub for_output: &'a Floats,
}

/// The gradients of an attention's inputs, 0 at padding.
#[derive(Debug, Clone)]
pub struct AttentionGradients {
    /// In the shape of the queries.
    pub for_queries: Floats,
    /// [cells, keys, width], a row for each slot also where these hold genes.
    pub for_keys: Floats,
    /// [cells, keys, width]
    pub for_values: Floats,
}

/// Computes the gradients of queries, keys and values.
///
/// # Panics
/// As [`attention_forward`](super::attention_forward).
pub fn attention_backward<R: Runtime>(
    client: &ComputeClient<R>,
    input: &AttentionInput<'_>,
    gradient: &AttentionGradient<'_>,
) -> AttentionGradients {
    let storage = input.queries.storage;
    // Where all cells ask the same, each has a part of the queries' gradient.
    let for_queries_storage = if input.queries_are_shared { f32_storage() } else { storage };
    let for_queries = Floats::empty(client, input.n_outputs(), for_queries_storage);
    let delta = Floats::empty(client, input.n_denominators(), f32_storage());
    let [for_keys, for_values] = [0; 2].map(|_| Floats::empty(client, input.n_keys(), storage));
    let targets =
        Targets { delta: &delta, for_queries: &for_queries, for_keys: &for_keys, for_values: &for_values };
    if tensor::serves(client, input) {
        tensor::attention_backward(client, input, gradient, &targets);
    } else {
        by_units(client, input, gradient, &targets);
    }
    let for_queries = if input.queries_are_shared {
        let n = input.n_queries();
        let columns = Columns { stride: n, first: 0, n };
        sum_of_columns(client, &for_queries, input.n_cells, columns, storage)
    } else {
        for_queries
    };
    AttentionGradients { for_queries, for_keys, for_values }
}

/// What the backward pass fills.
pub(super) struct Targets<'a> {
    /// Of each query: the sum of the products of output and its gradient.
    pub(super) delta: &'a Floats,
    pub(super) for_queries: &'a Floats,
    pub(super) for_keys: &'a Floats,
    pub(super) for_values: &'a Floats,
}

fn by_units<R: Runtime>(
    client: &ComputeClient<R>,
    input: &AttentionInput<'_>,
    gradient: &AttentionGradient<'_>,
    targets: &Targets<'_>,
) {
    let plan = input.plan(client, input.query_rows.padded, 2);
    let storage = input.queries.storage;
    let AttentionGradient { computed, for_output } = gradient;
    let [gene_rows, expression, slopes] = input.gene_arguments();
    // SAFETY: every argument's size was checked against its memory, and the kernel stays within these sizes.
    unsafe {
        queries_kernel::launch_unchecked::<R>(
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
            computed.output.argument(input.n_outputs()),
            for_output.argument(input.n_outputs()),
            computed.log_sum_exp.argument(input.n_denominators()),
            targets.delta.argument(input.n_denominators()),
            targets.for_queries.argument(input.n_outputs()),
            input.sizes(),
            input.dropout().argument(),
            plan,
            storage,
            targets.for_queries.storage,
        );
    }
    let plan = input.plan(client, input.key_rows.padded, 1);
    let [gene_rows, expression, slopes] = input.gene_arguments();
    // SAFETY: as above.
    unsafe {
        keys_kernel::launch_unchecked::<R>(
            client,
            input.grid(client, input.key_rows.padded, &plan),
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
            for_output.argument(input.n_outputs()),
            computed.log_sum_exp.argument(input.n_denominators()),
            targets.delta.argument(input.n_denominators()),
            targets.for_keys.argument(input.n_keys()),
            targets.for_values.argument(input.n_keys()),
            input.sizes(),
            input.dropout().argument(),
            plan,
            storage,
        );
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "a kernel's bindings")]
fn queries_kernel<F: Float, G: Float>(
    queries: &Array<Stored<F>>,
    keys: &Array<Stored<F>>,
    values: &Array<Stored<F>>,
    gene_rows: &Array<u32>,
    expression: &Array<f32>,
    slopes: &Array<Stored<F>>,
    query_lengths: &Array<u32>,
    key_lengths: &Array<u32>,
    seed: &Array<u32>,
    output: &Array<Stored<F>>,
    for_output: &Array<Stored<F>>,
    log_sum_exp: &Array<f32>,
    delta: &mut Array<f32>,
    for_queries: &mut Array<Stored<G>>,
    sizes: &Sizes,
    drawn: &Drawn,
    #[comptime] plan: Plan,
    #[define(F)] _storage: StorageType,
    #[define(G)] _gradient_storage: StorageType,
) {
    let (columns, owned) = comptime!((plan.columns, plan.owned));
    let tile = comptime!(plan.units as usize);
    let place = place(plan);
    let n_queries = query_lengths[place.cell] as usize;
    let n_keys = key_lengths[place.cell] as usize;
    let stream = stream_key(seed, wide(place.cell as u32), wide(place.head as u32));
    let mut query = zeros(comptime!(owned * columns));
    let mut gradient = zeros(comptime!(owned * columns));
    let mut offsets = Array::<u32>::new(owned);
    let mut multipliers = Array::<u32>::new(owned);
    let mut logarithms = Array::<f32>::new(owned);
    let mut pulls = Array::<f32>::new(owned);
    #[unroll]
    for own in 0..owned {
        let row = owned_row(place, own, plan);
        let real = row < n_queries;
        let source = query_vector(place, sizes, row, plan);
        load::<F>(&mut query, own, queries, source, real, sizes.inverse_root, columns);
        let source = vector_of(place, sizes.queries, row, plan);
        load::<F>(&mut gradient, own, for_output, source, real, 1.0f32, columns);
        let mut result = zeros(columns);
        load::<F>(&mut result, 0usize, output, source, real, 1.0f32, columns);
        let mut products = Four::new(0.0f32);
        #[unroll]
        for column in 0..columns {
            products = fma(gradient[comptime!(own * columns + column)], result[column], products);
        }
        pulls[own] = lanes_sum(products);
        logarithms[own] = 0.0f32;
        if real {
            logarithms[own] = log_sum_exp[denominator(place, sizes, row)];
        }
        let state = row_state(stream, row as u32);
        offsets[own] = state.offset;
        multipliers[own] = state.multiplier;
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
        for next in range_stepped(0usize, n, TOGETHER) {
            #[unroll]
            for pair in 0..comptime!(TOGETHER / 2) {
                #[unroll]
                for own in 0..owned {
                    let mut bits = 0u32;
                    if comptime!(plan.dropping) {
                        let state = RowState { offset: offsets[own], multiplier: multipliers[own] };
                        bits = pair_bits(state, (first + next) as u32 / 2u32 + pair as u32);
                    }
                    #[unroll]
                    for half in 0..2usize {
                        let position = next + comptime!(2 * pair + half);
                        let row = position * columns;
                        let score = product(&query, own, &key_tile, row, columns);
                        let weight = select(position < n, (score - logarithms[own]).exp(), 0.0f32);
                        let mut drawn_weight = weight;
                        if comptime!(plan.dropping) {
                            drawn_weight = kept(drawn, bits, comptime!(half as u32), weight) * drawn.scale;
                        }
                        let of_weight = product(&gradient, own, &value_tile, row, columns);
                        let of_score = drawn_weight * of_weight - weight * pulls[own];
                        add_multiple(&mut gathered, own, of_score, &key_tile, row, columns);
                    }
                }
            }
        }
    }

    #[unroll]
    for own in 0..owned {
        let row = owned_row(place, own, plan);
        if row < sizes.queries as usize {
            let target = vector_of(place, sizes.queries, row, plan);
            store::<G>(&gathered, own, sizes.inverse_root, for_queries, target, columns);
            delta[denominator(place, sizes, row)] = pulls[own];
        }
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "a kernel's bindings")]
fn keys_kernel<F: Float>(
    queries: &Array<Stored<F>>,
    keys: &Array<Stored<F>>,
    values: &Array<Stored<F>>,
    gene_rows: &Array<u32>,
    expression: &Array<f32>,
    slopes: &Array<Stored<F>>,
    query_lengths: &Array<u32>,
    key_lengths: &Array<u32>,
    seed: &Array<u32>,
    for_output: &Array<Stored<F>>,
    log_sum_exp: &Array<f32>,
    delta: &Array<f32>,
    for_keys: &mut Array<Stored<F>>,
    for_values: &mut Array<Stored<F>>,
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
    let own_row = owned_row(place, 0usize, plan);
    let own = vector_of(place, sizes.keys, own_row, plan);
    let real = own_row < n_keys;
    let mut key = zeros(columns);
    let mut value = zeros(columns);
    load_part::<F>(
        &mut key,
        keys,
        gene_rows,
        expression,
        slopes,
        place,
        sizes.keys,
        own_row,
        real,
        sizes.inverse_root,
        0usize,
        plan,
    );
    load_part::<F>(
        &mut value, values, gene_rows, expression, slopes, place, sizes.keys, own_row, real, 1.0f32, 1usize,
        plan,
    );
    let stream = stream_key(seed, wide(place.cell as u32), wide(place.head as u32));
    let half = own_row as u32 % 2u32;

    let mut query_tile = SharedMemory::<Four>::new(comptime!(tile * columns));
    let mut gradient_tile = SharedMemory::<Four>::new(comptime!(tile * columns));
    let mut logarithms = SharedMemory::<f32>::new(tile);
    let mut pulls = SharedMemory::<f32>::new(tile);
    let mut offsets = SharedMemory::<u32>::new(comptime!(if plan.dropping { tile } else { 1 }));
    let mut multipliers = SharedMemory::<u32>::new(comptime!(if plan.dropping { tile } else { 1 }));
    let mut for_key = zeros(columns);
    let mut for_value = zeros(columns);
    // A tile of keys that are all padding is read by nobody.
    let n_reading = select(place.first < n_keys, n_queries, 0usize);
    for first in range_stepped(0usize, n_reading, tile) {
        let n = (n_queries - first).min(tile);
        let queries_from = query_vector(place, sizes, first, plan);
        let gradients_from = vector_of(place, sizes.queries, first, plan);
        let unit = UNIT_POS as usize;
        sync_cube();
        fill::<F>(queries, &mut query_tile, queries_from, n, comptime!(plan.width), columns, tile);
        fill::<F>(for_output, &mut gradient_tile, gradients_from, n, comptime!(plan.width), columns, tile);
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
        sync_cube();
        for next in range_stepped(0usize, n, TOGETHER) {
            #[unroll]
            for query in 0..TOGETHER {
                let position = next + query;
                let row = position * columns;
                let score = product(&key, 0usize, &query_tile, row, columns);
                let weight = (score - logarithms[position]).exp();
                let mut drawn_weight = weight;
                if comptime!(plan.dropping) {
                    let state = RowState { offset: offsets[position], multiplier: multipliers[position] };
                    let bits = pair_bits(state, own_row as u32 / 2u32);
                    drawn_weight = kept(drawn, bits, half, weight) * drawn.scale;
                }
                let of_weight = product(&value, 0usize, &gradient_tile, row, columns);
                let of_score = drawn_weight * of_weight - weight * pulls[position];
                add_multiple(&mut for_value, 0usize, drawn_weight, &gradient_tile, row, columns);
                add_multiple(&mut for_key, 0usize, of_score, &query_tile, row, columns);
            }
        }
    }

    if own_row < sizes.keys as usize {
        // A unit beyond the cell's keys gathered what it must not keep.
        let wanted = select(real, 1.0f32, 0.0f32);
        store::<F>(&for_key, 0usize, sizes.inverse_root * wanted, for_keys, own, columns);
        store::<F>(&for_value, 0usize, wanted, for_values, own, columns);
    }
}
