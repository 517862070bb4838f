//! Sums of the rows of a matrix, column by column, in one order.

use cubecl::prelude::*;

use crate::memory::{Floats, f32_storage};
use crate::workgroup;

/// Columns of a workgroup: neighbouring units read neighbouring columns.
const COLUMNS: usize = 32;
/// Units that share a column.
const SHARES: usize = 8;
/// Rows of a part, where rows are very many.
const ROWS_OF_A_PART: usize = 256;

/// Some columns of a matrix.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Columns {
    /// Columns of the matrix.
    pub(crate) stride: usize,
    /// The first of these.
    pub(crate) first: usize,
    /// How many.
    pub(crate) n: usize,
}

/// The sum of all rows.
///
/// - rows: [n, stride]
/// - into: some elements are written, from `to` on
pub(crate) fn sum_columns_into<R: Runtime>(
    client: &ComputeClient<R>,
    rows: &Floats,
    n: usize,
    columns: Columns,
    into: &Floats,
    to: usize,
) {
    launch(client, (rows, n), None, columns, (into, to), 1);
}

/// The sum of all rows.
///
/// - rows: [n, stride]
/// - output: `[columns]`, stored as said
pub(crate) fn sum_of_columns<R: Runtime>(
    client: &ComputeClient<R>,
    rows: &Floats,
    n: usize,
    columns: Columns,
    storage: StorageType,
) -> Floats {
    let sums = Floats::empty(client, columns.n, storage);
    sum_columns_into(client, rows, n, columns, &sums, 0);
    sums
}

/// The sum of very many rows, in parts, which are added in their order.
///
/// - rows: [n, width]
/// - factors: what each row is multiplied by first: `[n]`, `f32`
/// - output: `[width]`, `f32`
pub(crate) fn sum_of_many<R: Runtime>(
    client: &ComputeClient<R>,
    rows: &Floats,
    factors: Option<&Floats>,
    n: usize,
    width: usize,
) -> Floats {
    let parts = workgroup::persistent(client, n.div_ceil(ROWS_OF_A_PART).max(1) as u32);
    let columns = Columns { stride: width, first: 0, n: width };
    let sums = Floats::empty(client, parts as usize * width, f32_storage());
    launch(client, (rows, n), factors, columns, (&sums, 0), parts);
    sum_of_columns(client, &sums, parts as usize, columns, f32_storage())
}

/// - parts: in which rows are summed, each written behind the other
fn launch<R: Runtime>(
    client: &ComputeClient<R>,
    (rows, n): (&Floats, usize),
    factors: Option<&Floats>,
    columns: Columns,
    (into, to): (&Floats, usize),
    parts: u32,
) {
    let groups = columns.n.div_ceil(COLUMNS) as u32;
    let weighted = factors.is_some();
    let rows_argument = || rows.argument(n * columns.stride);
    // What there is not is never read.
    let factors = factors.map_or_else(rows_argument, |factors| factors.argument(n));
    // SAFETY: sizes are checked against memory, and the kernel stays within them.
    unsafe {
        sum_kernel::launch_unchecked::<R>(
            client,
            workgroup::grid(client, groups, parts, 1),
            CubeDim::new_2d(COLUMNS as u32, SHARES as u32),
            rows_argument(),
            factors,
            into.argument(to + parts as usize * columns.n),
            n as u32,
            columns.stride as u32,
            columns.first as u32,
            columns.n as u32,
            to as u32,
            weighted,
            [rows.storage, into.storage],
        );
    }
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "a kernel's bindings")]
fn sum_kernel<F: Float, G: Float>(
    rows: &Array<F>,
    factors: &Array<f32>,
    sums: &mut Array<G>,
    n: u32,
    stride: u32,
    first: u32,
    width: u32,
    to: u32,
    #[comptime] weighted: bool,
    #[define(F, G)] _storage: [StorageType; 2],
) {
    let column = (CUBE_POS_X * COLUMNS as u32 + UNIT_POS_X) as usize;
    let mut shares = SharedMemory::<f32>::new(comptime!(COLUMNS * SHARES));
    let mut sum = 0.0f32;
    if column < width as usize {
        let share = CUBE_POS_Y * SHARES as u32 + UNIT_POS_Y;
        for row in range_stepped(share, n, CUBE_COUNT_Y * SHARES as u32) {
            let element = f32::cast_from(rows[row as usize * stride as usize + first as usize + column]);
            if comptime!(weighted) {
                sum = fma(element, factors[row as usize], sum);
            } else {
                sum += element;
            }
        }
    }
    shares[UNIT_POS as usize] = sum;
    sync_cube();
    if UNIT_POS_Y == 0 && column < width as usize {
        let mut total = 0.0f32;
        #[unroll]
        for share in 0..SHARES {
            total += shares[share * COLUMNS + UNIT_POS_X as usize];
        }
        sums[to as usize + CUBE_POS_Y as usize * width as usize + column] = G::cast_from(total);
    }
}
