//! How many units work together.

use cubecl::prelude::*;

/// Bytes of shared memory that every device has (WebGPU's default limit).
const SHARED_BYTES: usize = 16 * 1024;

/// Units of a workgroup that shares a tile of some rows, one row a unit: two planes, so that one computes while the other
/// waits, or what the device can do.
///
/// - bytes: of shared memory that a row takes
pub(crate) fn units<R: Runtime>(client: &ComputeClient<R>, bytes: usize) -> u32 {
    let hardware = &client.properties().hardware;
    let most = hardware.max_units_per_cube.min(hardware.max_cube_dim.0).max(1);
    let shared = hardware.max_shared_memory_size.min(SHARED_BYTES) / bytes.max(1);
    let wished = (2 * hardware.plane_size_max).clamp(32, 128).min(most).min(shared.max(1) as u32);
    // The largest power of two not above it.
    1 << wished.ilog2()
}

/// Workgroups in one dimension, `n` rows in tiles.
pub(crate) fn tiles(n: usize, units: u32) -> u32 {
    n.div_ceil(units as usize) as u32
}

/// - shape: of the grid of workgroups
///
/// # Panics
/// When the device has not so many: 65,535 in each dimension, commonly.
pub(crate) fn grid<R: Runtime>(client: &ComputeClient<R>, x: u32, y: u32, z: u32) -> CubeCount {
    let most = client.properties().hardware.max_cube_count;
    assert!(x <= most.0 && y <= most.1 && z <= most.2, "workgroups {x} x {y} x {z} of at most {most:?}");
    CubeCount::Static(x, y, z)
}

/// Any number of workgroups, in as many dimensions as it takes: a kernel asks for `CUBE_POS`, and some come too many.
pub(crate) fn spread<R: Runtime>(client: &ComputeClient<R>, n: u32) -> CubeCount {
    let most = client.properties().hardware.max_cube_count.0;
    let y = n.div_ceil(most).max(1);
    grid(client, n.div_ceil(y), y, 1)
}

/// Workgroups that take one piece of work after the other: what fills the device, of `n` pieces. The number is the device's, so
/// sums of their parts are the same every time.
pub(crate) fn persistent<R: Runtime>(client: &ComputeClient<R>, n: u32) -> u32 {
    let processors = client.properties().hardware.num_streaming_multiprocessors.unwrap_or(64);
    (4 * processors).min(n)
}
