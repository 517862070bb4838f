//! Layer normalisation of rows in shared memory (`torch.nn.LayerNorm`).

use cubecl::prelude::*;

use super::UNITS;
use crate::tile::{Four, LANES, Stored, lanes_sum};

#[derive(CubeType, Clone, Copy)]
pub(super) struct Moments {
    mean: f32,
    inverse_deviation: f32,
}

/// - first: vector where the row begins
#[cube]
fn moments(tile: &SharedMemory<Four>, first: usize, epsilon: f32, #[comptime] width: usize) -> Moments {
    let n = f32::new(comptime!((width * LANES) as f32));
    let mut sum = Four::new(0.0f32);
    #[unroll]
    for column in 0..width {
        sum += tile[first + column];
    }
    let mean = lanes_sum(sum) / n;
    let mut squares = Four::new(0.0f32);
    #[unroll]
    for column in 0..width {
        let distance = tile[first + column] - Four::new(mean);
        squares = fma(distance, distance, squares);
    }
    Moments { mean, inverse_deviation: 1.0f32 / (lanes_sum(squares) / n + epsilon).sqrt() }
}

#[cube]
fn normalized(element: Four, moments: Moments) -> Four {
    (element - Four::new(moments.mean)) * Four::new(moments.inverse_deviation)
}

/// Normalises rows, each by one unit, from one tile to another or in place.
#[cube]
#[allow(clippy::too_many_arguments, reason = "two tiles, two weights and their sizes")]
pub(super) fn forward<F: Float>(
    input: &SharedMemory<Four>,
    output: &mut SharedMemory<Four>,
    gain: &Array<Stored<F>>,
    bias: &Array<Stored<F>>,
    epsilon: f32,
    #[comptime] width: usize,
    #[comptime] rows: usize,
) {
    for row in range_stepped(UNIT_POS as usize, rows, UNITS) {
        let first = row * comptime!(width + 1);
        let moments = moments(input, first, epsilon, width);
        #[unroll]
        for column in 0..width {
            let element = normalized(input[first + column], moments);
            output[first + column] =
                fma(element, Four::cast_from(gain[column]), Four::cast_from(bias[column]));
        }
    }
}

/// The moments of a tile's rows, so that [`add_weights`] finds them.
///
/// - into: mean and inverse deviation of each row
#[cube]
pub(super) fn keep_moments(
    input: &SharedMemory<Four>,
    into: &mut SharedMemory<f32>,
    epsilon: f32,
    #[comptime] width: usize,
    #[comptime] rows: usize,
) {
    for row in range_stepped(UNIT_POS as usize, rows, UNITS) {
        let moments = moments(input, row * comptime!(width + 1), epsilon, width);
        into[2 * row] = moments.mean;
        into[2 * row + 1] = moments.inverse_deviation;
    }
}

/// Adds to the gradients of gain and bias, each unit for columns of its own.
///
/// - first: vector of `columns` where the gain's gradient begins; the bias's follows
#[cube]
#[allow(clippy::too_many_arguments, reason = "two tiles, two sums and their sizes")]
pub(super) fn add_weights(
    input: &SharedMemory<Four>,
    gradient: &SharedMemory<Four>,
    kept: &SharedMemory<f32>,
    columns: &mut SharedMemory<Four>,
    rows: usize,
    #[comptime] first: usize,
    #[comptime] width: usize,
) {
    for column in range_stepped(UNIT_POS as usize, width, UNITS) {
        let mut for_gain = Four::new(0.0f32);
        let mut for_bias = Four::new(0.0f32);
        for row in 0..rows {
            let position = row * comptime!(width + 1) + column;
            let moments = Moments { mean: kept[2 * row], inverse_deviation: kept[2 * row + 1] };
            let outer = gradient[position];
            for_gain = fma(outer, normalized(input[position], moments), for_gain);
            for_bias += outer;
        }
        columns[first + column] += for_gain;
        columns[comptime!(first + width) + column] += for_bias;
    }
}

/// The gradient of the norm's input in place of that of its output, each row by one unit.
#[cube]
#[allow(clippy::too_many_arguments, reason = "two tiles, a weight and their sizes")]
pub(super) fn backward<F: Float>(
    input: &SharedMemory<Four>,
    gradient: &mut SharedMemory<Four>,
    kept: &SharedMemory<f32>,
    gain: &Array<Stored<F>>,
    #[comptime] width: usize,
    #[comptime] rows: usize,
) {
    let n = f32::new(comptime!((width * LANES) as f32));
    for row in range_stepped(UNIT_POS as usize, rows, UNITS) {
        let first = row * comptime!(width + 1);
        let moments = Moments { mean: kept[2 * row], inverse_deviation: kept[2 * row + 1] };
        let mut sums = Four::new(0.0f32);
        let mut products = Four::new(0.0f32);
        #[unroll]
        for column in 0..width {
            let inner = gradient[first + column] * Four::cast_from(gain[column]);
            sums += inner;
            products = fma(inner, normalized(input[first + column], moments), products);
        }
        let (sum, product) = (lanes_sum(sums) / n, lanes_sum(products) / n);
        #[unroll]
        for column in 0..width {
            let inner = gradient[first + column] * Four::cast_from(gain[column]);
            let along = normalized(input[first + column], moments) * Four::new(product);
            gradient[first + column] =
                (inner - Four::new(sum) - along) * Four::new(moments.inverse_deviation);
        }
    }
}
