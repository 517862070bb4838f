//! Expression times a matrix.

use std::sync::Arc;

use burn::tensor::Shape;
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cellpatch_gpu::graph;
use cellpatch_kernels::sparse::SparseMatrix;
use cellpatch_model::backend::cube::{CubeInputs, CubeKernel, buffer};

use crate::resident::Resident;

#[derive(Debug)]
pub(super) struct CubeProduct {
    pub(super) expression: Arc<Resident<SparseMatrix>>,
}

impl CubeProduct {
    fn on_device<R: CubeRuntime>(&self, tensor: &CubeTensor<R>) -> Arc<graph::SparseMatrix> {
        let copy = || graph::SparseMatrix::new(&tensor.client, &self.expression);
        self.expression.copy().on(&tensor.device, copy)
    }
}

impl<R: CubeRuntime> CubeKernel<R> for CubeProduct {
    fn shapes(&self, inputs: &[Shape], _keep: bool) -> Vec<Shape> {
        let [_, width] = inputs[0].dims();
        vec![Shape::new([self.expression.n_rows(), width])]
    }

    fn forward(&self, inputs: &CubeInputs<R>, _keep: bool) -> Vec<CubeTensor<R>> {
        let matrix = &inputs.floats[0];
        let [_, width] = inputs.dims(0);
        let product = self.on_device(matrix).multiply(&matrix.client, &inputs.buffer(0), width);
        vec![inputs.tensor(product, [self.expression.n_rows(), width])]
    }

    fn backward(
        &self,
        inputs: &CubeInputs<R>,
        _computed: &[CubeTensor<R>],
        gradient: CubeTensor<R>,
        _wanted: &[bool],
    ) -> Vec<CubeTensor<R>> {
        let [_, width] = inputs.dims(0);
        let expression = self.on_device(&gradient);
        let for_matrix = expression.transposed_multiply(&gradient.client, &buffer(&gradient), width);
        vec![inputs.like(for_matrix, 0)]
    }
}
