//! Burn's GPU backends with the kernels of `cellpatch-gpu`.
//!
//! Lists and expression are copied to a card when a kernel first reads them there, and stay: see [`crate::Resident`].

mod neighbors;
mod product;

use std::sync::Arc;

use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement};
use burn_fusion::Fusion;
use cellpatch_model::backend::cube::{Promise, Queued, serves};
use cellpatch_model::operation::Kernel;

use super::SpatialBackend;
use crate::operation::SpatialOperation;

impl<R: CubeRuntime, F: FloatElement, I: IntElement, BT: BoolElement> SpatialBackend
    for Fusion<CubeBackend<R, F, I, BT>>
{
    fn spatial_kernel(operation: &SpatialOperation, inputs: &[Promise<R>]) -> Option<Arc<dyn Kernel<Self>>> {
        if !serves(inputs) {
            return None;
        }
        let queued = match operation {
            SpatialOperation::ExpressionProduct { expression } => {
                Queued::new(product::CubeProduct { expression: Arc::clone(expression) }, Vec::new())
            }
            SpatialOperation::AttentionWeights { adjacency, kept } => {
                let kernel = neighbors::CubeWeights { adjacency: Arc::clone(adjacency), kept: kept.clone() };
                Queued::new(kernel, Vec::new())
            }
            SpatialOperation::Gather { adjacency } => {
                Queued::new(neighbors::CubeGather { adjacency: Arc::clone(adjacency) }, Vec::new())
            }
            // Plain operations do.
            SpatialOperation::SquaredError(_) | SpatialOperation::ReadGenes { .. } => return None,
        };
        Some(Arc::new(queued))
    }
}
