//! The device that tests run on.

use std::panic::catch_unwind;

use cellpatch_gpu::memory::Floats;
use cubecl::prelude::*;
use cubecl::wgpu::WgpuRuntime;

pub(crate) type Client = ComputeClient<WgpuRuntime>;

/// The default device of wgpu, or nothing and why.
///
/// With `CELLPATCH_REQUIRE=wgpu` a missing device fails the test: CI installs a driver and means it.
pub(crate) fn client() -> Option<Client> {
    let works = catch_unwind(|| {
        let client = WgpuRuntime::client(&Default::default());
        let floats = Floats::from_slice(&client, &[4.0]);
        (read(&client, &floats) == [4.0]).then_some(client)
    });
    match works {
        Ok(Some(client)) => Some(client),
        _ => {
            let required = std::env::var("CELLPATCH_REQUIRE").unwrap_or_default();
            assert!(required != "wgpu", "wgpu is required and finds no working device");
            eprintln!("skipped: wgpu finds no working device here");
            None
        }
    }
}

pub(crate) fn read(client: &Client, floats: &Floats) -> Vec<f32> {
    f32::from_bytes(&client.read_one_unchecked(floats.handle.clone())).to_vec()
}

/// Numbers between `-spread` and `spread` that follow from a seed.
pub(crate) fn numbers(n: usize, seed: u64, spread: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next() * spread).collect()
}

/// Largest difference, relative to the largest element, or to 1 where all are small.
pub(crate) fn apart(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(1.0_f32, |largest, element| largest.max(element.abs()));
    let differences = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs());
    differences.fold(0.0_f32, |most, difference| if difference <= most { most } else { difference }) / largest
}
