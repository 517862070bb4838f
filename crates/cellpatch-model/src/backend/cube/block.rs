//! A whole attention block.

use burn::tensor::{Shape, TensorMetadata};
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cellpatch_gpu::block::{BlockInput, BlockWeights, block_backward, block_forward};
use cellpatch_gpu::dropout::Seed;
use cellpatch_gpu::feedforward::FeedforwardWeights;
use cellpatch_gpu::memory::{Floats, PaddedRows};

use super::attention::{computed, padded, seed};
use super::floats::{floats, tensor};
use super::{CubeInputs, CubeKernel};
use crate::block::NORM_EPSILON;
use crate::operation::AttentionSpec;

/// What the queries of a block read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Reads {
    Memory,
    Itself,
}

impl Reads {
    /// Inputs in front of the weights.
    pub(super) fn n_inputs(self) -> usize {
        if self == Self::Memory { 2 } else { 1 }
    }
}

#[derive(Debug)]
pub(super) struct CubeBlock {
    pub(super) spec: AttentionSpec,
    pub(super) reads: Reads,
}

/// The layer among a block's weights whose shape is that of the block: [d, mlp].
pub(super) const EXPAND: usize = 6;

/// What a block is called with.
struct Call {
    queries: Floats,
    memory: Option<Floats>,
    weights: Vec<Floats>,
    embedding_dim: usize,
    mlp_dim: usize,
    n_cells: usize,
    query_rows: PaddedRows,
    memory_rows: PaddedRows,
    queries_are_shared: bool,
    seed: Seed,
}

impl CubeBlock {
    fn call<R: CubeRuntime>(&self, inputs: &CubeInputs<R>) -> Call {
        let first_weight = self.reads.n_inputs();
        let [n_query_cells, n_queries, _] = inputs.dims(0);
        let [n_cells, n_keys, _] = inputs.dims(first_weight - 1);
        let [embedding_dim, mlp_dim] = inputs.dims(first_weight + EXPAND);
        let query_rows = padded(inputs, n_cells, n_queries, &self.spec.query_lengths);
        let (memory, memory_rows) = match self.reads {
            Reads::Itself => (None, query_rows.clone()),
            Reads::Memory => {
                (Some(floats(&inputs.floats[1])), padded(inputs, n_cells, n_keys, &self.spec.key_lengths))
            }
        };
        Call {
            queries: floats(&inputs.floats[0]),
            memory,
            weights: inputs.floats[first_weight..].iter().map(floats).collect(),
            embedding_dim,
            mlp_dim,
            n_cells,
            query_rows,
            memory_rows,
            queries_are_shared: n_query_cells != n_cells,
            seed: seed(inputs),
        }
    }
}

impl Call {
    fn weights(&self, spec: &AttentionSpec) -> BlockWeights<'_> {
        let weights = &self.weights;
        BlockWeights {
            n_heads: spec.n_heads,
            in_projection: &weights[0],
            in_projection_bias: &weights[1],
            feedforward: FeedforwardWeights {
                embedding_dim: self.embedding_dim,
                mlp_dim: self.mlp_dim,
                out_projection: &weights[2],
                out_projection_bias: &weights[3],
                attention_gain: &weights[4],
                attention_bias: &weights[5],
                expand: &weights[EXPAND],
                expand_bias: &weights[7],
                contract: &weights[8],
                contract_bias: &weights[9],
                mlp_gain: &weights[10],
                mlp_bias: &weights[11],
                epsilon: NORM_EPSILON as f32,
            },
        }
    }

    fn input(&self, spec: &AttentionSpec) -> BlockInput<'_> {
        BlockInput {
            n_cells: self.n_cells,
            queries: &self.queries,
            queries_are_shared: self.queries_are_shared,
            query_rows: &self.query_rows,
            memory: self.memory.as_ref(),
            memory_rows: &self.memory_rows,
            dropout: spec.dropout,
            seed: &self.seed,
        }
    }
}

impl<R: CubeRuntime> CubeKernel<R> for CubeBlock {
    fn shapes(&self, inputs: &[Shape], keep: bool) -> Vec<Shape> {
        let [_, n_queries, d] = inputs[0].dims();
        let [n_cells, _, _] = inputs[self.reads.n_inputs() - 1].dims();
        let rows = Shape::new([n_cells, n_queries, d]);
        let mut shapes = vec![rows.clone()];
        if keep {
            shapes.extend([rows, Shape::new([n_cells, self.spec.n_heads, n_queries])]);
        }
        shapes
    }

    fn forward(&self, inputs: &CubeInputs<R>, keep: bool) -> Vec<CubeTensor<R>> {
        let (call, like) = (self.call(inputs), &inputs.floats[0]);
        let results = block_forward(&like.client, &call.weights(&self.spec), &call.input(&self.spec));
        let (n_cells, n_queries) = (call.n_cells, call.query_rows.padded);
        let rows = Shape::new([n_cells, n_queries, call.embedding_dim]);
        let mut tensors = vec![tensor(like, results.output, rows.clone())];
        if keep {
            let denominators = Shape::new([n_cells, self.spec.n_heads, n_queries]);
            tensors.push(tensor(like, results.attention.output, rows));
            tensors.push(tensor(like, results.attention.log_sum_exp, denominators));
        }
        tensors
    }

    fn backward(
        &self,
        inputs: &CubeInputs<R>,
        kept: &[CubeTensor<R>],
        gradient: CubeTensor<R>,
        _wanted: &[bool],
    ) -> Vec<CubeTensor<R>> {
        let call = self.call(inputs);
        let gradients = block_backward(
            &inputs.floats[0].client,
            &call.weights(&self.spec),
            &call.input(&self.spec),
            &computed(&kept[1], &kept[2]),
            &floats(&gradient),
        );
        let of_rows = [Some(gradients.for_queries), gradients.for_memory].into_iter().flatten();
        of_rows
            .chain(gradients.for_weights)
            .zip(&inputs.floats)
            .map(|(gradient, input)| tensor(input, gradient, input.shape()))
            .collect()
    }
}
