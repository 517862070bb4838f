//! What lies on the device: floats in row-major order, and how many rows of a padded batch count.

use cubecl::ir::features::TypeUsage;
use cubecl::prelude::*;
use cubecl::server::Handle;

/// Row-major floats on the device.
#[derive(Debug, Clone)]
pub struct Floats {
    /// Where they are.
    pub handle: Handle,
    /// How they are stored: `f32`, `f16` or `bf16`.
    pub storage: StorageType,
}

impl Floats {
    /// Room for `n` floats, not filled.
    pub fn empty<R: Runtime>(client: &ComputeClient<R>, n: usize, storage: StorageType) -> Self {
        Self { handle: client.empty(n * storage.size()), storage }
    }

    /// Floats of the host as `f32`.
    pub fn from_slice<R: Runtime>(client: &ComputeClient<R>, floats: &[f32]) -> Self {
        Self { handle: client.create_from_slice(f32::as_bytes(floats)), storage: f32_storage() }
    }

    /// - n: floats that are read or written
    ///
    /// # Panics
    /// When there is memory for fewer.
    pub(crate) fn argument<R: Runtime>(&self, n: usize) -> ArrayArg<R> {
        argument(&self.handle, n, self.storage.size())
    }
}

/// Whether a device's kernels can load, store and convert floats stored like this.
pub fn stores<R: Runtime>(client: &ComputeClient<R>, storage: StorageType) -> bool {
    let usage = client.properties().type_usage(storage);
    usage.contains(TypeUsage::Buffer) && usage.contains(TypeUsage::Conversion)
}

/// How results that are summed on are stored.
pub(crate) fn f32_storage() -> StorageType {
    f32::as_type_native_unchecked().storage_type()
}

/// # Panics
/// When there is memory for fewer elements than `n`.
pub(crate) fn argument<R: Runtime>(handle: &Handle, n: usize, size: usize) -> ArrayArg<R> {
    let bytes = handle.size_in_used();
    assert!((n * size) as u64 <= bytes, "{n} elements of {size} bytes in memory of {bytes} bytes");
    // SAFETY: the memory is as long as is said.
    unsafe { ArrayArg::from_raw_parts(handle.clone(), n) }
}

/// How many rows of each cell of a padded batch count.
#[derive(Debug, Clone)]
pub struct PaddedRows {
    /// Rows of every cell, padding included; at least 1.
    pub padded: usize,
    /// Rows of each cell that are not padding, from 1 to `padded`, as `u32`.
    pub(crate) lengths: Handle,
}

impl PaddedRows {
    /// - lengths: of each cell, taken as 1 where they are 0, as attention needs a row; `None` if no row is padding
    pub fn new<R: Runtime>(
        client: &ComputeClient<R>,
        n_cells: usize,
        padded: usize,
        lengths: Option<&[usize]>,
    ) -> Self {
        assert!(padded > 0, "cells without rows");
        let lengths: Vec<u32> = match lengths {
            Some(lengths) => lengths.iter().map(|&n| n.clamp(1, padded) as u32).collect(),
            None => vec![padded as u32; n_cells],
        };
        assert_eq!(lengths.len(), n_cells, "lengths of cells");
        Self { padded, lengths: client.create_from_slice(u32::as_bytes(&lengths)) }
    }
}
