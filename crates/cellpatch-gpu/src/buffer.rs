//! Numbers on a device.

use std::marker::PhantomData;

use cubecl::prelude::*;
use cubecl::server::Handle;

/// Numbers in a device's memory, one after the other. Cloning is cheap.
#[derive(Debug)]
pub struct Buffer<T> {
    handle: Handle,
    len: usize,
    numbers: PhantomData<T>,
}

impl<T> Clone for Buffer<T> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), len: self.len, numbers: PhantomData }
    }
}

impl<T: CubeElement> Buffer<T> {
    /// Memory that holds that many numbers.
    ///
    /// # Panics
    ///
    /// If it is too small for them.
    pub fn new(handle: Handle, len: usize) -> Self {
        assert!(handle.size_in_used() >= (len * size_of::<T>()) as u64, "{len} numbers in {handle:?}");
        Self { handle, len, numbers: PhantomData }
    }

    /// A copy of the numbers.
    pub fn of<R: Runtime>(client: &ComputeClient<R>, numbers: &[T]) -> Self {
        match numbers.is_empty() {
            true => Self::empty(client, 0),
            false => Self::new(client.create_from_slice(T::as_bytes(numbers)), numbers.len()),
        }
    }

    /// Room for that many numbers, whatever stands there.
    pub fn empty<R: Runtime>(client: &ComputeClient<R>, len: usize) -> Self {
        // Not every device can bind nothing.
        Self::new(client.empty(len.max(1) * size_of::<T>()), len)
    }

    /// Numbers.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The memory.
    pub fn into_handle(self) -> Handle {
        self.handle
    }

    /// As a kernel takes it.
    pub(crate) fn array<R: Runtime>(&self) -> ArrayArg<R> {
        // SAFETY: `new` has compared the length with the memory's.
        unsafe { ArrayArg::from_raw_parts(self.handle.clone(), self.len) }
    }
}
