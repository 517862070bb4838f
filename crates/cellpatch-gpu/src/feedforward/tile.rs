//! Tiles of rows in shared memory, a vector wider than the rows.

use cubecl::prelude::*;

use super::UNITS;
use crate::tile::{Four, LANES, Stored, zeros};

/// What a unit computes of a product: a vector of some rows.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Item {
    pub(super) first_row: usize,
    pub(super) chunk: usize,
}

/// Items of a product of `rows` rows with `chunks` vectors, in multiples of the units.
pub(super) fn n_items(rows: usize, together: usize, chunks: usize) -> usize {
    rows / together * chunks
}

#[cube]
pub(super) fn item(index: usize, #[comptime] chunks: usize, #[comptime] together: usize) -> Item {
    // Neighbouring units take neighbouring vectors.
    Item { first_row: index / chunks * together, chunk: index % chunks }
}

/// The item's part of `tile weights`.
///
/// - inputs: vectors of the tile's rows
/// - chunks: vectors of the weights' rows
#[cube]
pub(super) fn multiply_item<F: Float>(
    tile: &SharedMemory<Four>,
    weights: &Array<Stored<F>>,
    item: Item,
    #[comptime] inputs: usize,
    #[comptime] chunks: usize,
    #[comptime] together: usize,
) -> Array<Four> {
    let mut sums = zeros(together);
    for input in 0..inputs {
        let mut elements = zeros(together);
        #[unroll]
        for row in 0..together {
            elements[row] = tile[(item.first_row + row) * comptime!(inputs + 1) + input];
        }
        #[unroll]
        for lane in 0..LANES {
            let weight = Four::cast_from(weights[(input * LANES + lane) * chunks + item.chunk]);
            #[unroll]
            for row in 0..together {
                sums[row] = fma(Four::new(elements[row][lane]), weight, sums[row]);
            }
        }
    }
    sums
}

/// Neighbouring rows to shared memory; 0 beyond the last.
///
/// - first: row of `source`
/// - n: rows that there are
#[cube]
pub(super) fn read_rows<F: Float>(
    source: &Array<Stored<F>>,
    tile: &mut SharedMemory<Four>,
    first: usize,
    n: usize,
    #[comptime] width: usize,
    #[comptime] rows: usize,
) {
    for position in range_stepped(UNIT_POS as usize, comptime!(rows * width), UNITS) {
        let row = position / width;
        let mut vector = Four::new(0.0f32);
        if row < n {
            vector = Four::cast_from(source[first * width + position]);
        }
        tile[row * comptime!(width + 1) + position % width] = vector;
    }
}

/// Neighbouring rows from shared memory; none beyond the last.
#[cube]
pub(super) fn write_rows<F: Float>(
    tile: &SharedMemory<Four>,
    target: &mut Array<Stored<F>>,
    first: usize,
    n: usize,
    #[comptime] width: usize,
    #[comptime] rows: usize,
) {
    for position in range_stepped(UNIT_POS as usize, comptime!(rows * width), UNITS) {
        let row = position / width;
        if row < n {
            let vector = tile[row * comptime!(width + 1) + position % width];
            target[first * width + position] = Stored::<F>::cast_from(vector);
        }
    }
}

/// Adds the rows of a tile, each unit for columns of its own.
///
/// - first: vector of `columns` where the sums begin
#[cube]
pub(super) fn add_columns(
    tile: &SharedMemory<Four>,
    columns: &mut SharedMemory<Four>,
    rows: usize,
    #[comptime] first: usize,
    #[comptime] width: usize,
) {
    for column in range_stepped(UNIT_POS as usize, width, UNITS) {
        let mut sum = Four::new(0.0f32);
        for row in 0..rows {
            sum += tile[row * comptime!(width + 1) + column];
        }
        columns[first + column] += sum;
    }
}

/// The probability below a number of the standard normal distribution.
#[cube]
pub(super) fn probability(x: Four) -> Four {
    let half = Four::new(0.5f32);
    half + half * (x * Four::new(f32::new(comptime!(std::f32::consts::FRAC_1_SQRT_2)))).erf()
}

/// The derivative of the GELU: `Phi(x) + x phi(x)`.
#[cube]
pub(super) fn gelu_slope(x: Four) -> Four {
    let inverse_root = comptime!(std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2 * 0.5);
    let density = (x * x * Four::new(-0.5f32)).exp() * Four::new(f32::new(inverse_root));
    probability(x) + x * density
}
