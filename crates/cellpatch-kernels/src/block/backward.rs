//! The backward pass of a block.

use rayon::prelude::*;

use super::feedforward::{self, Transposed};
use super::forward::{Cell, shared_queries};
use super::gradient::WeightGradients;
use super::{BlockInput, BlockShape, BlockWeights, Memory, Prepared};
use crate::attention::{HeadGradient, HeadGradients};
use crate::matrix::{Layout, Start, add_column_sums, add_outer_products, multiply};
use crate::reduce::{largest_first, sum_of_parts};
use crate::simd::{Instructions, Simd, Vectorized, dispatch};
use crate::workspace::{Workspace, sized, split_heads, with_workspace, zeroed};

/// What a block's backward pass is given and what it fills.
#[derive(Debug)]
pub struct BlockGradient<'a> {
    /// From the forward pass: [cells, queries, d].
    pub gathered: &'a [f32],
    /// From the forward pass: [cells, heads, queries].
    pub log_sum_exp: &'a [f32],
    /// Gradient of the output: [cells, queries, d].
    pub for_output: &'a [f32],
    /// Filled with the gradient of the queries, in their shape; rows of padding must be 0 and stay so.
    pub for_queries: &'a mut [f32],
    /// Filled with the gradient of the memory, if it is not the queries' own: rows as rows, [cells, keys, d]; genes as keys and
    /// values, [cells, keys, 2 d]. Rows of padding are left as they are.
    pub for_memory: &'a mut [f32],
    /// Filled with the gradient of the expression's keys and values where the memory is genes.
    pub for_expression: &'a mut [f32],
}

/// Computes the gradients of a block's inputs and weights. The gradient of the memory's projection is part of the
/// weights' unless the memory is genes: there it is left to the tables.
///
/// - output: gradients of the weights in the order of [`WeightGradients`]
///
/// # Panics
/// As [`block_forward`](super::block_forward).
pub fn block_backward(
    shape: &BlockShape,
    weights: &BlockWeights<'_>,
    input: &BlockInput<'_>,
    gradient: BlockGradient<'_>,
    instructions: Instructions,
) -> Vec<f32> {
    assert!(shape.is_served_by(instructions), "no kernel for {shape:?}");
    let d = shape.embedding_dim;
    let block = Prepared::new(*shape, *weights);
    let shared = shared_queries(&block, input, instructions);
    let transposed = Transposed::new(&block);
    let queries = input.query_rows.padded * d;
    let n_weights = WeightGradients::total(shape);
    let n_shared = if shared.is_empty() { 0 } else { queries };
    let n_expression = gradient.for_expression.len();
    let n_part = n_weights + n_shared + n_expression;
    // One part a cell, added up in the order of cells: the same sum whatever the number of threads.
    let mut parts = vec![0.0; input.n_cells * n_part];
    let mut unshared =
        if shared.is_empty() { Some(gradient.for_queries.chunks_exact_mut(queries)) } else { None };
    let memory_width = input.n_cells.max(1);
    let mut memories = match gradient.for_memory.len() / memory_width {
        0 => None,
        width => Some(gradient.for_memory.chunks_exact_mut(width)),
    };
    let mut tasks: Vec<CellBackward<'_>> = parts
        .chunks_exact_mut(n_part)
        .enumerate()
        .map(|(cell, part)| {
            let (weights, rest) = part.split_at_mut(n_weights);
            let (shared_part, expression) = rest.split_at_mut(n_shared);
            let for_queries = unshared.as_mut().and_then(Iterator::next).unwrap_or(shared_part);
            CellBackward {
                block: &block,
                transposed: &transposed,
                input,
                shared: &shared,
                cell,
                gathered: &gradient.gathered[cell * queries..][..queries],
                log_sum_exp: gradient.log_sum_exp,
                for_output: &gradient.for_output[cell * queries..][..queries],
                for_queries,
                for_memory: memories.as_mut().and_then(Iterator::next).unwrap_or_default(),
                for_expression: expression,
                for_weights: weights,
            }
        })
        .collect();
    largest_first(&mut tasks, |task| input.query_rows.of(task.cell) * input.memory_rows.of(task.cell));
    tasks
        .into_par_iter()
        .with_max_len(1)
        .for_each(|task| with_workspace(|workspace| dispatch(instructions, (task, workspace))));

    let mut sums = sum_of_parts(&parts, n_part);
    gradient.for_expression.copy_from_slice(&sums[n_weights + n_shared..]);
    if n_shared > 0 {
        gradient.for_queries.copy_from_slice(&sums[n_weights..n_weights + n_shared]);
    }
    sums.truncate(n_weights);
    sums
}

struct CellBackward<'a> {
    block: &'a Prepared<'a>,
    transposed: &'a Transposed,
    input: &'a BlockInput<'a>,
    shared: &'a [f32],
    cell: usize,
    gathered: &'a [f32],
    /// Of all cells.
    log_sum_exp: &'a [f32],
    for_output: &'a [f32],
    for_queries: &'a mut [f32],
    for_memory: &'a mut [f32],
    for_expression: &'a mut [f32],
    for_weights: &'a mut [f32],
}

impl Vectorized for (CellBackward<'_>, &mut Workspace) {
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

impl CellBackward<'_> {
    #[inline(always)]
    fn compute<S: Simd, const H: usize>(self, workspace: &mut Workspace) {
        let Self { block, input, .. } = self;
        let shape = &block.shape;
        let d = shape.embedding_dim;
        let cell = Cell::of(input, d, self.cell);
        let rows = cell.n_queries * d;
        let mut gradients = WeightGradients::in_buffer(shape, self.for_weights);

        let for_gathered = sized(&mut workspace.for_gathered, rows);
        let for_queries = &mut self.for_queries[..rows];
        feedforward::backward::<S>(
            (block, self.transposed),
            (&self.gathered[..rows], cell.queries),
            &self.for_output[..rows],
            (for_gathered, for_queries),
            &mut gradients,
            &mut workspace.feedforward,
        );

        let scratch = (&mut workspace.queries, &mut workspace.memory);
        let (queries, memory) = cell.project::<S>(block, input, self.shared, scratch);
        let gathered = sized(&mut workspace.gathered_by_head, rows);
        split_heads::<H>(&self.gathered[..rows], d, gathered);
        let for_gathered_by_head = sized(&mut workspace.for_gathered_by_head, rows);
        split_heads::<H>(for_gathered, d, for_gathered_by_head);
        let by_head = Heads {
            gathered,
            for_gathered: for_gathered_by_head,
            for_queries: zeroed(&mut workspace.for_queries, rows),
            for_memory: zeroed(&mut workspace.for_memory, 2 * cell.n_keys * d),
        };
        let padded = input.query_rows.padded;
        let log_sum_exp = &self.log_sum_exp[self.cell * shape.n_heads * padded..];
        for (head, log_sum_exp) in log_sum_exp.chunks_exact(padded).take(shape.n_heads).enumerate() {
            let (n, n_keys) = (cell.n_queries, cell.n_keys);
            let (keys, values) =
                by_head.for_memory.as_chunks_mut::<H>().0.split_at_mut(shape.n_heads * n_keys);
            let of_queries = head * n..(head + 1) * n;
            let of_keys = head * n_keys..(head + 1) * n_keys;
            cell.head::<H>(shape, head, queries, memory).backward::<S>(
                HeadGradient {
                    output: &by_head.gathered.as_chunks::<H>().0[of_queries.clone()],
                    gradient: &by_head.for_gathered.as_chunks::<H>().0[of_queries.clone()],
                    log_sum_exp: &log_sum_exp[..n],
                },
                HeadGradients {
                    for_queries: &mut by_head.for_queries.as_chunks_mut::<H>().0[of_queries],
                    for_keys: &mut keys[of_keys.clone()],
                    for_values: &mut values[of_keys],
                },
            );
        }

        let projections = Projections { cell, block };
        projections.queries_backward::<S>(by_head.for_queries, for_queries, &mut gradients);
        let for_memory = by_head.for_memory;
        match &input.memory {
            Memory::Own => {
                projections.memory_backward::<S>(
                    for_memory,
                    cell.queries,
                    (Start::Accumulate, for_queries),
                    &mut gradients,
                );
            }
            Memory::Rows(memory) => {
                let memory = cell.rows(memory, input.memory_rows.padded, cell.n_keys, d);
                projections.memory_backward::<S>(
                    for_memory,
                    memory,
                    (Start::Zero, self.for_memory),
                    &mut gradients,
                );
            }
            Memory::Genes(genes) => genes.give_back(
                cell.index * input.memory_rows.padded,
                (for_memory, H, cell.n_keys),
                self.for_memory,
                self.for_expression,
            ),
        }
    }
}

/// A cell's attention tensors by head: [heads, queries, H], and [2 heads, keys, H].
struct Heads<'a> {
    gathered: &'a [f32],
    for_gathered: &'a [f32],
    for_queries: &'a mut [f32],
    for_memory: &'a mut [f32],
}

/// The way back through the projections of queries, keys and values.
struct Projections<'a> {
    cell: Cell<'a>,
    block: &'a Prepared<'a>,
}

impl Projections<'_> {
    /// - projected: gradient of the projected queries, [heads, queries, H]
    /// - for_queries: added to, [queries, d]
    #[inline(always)]
    fn queries_backward<S: Simd>(
        &self,
        projected: &[f32],
        for_queries: &mut [f32],
        gradients: &mut WeightGradients<'_>,
    ) {
        let shape = &self.block.shape;
        let (d, n) = (shape.embedding_dim, self.cell.n_queries);
        let projected = (projected, Layout::by_head(n, shape.head_dim()));
        let weights = &self.block.weights.in_projection[..d * d];
        let rows = (for_queries, Layout::row_major(d));
        multiply::<S>(projected, n, weights, d, Start::Accumulate, rows);
        let for_weights = &mut gradients.in_projection[..d * d];
        add_outer_products::<S>(projected, d, self.cell.queries, d, n, for_weights);
        add_column_sums::<S>(projected, n, d, &mut gradients.in_projection_bias[..d]);
    }

    /// - projected: gradient of keys and values, [2 heads, keys, H]
    /// - memory: [keys, d]
    #[inline(always)]
    fn memory_backward<S: Simd>(
        &self,
        projected: &[f32],
        memory: &[f32],
        (start, for_memory): (Start<'_>, &mut [f32]),
        gradients: &mut WeightGradients<'_>,
    ) {
        let shape = &self.block.shape;
        let (d, n) = (shape.embedding_dim, self.cell.n_keys);
        let projected = (projected, Layout::by_head(n, shape.head_dim()));
        let weights = &self.block.weights.in_projection[d * d..];
        multiply::<S>(projected, n, weights, d, start, (for_memory, Layout::row_major(d)));
        let for_weights = &mut gradients.in_projection[d * d..];
        add_outer_products::<S>(projected, 2 * d, memory, d, n, for_weights);
        add_column_sums::<S>(projected, n, 2 * d, &mut gradients.in_projection_bias[d..]);
    }
}
