//! Ragged multi-head attention, forward and backward, without ever storing a score (Dao et al. 2022, "FlashAttention").
//!
//! A workgroup takes one head of one cell and a tile of its queries, one or two queries a unit; keys and values go through shared memory,
//! a tile at a time. The backward pass computes the weights again from the logarithms of the softmax's denominators: one kernel
//! where each query's gradient has an owner, one where each key's has. Where there are tensor cores for what is stored with 16
//! bits, the module `tensor` does the same by them.

mod backward;
mod forward;
mod tensor;

pub use self::backward::{AttentionGradient, AttentionGradients, attention_backward};
pub use self::forward::{AttentionOutput, attention_forward};

use cubecl::prelude::*;
use cubecl::server::Handle;

use crate::dropout::{Dropout, Seed};
use crate::memory::{Floats, PaddedRows, argument};
use crate::tile::{Four, LANES, Stored, fill, load};
use crate::workgroup;

/// Projected queries, keys and values, heads side by side in a row.
#[derive(Debug, Clone)]
pub struct AttentionInput<'a> {
    /// Cells in the batch.
    pub n_cells: usize,
    /// Heads; head `h` owns the `h`-th of equal slices of a row.
    pub n_heads: usize,
    /// Width of a row.
    pub width: usize,
    /// [cells, queries, width], or [1, queries, width] where all cells ask the same.
    pub queries: &'a Floats,
    /// Whether all cells ask the same; then no query is padding.
    pub queries_are_shared: bool,
    /// Rows of the queries.
    pub query_rows: &'a PaddedRows,
    /// [cells, keys, width], or a row for each gene: [genes, width].
    pub keys: &'a Floats,
    /// As the keys.
    pub values: &'a Floats,
    /// Where keys and values are those of genes: which gene stands where.
    pub genes: Option<GeneSlots<'a>>,
    /// Rows of keys and values.
    pub key_rows: &'a PaddedRows,
    /// Probability with which a softmax weight is dropped; 0 outside training.
    pub dropout: f64,
    /// Of the dropout; forward and backward pass must be given the same.
    pub seed: &'a Seed,
}

/// The genes that a batch's slots hold, and their expression: what is read is a row of a table plus the expression times one
/// vector, and is made where it is read.
#[derive(Debug, Clone, Copy)]
pub struct GeneSlots<'a> {
    /// Rows of the tables of keys and values.
    pub n_genes: usize,
    /// Of each slot, as 32-bit integers below `n_genes`: [cells, keys].
    pub rows: &'a Handle,
    /// Of each slot, as `f32`: [cells, keys].
    pub expression: &'a Floats,
    /// What one unit of expression adds to a key, then what it adds to a value: [2, width], stored as the tables.
    pub slopes: &'a Floats,
}

/// Below every score, and finite, because not every shading language knows infinity.
const LOWEST: f32 = -1.0e30;

/// Memory that the kernel with most of it is bound to, sizes and numbers included.
const BINDINGS: u32 = 15;

/// Whether there is a kernel for heads of this width on this device.
pub fn serves<R: Runtime>(client: &ComputeClient<R>, width: usize, n_heads: usize) -> bool {
    is_known(width, n_heads) && client.properties().hardware.max_bindings >= BINDINGS
}

/// Whether there is a kernel for heads of this width.
pub fn is_known(width: usize, n_heads: usize) -> bool {
    n_heads > 0 && width.is_multiple_of(n_heads) && [8, 16, 32].contains(&(width / n_heads))
}

impl AttentionInput<'_> {
    fn head_dim(&self) -> usize {
        self.width / self.n_heads
    }

    fn n_queries(&self) -> usize {
        let cells = if self.queries_are_shared { 1 } else { self.n_cells };
        cells * self.query_rows.padded * self.width
    }

    /// Floats of a gradient of keys, a row a slot.
    fn n_keys(&self) -> usize {
        self.n_cells * self.key_rows.padded * self.width
    }

    /// Floats of the keys.
    fn n_key_floats(&self) -> usize {
        self.genes.map_or(self.n_keys(), |genes| genes.n_genes * self.width)
    }

    /// Rows of genes, their expression and slopes; what there is not is never read.
    fn gene_arguments<R: Runtime>(&self) -> [ArrayArg<R>; 3] {
        let n = self.n_cells * self.key_rows.padded;
        match self.genes {
            Some(genes) => [
                argument(genes.rows, n, size_of::<u32>()),
                genes.expression.argument(n),
                genes.slopes.argument(2 * self.width),
            ],
            None => {
                let lengths = || argument(&self.key_rows.lengths, self.n_cells, size_of::<u32>());
                [lengths(), lengths(), self.keys.argument(self.n_key_floats())]
            }
        }
    }

    fn n_outputs(&self) -> usize {
        self.n_cells * self.query_rows.padded * self.width
    }

    fn n_denominators(&self) -> usize {
        self.n_cells * self.n_heads * self.query_rows.padded
    }

    fn dropout(&self) -> Dropout {
        Dropout::new(self.dropout)
    }

    /// - rows: that have owners
    /// - most: of them, that a unit may own
    fn plan<R: Runtime>(&self, client: &ComputeClient<R>, rows: usize, most: usize) -> Plan {
        assert!(
            serves(client, self.width, self.n_heads),
            "no kernel for {} heads of {}",
            self.n_heads,
            self.width
        );
        // Two rows of a head in shared memory and four numbers beside them.
        let bytes = (2 * self.head_dim() + 4) * size_of::<f32>();
        let units = workgroup::units(client, bytes);
        Plan {
            width: self.width / LANES,
            columns: self.head_dim() / LANES,
            units,
            owned: if rows > units as usize { most } else { 1 },
            shared: self.queries_are_shared,
            dropping: self.dropout().drops(),
            genes: self.genes.is_some(),
        }
    }

    fn sizes<R: Runtime>(&self) -> SizesLaunch<R> {
        let inverse_root = 1.0 / (self.head_dim() as f32).sqrt();
        SizesLaunch::new(self.query_rows.padded as u32, self.key_rows.padded as u32, inverse_root)
    }

    /// One workgroup for each tile of rows, head and cell.
    fn grid<R: Runtime>(&self, client: &ComputeClient<R>, rows: usize, plan: &Plan) -> CubeCount {
        let tiles = workgroup::tiles(rows, plan.units * plan.owned as u32);
        workgroup::grid(client, tiles, self.n_heads as u32, self.n_cells as u32)
    }
}

/// What a kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Plan {
    /// Vectors of a row.
    width: usize,
    /// Vectors of a head.
    columns: usize,
    /// Of a workgroup; also the rows of a tile.
    units: u32,
    /// Rows that a unit owns: what is loaded from shared memory serves all of them.
    owned: usize,
    /// Whether all cells ask the same.
    shared: bool,
    dropping: bool,
    /// Whether keys and values are those of genes.
    genes: bool,
}

/// What a kernel is told.
#[derive(CubeType, CubeLaunch)]
struct Sizes {
    /// Rows of a cell's queries, padding included.
    queries: u32,
    /// Rows of a cell's keys, padding included.
    keys: u32,
    /// Of the width of a head.
    inverse_root: f32,
}

/// Where a workgroup works.
#[derive(CubeType, Clone, Copy)]
struct Place {
    cell: usize,
    head: usize,
    /// The first of the rows that have an owner here.
    first: usize,
}

#[cube]
fn place(#[comptime] plan: Plan) -> Place {
    Place {
        cell: CUBE_POS_Z as usize,
        head: CUBE_POS_Y as usize,
        first: CUBE_POS_X as usize * comptime!(plan.units as usize * plan.owned),
    }
}

/// A row that the unit owns. Neighbouring units own neighbouring rows.
#[cube]
fn owned_row(place: Place, #[comptime] which: usize, #[comptime] plan: Plan) -> usize {
    place.first + comptime!(which * plan.units as usize) + UNIT_POS as usize
}

/// Vector where a row of a cell's head begins.
#[cube]
fn vector_of(place: Place, padded: u32, row: usize, #[comptime] plan: Plan) -> usize {
    (place.cell * padded as usize + row) * comptime!(plan.width) + place.head * comptime!(plan.columns)
}

/// Vector where a row of a cell's queries begins.
#[cube]
fn query_vector(place: Place, sizes: &Sizes, row: usize, #[comptime] plan: Plan) -> usize {
    let mut cell = place.cell;
    if comptime!(plan.shared) {
        cell = 0usize;
    }
    vector_of(Place { cell, head: place.head, first: place.first }, sizes.queries, row, plan)
}

/// Position of a query's denominator.
#[cube]
fn denominator(place: Place, sizes: &Sizes, row: usize) -> usize {
    (place.cell * CUBE_COUNT_Y as usize + place.head) * sizes.queries as usize + row
}

/// Keys, or values, of neighbouring slots to shared memory; 0 beyond the last.
///
/// - rows: of slots, or of genes
/// - part: 0 for keys, 1 for values
#[cube]
#[allow(clippy::too_many_arguments, reason = "what is read, and where it stands")]
fn fill_part<F: Float>(
    rows: &Array<Stored<F>>,
    gene_rows: &Array<u32>,
    expression: &Array<f32>,
    slopes: &Array<Stored<F>>,
    tile: &mut SharedMemory<Four>,
    place: Place,
    padded: u32,
    first: usize,
    n: usize,
    #[comptime] part: usize,
    #[comptime] plan: Plan,
) {
    let (columns, units) = comptime!((plan.columns, plan.units as usize));
    if comptime!(plan.genes) {
        let slots = place.cell * padded as usize + first;
        let slope = comptime!(part * plan.width) + place.head * columns;
        #[unroll]
        for share in 0..columns {
            let position = comptime!(share * units) + UNIT_POS as usize;
            let row = position / columns;
            let column = position % columns;
            let mut vector = Four::new(0.0f32);
            if row < n {
                let gene = gene_rows[slots + row] as usize;
                let from = gene * comptime!(plan.width) + place.head * columns + column;
                let added = Four::cast_from(slopes[slope + column]);
                vector = fma(Four::new(expression[slots + row]), added, Four::cast_from(rows[from]));
            }
            tile[position] = vector;
        }
    } else {
        let from = vector_of(place, padded, first, plan);
        fill::<F>(rows, tile, from, n, comptime!(plan.width), columns, units);
    }
}

/// Loads the key, or the value, of a slot, times a number; leaves it if it is not wanted.
///
/// - part: 0 for keys, 1 for values
#[cube]
#[allow(clippy::too_many_arguments, reason = "what is read, and where it stands")]
fn load_part<F: Float>(
    into: &mut Array<Four>,
    rows: &Array<Stored<F>>,
    gene_rows: &Array<u32>,
    expression: &Array<f32>,
    slopes: &Array<Stored<F>>,
    place: Place,
    padded: u32,
    row: usize,
    wanted: bool,
    factor: f32,
    #[comptime] part: usize,
    #[comptime] plan: Plan,
) {
    let columns = comptime!(plan.columns);
    if comptime!(plan.genes) {
        if wanted {
            let slot = place.cell * padded as usize + row;
            let slope = comptime!(part * plan.width) + place.head * columns;
            let from = gene_rows[slot] as usize * comptime!(plan.width) + place.head * columns;
            #[unroll]
            for column in 0..columns {
                let added = Four::cast_from(slopes[slope + column]);
                let element = fma(Four::new(expression[slot]), added, Four::cast_from(rows[from + column]));
                into[column] = element * Four::new(factor);
            }
        }
    } else {
        load::<F>(into, 0usize, rows, vector_of(place, padded, row, plan), wanted, factor, columns);
    }
}
