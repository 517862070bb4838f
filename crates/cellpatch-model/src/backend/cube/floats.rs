//! Between Burn's tensors and the kernels' floats, both in row-major order.

use burn::tensor::{DType, Shape};
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cellpatch_gpu::memory::Floats;

/// A tensor's floats.
pub(super) fn floats<R: CubeRuntime>(tensor: &CubeTensor<R>) -> Floats {
    Floats { handle: tensor.handle.clone(), storage: tensor.dtype.into() }
}

/// Floats as a tensor, on the device of another.
pub(super) fn tensor<R: CubeRuntime>(other: &CubeTensor<R>, floats: Floats, shape: Shape) -> CubeTensor<R> {
    let CubeTensor { client, device, .. } = other;
    let dtype = DType::from(floats.storage.elem_type());
    CubeTensor::new_contiguous(client.clone(), device.clone(), shape, floats.handle, dtype)
}
