//! The output layer: one number for each row, with dropout of its elements inside, forward and backward.

use cubecl::prelude::*;

use crate::dropout::{Drawn, Dropout, Seed, kept, last, pair_bits, row_state, stream_key, wide};
use crate::memory::{Floats, PaddedRows, argument, f32_storage};
use crate::sum::{Columns, sum_of_columns};
use crate::workgroup;

/// Units of a workgroup of the backward pass.
const UNITS: usize = 256;

/// Rows on their way to a number each: `sum over i of dropout(row[i]) weight[i] + bias` (`torch.nn.Dropout` and
/// `torch.nn.Linear(d, 1)`). All floats are stored alike.
#[derive(Debug, Clone, Copy)]
pub struct OutputLayer<'a> {
    /// Cells in the batch.
    pub n_cells: usize,
    /// Width of a row.
    pub width: usize,
    /// [cells, rows, width]
    pub rows: &'a Floats,
    /// Which of them count; the others' number is 0.
    pub lengths: &'a PaddedRows,
    /// `[width]`
    pub weight: &'a Floats,
    /// `[1]`
    pub bias: &'a Floats,
    /// Probability with which an element is dropped and the others scaled up; 0 outside training.
    pub dropout: f64,
    /// Of the dropout; forward and backward pass must be given the same.
    pub seed: &'a Seed,
}

/// The gradients of an output layer's inputs and weights.
#[derive(Debug, Clone)]
pub struct OutputGradients {
    /// [cells, rows, width], 0 at padding.
    pub for_rows: Floats,
    /// `[width]`
    pub for_weight: Floats,
    /// `[1]`
    pub for_bias: Floats,
}

/// Whether there are kernels for rows of this width on this device.
pub fn serves<R: Runtime>(client: &ComputeClient<R>, width: usize) -> bool {
    (1..=UNITS).contains(&width) && client.properties().hardware.max_units_per_cube as usize >= UNITS
}

impl OutputLayer<'_> {
    fn n(&self) -> usize {
        self.n_cells * self.lengths.padded
    }

    fn plan(&self) -> Plan {
        let dropping = Dropout::new(self.dropout).drops();
        Plan { width: self.width, rows: (UNITS / self.width).clamp(1, 32), dropping }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Plan {
    width: usize,
    /// Rows that a workgroup of the backward pass takes together.
    rows: usize,
    dropping: bool,
}

/// One number for each row.
///
/// - output: [cells, rows], 0 at padding
///
/// # Panics
/// When memory is smaller than stated.
pub fn output_forward<R: Runtime>(client: &ComputeClient<R>, layer: &OutputLayer<'_>) -> Floats {
    let (n, width) = (layer.n(), layer.width);
    let output = Floats::empty(client, n, layer.rows.storage);
    let dim = CubeDim::new(client, n);
    // SAFETY: sizes are checked against memory, and the kernel stays within them.
    unsafe {
        forward_kernel::launch_unchecked::<R>(
            client,
            cubecl::calculate_cube_count_elemwise(client, n, dim),
            dim,
            layer.rows.argument(n * width),
            layer.weight.argument(width),
            layer.bias.argument(1),
            argument(&layer.lengths.lengths, layer.n_cells, size_of::<u32>()),
            layer.seed.argument(),
            output.argument(n),
            n as u32,
            layer.lengths.padded as u32,
            Dropout::new(layer.dropout).argument(),
            layer.plan(),
            layer.rows.storage,
        );
    }
    output
}

/// The gradients of rows, weight and bias.
///
/// - for_output: [cells, rows]; what stands at padding is not read
///
/// # Panics
/// When there is [no kernel](serves) for the width, or memory is smaller than stated.
pub fn output_backward<R: Runtime>(
    client: &ComputeClient<R>,
    layer: &OutputLayer<'_>,
    for_output: &Floats,
) -> OutputGradients {
    let (n, width, storage) = (layer.n(), layer.width, layer.rows.storage);
    assert!(serves(client, width), "no kernel for rows of {width}");
    let plan = layer.plan();
    let groups = workgroup::persistent(client, n.div_ceil(plan.rows).max(1) as u32);
    let for_rows = Floats::empty(client, n * width, storage);
    let n_parts = groups as usize * (width + 1);
    let parts = Floats::empty(client, n_parts, f32_storage());
    // SAFETY: sizes are checked against memory, and the kernel stays within them.
    unsafe {
        backward_kernel::launch_unchecked::<R>(
            client,
            workgroup::grid(client, groups, 1, 1),
            CubeDim::new_2d(width as u32, plan.rows as u32),
            layer.rows.argument(n * width),
            layer.weight.argument(width),
            for_output.argument(n),
            argument(&layer.lengths.lengths, layer.n_cells, size_of::<u32>()),
            layer.seed.argument(),
            for_rows.argument(n * width),
            parts.argument(n_parts),
            n as u32,
            layer.lengths.padded as u32,
            Dropout::new(layer.dropout).argument(),
            plan,
            storage,
        );
    }
    let sum = |first, n| {
        let columns = Columns { stride: width + 1, first, n };
        sum_of_columns(client, &parts, groups as usize, columns, storage)
    };
    OutputGradients { for_rows, for_weight: sum(0, width), for_bias: sum(width, 1) }
}

/// What an element of a row is multiplied by: 0 where it is dropped.
///
/// - row: of its cell
#[cube]
fn factor(
    seed: &Array<u32>,
    drawn: &Drawn,
    cell: usize,
    row: usize,
    element: usize,
    #[comptime] plan: Plan,
) -> f32 {
    let mut factor = 1.0f32;
    if comptime!(plan.dropping) {
        let state = row_state(stream_key(seed, wide(cell as u32), last()), row as u32);
        let bits = pair_bits(state, element as u32 / 2u32);
        factor = kept(drawn, bits, element as u32 % 2u32, drawn.scale);
    }
    factor
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "a kernel's bindings")]
fn forward_kernel<F: Float>(
    rows: &Array<F>,
    weight: &Array<F>,
    bias: &Array<F>,
    lengths: &Array<u32>,
    seed: &Array<u32>,
    output: &mut Array<F>,
    n: u32,
    padded: u32,
    drawn: &Drawn,
    #[comptime] plan: Plan,
    #[define(F)] _storage: StorageType,
) {
    let position = ABSOLUTE_POS;
    let width = comptime!(plan.width);
    if position < n as usize {
        let cell = position / padded as usize;
        let row = position % padded as usize;
        let mut number = 0.0f32;
        if row < lengths[cell] as usize {
            number = f32::cast_from(bias[0]);
            for element in 0..width {
                let factor = factor(seed, drawn, cell, row, element, plan);
                let product =
                    f32::cast_from(rows[position * width + element]) * f32::cast_from(weight[element]);
                number = fma(factor, product, number);
            }
        }
        output[position] = F::cast_from(number);
    }
}

/// A unit has an element of some rows; each workgroup has a part of the sums.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "a kernel's bindings")]
fn backward_kernel<F: Float>(
    rows: &Array<F>,
    weight: &Array<F>,
    for_output: &Array<F>,
    lengths: &Array<u32>,
    seed: &Array<u32>,
    for_rows: &mut Array<F>,
    parts: &mut Array<f32>,
    n: u32,
    padded: u32,
    drawn: &Drawn,
    #[comptime] plan: Plan,
    #[define(F)] _storage: StorageType,
) {
    let (width, together) = comptime!((plan.width, plan.rows));
    let element = UNIT_POS_X as usize;
    let weight = f32::cast_from(weight[element]);
    let mut for_weight = 0.0f32;
    let mut for_bias = 0.0f32;
    let first = CUBE_POS_X as usize * together + UNIT_POS_Y as usize;
    for position in range_stepped(first, n as usize, CUBE_COUNT_X as usize * together) {
        let cell = position / padded as usize;
        let row = position % padded as usize;
        let mut for_element = 0.0f32;
        if row < lengths[cell] as usize {
            let outer = f32::cast_from(for_output[position]);
            let inner = outer * factor(seed, drawn, cell, row, element, plan);
            for_element = inner * weight;
            for_weight = fma(inner, f32::cast_from(rows[position * width + element]), for_weight);
            for_bias += outer;
        }
        for_rows[position * width + element] = F::cast_from(for_element);
    }
    let mut weights = SharedMemory::<f32>::new(comptime!(plan.width * plan.rows));
    let mut biases = SharedMemory::<f32>::new(together);
    weights[UNIT_POS as usize] = for_weight;
    if element == 0 {
        biases[UNIT_POS_Y as usize] = for_bias;
    }
    sync_cube();
    if UNIT_POS_Y == 0 {
        let part = CUBE_POS_X as usize * comptime!(plan.width + 1);
        let mut sum = 0.0f32;
        for row in 0..together {
            sum += weights[row * width + element];
        }
        parts[part + element] = sum;
        if element == 0 {
            let mut sum = 0.0f32;
            for row in 0..together {
                sum += biases[row];
            }
            parts[part + width] = sum;
        }
    }
}
