//! Attention over a batch of ragged cells, for those who have queries, keys and values already.

use rayon::prelude::*;

use super::{Head, HeadGradient, HeadGradients, HeadRow};
use crate::block::PaddedRows;
use crate::dropout::DropoutStream;
use crate::reduce::{largest_first, sum_of_parts};
use crate::simd::{Instructions, Simd, Vectorized, dispatch};
use crate::workspace::{Workspace, merge_heads, sized, split_heads, with_workspace, zeroed};

/// Projected queries, keys and values, heads side by side in a row.
#[derive(Debug, Clone, Copy)]
pub struct AttentionInput<'a> {
    /// Cells in the batch.
    pub n_cells: usize,
    /// Heads; head `h` owns the `h`-th of equal slices of a row.
    pub n_heads: usize,
    /// Width of a row.
    pub width: usize,
    /// [cells, queries, width], or [1, queries, width] where all cells ask the same.
    pub queries: &'a [f32],
    /// Rows of the queries.
    pub query_rows: PaddedRows<'a>,
    /// [cells, keys, width]
    pub keys: &'a [f32],
    /// [cells, keys, width]
    pub values: &'a [f32],
    /// Rows of keys and values.
    pub key_rows: PaddedRows<'a>,
    /// Probability with which a softmax weight is dropped; 0 outside training.
    pub dropout: f64,
    /// Of the dropout; forward and backward pass must be given the same.
    pub seed: u64,
}

impl<'a> AttentionInput<'a> {
    /// Whether there is a kernel for heads of this width.
    pub fn is_served_by(&self, instructions: Instructions) -> bool {
        let head_dim = self.width / self.n_heads.max(1);
        [8, 16, 32].contains(&head_dim) && head_dim.is_multiple_of(instructions.lanes())
    }

    fn queries_are_shared(&self) -> bool {
        self.n_cells != 1 && self.queries.len() == self.query_rows.padded * self.width
    }

    fn cost(&self, cell: usize) -> usize {
        self.query_rows.of(cell) * self.key_rows.of(cell)
    }

    fn cell(&self, index: usize) -> AttentionCell<'a> {
        let (n_queries, n_keys) = (self.query_rows.of(index), self.key_rows.of(index));
        let first = |shared: bool, padded: usize| if shared { 0 } else { index * padded * self.width };
        let rows = |tensor: &'a [f32], first: usize, n: usize| &tensor[first..first + n * self.width];
        let keys = first(false, self.key_rows.padded);
        AttentionCell {
            queries: rows(self.queries, first(self.queries_are_shared(), self.query_rows.padded), n_queries),
            keys: rows(self.keys, keys, n_keys),
            values: rows(self.values, keys, n_keys),
        }
    }
}

/// The rows of one cell that count, width by width.
#[derive(Clone, Copy)]
struct AttentionCell<'a> {
    queries: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
}

impl AttentionCell<'_> {
    /// Queries, keys and values by head.
    #[inline(always)]
    fn by_head<'b, const H: usize>(
        &self,
        width: usize,
        queries: &'b mut Vec<f32>,
        memory: &'b mut Vec<f32>,
    ) -> [&'b [HeadRow<H>]; 3] {
        let queries = sized(queries, self.queries.len());
        split_heads::<H>(self.queries, width, queries);
        let memory = sized(memory, 2 * self.keys.len());
        let (keys, values) = memory.split_at_mut(self.keys.len());
        split_heads::<H>(self.keys, width, keys);
        split_heads::<H>(self.values, width, values);
        [queries.as_chunks().0, keys.as_chunks().0, values.as_chunks().0]
    }
}

/// `softmax(Q K^T / sqrt(width / heads)) V` for each head of each cell.
///
/// - output: [cells, queries, width]; rows of padding are left as they are
/// - log_sum_exp: logarithm (base 2) of each softmax's denominator, [cells, heads, queries]
///
/// # Panics
/// When the input is not [served](AttentionInput::is_served_by) by the instructions, or slices are not of the sizes stated.
pub fn attention_forward(
    input: &AttentionInput<'_>,
    output: &mut [f32],
    log_sum_exp: &mut [f32],
    instructions: Instructions,
) {
    assert!(input.is_served_by(instructions), "no kernel for {input:?}");
    let padded = input.query_rows.padded;
    let outputs = output.chunks_exact_mut(padded * input.width);
    let mut tasks: Vec<Forward<'_>> = outputs
        .zip(log_sum_exp.chunks_exact_mut(padded * input.n_heads))
        .enumerate()
        .map(|(cell, (output, log_sum_exp))| Forward { input, cell, output, log_sum_exp })
        .collect();
    largest_first(&mut tasks, |task| input.cost(task.cell));
    tasks
        .into_par_iter()
        .with_max_len(1)
        .for_each(|task| with_workspace(|workspace| dispatch(instructions, (task, workspace))));
}

struct Forward<'a> {
    input: &'a AttentionInput<'a>,
    cell: usize,
    output: &'a mut [f32],
    log_sum_exp: &'a mut [f32],
}

impl Vectorized for (Forward<'_>, &mut Workspace) {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const K: usize, const Q: usize>(self) {
        match self.0.input.width / self.0.input.n_heads {
            8 => self.0.compute::<S, 8>(self.1),
            16 => self.0.compute::<S, 16>(self.1),
            _ => self.0.compute::<S, 32>(self.1),
        }
    }
}

impl Forward<'_> {
    #[inline(always)]
    fn compute<S: Simd, const H: usize>(self, workspace: &mut Workspace) {
        let Self { input, cell: index, output, log_sum_exp } = self;
        let cell = input.cell(index);
        let [queries, keys, values] =
            cell.by_head::<H>(input.width, &mut workspace.queries, &mut workspace.memory);
        let heads = Heads { input, index, queries, keys, values };
        for (head, log_sum_exp) in log_sum_exp.chunks_exact_mut(input.query_rows.padded).enumerate() {
            let n = input.query_rows.of(index);
            heads.head(head).forward::<S>(&mut output[head * H..], input.width, &mut log_sum_exp[..n]);
        }
    }
}

/// A cell's rows by head.
struct Heads<'a, const H: usize> {
    input: &'a AttentionInput<'a>,
    index: usize,
    queries: &'a [[f32; H]],
    keys: &'a [[f32; H]],
    values: &'a [[f32; H]],
}

impl<const H: usize> Heads<'_, H> {
    #[inline(always)]
    fn head(&self, head: usize) -> Head<'_, H> {
        let (n, n_keys) = (self.input.query_rows.of(self.index), self.input.key_rows.of(self.index));
        let streams = [self.index as u64, head as u64];
        Head {
            queries: &self.queries[head * n..(head + 1) * n],
            keys: &self.keys[head * n_keys..(head + 1) * n_keys],
            values: &self.values[head * n_keys..(head + 1) * n_keys],
            dropout: DropoutStream::new(self.input.dropout, self.input.seed, streams),
        }
    }
}

/// What the backward pass of an attention is given and what it fills.
#[derive(Debug)]
pub struct AttentionGradient<'a> {
    /// From the forward pass: [cells, queries, width].
    pub output: &'a [f32],
    /// From the forward pass: [cells, heads, queries].
    pub log_sum_exp: &'a [f32],
    /// Of the output: [cells, queries, width].
    pub for_output: &'a [f32],
    /// Filled, in the shape of the queries; rows of padding are left as they are.
    pub for_queries: &'a mut [f32],
    /// Filled: [cells, keys, width].
    pub for_keys: &'a mut [f32],
    /// Filled: [cells, keys, width].
    pub for_values: &'a mut [f32],
}

/// Computes the gradients of queries, keys and values.
///
/// # Panics
/// As [`attention_forward`].
pub fn attention_backward(
    input: &AttentionInput<'_>,
    gradient: AttentionGradient<'_>,
    instructions: Instructions,
) {
    assert!(input.is_served_by(instructions), "no kernel for {input:?}");
    let (padded, keys) = (input.query_rows.padded, input.key_rows.padded * input.width);
    let queries = padded * input.width;
    let mut parts = vec![0.0; if input.queries_are_shared() { input.n_cells * queries } else { 0 }];
    let for_queries = if parts.is_empty() { &mut *gradient.for_queries } else { &mut parts };
    let mut tasks: Vec<Backward<'_>> = for_queries
        .chunks_exact_mut(queries)
        .zip(gradient.for_keys.chunks_exact_mut(keys).zip(gradient.for_values.chunks_exact_mut(keys)))
        .enumerate()
        .map(|(cell, (for_queries, (for_keys, for_values)))| Backward {
            input,
            cell,
            output: &gradient.output[cell * queries..][..queries],
            log_sum_exp: &gradient.log_sum_exp[cell * input.n_heads * padded..],
            for_output: &gradient.for_output[cell * queries..][..queries],
            for_queries,
            for_keys,
            for_values,
        })
        .collect();
    largest_first(&mut tasks, |task| input.cost(task.cell));
    tasks
        .into_par_iter()
        .with_max_len(1)
        .for_each(|task| with_workspace(|workspace| dispatch(instructions, (task, workspace))));
    if !parts.is_empty() {
        gradient.for_queries.copy_from_slice(&sum_of_parts(&parts, queries));
    }
}

struct Backward<'a> {
    input: &'a AttentionInput<'a>,
    cell: usize,
    output: &'a [f32],
    log_sum_exp: &'a [f32],
    for_output: &'a [f32],
    for_queries: &'a mut [f32],
    for_keys: &'a mut [f32],
    for_values: &'a mut [f32],
}

impl Vectorized for (Backward<'_>, &mut Workspace) {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const K: usize, const Q: usize>(self) {
        match self.0.input.width / self.0.input.n_heads {
            8 => self.0.compute::<S, 8>(self.1),
            16 => self.0.compute::<S, 16>(self.1),
            _ => self.0.compute::<S, 32>(self.1),
        }
    }
}

impl Backward<'_> {
    #[inline(always)]
    fn compute<S: Simd, const H: usize>(self, workspace: &mut Workspace) {
        let Self { input, cell: index, .. } = self;
        let width = input.width;
        let cell = input.cell(index);
        let (n, n_keys) = (input.query_rows.of(index), input.key_rows.of(index));
        let [queries, keys, values] = cell.by_head::<H>(width, &mut workspace.queries, &mut workspace.memory);
        let heads = Heads { input, index, queries, keys, values };
        let output = sized(&mut workspace.gathered_by_head, n * width);
        split_heads::<H>(&self.output[..n * width], width, output);
        let for_output = sized(&mut workspace.for_gathered_by_head, n * width);
        split_heads::<H>(&self.for_output[..n * width], width, for_output);
        let for_queries = zeroed(&mut workspace.for_queries, n * width);
        let (for_keys, for_values) =
            zeroed(&mut workspace.for_memory, 2 * n_keys * width).split_at_mut(n_keys * width);
        let log_sum_exp = self.log_sum_exp.chunks_exact(input.query_rows.padded);
        for (head, log_sum_exp) in log_sum_exp.take(input.n_heads).enumerate() {
            let (of_queries, of_keys) = (head * n..(head + 1) * n, head * n_keys..(head + 1) * n_keys);
            heads.head(head).backward::<S>(
                HeadGradient {
                    output: &output.as_chunks().0[of_queries.clone()],
                    gradient: &for_output.as_chunks().0[of_queries.clone()],
                    log_sum_exp: &log_sum_exp[..n],
                },
                HeadGradients {
                    for_queries: &mut for_queries.as_chunks_mut().0[of_queries],
                    for_keys: &mut for_keys.as_chunks_mut().0[of_keys.clone()],
                    for_values: &mut for_values.as_chunks_mut().0[of_keys],
                },
            );
        }
        merge_heads::<H>(for_queries, &mut self.for_queries[..n * width], width);
        merge_heads::<H>(for_keys, &mut self.for_keys[..n_keys * width], width);
        merge_heads::<H>(for_values, &mut self.for_values[..n_keys * width], width);
    }
}
