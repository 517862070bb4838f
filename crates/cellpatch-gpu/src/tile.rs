//! Rows of vectors of four, in registers and in shared memory.

use cubecl::prelude::*;

/// Four floats that are loaded together and computed with as `f32`.
pub(crate) type Four = Vector<f32, Const<4>>;
/// Four floats as they are stored.
pub(crate) type Stored<F> = Vector<F, Const<4>>;
/// Floats of a [`Four`].
pub(crate) const LANES: usize = 4;

/// Copies some columns of neighbouring rows to shared memory, every unit of the workgroup some of them; rows from `n` on are
/// filled with 0.
///
/// - first: vector of `source` where the first row's columns begin
/// - stride: vectors between rows
/// - columns: vectors of a row that are copied
/// - rows: of the tile, as many as there are units
#[cube]
pub(crate) fn fill<F: Float>(
    source: &Array<Stored<F>>,
    tile: &mut SharedMemory<Four>,
    first: usize,
    n: usize,
    #[comptime] stride: usize,
    #[comptime] columns: usize,
    #[comptime] rows: usize,
) {
    // Neighbouring units load neighbouring vectors.
    #[unroll]
    for part in 0..columns {
        let position = comptime!(part * rows) + UNIT_POS as usize;
        let row = position / columns;
        let mut vector = Four::new(0.0f32);
        if row < n {
            vector = Four::cast_from(source[first + row * stride + position % columns]);
        }
        tile[position] = vector;
    }
}

/// Sum of the products of a row in registers and one in shared memory.
#[cube]
pub(crate) fn product(
    row: &Array<Four>,
    tile: &SharedMemory<Four>,
    first: usize,
    #[comptime] columns: usize,
) -> f32 {
    let mut sum = row[0] * tile[first];
    #[unroll]
    for column in 1..columns {
        sum = fma(row[column], tile[first + column], sum);
    }
    lanes_sum(sum)
}

#[cube]
pub(crate) fn lanes_sum(four: Four) -> f32 {
    (four[0] + four[1]) + (four[2] + four[3])
}

/// Adds a multiple of a row in shared memory to one in registers.
#[cube]
pub(crate) fn add_multiple(
    row: &mut Array<Four>,
    factor: f32,
    tile: &SharedMemory<Four>,
    first: usize,
    #[comptime] columns: usize,
) {
    let factor = Four::new(factor);
    #[unroll]
    for column in 0..columns {
        row[column] = fma(factor, tile[first + column], row[column]);
    }
}

/// A row of 0 in registers.
#[cube]
pub(crate) fn zeros(#[comptime] columns: usize) -> Array<Four> {
    let mut row = Array::<Four>::new(columns);
    #[unroll]
    for column in 0..columns {
        row[column] = Four::new(0.0f32);
    }
    row
}

/// A row times a number, in registers; 0 if it is not wanted.
#[cube]
pub(crate) fn load<F: Float>(
    source: &Array<Stored<F>>,
    first: usize,
    wanted: bool,
    factor: f32,
    #[comptime] columns: usize,
) -> Array<Four> {
    let mut row = zeros(columns);
    if wanted {
        #[unroll]
        for column in 0..columns {
            row[column] = Four::cast_from(source[first + column]) * Four::new(factor);
        }
    }
    row
}

/// Stores a row in registers times a number.
#[cube]
pub(crate) fn store<F: Float>(
    row: &Array<Four>,
    factor: f32,
    target: &mut Array<Stored<F>>,
    first: usize,
    #[comptime] columns: usize,
) {
    #[unroll]
    for column in 0..columns {
        target[first + column] = Stored::<F>::cast_from(row[column] * Four::new(factor));
    }
}
