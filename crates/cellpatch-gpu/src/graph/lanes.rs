//! Products of rows with rows, each by a few units together.

use cubecl::prelude::*;

/// Units that share a product.
pub(super) const LANES: u32 = 32;
/// Products that a cube makes at once.
pub(super) const GROUPS: u32 = 8;

/// How a kernel that makes that many products is launched.
pub(super) fn groups<R: Runtime>(client: &ComputeClient<R>, n: usize) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new_2d(LANES, GROUPS);
    (cubecl::calculate_cube_count_elemwise(client, n * LANES as usize, dim), dim)
}

/// Which product a unit takes part in.
#[cube]
pub(super) fn group() -> usize {
    CUBE_POS * (GROUPS as usize) + UNIT_POS_Y as usize
}

/// The product of two rows that begin at these vectors, for every unit of the group. All units of the cube must come by.
///
/// - vectors: of a row; 0 where the group has nothing to do
#[cube]
pub(super) fn dot<N: Size>(
    left: &Array<Vector<f32, N>>,
    left_start: usize,
    right: &Array<Vector<f32, N>>,
    right_start: usize,
    vectors: usize,
) -> f32 {
    let mut products = Vector::<f32, N>::new(0.0);
    for step in 0..vectors.div_ceil(LANES as usize) {
        let at = step * (LANES as usize) + UNIT_POS_X as usize;
        if at < vectors {
            products += left[left_start + at] * right[right_start + at];
        }
    }
    let mut sum = products[0];
    #[unroll]
    for element in 1..N::value() {
        sum += products[element];
    }
    sum_of_lanes(sum)
}

/// The sum over a group's units, always in the same order. Shared memory serves every device, whatever its planes.
#[cube]
fn sum_of_lanes(value: f32) -> f32 {
    let mut sums = SharedMemory::<f32>::new(comptime!((LANES * GROUPS) as usize));
    let own = UNIT_POS as usize;
    // The memory may be that of an earlier sum, which not all units have read yet.
    sync_cube();
    sums[own] = value;
    sync_cube();
    #[unroll]
    for step in 0..comptime!(LANES.ilog2()) {
        let half = comptime!(LANES >> (step + 1));
        if UNIT_POS_X < half {
            sums[own] = sums[own] + sums[own + half as usize];
        }
        sync_cube();
    }
    sums[own - UNIT_POS_X as usize]
}
