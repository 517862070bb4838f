//! Sums of the rows of a matrix, column by column, in one order.

use cubecl::prelude::*;

use crate::memory::Floats;
use crate::workgroup;

/// Columns of a workgroup: neighbouring units read neighbouring columns.
const COLUMNS: usize = 32;
/// Units that share a column.
const SHARES: usize = 8;

/// The sum of all rows.
///
/// - rows: [n, width], `f32`
/// - output: `[width]`, stored as said
pub(crate) fn sum_of_rows<R: Runtime>(
    client: &ComputeClient<R>,
    rows: &Floats,
    n: usize,
    width: usize,
    storage: StorageType,
) -> Floats {
    let sums = Floats::empty(client, width, storage);
    let groups = width.div_ceil(COLUMNS) as u32;
    // SAFETY: sizes are checked against memory, and the kernel stays within them.
    unsafe {
        sum_kernel::launch_unchecked::<R>(
            client,
            workgroup::grid(client, groups, 1, 1),
            CubeDim::new_2d(COLUMNS as u32, SHARES as u32),
            rows.argument(n * width),
            sums.argument(width),
            n as u32,
            width as u32,
            storage,
        );
    }
    sums
}

#[cube(launch_unchecked)]
fn sum_kernel<F: Float>(
    rows: &Array<f32>,
    sums: &mut Array<F>,
    n: u32,
    width: u32,
    #[define(F)] _storage: StorageType,
) {
    let column = (CUBE_POS_X * COLUMNS as u32 + UNIT_POS_X) as usize;
    let mut shares = SharedMemory::<f32>::new(comptime!(COLUMNS * SHARES));
    let mut sum = 0.0f32;
    if column < width as usize {
        for row in range_stepped(UNIT_POS_Y, n, SHARES as u32) {
            sum += rows[row as usize * width as usize + column];
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
        sums[column] = F::cast_from(total);
    }
}
