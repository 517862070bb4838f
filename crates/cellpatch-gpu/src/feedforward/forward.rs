//! The forward pass.

use cubecl::prelude::*;

use super::tile::{item, multiply_item, n_items, probability, read_rows, write_rows};
use super::{FeedforwardRows, FeedforwardWeights, Plan, UNITS, norm, serves};
use crate::memory::Floats;
use crate::tile::{Four, LANES, Stored};
use crate::workgroup;

/// Rows of a workgroup.
const ROWS: usize = 16;
/// Of them, that a unit multiplies together.
const TOGETHER: usize = 2;

/// Shared memory of a workgroup.
pub(super) fn shared_bytes(embedding_dim: usize, mlp_dim: usize) -> usize {
    ROWS * (2 * embedding_dim + mlp_dim + 3 * LANES) * size_of::<f32>()
}

/// `LN(x + MLP(x))` with `x = LN(queries + gathered W + b)`.
///
/// - output: [n, d], stored as the queries
///
/// # Panics
/// When there is [no kernel](serves) for the widths, or memory is smaller than stated.
pub fn feedforward_forward<R: Runtime>(
    client: &ComputeClient<R>,
    weights: &FeedforwardWeights<'_>,
    rows: &FeedforwardRows<'_>,
) -> Floats {
    let (d, m) = (weights.embedding_dim, weights.mlp_dim);
    assert!(serves(client, d, m), "no kernel for rows of {d} and {m}");
    let plan = Plan::new(weights, ROWS, TOGETHER);
    let storage = rows.queries.storage;
    let output = Floats::empty(client, rows.n * d, storage);
    // SAFETY: every argument's size was checked against its memory, and the kernel stays within these sizes.
    unsafe {
        forward_kernel::launch_unchecked::<R>(
            client,
            workgroup::spread(client, rows.n.div_ceil(ROWS) as u32),
            CubeDim::new_1d(UNITS as u32),
            rows.gathered.argument(rows.n * d),
            rows.queries.argument(rows.period * d),
            weights.out_projection.argument(d * d),
            weights.out_projection_bias.argument(d),
            weights.attention_gain.argument(d),
            weights.attention_bias.argument(d),
            weights.expand.argument(d * m),
            weights.expand_bias.argument(m),
            weights.contract.argument(m * d),
            weights.contract_bias.argument(d),
            weights.mlp_gain.argument(d),
            weights.mlp_bias.argument(d),
            output.argument(rows.n * d),
            rows.n as u32,
            rows.period as u32,
            weights.epsilon,
            plan,
            [storage, rows.gathered.storage],
        );
    }
    output
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "a kernel's bindings")]
fn forward_kernel<F: Float, G: Float>(
    gathered: &Array<Stored<G>>,
    queries: &Array<Stored<F>>,
    out_projection: &Array<Stored<F>>,
    out_projection_bias: &Array<Stored<F>>,
    attention_gain: &Array<Stored<F>>,
    attention_bias: &Array<Stored<F>>,
    expanding: &Array<Stored<F>>,
    expand_bias: &Array<Stored<F>>,
    contracting: &Array<Stored<F>>,
    contract_bias: &Array<Stored<F>>,
    mlp_gain: &Array<Stored<F>>,
    mlp_bias: &Array<Stored<F>>,
    output: &mut Array<Stored<F>>,
    n: u32,
    period: u32,
    epsilon: f32,
    #[comptime] plan: Plan,
    #[define(F, G)] _storage: [StorageType; 2],
) {
    let (narrow, wide, rows, together) = comptime!((plan.narrow, plan.wide, plan.rows, plan.together));
    let unit = UNIT_POS as usize;
    let first = CUBE_POS * rows;
    // Workgroups that come too many have no rows, but the same barriers.
    let n = select(first < n as usize, n as usize - first, 0usize).min(rows);
    let period = period as usize;
    let mut input = SharedMemory::<Four>::new(comptime!(plan.narrow_tile()));
    let mut states = SharedMemory::<Four>::new(comptime!(plan.narrow_tile()));
    let mut hidden = SharedMemory::<Four>::new(comptime!(plan.wide_tile()));
    read_rows::<G>(gathered, &mut input, first, n, narrow, rows);
    sync_cube();
    for index in range_stepped(unit, comptime!(n_items(rows, together, narrow)), UNITS) {
        let item = item(index, narrow, together);
        let sums = multiply_item::<F>(&input, out_projection, item, narrow, narrow, together);
        let bias = Four::cast_from(out_projection_bias[item.chunk]);
        #[unroll]
        for row in 0..together {
            // Beyond the last row, any row does.
            let query = (first + item.first_row + row) % period;
            let residual = Four::cast_from(queries[query * narrow + item.chunk]);
            states[(item.first_row + row) * comptime!(narrow + 1) + item.chunk] = sums[row] + bias + residual;
        }
    }
    sync_cube();
    norm::forward::<F>(&states, &mut input, attention_gain, attention_bias, epsilon, narrow, rows);
    sync_cube();
    for index in range_stepped(unit, comptime!(n_items(rows, together, wide)), UNITS) {
        let item = item(index, wide, together);
        let sums = multiply_item::<F>(&input, expanding, item, narrow, wide, together);
        let bias = Four::cast_from(expand_bias[item.chunk]);
        #[unroll]
        for row in 0..together {
            let state = sums[row] + bias;
            hidden[(item.first_row + row) * comptime!(wide + 1) + item.chunk] = state * probability(state);
        }
    }
    sync_cube();
    for index in range_stepped(unit, comptime!(n_items(rows, together, narrow)), UNITS) {
        let item = item(index, narrow, together);
        let sums = multiply_item::<F>(&hidden, contracting, item, wide, narrow, together);
        let bias = Four::cast_from(contract_bias[item.chunk]);
        #[unroll]
        for row in 0..together {
            let position = (item.first_row + row) * comptime!(narrow + 1) + item.chunk;
            states[position] = sums[row] + bias + input[position];
        }
    }
    sync_cube();
    norm::forward::<F>(&states, &mut input, mlp_gain, mlp_bias, epsilon, narrow, rows);
    sync_cube();
    write_rows::<F>(&input, output, first, n, narrow, rows);
}
