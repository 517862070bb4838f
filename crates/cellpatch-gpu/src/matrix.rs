//! Products of many rows with a small matrix, and back.
//!
//! Rows are a batch's, in their millions; matrices are a layer's weights. Sums over rows are made in parts, a part for each
//! workgroup, and the parts are added in their order.

use cubecl::prelude::*;

use crate::memory::{Floats, f32_storage};
use crate::sum::{Columns, sum_columns_into};
use crate::tile::{Four, LANES, Stored, zeros};
use crate::workgroup;

/// Units of a workgroup here.
const UNITS: usize = 64;
/// Rows that a unit multiplies together: each weight is loaded once for all of them.
const ROWS: usize = 4;
/// Rows in shared memory while their outer products are summed.
const TILE: usize = 16;

/// Floats from one of them on.
#[derive(Debug, Clone, Copy)]
pub struct Tail<'a> {
    /// All of them.
    pub floats: &'a Floats,
    /// The first that is meant.
    pub first: usize,
}

impl<'a> Tail<'a> {
    /// Tail the first on.
    pub fn start(floats: &'a Floats) -> Self {
        Self { floats, first: 0 }
    }

    pub(crate) fn vectors(&self) -> u32 {
        check_width(self.first.max(LANES));
        (self.first / LANES) as u32
    }
}

/// A linear layer; both widths are multiples of 4.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    /// [inputs, outputs]
    pub weight: Tail<'a>,
    /// `[outputs]`; none is 0.
    pub bias: Option<Tail<'a>>,
    /// Width of a row that goes in.
    pub inputs: usize,
    /// Width of a row that comes out.
    pub outputs: usize,
}

/// `rows W + bias`, plus other rows if there are.
///
/// - rows: [n, inputs]
/// - plus: [n, outputs], stored as the weight
/// - output: [n, outputs], stored as said
///
/// # Panics
/// When memory is smaller than stated, a width no multiple of 4, or `plus` or the bias stored otherwise than the weight.
pub fn multiply<R: Runtime>(
    client: &ComputeClient<R>,
    rows: &Floats,
    n: usize,
    layer: &Layer<'_>,
    plus: Option<&Floats>,
    storage: StorageType,
) -> Floats {
    let Layer { weight, bias, inputs, outputs } = *layer;
    check_width(inputs);
    check_width(outputs);
    let output = Floats::empty(client, n * outputs, storage);
    let plan = Multiplication {
        inputs: inputs / LANES,
        chunks: outputs / LANES,
        groups: (UNITS * LANES / outputs).max(1),
        biased: bias.is_some(),
        added: plus.is_some(),
    };
    let groups = n.div_ceil(plan.groups * ROWS) as u32;
    let whole = weight.first + inputs * outputs;
    // What there is not is never read.
    let bias = bias.unwrap_or(weight);
    let n_bias = bias.first + if plan.biased { outputs } else { inputs * outputs };
    let same = |floats: &Floats| floats.storage == weight.floats.storage;
    assert!(same(bias.floats) && plus.is_none_or(same), "a layer's floats stored in different ways");
    let added = plus.map_or_else(|| weight.floats.argument(whole), |plus| plus.argument(n * outputs));
    // SAFETY: sizes are checked against memory, and the kernel stays within them.
    unsafe {
        multiply_kernel::launch_unchecked::<R>(
            client,
            workgroup::spread(client, groups),
            CubeDim::new_2d(plan.chunks as u32, plan.groups as u32),
            rows.argument(n * inputs),
            weight.floats.argument(whole),
            bias.floats.argument(n_bias),
            added,
            output.argument(n * outputs),
            n as u32,
            weight.vectors(),
            bias.vectors(),
            plan,
            [rows.storage, weight.floats.storage, storage],
        );
    }
    output
}

pub(crate) fn check_width(width: usize) {
    assert!(width > 0 && width.is_multiple_of(LANES), "rows of {width} floats");
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Multiplication {
    /// Vectors of a row that goes in.
    inputs: usize,
    /// Vectors of a row that comes out.
    chunks: usize,
    /// Groups of rows of a workgroup.
    groups: usize,
    biased: bool,
    added: bool,
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "a kernel's bindings")]
fn multiply_kernel<F: Float, W: Float, G: Float>(
    rows: &Array<Stored<F>>,
    weight: &Array<Stored<W>>,
    bias: &Array<Stored<W>>,
    plus: &Array<Stored<W>>,
    output: &mut Array<Stored<G>>,
    n_rows: u32,
    weight_from: u32,
    bias_from: u32,
    #[comptime] plan: Multiplication,
    #[define(F, W, G)] _storage: [StorageType; 3],
) {
    let (inputs, chunks) = comptime!((plan.inputs, plan.chunks));
    let chunk = UNIT_POS_X as usize;
    let first = (CUBE_POS * comptime!(plan.groups) + UNIT_POS_Y as usize) * ROWS;
    let n = n_rows as usize;
    let (weight_from, bias_from) = (weight_from as usize, bias_from as usize);
    if first < n {
        let mut sums = zeros(ROWS);
        if comptime!(plan.biased) {
            #[unroll]
            for row in 0..ROWS {
                sums[row] = Four::cast_from(bias[bias_from + chunk]);
            }
        }
        for input in 0..inputs {
            let mut elements = zeros(ROWS);
            #[unroll]
            for row in 0..ROWS {
                // Beyond the last row, the last row again.
                let position = (first + row).min(n - 1);
                elements[row] = Four::cast_from(rows[position * inputs + input]);
            }
            #[unroll]
            for lane in 0..LANES {
                let weights = Four::cast_from(weight[weight_from + (input * LANES + lane) * chunks + chunk]);
                #[unroll]
                for row in 0..ROWS {
                    sums[row] = fma(Four::new(elements[row][lane]), weights, sums[row]);
                }
            }
        }
        #[unroll]
        for row in 0..ROWS {
            if first + row < n {
                let position = (first + row) * chunks + chunk;
                let mut sum = sums[row];
                if comptime!(plan.added) {
                    sum += Four::cast_from(plus[position]);
                }
                output[position] = Stored::<G>::cast_from(sum);
            }
        }
    }
}

/// `left^T right`, and the sums of the columns of `left`: the gradients of a layer's weight, row by row of what comes out, and of its
/// bias.
///
/// - left: [n, a]
/// - right: [n, b]; both widths multiples of 4
/// - weight: [a, b] is written there
/// - bias: `[a]` is written there
///
/// # Panics
/// When memory is smaller than stated, or a width no multiple of 4.
pub fn outer_products<R: Runtime>(
    client: &ComputeClient<R>,
    (left, a): (&Floats, usize),
    (right, b): (&Floats, usize),
    n: usize,
    weight: Tail<'_>,
    bias: Tail<'_>,
) {
    check_width(a);
    check_width(b);
    let plan = Outer { left: a / LANES, right: b / LANES };
    let tiles = n.div_ceil(TILE) as u32;
    let groups = workgroup::persistent(client, tiles);
    let stride = a * b + a;
    let parts = Floats::empty(client, groups as usize * stride, f32_storage());
    // SAFETY: sizes are checked against memory, and the kernel stays within them.
    unsafe {
        outer_kernel::launch_unchecked::<R>(
            client,
            workgroup::grid(client, groups, 1, 1),
            CubeDim::new_1d(UNITS as u32),
            left.argument(n * a),
            right.argument(n * b),
            parts.argument(groups as usize * stride),
            n as u32,
            plan,
            [left.storage, right.storage],
        );
    }
    for (first, n, into) in [(0, a * b, weight), (a * b, a, bias)] {
        let columns = Columns { stride, first, n };
        sum_columns_into(client, &parts, groups as usize, columns, into.floats, into.first);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Outer {
    /// Vectors of a row.
    left: usize,
    /// Vectors of a row.
    right: usize,
}

#[cube(launch_unchecked)]
fn outer_kernel<F: Float, G: Float>(
    left: &Array<Stored<F>>,
    right: &Array<Stored<G>>,
    parts: &mut Array<Four>,
    n_rows: u32,
    #[comptime] plan: Outer,
    #[define(F, G)] _storage: [StorageType; 2],
) {
    let (a, b) = comptime!((plan.left, plan.right));
    let mut left_tile = SharedMemory::<Four>::new(comptime!(TILE * a));
    let mut right_tile = SharedMemory::<Four>::new(comptime!(TILE * b));
    let mut products = zeros(comptime!(LANES * shares(plan.left * plan.right)));
    let mut sums = zeros(comptime!(shares(plan.left)));
    for first in range_stepped(CUBE_POS_X as usize * TILE, n_rows as usize, CUBE_COUNT_X as usize * TILE) {
        let rows = (n_rows as usize - first).min(TILE);
        sync_cube();
        read_rows::<F>(left, &mut left_tile, first, rows, a);
        read_rows::<G>(right, &mut right_tile, first, rows, b);
        sync_cube();
        add_outer(&left_tile, &right_tile, &mut products, rows, a, a, b, b);
        add_columns(&left_tile, &mut sums, rows, a, a);
    }
    let part = CUBE_POS_X as usize * comptime!(plan.left * plan.right * LANES + plan.left);
    write_blocks(&products, parts, part, a, b);
    write_columns(&sums, parts, part + comptime!(plan.left * plan.right * LANES), a);
}

/// Blocks, or columns, of a unit.
pub(crate) fn shares(n: usize) -> usize {
    n.div_ceil(UNITS)
}

/// Neighbouring rows to shared memory, without gaps; 0 beyond the last.
#[cube]
fn read_rows<F: Float>(
    source: &Array<Stored<F>>,
    tile: &mut SharedMemory<Four>,
    first: usize,
    rows: usize,
    #[comptime] width: usize,
) {
    for position in range_stepped(UNIT_POS as usize, comptime!(TILE * width), UNITS) {
        let mut vector = Four::new(0.0f32);
        if position < rows * width {
            vector = Four::cast_from(source[first * width + position]);
        }
        tile[position] = vector;
    }
}

/// Adds the outer products of the rows of two tiles, each unit to blocks of four by four of its own.
///
/// - a, b: vectors of a row; a_stride, b_stride: from row to row
#[cube]
#[allow(clippy::too_many_arguments, reason = "two tiles and where their rows lie")]
pub(crate) fn add_outer(
    left: &SharedMemory<Four>,
    right: &SharedMemory<Four>,
    products: &mut Array<Four>,
    rows: usize,
    #[comptime] a: usize,
    #[comptime] a_stride: usize,
    #[comptime] b: usize,
    #[comptime] b_stride: usize,
) {
    #[unroll]
    for share in 0..comptime!(shares(a * b)) {
        let block = UNIT_POS as usize + comptime!(share * UNITS);
        if block < comptime!(a * b) {
            let (i, j) = (block / b, block % b);
            for row in 0..rows {
                let factors = left[row * a_stride + i];
                let vector = right[row * b_stride + j];
                #[unroll]
                for lane in 0..LANES {
                    let product = comptime!(share * LANES + lane);
                    products[product] = fma(Four::new(factors[lane]), vector, products[product]);
                }
            }
        }
    }
}

/// Adds the rows of a tile, each unit for columns of its own.
#[cube]
pub(crate) fn add_columns(
    tile: &SharedMemory<Four>,
    sums: &mut Array<Four>,
    rows: usize,
    #[comptime] width: usize,
    #[comptime] stride: usize,
) {
    #[unroll]
    for share in 0..comptime!(shares(width)) {
        let column = UNIT_POS as usize + comptime!(share * UNITS);
        if column < width {
            for row in 0..rows {
                sums[share] += tile[row * stride + column];
            }
        }
    }
}

/// Writes what [`add_outer`] summed as a matrix, row by row.
#[cube]
pub(crate) fn write_blocks(
    products: &Array<Four>,
    parts: &mut Array<Four>,
    first: usize,
    #[comptime] a: usize,
    #[comptime] b: usize,
) {
    #[unroll]
    for share in 0..comptime!(shares(a * b)) {
        let block = UNIT_POS as usize + comptime!(share * UNITS);
        if block < comptime!(a * b) {
            let (i, j) = (block / b, block % b);
            #[unroll]
            for lane in 0..LANES {
                parts[first + (i * LANES + lane) * b + j] = products[comptime!(share * LANES + lane)];
            }
        }
    }
}

/// Writes what [`add_columns`] summed.
#[cube]
pub(crate) fn write_columns(
    sums: &Array<Four>,
    parts: &mut Array<Four>,
    first: usize,
    #[comptime] width: usize,
) {
    #[unroll]
    for share in 0..comptime!(shares(width)) {
        let column = UNIT_POS as usize + comptime!(share * UNITS);
        if column < width {
            parts[first + column] = sums[share];
        }
    }
}

/// Part of a matrix, transposed.
///
/// - matrix: its rows from `first` on are taken: [first + rows or more, columns]
/// - output: [columns, rows]
///
/// # Panics
/// When memory is smaller than stated.
pub fn transposed<R: Runtime>(
    client: &ComputeClient<R>,
    matrix: &Floats,
    first: usize,
    rows: usize,
    columns: usize,
) -> Floats {
    let output = Floats::empty(client, rows * columns, matrix.storage);
    let dim = CubeDim::new(client, rows * columns);
    // SAFETY: sizes are checked against memory, and the kernel stays within them.
    unsafe {
        transpose_kernel::launch_unchecked::<R>(
            client,
            cubecl::calculate_cube_count_elemwise(client, rows * columns, dim),
            dim,
            matrix.argument((first + rows) * columns),
            output.argument(rows * columns),
            first as u32,
            rows as u32,
            columns as u32,
            matrix.storage,
        );
    }
    output
}

#[cube(launch_unchecked)]
fn transpose_kernel<F: Float>(
    matrix: &Array<F>,
    output: &mut Array<F>,
    first: u32,
    rows: u32,
    columns: u32,
    #[define(F)] _storage: StorageType,
) {
    let position = ABSOLUTE_POS;
    let (rows, columns) = (rows as usize, columns as usize);
    if position < rows * columns {
        output[position] = matrix[(first as usize + position % rows) * columns + position / rows];
    }
}
