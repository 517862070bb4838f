//! The gene tokens of a padded batch.

use std::sync::Arc;

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};

use crate::operation::Genes;

/// Gene tokens of a padded batch: a tensor on the device, and the same numbers on the host that made it.
///
/// Gradients are summed by gene, which takes the tokens in order. A host that still knows them need not ask the device, which
/// would make it wait. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct GeneTokens<B: Backend> {
    tensor: Tensor<B, 2, Int>,
    host: Option<Arc<[u32]>>,
}

impl<B: Backend> GeneTokens<B> {
    /// - tokens: [cells, genes] in row-major order, 0 where there is no gene; what is missing is 0, what is too much is left
    ///   out
    pub fn new(mut tokens: Vec<u32>, [n_cells, n_genes]: [usize; 2], device: &B::Device) -> Self {
        tokens.resize(n_cells * n_genes, 0);
        let numbers: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
        let tensor = Tensor::from_data(TensorData::new(numbers, [n_cells, n_genes]), device);
        Self { tensor, host: Some(tokens.into()) }
    }

    /// The tokens: [cells, genes].
    pub fn tensor(&self) -> Tensor<B, 2, Int> {
        self.tensor.clone()
    }

    /// The same in row-major order, if the host knows them.
    pub fn host(&self) -> Option<&[u32]> {
        self.host.as_deref()
    }

    /// Cells, and slots of each.
    pub fn dims(&self) -> [usize; 2] {
        self.tensor.dims()
    }

    /// As an operation reads them.
    pub(crate) fn genes(&self) -> Genes<burn::tensor::ops::IntTensor<B>> {
        Genes { tensor: self.tensor().into_primitive(), host: self.host.clone() }
    }
}

/// Tokens that the device alone knows: a kernel that needs them in order reads them back.
impl<B: Backend> From<Tensor<B, 2, Int>> for GeneTokens<B> {
    fn from(tensor: Tensor<B, 2, Int>) -> Self {
        Self { tensor, host: None }
    }
}
