//! Rows of the other side in shared memory, as right factors: row by row where the products' depth is a head's width, column by
//! column where it is the rows.

use cubecl::prelude::*;

use super::{BLOCK, HEAD, PAIRS, PLANE, PLANES, Pair, Plan, TILE, pair, pair_of};
use crate::attention::Place;

/// Pairs from row to row: as many as make a plane's loads hit 32 banks.
const ROW: usize = PAIRS + 4;
/// Pairs from column to column.
const COLUMN: usize = TILE / 2 + 4;

/// Pairs that rows take, or 1 where there are none.
pub(super) const ROW_PAIRS: usize = TILE * ROW;
/// Pairs that columns take.
pub(super) const COLUMN_PAIRS: usize = HEAD * COLUMN;

/// How a tile is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Kept {
    pub(super) rows: bool,
    pub(super) columns: bool,
}

/// Rows of 16-bit floats in shared memory.
#[derive(CubeType)]
pub(super) struct Tile<F: Float> {
    rows: SharedMemory<Pair<F>>,
    columns: SharedMemory<Pair<F>>,
    #[cube(comptime)]
    kept: Kept,
}

#[cube]
pub(super) fn tile<F: Float>(#[comptime] kept: Kept) -> Tile<F> {
    Tile::<F> {
        rows: SharedMemory::<Pair<F>>::new(comptime!(if kept.rows { ROW_PAIRS } else { 1 })),
        columns: SharedMemory::<Pair<F>>::new(comptime!(if kept.columns { COLUMN_PAIRS } else { 1 })),
        kept,
    }
}

/// Shares of a unit in filling a tile.
const SHARES: usize = TILE / 2 * PAIRS / (PLANE * PLANES);

/// Two neighbouring rows' pairs of neighbouring columns.
#[cube]
fn keep<F: Float>(tile: &mut Tile<F>, rows: usize, column: usize, first: Pair<F>, second: Pair<F>) {
    let kept = comptime!(tile.kept);
    if comptime!(kept.rows) {
        tile.rows[2usize * rows * ROW + column] = first;
        tile.rows[(2usize * rows + 1usize) * ROW + column] = second;
    }
    if comptime!(kept.columns) {
        #[unroll]
        for half in 0..2usize {
            let mut both = first;
            both[0] = first[half];
            both[1] = second[half];
            tile.columns[(2usize * column + half) * COLUMN + rows] = both;
        }
    }
}

/// Fills a tile with neighbouring rows, and with 0 beyond the last.
///
/// - from: pair where the first begins
#[cube]
pub(super) fn fill_rows<F: Float>(
    tile: &mut Tile<F>,
    source: &Array<Pair<F>>,
    from: usize,
    n: usize,
    #[comptime] plan: Plan,
) {
    #[unroll]
    for share in 0..SHARES {
        let position = comptime!(share * PLANE * PLANES) + UNIT_POS as usize;
        let (rows, column) = (position / PAIRS, position % PAIRS);
        let row = 2usize * rows;
        let mut first = pair::<F>(0.0f32, 0.0f32);
        let mut second = pair::<F>(0.0f32, 0.0f32);
        if row < n {
            first = source[from + row * comptime!(plan.width) + column];
        }
        if row + 1usize < n {
            second = source[from + (row + 1usize) * comptime!(plan.width) + column];
        }
        keep::<F>(tile, rows, column, first, second);
    }
}

/// Fills a tile with keys, or values, of neighbouring slots, and with 0 beyond the last.
///
/// - rows: of slots, or of genes
/// - part: 0 for keys, 1 for values
#[cube]
#[allow(clippy::too_many_arguments, reason = "what is read, and where it stands")]
pub(super) fn fill_slots<F: Float>(
    tile: &mut Tile<F>,
    rows: &Array<Pair<F>>,
    gene_rows: &Array<u32>,
    expression: &Array<f32>,
    slopes: &Array<Pair<F>>,
    place: Place,
    padded: u32,
    from: usize,
    n: usize,
    #[comptime] part: usize,
    #[comptime] plan: Plan,
) {
    if comptime!(plan.genes) {
        #[unroll]
        for share in 0..SHARES {
            let position = comptime!(share * PLANE * PLANES) + UNIT_POS as usize;
            let (pairs, column) = (position / PAIRS, position % PAIRS);
            let row = from + 2usize * pairs;
            let first = slot_pair::<F>(
                rows,
                gene_rows,
                expression,
                slopes,
                place,
                padded,
                row,
                column,
                2usize * pairs < n,
                part,
                plan,
            );
            let second = slot_pair::<F>(
                rows,
                gene_rows,
                expression,
                slopes,
                place,
                padded,
                row + 1usize,
                column,
                2usize * pairs + 1usize < n,
                part,
                plan,
            );
            keep::<F>(tile, pairs, column, first, second);
        }
    } else {
        fill_rows::<F>(tile, rows, pair_of(place, padded, from, plan), n, plan);
    }
}

/// A pair of a slot's key, or value; 0 if it is not wanted.
#[cube]
#[allow(clippy::too_many_arguments, reason = "what is read, and where it stands")]
pub(super) fn slot_pair<F: Float>(
    rows: &Array<Pair<F>>,
    gene_rows: &Array<u32>,
    expression: &Array<f32>,
    slopes: &Array<Pair<F>>,
    place: Place,
    padded: u32,
    row: usize,
    column: usize,
    wanted: bool,
    #[comptime] part: usize,
    #[comptime] plan: Plan,
) -> Pair<F> {
    let mut numbers = pair::<F>(0.0f32, 0.0f32);
    if wanted {
        if comptime!(plan.genes) {
            let slot = place.cell * padded as usize + row;
            let own = gene_rows[slot] as usize * comptime!(plan.width) + place.head * PAIRS + column;
            let slope = slopes[comptime!(part * plan.width) + place.head * PAIRS + column];
            let (base, value) = (rows[own], expression[slot]);
            numbers = pair::<F>(
                fma(value, f32::cast_from(slope[0]), f32::cast_from(base[0])),
                fma(value, f32::cast_from(slope[1]), f32::cast_from(base[1])),
            );
        } else {
            numbers = rows[pair_of(place, padded, row, plan) + column];
        }
    }
    numbers
}

/// Eight neighbouring rows, transposed, as a right factor.
///
/// - block: of them
#[cube]
pub(super) fn transposed_rows<F: Float>(
    tile: &Tile<F>,
    group: usize,
    member: usize,
    #[comptime] block: usize,
) -> Array<Pair<F>> {
    let from = (comptime!(block * BLOCK) + group) * ROW + member;
    let mut factor = Array::<Pair<F>>::new(2usize);
    factor[0] = tile.rows[from];
    factor[1] = tile.rows[from + 4usize];
    factor
}

/// Sixteen neighbouring rows' half as a right factor.
///
/// - step: which sixteen
/// - half: which eight columns
#[cube]
pub(super) fn columns<F: Float>(
    tile: &Tile<F>,
    group: usize,
    member: usize,
    #[comptime] step: usize,
    #[comptime] half: usize,
) -> Array<Pair<F>> {
    let from = (comptime!(half * BLOCK) + group) * COLUMN + comptime!(step * 8) + member;
    let mut factor = Array::<Pair<F>>::new(2usize);
    factor[0] = tile.columns[from];
    factor[1] = tile.columns[from + 4usize];
    factor
}
