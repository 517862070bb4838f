//! Burn's CPU backend with the kernels of `cellpatch-kernels`.
//!
//! Cells are independent, so each is one task for the thread pool and is computed in the same order whatever the
//! number of threads. A cell's padding is never read: its result does not depend on what it is batched with, to the
//! last bit.

mod attention;
mod block;
mod genes;
mod optimizer;
mod output;

use std::sync::Arc;

use burn::backend::Flex;
use burn::backend::flex::FlexDevice;
use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};
use cellpatch_kernels::block::{BlockShape, PaddedRows};

use super::{ModelBackend, kernels_are_off};
use crate::config::CellPatchConfig;
use crate::lengths::GeneLengths;
use crate::operation::{AdamStep, AdamTensors, Kernel, Operation};
use crate::tokens::{HostTokens, TokenUse};

impl ModelBackend for Flex {
    const EXACT_GELU_GRADIENT: bool = true;

    fn stores_scores(config: &CellPatchConfig) -> bool {
        let CellPatchConfig { embedding_dim, n_heads, mlp_dim, .. } = *config;
        let shape = BlockShape { embedding_dim, n_heads, mlp_dim, dropout: 0.0, seed: 0 };
        kernels_are_off() || shape.instructions().is_none()
    }

    fn kernel(operation: &Operation<FlexTensor>, inputs: &[FlexTensor]) -> Option<Arc<dyn Kernel<Self>>> {
        if kernels_are_off() || inputs.iter().any(|input| input.dtype() != DType::F32) {
            return None;
        }
        match operation {
            Operation::Attention(spec) => attention::kernel(spec, inputs),
            Operation::CrossBlock(spec) => block::kernel(spec, block::Reads::Memory, inputs),
            Operation::SelfBlock(spec) => block::kernel(spec, block::Reads::Itself, inputs),
            Operation::GeneBlock { attention, genes, expression } => {
                genes::block_kernel(attention, genes, *expression, inputs)
            }
            Operation::EmbedGenes { genes } => genes::embedding_kernel(genes, inputs),
            Operation::OutputLayer { lengths, dropout } => {
                Some(Arc::new(output::FlexOutputLayer { lengths: lengths.clone(), dropout: *dropout }))
            }
            // Burn's own has 32 bits here.
            Operation::Product => None,
        }
    }

    fn index_ahead(tokens: &HostTokens, tokens_use: TokenUse<'_>, capacity: usize, _device: &FlexDevice) {
        tokens.index(tokens_use.lengths(), capacity);
    }

    fn adam(step: &AdamStep, tensors: &mut AdamTensors<Self>) -> bool {
        optimizer::adam(step, tensors)
    }
}

/// A float tensor in row-major order.
#[derive(Debug)]
pub struct Elements(FlexTensor);

impl Elements {
    /// Without a copy where the tensor is in order.
    pub fn of(tensor: &FlexTensor) -> Self {
        Self(tensor.to_contiguous())
    }

    /// The elements, which must be 32-bit floats.
    pub fn slice(&self) -> &[f32] {
        let layout = self.0.layout();
        &self.0.storage::<f32>()[layout.start_offset()..][..layout.shape().num_elements()]
    }
}

/// A tensor's shape.
pub fn dimensions<const D: usize>(tensor: &FlexTensor) -> [usize; D] {
    tensor.layout().shape().dims()
}

/// A tensor of elements in row-major order.
pub fn tensor<const D: usize>(elements: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(elements), Layout::contiguous(Shape::new(shape)), DType::F32)
}

/// A tensor in the shape of another.
pub fn like(elements: Vec<f32>, other: &FlexTensor) -> FlexTensor {
    let shape = other.layout().shape().clone();
    FlexTensor::new(Bytes::from_elems(elements), Layout::contiguous(shape), DType::F32)
}

fn padded(n: usize, lengths: &Option<GeneLengths>) -> PaddedRows<'_> {
    PaddedRows { padded: n, lengths: lengths.as_ref().map(GeneLengths::n_genes) }
}

#[cfg(test)]
mod tests;
