//! Rows of the gene table: gathered for the slots of a padded batch, and the gradients of slots added up by gene.
//!
//! Which slots a gene has is found on the host ([`GeneIndex`]). Each row of the table has one owner on the device, which adds
//! in the order of slots: no atomic operations, the same bits every time. Rows of very many slots, as the token of padding
//! may have, are summed in pieces first, each with an owner of its own.

use cellpatch_kernels::genes::GeneIndex;
use cubecl::prelude::*;
use cubecl::server::Handle;

use crate::memory::{Floats, argument, f32_storage};
use crate::tile::{Four, LANES, Stored};
use crate::workgroup;

/// Units that share the slots of a row, each for its own columns.
const SHARES: usize = 8;
/// Slots of a piece.
const PIECE: u32 = 512;

/// Which slots belong to each row of a table, on the device.
#[derive(Debug, Clone)]
pub struct SlotIndex {
    n_rows: usize,
    n_slots: usize,
    slots: Handle,
    /// Where the slots of each row begin, or of each piece if there are pieces.
    starts: Handle,
    pieces: Option<Pieces>,
}

#[derive(Debug, Clone)]
struct Pieces {
    n: usize,
    /// Where the pieces of each row begin.
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
        let upload = |numbers: &[u32]| client.create_from_slice(u32::as_bytes(numbers));
        let in_pieces = starts.windows(2).any(|row| row[1] - row[0] > PIECE);
        let (starts_of_sums, pieces) = if in_pieces {
            let (pieces, rows) = pieces(starts);
            (upload(&pieces), Some(Pieces { n: pieces.len() - 1, starts: upload(&rows) }))
        } else {
            (upload(starts), None)
        };
        Self {
            n_rows: starts.len() - 1,
            n_slots: filled.len(),
            slots: upload(filled),
            starts: starts_of_sums,
            pieces,
        }
    }
}

/// The distinct genes of a batch, on the device: what is computed once for each of them, and how it comes back.
#[derive(Debug, Clone)]
pub struct BatchGenes {
    capacity: usize,
    n: usize,
    /// Token of each gene.
    tokens: Handle,
    /// Which gene stands in each slot of the padded batch.
    rows: Handle,
    slots: SlotIndex,
    /// Which gene, if any, each row of the table is.
    spread: SlotIndex,
}

impl BatchGenes {
    /// - capacity: rows of the gene table
    pub fn new<R: Runtime>(client: &ComputeClient<R>, index: &GeneIndex, capacity: usize) -> Self {
        let upload = |numbers: &[u32]| client.create_from_slice(u32::as_bytes(numbers));
        let n = index.genes().len();
        let genes: Vec<u32> = (0..n as u32).collect();
        let mut starts = Vec::with_capacity(capacity + 1);
        for (&gene, &token) in genes.iter().zip(index.genes()) {
            starts.resize(token as usize + 1, gene);
        }
        starts.resize(capacity + 1, n as u32);
        Self {
            capacity,
            n,
            tokens: upload(index.genes()),
            rows: upload(index.rows()),
            slots: SlotIndex::of_batch(client, index),
            spread: SlotIndex::new(client, &genes, &starts),
        }
    }

    /// Genes.
    pub fn n(&self) -> usize {
        self.n
    }

    /// For each slot of the padded batch the number of its gene, as 32-bit integers.
    pub fn rows(&self) -> &Handle {
        &self.rows
    }

    /// Rows of the gene table, plus a vector.
    ///
    /// - table: [capacity, width]; `width` a multiple of 4
    /// - plus: `[width]`
    /// - output: [genes, width]
    ///
    /// # Panics
    /// When memory is smaller than stated or the width no multiple of 4.
    pub fn gather<R: Runtime>(
        &self,
        client: &ComputeClient<R>,
        table: &Floats,
        width: usize,
        plus: &Floats,
    ) -> Floats {
        gather_rows(client, (table, self.capacity), width, (&self.tokens, self.n), Some(plus))
    }

    /// The gradient of the whole table from that of the batch's genes.
    ///
    /// - genes: [genes, width]
    /// - output: [capacity, width], 0 where the batch has no such gene
    ///
    /// # Panics
    /// When memory is smaller than stated or the width no multiple of 4.
    pub fn spread<R: Runtime>(&self, client: &ComputeClient<R>, genes: &Floats, width: usize) -> Floats {
        sum_by_row(client, &self.spread, genes, self.n, width, genes.storage)
    }

    /// The sum of slots by gene.
    ///
    /// - slots: [slots of the padded batch, width]; `width` a multiple of 4
    /// - n: slots of the padded batch, padding included
    /// - output: [genes, width], `f32`
    pub(crate) fn sum<R: Runtime>(
        &self,
        client: &ComputeClient<R>,
        slots: &Floats,
        n: usize,
        width: usize,
    ) -> Floats {
        sum_by_row(client, &self.slots, slots, n, width, f32_storage())
    }
}

/// Where the slots of each piece begin, and where the pieces of each row.
fn pieces(starts: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let (mut pieces, mut rows) = (Vec::with_capacity(starts.len()), Vec::with_capacity(starts.len()));
    for row in starts.windows(2) {
        rows.push(pieces.len() as u32);
        pieces.extend((row[0]..row[1]).step_by(PIECE as usize));
    }
    rows.push(pieces.len() as u32);
    pieces.extend(starts.last());
    (pieces, rows)
}

/// Adds the rows of slots up by the table's row they belong to; rows of the table without slots are 0.
///
/// - slots: [slots of the padded batch, width]; `width` a multiple of 4
/// - n: slots of the padded batch, padding included
/// - output: [rows of the table, width], stored as said
///
/// # Panics
/// When memory is smaller than stated or the width no multiple of 4.
pub fn sum_by_row<R: Runtime>(
    client: &ComputeClient<R>,
    index: &SlotIndex,
    slots: &Floats,
    n: usize,
    width: usize,
    storage: StorageType,
) -> Floats {
    assert!(width.is_multiple_of(LANES), "rows of {width} floats");
    let sums = Sums { client, width };
    match &index.pieces {
        None => {
            let ranges = (&index.starts, index.n_rows);
            sums.launch((slots, n), Some((&index.slots, index.n_slots)), ranges, storage)
        }
        Some(pieces) => {
            let ranges = (&index.starts, pieces.n);
            let parts = sums.launch((slots, n), Some((&index.slots, index.n_slots)), ranges, f32_storage());
            sums.launch((&parts, pieces.n), None, (&pieces.starts, index.n_rows), storage)
        }
    }
}

struct Sums<'a, R: Runtime> {
    client: &'a ComputeClient<R>,
    width: usize,
}

impl<R: Runtime> Sums<'_, R> {
    /// - rows: and how many there are
    /// - order: of the rows, and how many positions it has; `None` if they lie in order
    /// - ranges: where each sum's positions begin, and the number of sums
    fn launch(
        &self,
        (rows, n): (&Floats, usize),
        order: Option<(&Handle, usize)>,
        (starts, n_sums): (&Handle, usize),
        storage: StorageType,
    ) -> Floats {
        let Self { client, width } = *self;
        let sums = Floats::empty(client, n_sums * width, storage);
        let columns = width / LANES;
        let plan = Plan { columns, rows: rows_together(client, columns), ordered: order.is_some() };
        let groups = n_sums.div_ceil(plan.rows) as u32;
        // What there is not is never read.
        let (order, n_positions) = order.unwrap_or((starts, n_sums));
        // SAFETY: the index was made for slots and rows within these sizes.
        unsafe {
            sum_kernel::launch_unchecked::<R>(
                client,
                workgroup::grid(client, groups, 1, 1),
                CubeDim::new_3d(columns as u32, SHARES as u32, plan.rows as u32),
                rows.argument(n * width),
                argument(order, n_positions, size_of::<u32>()),
                argument(starts, n_sums + 1, size_of::<u32>()),
                sums.argument(n_sums * width),
                n_sums as u32,
                plan,
                [rows.storage, storage],
            );
        }
        sums
    }
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
    /// Whether rows are found by their slots.
    ordered: bool,
}

#[cube(launch_unchecked)]
fn sum_kernel<F: Float, G: Float>(
    rows: &Array<Stored<F>>,
    slots: &Array<u32>,
    starts: &Array<u32>,
    sums: &mut Array<Stored<G>>,
    n_rows: u32,
    #[comptime] plan: Plan,
    #[define(F, G)] _storage: [StorageType; 2],
) {
    let columns = comptime!(plan.columns);
    let column = UNIT_POS_X as usize;
    let row = CUBE_POS_X as usize * comptime!(plan.rows) + UNIT_POS_Z as usize;
    let mut shares = SharedMemory::<Four>::new(comptime!(plan.columns * SHARES * plan.rows));
    let mut sum = Four::new(0.0f32);
    if row < n_rows as usize {
        for position in range_stepped(starts[row] + UNIT_POS_Y, starts[row + 1], SHARES as u32) {
            let mut slot = position as usize;
            if comptime!(plan.ordered) {
                slot = slots[slot] as usize;
            }
            sum += Four::cast_from(rows[slot * columns + column]);
        }
    }
    shares[UNIT_POS as usize] = sum;
    sync_cube();
    if UNIT_POS_Y == 0 && row < n_rows as usize {
        #[unroll]
        for share in 1..SHARES {
            sum += shares[UNIT_POS as usize + share * columns];
        }
        sums[row * columns + column] = Stored::<G>::cast_from(sum);
    }
}

/// The rows of a table that tokens name.
///
/// - table: [capacity, width]; `width` a multiple of 4
/// - tokens: `n` 32-bit integers below the capacity; others name its last row
/// - plus: `[width]`, added to every row, stored as the table
/// - output: [n, width]
///
/// # Panics
/// When memory is smaller than stated or the width no multiple of 4.
pub fn gather_rows<R: Runtime>(
    client: &ComputeClient<R>,
    (table, capacity): (&Floats, usize),
    width: usize,
    (tokens, n): (&Handle, usize),
    plus: Option<&Floats>,
) -> Floats {
    assert!(width.is_multiple_of(LANES), "rows of {width} floats");
    let rows = Floats::empty(client, n * width, table.storage);
    let units = n * width / LANES;
    let dim = CubeDim::new(client, units);
    let added = plus.is_some();
    // What there is not is never read.
    let plus = plus.map_or_else(|| table.argument(capacity * width), |plus| plus.argument(width));
    // SAFETY: sizes are checked against memory, and the kernel stays within them.
    unsafe {
        gather_kernel::launch_unchecked::<R>(
            client,
            cubecl::calculate_cube_count_elemwise(client, units, dim),
            dim,
            table.argument(capacity * width),
            argument(tokens, n, size_of::<u32>()),
            plus,
            rows.argument(n * width),
            units as u32,
            capacity as u32,
            width / LANES,
            added,
            table.storage,
        );
    }
    rows
}

#[cube(launch_unchecked)]
fn gather_kernel<F: Float>(
    table: &Array<Stored<F>>,
    tokens: &Array<u32>,
    plus: &Array<Stored<F>>,
    rows: &mut Array<Stored<F>>,
    n_units: u32,
    capacity: u32,
    #[comptime] columns: usize,
    #[comptime] added: bool,
    #[define(F)] _storage: StorageType,
) {
    let position = ABSOLUTE_POS;
    if position < n_units as usize {
        let token = tokens[position / columns].min(capacity - 1);
        let column = position % columns;
        if comptime!(added) {
            let sum =
                Four::cast_from(table[token as usize * columns + column]) + Four::cast_from(plus[column]);
            rows[position] = Stored::<F>::cast_from(sum);
        } else {
            rows[position] = table[token as usize * columns + column];
        }
    }
}
