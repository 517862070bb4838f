//! The device that tests run on.

use std::panic::catch_unwind;

use cubecl::prelude::*;
use cubecl::wgpu::WgpuRuntime;

use crate::buffer::Buffer;

/// A client of the default device of wgpu; none, and a line that says so, where there is no working device.
///
/// With `CELLPATCH_REQUIRE=wgpu` a missing device fails the test: CI installs a driver and means it.
pub(crate) fn client() -> Option<ComputeClient<WgpuRuntime>> {
    let works = catch_unwind(|| {
        let client = WgpuRuntime::client(&Default::default());
        assert_eq!(read(&client, Buffer::of(&client, &[2.0, 3.0])), [2.0, 3.0]);
        client
    });
    if works.is_err() {
        let required = std::env::var("CELLPATCH_REQUIRE").unwrap_or_default();
        assert!(required != "wgpu", "wgpu is required and finds no working device");
        println!("wgpu finds no working device here");
    }
    works.ok()
}

/// The numbers, on the host.
pub(crate) fn read<R: Runtime>(client: &ComputeClient<R>, numbers: Buffer<f32>) -> Vec<f32> {
    let n = numbers.len();
    let bytes = client.read_one(numbers.into_handle()).unwrap();
    f32::from_bytes(&bytes)[..n].to_vec()
}
