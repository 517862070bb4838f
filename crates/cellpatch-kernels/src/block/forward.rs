//! The forward pass of a block.

use rayon::prelude::*;

use super::{BlockInput, BlockShape, BlockWeights, Memory, Prepared, feedforward};
use crate::attention::Head;
use crate::dropout::DropoutStream;
use crate::matrix::{Layout, Start, multiply};
use crate::reduce::largest_first;
use crate::simd::{Instructions, Simd, Vectorized, dispatch};
use crate::workspace::{Workspace, sized, with_workspace};

/// Where a block's results go.
#[derive(Debug)]
pub struct BlockOutput<'a> {
    /// [cells, queries, d]; rows of padding are left as they are.
    pub output: &'a mut [f32],
    /// What the backward pass needs, if there will be one.
    pub kept: Option<Kept<'a>>,
}

/// What a forward pass keeps for the backward pass.
#[derive(Debug)]
pub struct Kept<'a> {
    /// What attention gathered, before the output projection: [cells, queries, d].
    pub gathered: &'a mut [f32],
    /// Logarithm (base 2) of each softmax's denominator: [cells, heads, queries].
    pub log_sum_exp: &'a mut [f32],
}

/// Computes a block for every cell of a batch.
///
/// # Panics
/// When the shape is not [served](BlockShape::is_served_by) by the instructions, or slices are not of the sizes stated.
pub fn block_forward(
    shape: &BlockShape,
    weights: &BlockWeights<'_>,
    input: &BlockInput<'_>,
    output: BlockOutput<'_>,
    instructions: Instructions,
) {
    assert!(shape.is_served_by(instructions), "no kernel for {shape:?}");
    let block = Prepared::new(*shape, *weights);
    let shared = shared_queries(&block, input, instructions);
    let (d, queries) = (shape.embedding_dim, input.query_rows.padded);
    let outputs = output.output.chunks_exact_mut(queries * d);
    assert_eq!(outputs.len(), input.n_cells, "cells of the output");
    let mut kept: Vec<Option<(&mut [f32], &mut [f32])>> = match output.kept {
        Some(kept) => {
            let gathered = kept.gathered.chunks_exact_mut(queries * d);
            gathered.zip(kept.log_sum_exp.chunks_exact_mut(shape.n_heads * queries)).map(Some).collect()
        }
        None => (0..input.n_cells).map(|_| None).collect(),
    };
    let mut tasks: Vec<CellForward<'_>> = outputs
        .zip(kept.drain(..))
        .enumerate()
        .map(|(cell, (output, kept))| CellForward {
            block: &block,
            input,
            shared: &shared,
            cell,
            output,
            kept,
        })
        .collect();
    largest_first(&mut tasks, |task| input.query_rows.of(task.cell) * input.memory_rows.of(task.cell));
    tasks
        .into_par_iter()
        .with_max_len(1)
        .for_each(|task| with_workspace(|workspace| dispatch(instructions, (task, workspace))));
}

/// Projected queries by head, where all cells ask the same: [heads, queries, H]. Empty otherwise.
pub(super) fn shared_queries(
    block: &Prepared<'_>,
    input: &BlockInput<'_>,
    instructions: Instructions,
) -> Vec<f32> {
    let d = block.shape.embedding_dim;
    if !input.queries_are_shared(d) {
        return Vec::new();
    }
    let mut projected = vec![0.0; input.queries.len()];
    let rows = input.query_rows.padded;
    dispatch(instructions, ProjectQueries { block, queries: input.queries, rows, projected: &mut projected });
    projected
}

struct ProjectQueries<'a> {
    block: &'a Prepared<'a>,
    queries: &'a [f32],
    rows: usize,
    projected: &'a mut [f32],
}

impl Vectorized for ProjectQueries<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const K: usize, const Q: usize>(self) {
        project_queries::<S>(self.block, self.queries, self.rows, self.projected);
    }
}

/// - queries: [rows, d]
/// - projected: [heads, rows, H]
#[inline(always)]
fn project_queries<S: Simd>(block: &Prepared<'_>, queries: &[f32], rows: usize, projected: &mut [f32]) {
    let d = block.shape.embedding_dim;
    multiply::<S>(
        (queries, Layout::row_major(d)),
        rows,
        &block.for_queries,
        d,
        Start::Bias(block.query_bias()),
        (projected, Layout::by_head(rows, block.shape.head_dim())),
    );
}

/// One cell's part of a batch.
#[derive(Clone, Copy)]
pub(super) struct Cell<'a> {
    pub(super) index: usize,
    pub(super) n_queries: usize,
    pub(super) n_keys: usize,
    /// [queries, d]
    pub(super) queries: &'a [f32],
}

impl<'a> Cell<'a> {
    pub(super) fn of(input: &BlockInput<'a>, d: usize, index: usize) -> Self {
        let n_queries = input.query_rows.of(index);
        let first = if input.queries_are_shared(d) { 0 } else { index * input.query_rows.padded * d };
        let queries = &input.queries[first..first + n_queries * d];
        Self { index, n_queries, n_keys: input.memory_rows.of(index), queries }
    }

    /// Rows of a padded tensor [cells, rows, width] that are this cell's.
    pub(super) fn rows<'b>(&self, tensor: &'b [f32], padded: usize, n: usize, width: usize) -> &'b [f32] {
        &tensor[self.index * padded * width..][..n * width]
    }

    /// Queries, keys and values by head, in the workspace or, queries that all cells share, where they are.
    #[inline(always)]
    pub(super) fn project<'b, S: Simd>(
        &self,
        block: &Prepared<'_>,
        input: &BlockInput<'_>,
        shared: &'b [f32],
        (queries, memory): (&'b mut Vec<f32>, &'b mut Vec<f32>),
    ) -> (&'b [f32], &'b [f32]) {
        let (d, head_dim) = (block.shape.embedding_dim, block.shape.head_dim());
        let queries: &[f32] = if shared.is_empty() {
            let queries = sized(queries, self.n_queries * d);
            project_queries::<S>(block, self.queries, self.n_queries, queries);
            queries
        } else {
            shared
        };
        let memory = sized(memory, 2 * self.n_keys * d);
        let rows = match &input.memory {
            Memory::Own => self.queries,
            Memory::Rows(rows) => self.rows(rows, input.memory_rows.padded, self.n_keys, d),
            Memory::Genes(genes) => {
                genes.fill(self.index * input.memory_rows.padded, self.n_keys, head_dim, memory);
                return (queries, memory);
            }
        };
        multiply::<S>(
            (rows, Layout::row_major(d)),
            self.n_keys,
            &block.for_memory,
            2 * d,
            Start::Bias(block.memory_bias()),
            (memory, Layout::by_head(self.n_keys, head_dim)),
        );
        (queries, memory)
    }

    /// One head of projected queries, keys and values.
    #[inline(always)]
    pub(super) fn head<'b, const H: usize>(
        &self,
        shape: &BlockShape,
        head: usize,
        queries: &'b [f32],
        memory: &'b [f32],
    ) -> Head<'b, H> {
        let (queries, memory) = (queries.as_chunks::<H>().0, memory.as_chunks::<H>().0);
        let part = |rows: &'b [[f32; H]], part: usize, n: usize| &rows[part * n..(part + 1) * n];
        Head {
            queries: part(queries, head, self.n_queries),
            keys: part(memory, head, self.n_keys),
            values: part(memory, shape.n_heads + head, self.n_keys),
            dropout: DropoutStream::new(shape.dropout, shape.seed, [self.index as u64, head as u64]),
        }
    }
}

struct CellForward<'a> {
    block: &'a Prepared<'a>,
    input: &'a BlockInput<'a>,
    shared: &'a [f32],
    cell: usize,
    output: &'a mut [f32],
    kept: Option<(&'a mut [f32], &'a mut [f32])>,
}

impl Vectorized for (CellForward<'_>, &mut Workspace) {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const K: usize, const Q: usize>(self) {
        match self.0.block.shape.head_dim() {
            8 => self.0.compute::<S, 8>(self.1),
            16 => self.0.compute::<S, 16>(self.1),
            _ => self.0.compute::<S, 32>(self.1),
        }
    }
}

impl CellForward<'_> {
    #[inline(always)]
    fn compute<S: Simd, const H: usize>(self, workspace: &mut Workspace) {
        let Self { block, input, shared, cell, output, kept } = self;
        let (d, n_heads) = (block.shape.embedding_dim, block.shape.n_heads);
        let cell = Cell::of(input, d, cell);
        let Workspace { queries, memory, gathered, log_sum_exp, feedforward, .. } = workspace;
        let (queries, memory) = cell.project::<S>(block, input, shared, (queries, memory));
        let padded = input.query_rows.padded;
        let (gathered, log_sum_exp) = match kept {
            Some(kept) => kept,
            None => (sized(gathered, padded * d), sized(log_sum_exp, n_heads * padded)),
        };
        for (head, log_sum_exp) in log_sum_exp.chunks_exact_mut(padded).enumerate() {
            cell.head::<H>(&block.shape, head, queries, memory).forward::<S>(
                &mut gathered[head * H..],
                d,
                &mut log_sum_exp[..cell.n_queries],
            );
        }
        let rows = cell.n_queries * d;
        feedforward::forward::<S>(block, &gathered[..rows], cell.queries, &mut output[..rows], feedforward);
    }
}
