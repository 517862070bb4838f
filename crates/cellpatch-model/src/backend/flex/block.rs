//! A whole attention block.

use std::sync::Arc;

use burn::backend::Flex;
use burn_flex::FlexTensor;
use cellpatch_kernels::Instructions;
use cellpatch_kernels::block::{
    BlockGradient, BlockInput, BlockOutput, BlockShape, BlockWeights, Kept, Memory, WeightGradients,
    block_backward, block_forward,
};
use cellpatch_kernels::norm::NormWeights;

use super::{Elements, dimensions, like, padded, tensor};
use crate::block::NORM_EPSILON;
use crate::operation::{AttentionSpec, Computed, Kernel};

/// What the queries of a block read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Reads {
    Memory,
    Itself,
}

pub(super) fn kernel(
    spec: &AttentionSpec,
    reads: Reads,
    inputs: &[FlexTensor],
) -> Option<Arc<dyn Kernel<Flex>>> {
    let (_, weights) = inputs.split_at(if reads == Reads::Memory { 2 } else { 1 });
    let instructions = shape(spec, weights, 0).instructions()?;
    Some(Arc::new(FlexBlock { spec: spec.clone(), reads, instructions }))
}

/// - weights: a block's
pub(super) fn shape(spec: &AttentionSpec, weights: &[FlexTensor], seed: u64) -> BlockShape {
    let [embedding_dim, mlp_dim] = dimensions(&weights[6]);
    BlockShape { embedding_dim, n_heads: spec.n_heads, mlp_dim, dropout: spec.dropout, seed }
}

/// The twelve weights of a block.
pub(super) struct Weights(Vec<Elements>);

impl Weights {
    pub(super) fn of(tensors: &[FlexTensor]) -> Self {
        Self(tensors.iter().map(Elements::of).collect())
    }

    pub(super) fn slices(&self) -> BlockWeights<'_> {
        let norm = |gain: usize| NormWeights {
            gain: self.0[gain].slice(),
            bias: self.0[gain + 1].slice(),
            epsilon: NORM_EPSILON as f32,
        };
        BlockWeights {
            in_projection: self.0[0].slice(),
            in_projection_bias: self.0[1].slice(),
            out_projection: self.0[2].slice(),
            out_projection_bias: self.0[3].slice(),
            attention_norm: norm(4),
            expand: self.0[6].slice(),
            expand_bias: self.0[7].slice(),
            contract: self.0[8].slice(),
            contract_bias: self.0[9].slice(),
            mlp_norm: norm(10),
        }
    }
}

/// A block's gradients, which lie side by side, as tensors in the shapes of its weights.
pub(super) fn weight_gradients<'a>(
    shape: &BlockShape,
    gradients: &'a [f32],
    weights: &'a [FlexTensor],
) -> impl Iterator<Item = FlexTensor> + 'a {
    let mut rest = gradients;
    WeightGradients::sizes(shape).into_iter().zip(weights).map(move |(size, weight)| {
        let (gradient, remaining) = rest.split_at(size);
        rest = remaining;
        like(gradient.to_vec(), weight)
    })
}

/// Runs a block's forward pass on a batch.
pub(super) fn forward(
    shape: &BlockShape,
    weights: &Weights,
    input: &BlockInput<'_>,
    keep: bool,
    instructions: Instructions,
) -> Computed<Flex> {
    let (n_cells, n_queries, d) = (input.n_cells, input.query_rows.padded, shape.embedding_dim);
    let mut output = vec![0.0; n_cells * n_queries * d];
    let mut kept = Vec::new();
    if keep {
        let mut gathered = vec![0.0; n_cells * n_queries * d];
        let mut log_sum_exp = vec![0.0; n_cells * shape.n_heads * n_queries];
        let for_backward = Kept { gathered: &mut gathered, log_sum_exp: &mut log_sum_exp };
        let results = BlockOutput { output: &mut output, kept: Some(for_backward) };
        block_forward(shape, &weights.slices(), input, results, instructions);
        kept.push(tensor(gathered, [n_cells, n_queries, d]));
        kept.push(tensor(log_sum_exp, [n_cells, shape.n_heads, n_queries]));
    } else {
        let results = BlockOutput { output: &mut output, kept: None };
        block_forward(shape, &weights.slices(), input, results, instructions);
    }
    Computed { output: tensor(output, [n_cells, n_queries, d]), kept }
}

#[derive(Debug)]
struct FlexBlock {
    spec: AttentionSpec,
    reads: Reads,
    instructions: Instructions,
}

impl FlexBlock {
    fn n_inputs(&self) -> usize {
        if self.reads == Reads::Memory { 2 } else { 1 }
    }

    /// - rows: queries, and the memory if they read one
    fn input<'a>(&'a self, inputs: &[FlexTensor], rows: &'a [Elements]) -> BlockInput<'a> {
        let [n_cells, n_keys, _] = dimensions(&inputs[self.n_inputs() - 1]);
        let [_, n_queries, _] = dimensions(&inputs[0]);
        let memory = match self.reads {
            Reads::Memory => Memory::Rows(rows[1].slice()),
            Reads::Itself => Memory::Own,
        };
        BlockInput {
            n_cells,
            queries: rows[0].slice(),
            query_rows: padded(n_queries, &self.spec.query_lengths),
            memory,
            memory_rows: padded(n_keys, &self.spec.key_lengths),
        }
    }

    fn rows(&self, inputs: &[FlexTensor]) -> Vec<Elements> {
        inputs[..self.n_inputs()].iter().map(Elements::of).collect()
    }
}

impl Kernel<Flex> for FlexBlock {
    fn forward(&self, inputs: &[FlexTensor], seed: u64, keep: bool) -> Computed<Flex> {
        let rows = self.rows(inputs);
        let weights = &inputs[self.n_inputs()..];
        let shape = shape(&self.spec, weights, seed);
        forward(&shape, &Weights::of(weights), &self.input(inputs, &rows), keep, self.instructions)
    }

    fn backward(
        &self,
        inputs: &[FlexTensor],
        computed: &Computed<Flex>,
        gradient: FlexTensor,
        seed: u64,
        _wanted: &[bool],
    ) -> Vec<FlexTensor> {
        let rows = self.rows(inputs);
        let weights = &inputs[self.n_inputs()..];
        let shape = shape(&self.spec, weights, seed);
        let mut for_rows: Vec<Vec<f32>> = rows.iter().map(|rows| vec![0.0; rows.slice().len()]).collect();
        let (for_queries, for_memory) = for_rows.split_at_mut(1);
        let [gathered, log_sum_exp] = [0, 1].map(|index| Elements::of(&computed.kept[index]));
        let gradient = Elements::of(&gradient);
        let given = BlockGradient {
            gathered: gathered.slice(),
            log_sum_exp: log_sum_exp.slice(),
            for_output: gradient.slice(),
            for_queries: &mut for_queries[0],
            for_memory: for_memory.first_mut().map_or(&mut [], Vec::as_mut_slice),
            for_expression: &mut [],
        };
        let input = self.input(inputs, &rows);
        let slices = Weights::of(weights);
        let for_weights = block_backward(&shape, &slices.slices(), &input, given, self.instructions);
        let for_rows = for_rows.into_iter().zip(inputs).map(|(gradient, input)| like(gradient, input));
        for_rows.chain(weight_gradients(&shape, &for_weights, weights)).collect()
    }
}
