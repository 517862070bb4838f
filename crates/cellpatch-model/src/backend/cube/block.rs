//! A whole attention block.

use std::sync::Arc;

use burn::tensor::{DType, Shape, TensorMetadata};
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cellpatch_gpu::block::{
    BlockGradients, BlockInput, BlockMemory, BlockWeights, GeneMemory, block_backward, block_forward,
};
use cellpatch_gpu::dropout::Seed;
use cellpatch_gpu::feedforward::FeedforwardWeights;
use cellpatch_gpu::genes::BatchGenes;
use cellpatch_gpu::memory::{Floats, PaddedRows};

use super::attention::{computed, padded, seed};
use super::floats::{floats, tensor};
use super::genes::Tokens;
use super::{CubeInputs, CubeKernel};
use crate::block::NORM_EPSILON;
use crate::operation::AttentionSpec;

/// What the queries of a block read.
#[derive(Debug)]
pub(super) enum Reads {
    Memory,
    Itself,
    /// Genes and their continuous expression. The call's first integers are their tokens.
    Genes(Tokens),
}

/// Where the inputs of a block that reads genes lie.
const TABLE: usize = 1;
const VALUES: usize = 2;
const SLOPE: usize = 3;
const SHIFT: usize = 4;

impl Reads {
    /// Inputs in front of the weights.
    pub(super) fn n_inputs(&self) -> usize {
        match self {
            Self::Itself => 1,
            Self::Memory => 2,
            Self::Genes(_) => SHIFT + 1,
        }
    }

    /// Integers in front of the seed.
    fn n_integers(&self) -> usize {
        usize::from(matches!(self, Self::Genes(_)))
    }

    /// Cells of the batch.
    ///
    /// - cells: of an input
    fn n_cells(&self, cells: impl Fn(usize) -> usize) -> usize {
        match self {
            Self::Itself => cells(0),
            Self::Memory => cells(1),
            Self::Genes(tokens) => tokens.n_cells,
        }
    }
}

#[derive(Debug)]
pub(super) struct CubeBlock {
    pub(super) spec: AttentionSpec,
    pub(super) reads: Reads,
    /// How what lies between the kernels is stored.
    pub(super) between: DType,
}

/// The layer among a block's weights whose shape is that of the block: [d, mlp].
pub(super) const EXPAND: usize = 6;

/// What a block is called with.
struct Call {
    queries: Floats,
    memory: Memory,
    weights: Vec<Floats>,
    embedding_dim: usize,
    mlp_dim: usize,
    n_cells: usize,
    query_rows: PaddedRows,
    memory_rows: PaddedRows,
    queries_are_shared: bool,
    seed: Seed,
    between: DType,
}

enum Memory {
    Own,
    Rows(Floats),
    Genes { genes: Arc<BatchGenes>, embeddings: Floats, expression: Floats, slope: Floats },
}

impl CubeBlock {
    fn call<R: CubeRuntime>(&self, inputs: &CubeInputs<R>) -> Call {
        let first_weight = self.reads.n_inputs();
        let [n_query_cells, n_queries, _] = inputs.dims(0);
        let n_cells = self.reads.n_cells(|input| inputs.dims::<3>(input)[0]);
        let [embedding_dim, mlp_dim] = inputs.dims(first_weight + EXPAND);
        let query_rows = padded(inputs, n_cells, n_queries, &self.spec.query_lengths);
        let rows = |n: usize| padded(inputs, n_cells, n, &self.spec.key_lengths);
        let (memory, memory_rows) = match &self.reads {
            Reads::Itself => (Memory::Own, query_rows.clone()),
            Reads::Memory => {
                let [_, n_keys, _] = inputs.dims(1);
                (Memory::Rows(floats(&inputs.floats[1])), rows(n_keys))
            }
            Reads::Genes(tokens) => {
                let [table, expression, slope, shift] =
                    [TABLE, VALUES, SLOPE, SHIFT].map(|index| floats(&inputs.floats[index]));
                let [capacity, _] = inputs.dims(TABLE);
                let genes = tokens.genes(inputs, self.spec.key_lengths.as_ref(), capacity);
                let embeddings = genes.gather(&inputs.floats[0].client, &table, embedding_dim, &shift);
                (Memory::Genes { genes, embeddings, expression, slope }, rows(tokens.n_genes))
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
            seed: seed(inputs, self.reads.n_integers()),
            between: self.between,
        }
    }

    /// The gradients of what stands before the weights, in the order of the inputs.
    fn of_inputs<R: CubeRuntime>(
        &self,
        inputs: &CubeInputs<R>,
        call: &Call,
        gradients: &BlockGradients,
        wanted: &[bool],
    ) -> Vec<Option<Floats>> {
        let BlockGradients { for_queries, for_memory, for_genes, .. } = gradients;
        let mut of_inputs = vec![Some(for_queries.clone())];
        match (&call.memory, for_memory, for_genes) {
            (Memory::Genes { genes, .. }, Some(for_embeddings), Some(beside)) => {
                let client = &inputs.floats[0].client;
                let table = || genes.spread(client, for_embeddings, call.embedding_dim);
                of_inputs.push(wanted[TABLE].then(table));
                of_inputs.push(beside.for_expression.clone());
                of_inputs.extend([Some(beside.for_slope.clone()), Some(beside.for_shift.clone())]);
            }
            (Memory::Rows(_), for_memory, _) => of_inputs.push(for_memory.clone()),
            _ => {}
        }
        of_inputs
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

    /// - wanted: for each input, whether its gradient will be used
    fn input(&self, spec: &AttentionSpec, wanted: &[bool]) -> BlockInput<'_> {
        BlockInput {
            n_cells: self.n_cells,
            queries: &self.queries,
            queries_are_shared: self.queries_are_shared,
            query_rows: &self.query_rows,
            memory: match &self.memory {
                Memory::Own => BlockMemory::Own,
                Memory::Rows(rows) => BlockMemory::Rows(rows),
                Memory::Genes { genes, embeddings, expression, slope } => BlockMemory::Genes(GeneMemory {
                    genes,
                    embeddings,
                    expression,
                    slope,
                    differentiates_expression: wanted.get(VALUES).is_some_and(|&wanted| wanted),
                }),
            },
            memory_rows: &self.memory_rows,
            between: self.between.into(),
            dropout: spec.dropout,
            seed: &self.seed,
        }
    }
}

/// What attention gathered, among what the forward pass computes.
const GATHERED: usize = 1;

impl<R: CubeRuntime> CubeKernel<R> for CubeBlock {
    fn shapes(&self, inputs: &[Shape], keep: bool) -> Vec<Shape> {
        let [_, n_queries, d] = inputs[0].dims();
        let n_cells = self.reads.n_cells(|input| inputs[input].dims::<3>()[0]);
        let rows = Shape::new([n_cells, n_queries, d]);
        let mut shapes = vec![rows.clone()];
        if keep {
            shapes.extend([rows, Shape::new([n_cells, self.spec.n_heads, n_queries])]);
        }
        shapes
    }

    fn dtype(&self, computed: usize) -> DType {
        if computed == GATHERED { self.between } else { DType::F32 }
    }

    fn forward(&self, inputs: &CubeInputs<R>, keep: bool) -> Vec<CubeTensor<R>> {
        let (call, like) = (self.call(inputs), &inputs.floats[0]);
        let results = block_forward(&like.client, &call.weights(&self.spec), &call.input(&self.spec, &[]));
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
        wanted: &[bool],
    ) -> Vec<CubeTensor<R>> {
        let call = self.call(inputs);
        let gradients = block_backward(
            &inputs.floats[0].client,
            &call.weights(&self.spec),
            &call.input(&self.spec, wanted),
            &computed(&kept[GATHERED], &kept[2]),
            &floats(&gradient),
        );
        let of_inputs = self.of_inputs(inputs, &call, &gradients, wanted);
        let all = of_inputs.into_iter().chain(gradients.for_weights.into_iter().map(Some));
        let of_input = |(gradient, input): (Option<Floats>, &CubeTensor<R>)| match gradient {
            Some(gradient) => tensor(input, gradient, input.shape()),
            None => input.clone(),
        };
        all.zip(&inputs.floats).map(of_input).collect()
    }
}
