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

/// Sum of the products of one of some rows in registers and one in shared memory.
#[cube]
pub(crate) fn product(
    rows: &Array<Four>,
    #[comptime] row: usize,
    tile: &SharedMemory<Four>,
    first: usize,
    #[comptime] columns: usize,
) -> f32 {
    let mut sum = rows[comptime!(row * columns)] * tile[first];
    #[unroll]
    for column in 1..columns {
        sum = fma(rows[comptime!(row * columns + column)], tile[first + column], sum);
    }
    lanes_sum(sum)
}

#[cube]
pub(crate) fn lanes_sum(four: Four) -> f32 {
    (four[0] + four[1]) + (four[2] + four[3])
}

/// Adds a multiple of a row in shared memory to one of some in registers.
#[cube]
pub(crate) fn add_multiple(
    rows: &mut Array<Four>,
    #[comptime] row: usize,
    factor: f32,
    tile: &SharedMemory<Four>,
    first: usize,
    #[comptime] columns: usize,
) {
    let factor = Four::new(factor);
    #[unroll]
    for column in 0..columns {
        let element = comptime!(row * columns + column);
        rows[element] = fma(factor, tile[first + column], rows[element]);
    }
}

/// Vectors of 0 in registers.
#[cube]
pub(crate) fn zeros(#[comptime] n: usize) -> Array<Four> {
    let mut vectors = Array::<Four>::new(n);
    #[unroll]
    for index in 0..n {
        vectors[index] = Four::new(0.0f32);
    }
    vectors
}

/// Loads one of some rows, times a number; leaves it if it is not wanted.
#[cube]
#[allow(clippy::too_many_arguments, reason = "from where to where")]
pub(crate) fn load<F: Float>(
    rows: &mut Array<Four>,
    #[comptime] row: usize,
    source: &Array<Stored<F>>,
    first: usize,
    wanted: bool,
    factor: f32,
    #[comptime] columns: usize,
) {
    if wanted {
        #[unroll]
        for column in 0..columns {
            rows[comptime!(row * columns + column)] =
                Four::cast_from(source[first + column]) * Four::new(factor);
        }
    }
}

/// Stores one of some rows, times a number.
#[cube]
pub(crate) fn store<F: Float>(
    rows: &Array<Four>,
    #[comptime] row: usize,
    factor: f32,
    target: &mut Array<Stored<F>>,
    first: usize,
    #[comptime] columns: usize,
) {
    #[unroll]
    for column in 0..columns {
        let vector = rows[comptime!(row * columns + column)] * Four::new(factor);
        target[first + column] = Stored::<F>::cast_from(vector);
    }
}
