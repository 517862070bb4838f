//! The gradient of the gene table: the rows of a batch's slots, added up by gene.
//!
//! Which slots a gene has is found on the host ([`GeneIndex`]). Each row of the table has one owner on the device, which adds
//! in the order of slots: no atomic operations, the same bits every time.

use cellpatch_kernels::genes::GeneIndex;
use cubecl::prelude::*;
use cubecl::server::Handle;

use crate::memory::{Floats, argument};
use crate::tile::{Four, LANES, Stored};
use crate::workgroup;

/// Units that share the slots of a row, each for its own columns.
const SHARES: usize = 8;

/// Which slots belong to each row of a table, on the device.
#[derive(Debug, Clone)]
pub struct SlotIndex {
    n_rows: usize,
    n_slots: usize,
    slots: Handle,
    starts: Handle,
}

impl SlotIndex {
    /// For a table with a row for each gene of the batch, in the order of [`GeneIndex::genes`].
    pub fn of_batch<R: Runtime>(client: &ComputeClient<R>, index: &GeneIndex) -> Self {
        Self::new(client, index.slots(), index.starts())
    }

    /// For a table with a row for each token below the capacity.
    pub fn of_table<R: Runtime>(client: &ComputeClient<R>, index: &GeneIndex, capacity: usize) -> Self {
        let mut starts = Vec::with_capacity(capacity + 1);
        for (&gene, &start) in index.genes().iter().zip(index.starts()) {
            starts.resize(gene as usize + 1, start);
        }
        starts.resize(capacity + 1, index.slots().len() as u32);
        Self::new(client, index.slots(), &starts)
    }

    fn new<R: Runtime>(client: &ComputeClient<R>, slots: &[u32], starts: &[u32]) -> Self {
        // Devices have no empty memory.
        let filled = if slots.is_empty() { &[0][..] } else { slots };
        Self {
            n_rows: starts.len() - 1,
            n_slots: filled.len(),
            slots: client.create_from_slice(u32::as_bytes(filled)),
            starts: client.create_from_slice(u32::as_bytes(starts)),
        }
    }
}

/// Adds the rows of slots up by the table's row they belong to; rows of the table without slots are 0.
///
/// - slots: [slots of the padded batch, width]; `width` a multiple of 4
/// - n: slots of the padded batch, padding included
/// - output: [rows of the table, width], stored as the slots
///
/// # Panics
/// When memory is smaller than stated or the width no multiple of 4.
pub fn sum_by_row<R: Runtime>(
    client: &ComputeClient<R>,
    index: &SlotIndex,
    slots: &Floats,
    n: usize,
    width: usize,
) -> Floats {
    assert!(width.is_multiple_of(LANES), "rows of {width} floats");
    let sums = Floats::empty(client, index.n_rows * width, slots.storage);
    let columns = width / LANES;
    let plan = Plan { columns, rows: rows_together(client, columns) };
    let groups = index.n_rows.div_ceil(plan.rows) as u32;
    // SAFETY: the index was made for slots and rows within these sizes.
    unsafe {
        sum_kernel::launch_unchecked::<R>(
            client,
            workgroup::grid(client, groups, 1, 1),
            CubeDim::new_3d(columns as u32, SHARES as u32, plan.rows as u32),
            slots.argument(n * width),
            argument(&index.slots, index.n_slots, size_of::<u32>()),
            argument(&index.starts, index.n_rows + 1, size_of::<u32>()),
            sums.argument(index.n_rows * width),
            index.n_rows as u32,
            plan,
            slots.storage,
        );
    }
    sums
}

/// Rows of the table of one workgroup: as many as fill it.
fn rows_together<R: Runtime>(client: &ComputeClient<R>, columns: usize) -> usize {
    let most = client.properties().hardware.max_units_per_cube.min(256) as usize;
    (most / (columns * SHARES)).clamp(1, 4)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Plan {
    /// Vectors of a row.
    columns: usize,
    /// Rows of a workgroup.
    rows: usize,
}

#[cube(launch_unchecked)]
fn sum_kernel<F: Float>(
    rows: &Array<Stored<F>>,
    slots: &Array<u32>,
    starts: &Array<u32>,
    sums: &mut Array<Stored<F>>,
    n_rows: u32,
    #[comptime] plan: Plan,
    #[define(F)] _storage: StorageType,
) {
    let columns = comptime!(plan.columns);
    let column = UNIT_POS_X as usize;
    let row = CUBE_POS_X as usize * comptime!(plan.rows) + UNIT_POS_Z as usize;
    let mut shares = SharedMemory::<Four>::new(comptime!(plan.columns * SHARES * plan.rows));
    let mut sum = Four::new(0.0f32);
    if row < n_rows as usize {
        for position in range_stepped(starts[row] + UNIT_POS_Y, starts[row + 1], SHARES as u32) {
            sum += Four::cast_from(rows[slots[position as usize] as usize * columns + column]);
        }
    }
    shares[UNIT_POS as usize] = sum;
    sync_cube();
    if UNIT_POS_Y == 0 && row < n_rows as usize {
        #[unroll]
        for share in 1..SHARES {
            sum += shares[UNIT_POS as usize + share * columns];
        }
        sums[row * columns + column] = Stored::<F>::cast_from(sum);
    }
}
