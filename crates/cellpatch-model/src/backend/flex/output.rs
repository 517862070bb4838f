//! The decoder's output layer.

use burn::backend::Flex;
use burn_flex::FlexTensor;
use cellpatch_kernels::output::OutputLayer;

use super::{Elements, dimensions, like, padded, tensor};
use crate::lengths::GeneLengths;
use crate::operation::{Computed, Kernel};

#[derive(Debug)]
pub(super) struct FlexOutputLayer {
    pub(super) lengths: Option<GeneLengths>,
    pub(super) dropout: f64,
}

impl FlexOutputLayer {
    fn with_layer<R>(&self, inputs: &[FlexTensor], seed: u64, work: impl FnOnce(OutputLayer<'_>) -> R) -> R {
        let [_, n_rows, _] = dimensions(&inputs[0]);
        let [rows, weight, bias] = [0, 1, 2].map(|index| Elements::of(&inputs[index]));
        work(OutputLayer {
            rows: rows.slice(),
            lengths: padded(n_rows, &self.lengths),
            weight: weight.slice(),
            bias: bias.slice()[0],
            dropout: self.dropout,
            seed,
        })
    }
}

impl Kernel<Flex> for FlexOutputLayer {
    fn forward(&self, inputs: &[FlexTensor], seed: u64, _keep: bool) -> Computed<Flex> {
        let [n_cells, n_rows, _] = dimensions(&inputs[0]);
        let mut output = vec![0.0; n_cells * n_rows];
        self.with_layer(inputs, seed, |layer| layer.forward(&mut output));
        Computed { output: tensor(output, [n_cells, n_rows]), kept: Vec::new() }
    }

    fn backward(
        &self,
        inputs: &[FlexTensor],
        _computed: &Computed<Flex>,
        gradient: FlexTensor,
        seed: u64,
        _wanted: &[bool],
    ) -> Vec<FlexTensor> {
        let gradient = Elements::of(&gradient);
        self.with_layer(inputs, seed, |layer| {
            let mut for_rows = vec![0.0; layer.rows.len()];
            let (for_weight, for_bias) = layer.backward(gradient.slice(), &mut for_rows);
            vec![like(for_rows, &inputs[0]), like(for_weight, &inputs[1]), like(vec![for_bias], &inputs[2])]
        })
    }
}
