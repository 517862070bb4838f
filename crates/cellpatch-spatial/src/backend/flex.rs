//! Burn's CPU backend with the kernels of `cellpatch-kernels`.

mod error;
mod neighbors;
mod product;
mod reading;

use std::sync::Arc;

use burn::backend::Flex;
use burn::tensor::DType;
use burn_flex::FlexTensor;
use cellpatch_model::backend::kernels_are_off;
use cellpatch_model::operation::Kernel;

use super::SpatialBackend;
use crate::operation::SpatialOperation;

impl SpatialBackend for Flex {
    fn spatial_kernel(operation: &SpatialOperation, inputs: &[FlexTensor]) -> Option<Arc<dyn Kernel<Self>>> {
        if kernels_are_off() || inputs.iter().any(|input| input.dtype() != DType::F32) {
            return None;
        }
        Some(match operation {
            SpatialOperation::ExpressionProduct { expression } => {
                Arc::new(product::FlexProduct { expression: Arc::clone(expression) })
            }
            SpatialOperation::AttentionWeights { adjacency, kept } => {
                Arc::new(neighbors::FlexWeights { adjacency: Arc::clone(adjacency), kept: kept.clone() })
            }
            SpatialOperation::Gather { adjacency } => {
                Arc::new(neighbors::FlexGather { adjacency: Arc::clone(adjacency) })
            }
            SpatialOperation::SquaredError(error) => Arc::new(error::FlexSquaredError(error.clone())),
            SpatialOperation::ReadGenes { .. } => return reading::kernel(operation, inputs),
        })
    }
}
