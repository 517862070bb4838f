//! Expression times a matrix.

use std::sync::Arc;

use burn::backend::Flex;
use burn_flex::FlexTensor;
use cellpatch_kernels::Instructions;
use cellpatch_kernels::sparse::SparseMatrix;
use cellpatch_model::backend::flex::{Elements, dimensions, like, tensor};
use cellpatch_model::operation::{Computed, Kernel};

use crate::resident::Resident;

#[derive(Debug)]
pub(super) struct FlexProduct {
    pub(super) expression: Arc<Resident<SparseMatrix>>,
}

impl Kernel<Flex> for FlexProduct {
    fn forward(&self, inputs: &[FlexTensor], _seed: u64, _keep: bool) -> Computed<Flex> {
        let [_, width] = dimensions(&inputs[0]);
        let matrix = Elements::of(&inputs[0]);
        let output = self.expression.multiply(matrix.slice(), width, Instructions::detect());
        Computed { output: tensor(output, [self.expression.n_rows(), width]), kept: Vec::new() }
    }

    fn backward(
        &self,
        inputs: &[FlexTensor],
        _computed: &Computed<Flex>,
        gradient: FlexTensor,
        _seed: u64,
        _wanted: &[bool],
    ) -> Vec<FlexTensor> {
        let [_, width] = dimensions(&inputs[0]);
        let gradient = Elements::of(&gradient);
        let for_matrix = self.expression.transposed_multiply(gradient.slice(), width, Instructions::detect());
        vec![like(for_matrix, &inputs[0])]
    }
}
