//! The seam between the models and the machine: the operations a backend may answer with kernels of its own.

#[cfg(feature = "cube")]
mod cube;
mod flex;

use std::sync::Arc;

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Distribution, Int, Tensor};
use cellpatch_model::ModelBackend;
use cellpatch_model::backend::recorded;
use cellpatch_model::operation::Kernel;

use crate::operation::SpatialOperation;

/// A Burn backend the spatial models run on.
pub trait SpatialBackend: ModelBackend {
    /// The backend's kernel for this call, if it has one.
    ///
    /// - inputs: as the operation says
    fn spatial_kernel(
        _operation: &SpatialOperation,
        _inputs: &[FloatTensor<Self>],
    ) -> Option<Arc<dyn Kernel<Self>>> {
        None
    }

    /// The operation by the backend's kernel; `None` where plain operations must do.
    fn spatial_fused<const N: usize>(
        operation: &SpatialOperation,
        inputs: [FloatTensor<Self>; N],
    ) -> Option<FloatTensor<Self>> {
        let kernel = Self::spatial_kernel(operation, &inputs)?;
        let seed = if kernel.takes_seed() { draw_seed::<Self>(operation, &inputs) } else { 0 };
        Some(kernel.forward(&inputs, seed, false).output)
    }
}

#[cfg(feature = "ndarray")]
impl SpatialBackend for burn::backend::NdArray {}

impl<B: SpatialBackend, C: CheckpointStrategy> SpatialBackend for Autodiff<B, C> {
    fn spatial_fused<const N: usize>(
        operation: &SpatialOperation,
        inputs: [FloatTensor<Self>; N],
    ) -> Option<FloatTensor<Self>> {
        let inner = inputs.each_ref().map(|input| input.primitive.clone());
        let kernel = B::spatial_kernel(operation, &inner)?;
        let seed = if kernel.takes_seed() { draw_seed::<B>(operation, &inner) } else { 0 };
        Some(recorded::<B, C, N>(kernel, inputs, seed))
    }
}

/// A seed for one call's dropout from the device's random stream, so that `B::seed` fixes it.
fn draw_seed<B: Backend>(operation: &SpatialOperation, inputs: &[FloatTensor<B>]) -> u64 {
    let SpatialOperation::ReadGenes { dropout, .. } = operation else { return 0 };
    let Some(input) = inputs.first().filter(|_| *dropout > 0.0) else { return 0 };
    let device = B::float_device(input);
    let halves = Tensor::<B, 1, Int>::random([2], Distribution::Uniform(0.0, f64::from(1 << 24)), &device);
    halves.into_data().iter::<i64>().fold(0, |seed, half| (seed << 24) | half as u64)
}
