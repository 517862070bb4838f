//! The backward pass.

use cubecl::prelude::*;

use super::tile::{gelu_slope, item, multiply_item, n_items, probability, read_rows, write_rows};
use super::{FeedforwardRows, FeedforwardWeights, Plan, UNITS, norm, serves, tile};
use crate::matrix::{add_outer, shares, transposed, write_blocks};
use crate::memory::{Floats, f32_storage};
use crate::sum::{Columns, sum_of_columns};
use crate::tile::{Four, LANES, Stored, zeros};
use crate::workgroup;

/// Rows of a workgroup.
const ROWS: usize = 16;
/// Of them, that a unit multiplies together.
const TOGETHER: usize = 2;

/// Shared memory of a workgroup.
pub(super) fn shared_bytes(embedding_dim: usize, mlp_dim: usize) -> usize {
    let rows = ROWS * (4 * (embedding_dim + LANES) + 2 * (mlp_dim + LANES) + 2);
    (rows + 6 * embedding_dim + mlp_dim) * size_of::<f32>()
}

/// What a feedforward's backward pass is given.
#[derive(Debug, Clone, Copy)]
pub struct FeedforwardGradient<'a> {
    /// The rows of the forward pass.
    pub rows: FeedforwardRows<'a>,
    /// Gradient of the output: [n, d].
    pub for_output: &'a Floats,
}

/// The gradients of a feedforward's inputs and weights.
#[derive(Debug, Clone)]
pub struct FeedforwardGradients {
    /// [n, d], stored as what was gathered.
    pub for_gathered: Floats,
    /// What the residual gives back: [n, d], also where all cells ask the same.
    pub for_queries: Floats,
    /// Of the weights in the order of [`FeedforwardWeights`].
    pub for_weights: [Floats; 10],
}

/// Computes the gradients of a feedforward's inputs and weights.
///
/// # Panics
/// As [`feedforward_forward`](super::feedforward_forward).
pub fn feedforward_backward<R: Runtime>(
    client: &ComputeClient<R>,
    weights: &FeedforwardWeights<'_>,
    gradient: &FeedforwardGradient<'_>,
) -> FeedforwardGradients {
    let (d, m) = (weights.embedding_dim, weights.mlp_dim);
    assert!(serves(client, d, m), "no kernel for rows of {d} and {m}");
    let plan = Plan::new(weights, ROWS, TOGETHER);
    let rows = &gradient.rows;
    let storage = rows.queries.storage;
    let for_gathered = Floats::empty(client, rows.n * d, rows.gathered.storage);
    let for_queries = Floats::empty(client, rows.n * d, storage);
    let groups = workgroup::persistent(client, rows.n.div_ceil(ROWS) as u32);
    let sizes = [d * d, d, d, d, d * m, m, m * d, d, d, d];
    let width: usize = sizes.iter().sum();
    let parts = Floats::empty(client, groups as usize * width, f32_storage());
    let out_projection = transposed(client, weights.out_projection, 0, d, d);
    let expand = transposed(client, weights.expand, 0, d, m);
    let contract = transposed(client, weights.contract, 0, m, d);
    // SAFETY: every argument's size was checked against its memory, and the kernel stays within these sizes.
    unsafe {
        backward_kernel::launch_unchecked::<R>(
            client,
            workgroup::grid(client, groups, 1, 1),
            CubeDim::new_1d(UNITS as u32),
            rows.gathered.argument(rows.n * d),
            rows.queries.argument(rows.period * d),
            gradient.for_output.argument(rows.n * d),
            weights.out_projection.argument(d * d),
            weights.out_projection_bias.argument(d),
            weights.attention_gain.argument(d),
            weights.attention_bias.argument(d),
            weights.expand.argument(d * m),
            weights.expand_bias.argument(m),
            weights.contract.argument(m * d),
            weights.contract_bias.argument(d),
            weights.mlp_gain.argument(d),
            out_projection.argument(d * d),
            expand.argument(d * m),
            contract.argument(m * d),
            for_gathered.argument(rows.n * d),
            for_queries.argument(rows.n * d),
            parts.argument(groups as usize * width),
            rows.n as u32,
            rows.period as u32,
            weights.epsilon,
            plan,
            [storage, rows.gathered.storage],
        );
    }
    // Matrices first, then biases and gains, as the kernel has them.
    let vectors = 2 * d * m + d * d;
    let vector = |row: Row| vectors + row as usize * d;
    let firsts = [
        0,
        vector(Row::OutProjectionBias),
        vector(Row::AttentionGain),
        vector(Row::AttentionBias),
        d * d,
        vector(Row::ExpandBias),
        d * d + d * m,
        vector(Row::ContractBias),
        vector(Row::MlpGain),
        vector(Row::MlpBias),
    ];
    let for_weights = std::array::from_fn(|index| {
        let columns = Columns { stride: width, first: firsts[index], n: sizes[index] };
        sum_of_columns(client, &parts, groups as usize, columns, storage)
    });
    FeedforwardGradients { for_gathered, for_queries, for_weights }
}

/// Gradients of the matrices that a unit sums in registers, each for blocks of its own.
#[derive(CubeType)]
struct Matrices {
    out_projection: Array<Four>,
    expand: Array<Four>,
    contract: Array<Four>,
}

#[cube]
fn no_matrices(#[comptime] plan: Plan) -> Matrices {
    let oblong = comptime!(LANES * shares(plan.narrow * plan.wide));
    Matrices {
        out_projection: zeros(comptime!(LANES * shares(plan.narrow * plan.narrow))),
        expand: zeros(oblong),
        contract: zeros(oblong),
    }
}

/// Where the gradients of biases and gains lie in shared memory, one vector after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Row {
    OutProjectionBias,
    AttentionGain,
    AttentionBias,
    ContractBias,
    MlpGain,
    MlpBias,
    ExpandBias,
}

impl Row {
    fn first(self, plan: &Plan) -> usize {
        self as usize * plan.narrow
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "a kernel's bindings")]
fn backward_kernel<F: Float, G: Float>(
    gathered: &Array<Stored<G>>,
    queries: &Array<Stored<F>>,
    for_output: &Array<Stored<F>>,
    out_projection: &Array<Stored<F>>,
    out_projection_bias: &Array<Stored<F>>,
    attention_gain: &Array<Stored<F>>,
    attention_bias: &Array<Stored<F>>,
    expanding: &Array<Stored<F>>,
    expand_bias: &Array<Stored<F>>,
    contracting: &Array<Stored<F>>,
    contract_bias: &Array<Stored<F>>,
    mlp_gain: &Array<Stored<F>>,
    out_projection_transposed: &Array<Stored<F>>,
    expand_transposed: &Array<Stored<F>>,
    contract_transposed: &Array<Stored<F>>,
    for_gathered: &mut Array<Stored<G>>,
    for_queries: &mut Array<Stored<F>>,
    parts: &mut Array<Four>,
    n: u32,
    period: u32,
    epsilon: f32,
    #[comptime] plan: Plan,
    #[define(F, G)] _storage: [StorageType; 2],
) {
    let (narrow, wide, rows, together) = comptime!((plan.narrow, plan.wide, plan.rows, plan.together));
    let (narrow_stride, wide_stride) = comptime!((plan.stride(plan.narrow), plan.stride(plan.wide)));
    let narrow_items = comptime!(n_items(plan.rows, plan.together, plan.narrow));
    let wide_items = comptime!(n_items(plan.rows, plan.together, plan.wide));
    let unit = UNIT_POS as usize;
    let period = period as usize;
    // Of the two norms, what goes in and, of the first, what comes out; and the gradient on its way back.
    let mut sums = SharedMemory::<Four>::new(comptime!(plan.narrow_tile()));
    let mut attended = SharedMemory::<Four>::new(comptime!(plan.narrow_tile()));
    let mut results = SharedMemory::<Four>::new(comptime!(plan.narrow_tile()));
    let mut running = SharedMemory::<Four>::new(comptime!(plan.narrow_tile()));
    let mut hidden = SharedMemory::<Four>::new(comptime!(plan.wide_tile()));
    let mut activated = SharedMemory::<Four>::new(comptime!(plan.wide_tile()));
    let mut moments = SharedMemory::<f32>::new(comptime!(2 * plan.rows));
    let mut matrices = no_matrices(plan);
    let mut columns = SharedMemory::<Four>::new(comptime!(6 * plan.narrow + plan.wide));
    for column in range_stepped(unit, comptime!(6 * plan.narrow + plan.wide), UNITS) {
        columns[column] = Four::new(0.0f32);
    }

    for first in range_stepped(CUBE_POS_X as usize * rows, n as usize, CUBE_COUNT_X as usize * rows) {
        let n = (n as usize - first).min(rows);
        sync_cube();
        read_rows::<G>(gathered, &mut running, first, n, narrow, rows);
        sync_cube();
        for index in range_stepped(unit, narrow_items, UNITS) {
            let item = item(index, narrow, together);
            let products = multiply_item::<F>(&running, out_projection, item, narrow, narrow, together);
            let bias = Four::cast_from(out_projection_bias[item.chunk]);
            #[unroll]
            for row in 0..together {
                // Beyond the last row, any row does.
                let query = (first + item.first_row + row) % period;
                let residual = Four::cast_from(queries[query * narrow + item.chunk]);
                sums[(item.first_row + row) * narrow_stride + item.chunk] = products[row] + bias + residual;
            }
        }
        sync_cube();
        norm::forward::<F>(&sums, &mut attended, attention_gain, attention_bias, epsilon, narrow, rows);
        sync_cube();
        for index in range_stepped(unit, wide_items, UNITS) {
            let item = item(index, wide, together);
            let products = multiply_item::<F>(&attended, expanding, item, narrow, wide, together);
            let bias = Four::cast_from(expand_bias[item.chunk]);
            #[unroll]
            for row in 0..together {
                let position = (item.first_row + row) * wide_stride + item.chunk;
                let state = products[row] + bias;
                hidden[position] = state;
                activated[position] = state * probability(state);
            }
        }
        sync_cube();
        for index in range_stepped(unit, narrow_items, UNITS) {
            let item = item(index, narrow, together);
            let products = multiply_item::<F>(&activated, contracting, item, wide, narrow, together);
            let bias = Four::cast_from(contract_bias[item.chunk]);
            #[unroll]
            for row in 0..together {
                let position = (item.first_row + row) * narrow_stride + item.chunk;
                results[position] = products[row] + bias + attended[position];
            }
        }
        // What was gathered is not read any more.
        read_rows::<F>(for_output, &mut running, first, n, narrow, rows);
        sync_cube();
        norm::keep_moments(&results, &mut moments, epsilon, narrow, rows);
        sync_cube();
        norm::add_weights(
            &results,
            &running,
            &moments,
            &mut columns,
            n,
            comptime!(Row::MlpGain.first(&plan)),
            narrow,
        );
        sync_cube();
        norm::backward::<F>(&results, &mut running, &moments, mlp_gain, narrow, rows);
        sync_cube();
        add_outer(&activated, &running, &mut matrices.contract, n, wide, wide_stride, narrow, narrow_stride);
        tile::add_columns(&running, &mut columns, n, comptime!(Row::ContractBias.first(&plan)), narrow);
        sync_cube();
        for index in range_stepped(unit, wide_items, UNITS) {
            let item = item(index, wide, together);
            let products = multiply_item::<F>(&running, contract_transposed, item, narrow, wide, together);
            #[unroll]
            for row in 0..together {
                let position = (item.first_row + row) * wide_stride + item.chunk;
                activated[position] = products[row] * gelu_slope(hidden[position]);
            }
        }
        sync_cube();
        add_outer(&attended, &activated, &mut matrices.expand, n, narrow, narrow_stride, wide, wide_stride);
        tile::add_columns(&activated, &mut columns, n, comptime!(Row::ExpandBias.first(&plan)), wide);
        // Each item is read and written by one unit: the residual's gradient is in place already.
        for index in range_stepped(unit, narrow_items, UNITS) {
            let item = item(index, narrow, together);
            let products = multiply_item::<F>(&activated, expand_transposed, item, wide, narrow, together);
            #[unroll]
            for row in 0..together {
                running[(item.first_row + row) * narrow_stride + item.chunk] += products[row];
            }
        }
        sync_cube();
        norm::keep_moments(&sums, &mut moments, epsilon, narrow, rows);
        // What attention gathered once more, for the gradient of its projection.
        read_rows::<G>(gathered, &mut results, first, n, narrow, rows);
        sync_cube();
        norm::add_weights(
            &sums,
            &running,
            &moments,
            &mut columns,
            n,
            comptime!(Row::AttentionGain.first(&plan)),
            narrow,
        );
        sync_cube();
        norm::backward::<F>(&sums, &mut running, &moments, attention_gain, narrow, rows);
        sync_cube();
        write_rows::<F>(&running, for_queries, first, n, narrow, rows);
        add_outer(
            &results,
            &running,
            &mut matrices.out_projection,
            n,
            narrow,
            narrow_stride,
            narrow,
            narrow_stride,
        );
        tile::add_columns(&running, &mut columns, n, comptime!(Row::OutProjectionBias.first(&plan)), narrow);
        for index in range_stepped(unit, narrow_items, UNITS) {
            let item = item(index, narrow, together);
            let products =
                multiply_item::<F>(&running, out_projection_transposed, item, narrow, narrow, together);
            #[unroll]
            for row in 0..together {
                if item.first_row + row < n {
                    for_gathered[(first + item.first_row + row) * narrow + item.chunk] =
                        Stored::<G>::cast_from(products[row]);
                }
            }
        }
    }
    write_sums(&matrices, &columns, parts, plan);
}

/// Writes the sums of a workgroup as one part: the matrices, then biases and gains.
#[cube]
fn write_sums(
    matrices: &Matrices,
    columns: &SharedMemory<Four>,
    parts: &mut Array<Four>,
    #[comptime] plan: Plan,
) {
    let (d, m) = comptime!((plan.narrow, plan.wide));
    let (square, oblong) = comptime!((plan.narrow * plan.narrow * LANES, plan.narrow * plan.wide * LANES));
    let n_columns = comptime!(6 * plan.narrow + plan.wide);
    let first = CUBE_POS_X as usize * comptime!(square + 2 * oblong + n_columns);
    write_blocks(&matrices.out_projection, parts, first, d, d);
    write_blocks(&matrices.expand, parts, first + square, d, m);
    write_blocks(&matrices.contract, parts, first + comptime!(square + oblong), m, d);
    sync_cube();
    for column in range_stepped(UNIT_POS as usize, n_columns, UNITS) {
        parts[first + comptime!(square + 2 * oblong) + column] = columns[column];
    }
}
