//! Burn's CPU backend, with a fused attention of our own.
//!
//! Cells are independent, so each is one task for the thread pool and is computed in the same order whatever the
//! number of threads. A cell's padding is never read: its result does not depend on what it is batched with, to the
//! last bit. Scores live in registers and a tile on the stack; the backward pass computes them again from the
//! logarithm of the softmax's denominator (Dao et al. 2022, "FlashAttention").

mod dropout;
mod exponential;
mod head;

use burn::backend::Flex;
use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};
use rayon::prelude::*;

use self::dropout::DropoutStream;
use self::head::{HeadPass, Instructions};
use super::{AttentionInputs, AttentionKernel, AttentionOutput, AttentionSpec, ModelBackend};
use crate::lengths::GeneLengths;

impl ModelBackend for Flex {
    const EXACT_GELU_GRADIENT: bool = true;

    fn attention_kernel(
        inputs: &AttentionInputs<Self>,
        spec: &AttentionSpec,
    ) -> Option<&'static dyn AttentionKernel<Self>> {
        let [_, _, d] = inputs.query.layout().shape().dims();
        if inputs.query.dtype() != DType::F32 {
            return None;
        }
        match d / spec.n_heads {
            8 => Some(&FlexAttention::<8>),
            16 => Some(&FlexAttention::<16>),
            32 => Some(&FlexAttention::<32>),
            _ => None,
        }
    }
}

/// Attention with heads of `H` dimensions.
#[derive(Debug)]
struct FlexAttention<const H: usize>;

impl<const H: usize> AttentionKernel<Flex> for FlexAttention<H> {
    fn forward(
        &self,
        inputs: &AttentionInputs<Flex>,
        spec: &AttentionSpec,
        seed: u64,
    ) -> AttentionOutput<Flex> {
        forward::<H>(inputs, spec, seed, Instructions::detect())
    }

    fn backward(
        &self,
        inputs: &AttentionInputs<Flex>,
        forward: &AttentionOutput<Flex>,
        gradient: FlexTensor,
        spec: &AttentionSpec,
        seed: u64,
    ) -> AttentionInputs<Flex> {
        backward::<H>(inputs, forward, gradient, spec, seed, Instructions::detect())
    }
}

fn forward<const H: usize>(
    inputs: &AttentionInputs<Flex>,
    spec: &AttentionSpec,
    seed: u64,
    instructions: Instructions,
) -> AttentionOutput<Flex> {
    let (query, key, value) = (Rows::of(&inputs.query), Rows::of(&inputs.key), Rows::of(&inputs.value));
    let (n_cells, n_queries, n_keys, d) = (key.n_cells, query.n_rows, key.n_rows, key.width);
    let mut output = vec![0.0; n_cells * n_queries * d];
    let mut log_sum_exp = vec![0.0; n_cells * spec.n_heads * n_queries];
    output
        .par_chunks_mut(n_queries * d)
        .zip(log_sum_exp.par_chunks_mut(spec.n_heads * n_queries))
        .enumerate()
        .for_each_init(HeadPass::<H>::default, |pass, (cell, (output, log_sum_exp))| {
            let queries = attended(&spec.query_lengths, cell, n_queries);
            let keys = attended(&spec.key_lengths, cell, n_keys);
            for (head, log_sum_exp) in log_sum_exp.chunks_mut(n_queries).enumerate() {
                let columns = head * H..(head + 1) * H;
                pass.take_queries(query.cell(cell, queries, &columns));
                pass.take_keys_and_values(key.cell(cell, keys, &columns), value.cell(cell, keys, &columns));
                let dropout = DropoutStream::new(spec.dropout, seed, cell, head);
                pass.forward(instructions, dropout.as_ref(), &mut log_sum_exp[..queries]);
                for (slot, gathered) in output.chunks_mut(d).zip(pass.output()).take(queries) {
                    slot[columns.clone()].copy_from_slice(gathered);
                }
            }
        });
    AttentionOutput {
        output: tensor(output, [n_cells, n_queries, d]),
        log_sum_exp: tensor(log_sum_exp, [n_cells, spec.n_heads, n_queries]),
    }
}

fn backward<const H: usize>(
    inputs: &AttentionInputs<Flex>,
    forward: &AttentionOutput<Flex>,
    gradient: FlexTensor,
    spec: &AttentionSpec,
    seed: u64,
    instructions: Instructions,
) -> AttentionInputs<Flex> {
    let (query, key, value) = (Rows::of(&inputs.query), Rows::of(&inputs.key), Rows::of(&inputs.value));
    let (output, gradient) = (Rows::of(&forward.output), Rows::of(&gradient));
    let log_sum_exp: &[f32] = forward.log_sum_exp.storage();
    let (n_cells, n_queries, n_keys, d) = (key.n_cells, query.n_rows, key.n_rows, key.width);
    let mut query_gradient = vec![0.0; n_cells * n_queries * d];
    let mut key_gradient = vec![0.0; n_cells * n_keys * d];
    let mut value_gradient = vec![0.0; n_cells * n_keys * d];
    query_gradient
        .par_chunks_mut(n_queries * d)
        .zip(key_gradient.par_chunks_mut(n_keys * d))
        .zip(value_gradient.par_chunks_mut(n_keys * d))
        .zip(log_sum_exp.par_chunks(spec.n_heads * n_queries))
        .enumerate()
        .for_each_init(
            HeadPass::<H>::default,
            |pass, (cell, (((for_query, for_key), for_value), log_sum_exp))| {
                let queries = attended(&spec.query_lengths, cell, n_queries);
                let keys = attended(&spec.key_lengths, cell, n_keys);
                for (head, log_sum_exp) in log_sum_exp.chunks(n_queries).enumerate() {
                    let columns = head * H..(head + 1) * H;
                    pass.take_queries(query.cell(cell, queries, &columns));
                    pass.take_keys_and_values(
                        key.cell(cell, keys, &columns),
                        value.cell(cell, keys, &columns),
                    );
                    pass.take_gradients(
                        gradient.cell(cell, queries, &columns),
                        output.cell(cell, queries, &columns),
                        &log_sum_exp[..queries],
                    );
                    let dropout = DropoutStream::new(spec.dropout, seed, cell, head);
                    pass.backward(instructions, dropout.as_ref());
                    for (slot, row) in for_query.chunks_mut(d).zip(pass.query_gradient()).take(queries) {
                        slot[columns.clone()].copy_from_slice(row);
                    }
                    for (slot, row) in for_key.chunks_mut(d).zip(pass.key_gradient()).take(keys) {
                        slot[columns.clone()].copy_from_slice(row);
                    }
                    for (slot, row) in for_value.chunks_mut(d).zip(pass.value_gradient()).take(keys) {
                        slot[columns.clone()].copy_from_slice(row);
                    }
                }
            },
        );
    let query = match query.shared() {
        true => tensor(sum_over_cells(&query_gradient, n_queries * d), [1, n_queries, d]),
        false => tensor(query_gradient, [n_cells, n_queries, d]),
    };
    AttentionInputs {
        query,
        key: tensor(key_gradient, [n_cells, n_keys, d]),
        value: tensor(value_gradient, [n_cells, n_keys, d]),
    }
}

/// Rows of a cell that count.
fn attended(lengths: &Option<GeneLengths>, cell: usize, n_rows: usize) -> usize {
    lengths.as_ref().map_or(n_rows, |lengths| lengths.attended(cell))
}

/// Cell after cell, so that the sum is the same whatever the number of threads.
fn sum_over_cells(gradients: &[f32], n: usize) -> Vec<f32> {
    let mut sum = vec![0.0; n];
    for cell in gradients.chunks(n) {
        for (sum, element) in sum.iter_mut().zip(cell) {
            *sum += element;
        }
    }
    sum
}

fn tensor(elements: Vec<f32>, shape: [usize; 3]) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(elements), Layout::contiguous(Shape::new(shape)), DType::F32)
}

/// A tensor [cells, rows, width] whose rows are contiguous, wherever they lie.
struct Rows {
    tensor: FlexTensor,
    n_cells: usize,
    n_rows: usize,
    width: usize,
    start: usize,
    cell_stride: usize,
    row_stride: usize,
}

impl Rows {
    /// Without a copy where the last dimension is contiguous: a slice of a wider tensor is taken as it is.
    fn of(tensor: &FlexTensor) -> Self {
        let in_place = matches!(tensor.layout().strides(), [cells, rows, 1] if *cells >= 0 && *rows >= 0);
        let tensor = if in_place { tensor.clone() } else { tensor.to_contiguous() };
        let layout = tensor.layout();
        let [n_cells, n_rows, width] = layout.shape().dims();
        let stride = |dimension: usize| layout.strides()[dimension].unsigned_abs();
        let (start, cell_stride, row_stride) = (layout.start_offset(), stride(0), stride(1));
        Self { n_cells, n_rows, width, start, cell_stride, row_stride, tensor }
    }

    /// Whether all cells share one block of rows.
    fn shared(&self) -> bool {
        self.n_cells == 1
    }

    /// The first rows of a cell, a range of columns of each.
    fn cell(
        &self,
        cell: usize,
        n_rows: usize,
        columns: &std::ops::Range<usize>,
    ) -> impl ExactSizeIterator<Item = &[f32]> {
        let cell = if self.shared() { 0 } else { cell };
        let first = self.start + cell * self.cell_stride + columns.start;
        let (elements, stride, width) = (self.tensor.storage::<f32>(), self.row_stride, columns.len());
        (0..n_rows).map(move |row| &elements[first + row * stride..][..width])
    }
}

#[cfg(test)]
mod tests;
