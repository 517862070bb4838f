//! Attention alone.

use std::sync::Arc;

use burn::backend::Flex;
use burn_flex::FlexTensor;
use cellpatch_kernels::Instructions;
use cellpatch_kernels::attention::{
    AttentionGradient, AttentionInput, attention_backward, attention_forward,
};

use super::{Elements, dimensions, like, padded, tensor};
use crate::operation::{AttentionSpec, Computed, Kernel};

pub(super) fn kernel(spec: &AttentionSpec, inputs: &[FlexTensor]) -> Option<Arc<dyn Kernel<Flex>>> {
    let call = Call::of(inputs);
    let serves = |&instructions: &Instructions| call.input(spec, 0).is_served_by(instructions);
    let instructions = Instructions::available().into_iter().find(serves)?;
    Some(Arc::new(FlexAttention { spec: spec.clone(), instructions }))
}

#[derive(Debug)]
pub(super) struct FlexAttention {
    pub(super) spec: AttentionSpec,
    pub(super) instructions: Instructions,
}

/// Query, key and value of a call.
struct Call {
    query: Elements,
    key: Elements,
    value: Elements,
    n_queries: usize,
    n_keys: usize,
    n_cells: usize,
    width: usize,
}

impl Call {
    fn of(inputs: &[FlexTensor]) -> Self {
        let [n_cells, n_keys, width] = dimensions(&inputs[1]);
        let [_, n_queries, _] = dimensions(&inputs[0]);
        let [query, key, value] = [0, 1, 2].map(|index| Elements::of(&inputs[index]));
        Self { query, key, value, n_queries, n_keys, n_cells, width }
    }

    fn input<'a>(&'a self, spec: &'a AttentionSpec, seed: u64) -> AttentionInput<'a> {
        AttentionInput {
            n_cells: self.n_cells,
            n_heads: spec.n_heads,
            width: self.width,
            queries: self.query.slice(),
            query_rows: padded(self.n_queries, &spec.query_lengths),
            keys: self.key.slice(),
            values: self.value.slice(),
            key_rows: padded(self.n_keys, &spec.key_lengths),
            dropout: spec.dropout,
            seed,
        }
    }
}

impl Kernel<Flex> for FlexAttention {
    fn forward(&self, inputs: &[FlexTensor], seed: u64, _keep: bool) -> Computed<Flex> {
        let call = Call::of(inputs);
        let input = call.input(&self.spec, seed);
        let (n_cells, n_queries) = (input.n_cells, input.query_rows.padded);
        let mut output = vec![0.0; n_cells * n_queries * input.width];
        let mut log_sum_exp = vec![0.0; n_cells * input.n_heads * n_queries];
        attention_forward(&input, &mut output, &mut log_sum_exp, self.instructions);
        let output = tensor(output, [n_cells, n_queries, input.width]);
        Computed { output, kept: vec![tensor(log_sum_exp, [n_cells, input.n_heads, n_queries])] }
    }

    fn backward(
        &self,
        inputs: &[FlexTensor],
        computed: &Computed<Flex>,
        gradient: FlexTensor,
        seed: u64,
        _wanted: &[bool],
    ) -> Vec<FlexTensor> {
        let call = Call::of(inputs);
        let input = call.input(&self.spec, seed);
        let [mut for_queries, mut for_keys, mut for_values] =
            [input.queries, input.keys, input.values].map(|input| vec![0.0; input.len()]);
        let (output, log_sum_exp) = (Elements::of(&computed.output), Elements::of(&computed.kept[0]));
        let gradient = Elements::of(&gradient);
        let gradient = AttentionGradient {
            output: output.slice(),
            log_sum_exp: log_sum_exp.slice(),
            for_output: gradient.slice(),
            for_queries: &mut for_queries,
            for_keys: &mut for_keys,
            for_values: &mut for_values,
        };
        attention_backward(&input, gradient, self.instructions);
        [for_queries, for_keys, for_values]
            .into_iter()
            .zip(inputs)
            .map(|(gradient, input)| like(gradient, input))
            .collect()
    }
}
