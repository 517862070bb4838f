//! The decoder's output layer.

use burn::tensor::{Shape, TensorMetadata};
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cellpatch_gpu::output::{OutputLayer, output_backward, output_forward};

use super::attention::{padded, seed};
use super::floats::{floats, tensor};
use super::{CubeInputs, CubeKernel};
use crate::lengths::GeneLengths;

#[derive(Debug)]
pub(super) struct CubeOutputLayer {
    pub(super) lengths: Option<GeneLengths>,
    pub(super) dropout: f64,
}

impl CubeOutputLayer {
    fn with_layer<R: CubeRuntime, T>(
        &self,
        inputs: &CubeInputs<R>,
        work: impl FnOnce(&OutputLayer<'_>) -> T,
    ) -> T {
        let [n_cells, n_rows, width] = inputs.dims(0);
        let [rows, weight, bias] = [0, 1, 2].map(|index| floats(&inputs.floats[index]));
        work(&OutputLayer {
            n_cells,
            width,
            rows: &rows,
            lengths: &padded(inputs, n_cells, n_rows, &self.lengths),
            weight: &weight,
            bias: &bias,
            dropout: self.dropout,
            seed: &seed(inputs, 0),
        })
    }
}

impl<R: CubeRuntime> CubeKernel<R> for CubeOutputLayer {
    fn shapes(&self, inputs: &[Shape], _keep: bool) -> Vec<Shape> {
        let [n_cells, n_rows, _] = inputs[0].dims();
        vec![Shape::new([n_cells, n_rows])]
    }

    fn forward(&self, inputs: &CubeInputs<R>, _keep: bool) -> Vec<CubeTensor<R>> {
        let like = &inputs.floats[0];
        let [n_cells, n_rows, _] = inputs.dims(0);
        let output = self.with_layer(inputs, |layer| output_forward(&like.client, layer));
        vec![tensor(like, output, Shape::new([n_cells, n_rows]))]
    }

    fn backward(
        &self,
        inputs: &CubeInputs<R>,
        _computed: &[CubeTensor<R>],
        gradient: CubeTensor<R>,
        _wanted: &[bool],
    ) -> Vec<CubeTensor<R>> {
        let client = &inputs.floats[0].client;
        let gradients = self.with_layer(inputs, |layer| output_backward(client, layer, &floats(&gradient)));
        [gradients.for_rows, gradients.for_weight, gradients.for_bias]
            .into_iter()
            .zip(&inputs.floats)
            .map(|(gradient, input)| tensor(input, gradient, input.shape()))
            .collect()
    }
}
