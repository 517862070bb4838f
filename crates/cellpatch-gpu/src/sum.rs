//! Sums of the rows of a matrix, column by column, in one order.

use cubecl::prelude::*;

use crate::memory::Floats;
use crate::workgroup;

/// Columns of a workgroup: neighbouring units read neighbouring columns.
const COLUMNS: usize = 32;
/// Units that share a column.
const SHARES: usize = 8;

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
    let groups = columns.n.div_ceil(COLUMNS) as u32;
    // SAFETY: sizes are checked against memory, and the kernel stays within them.
    unsafe {
        sum_kernel::launch_unchecked::<R>(
            client,
            workgroup::grid(client, groups, 1, 1),
            CubeDim::new_2d(COLUMNS as u32, SHARES as u32),
            rows.argument(n * columns.stride),
            into.argument(to + columns.n),
            n as u32,
            columns.stride as u32,
            columns.first as u32,
            columns.n as u32,
            to as u32,
            [rows.storage, into.storage],
        );
    }
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

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "a kernel's bindings")]
fn sum_kernel<F: Float, G: Float>(
    rows: &Array<F>,
    sums: &mut Array<G>,
    n: u32,
    stride: u32,
    first: u32,
    width: u32,
    to: u32,
    #[define(F, G)] _storage: [StorageType; 2],
) {
    let column = (CUBE_POS_X * COLUMNS as u32 + UNIT_POS_X) as usize;
    let mut shares = SharedMemory::<f32>::new(comptime!(COLUMNS * SHARES));
    let mut sum = 0.0f32;
    if column < width as usize {
        for row in range_stepped(UNIT_POS_Y, n, SHARES as u32) {
            sum += f32::cast_from(rows[row as usize * stride as usize + first as usize + column]);
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
        sums[to as usize + column] = G::cast_from(total);
    }
}
