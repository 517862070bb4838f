//! The output layer: one number for each row, with dropout of its elements inside.

use rayon::prelude::*;

use crate::block::PaddedRows;
use crate::dropout::DropoutStream;
use crate::reduce::sum_of_parts;

/// Rows on their way to a number each: `sum over i of dropout(row[i]) weight[i] + bias`
/// (`torch.nn.Dropout` and `torch.nn.Linear(d, 1)`).
#[derive(Debug, Clone, Copy)]
pub struct OutputLayer<'a> {
    /// [cells, rows, d]
    pub rows: &'a [f32],
    /// Which of them count; the others' number is 0.
    pub lengths: PaddedRows<'a>,
    /// `[d]`
    pub weight: &'a [f32],
    /// The bias.
    pub bias: f32,
    /// Probability with which an element is dropped and the others scaled up; 0 outside training.
    pub dropout: f64,
    /// Of the dropout; forward and backward pass must be given the same.
    pub seed: u64,
}

/// Elements of a row that share one word of the dropout's random bits with their neighbour.
const PAIR: usize = 2;

impl OutputLayer<'_> {
    fn width(&self) -> usize {
        self.weight.len()
    }

    fn stream(&self, cell: usize) -> Option<DropoutStream> {
        DropoutStream::new(self.dropout, self.seed, [cell as u64, u64::MAX])
    }

    /// What the elements of one row are multiplied by: 0 where dropped.
    fn factors(&self, stream: Option<&DropoutStream>, row: usize, factors: &mut [f32]) {
        let Some(stream) = stream else { return };
        let scale = stream.scale();
        for (pair, factors) in factors.chunks_mut(PAIR).enumerate() {
            for (factor, kept) in factors.iter_mut().zip(stream.kept(row, pair)) {
                *factor = if kept { scale } else { 0.0 };
            }
        }
    }

    /// - output: [cells, rows]
    pub fn forward(&self, output: &mut [f32]) {
        let d = self.width();
        let cells = output.par_chunks_exact_mut(self.lengths.padded).enumerate();
        cells.for_each_init(
            || vec![1.0; d],
            |factors, (cell, output)| {
                let stream = self.stream(cell);
                let rows = self.rows[cell * self.lengths.padded * d..].chunks_exact(d);
                output.fill(0.0);
                for (index, (row, output)) in rows.zip(output).take(self.lengths.of(cell)).enumerate() {
                    self.factors(stream.as_ref(), index, factors);
                    *output = self.product(row, factors) + self.bias;
                }
            },
        );
    }

    /// - gradient: of the output, [cells, rows]
    /// - for_rows: filled, [cells, rows, d]; rows of padding are left as they are
    /// - output: gradient of the weights, `[d]`, and of the bias
    pub fn backward(&self, gradient: &[f32], for_rows: &mut [f32]) -> (Vec<f32>, f32) {
        let d = self.width();
        let padded = self.lengths.padded;
        let mut parts = vec![0.0; gradient.len() / padded * (d + 1)];
        let cells = for_rows.par_chunks_exact_mut(padded * d).zip(parts.par_chunks_exact_mut(d + 1));
        cells.enumerate().for_each_init(
            || vec![1.0; d],
            |factors, (cell, (for_rows, part))| {
                let stream = self.stream(cell);
                let rows = self.rows[cell * padded * d..].chunks_exact(d).zip(&gradient[cell * padded..]);
                let rows = rows.zip(for_rows.chunks_exact_mut(d)).take(self.lengths.of(cell));
                let (for_weight, for_bias) = part.split_at_mut(d);
                for (index, ((row, gradient), for_row)) in rows.enumerate() {
                    self.factors(stream.as_ref(), index, factors);
                    for i in 0..d {
                        let factor = gradient * factors[i];
                        for_row[i] = factor * self.weight[i];
                        for_weight[i] += factor * row[i];
                    }
                    for_bias[0] += gradient;
                }
            },
        );
        let mut sums = sum_of_parts(&parts, d + 1);
        let for_bias = sums.pop().unwrap_or_default();
        (sums, for_bias)
    }

    /// Eight sums side by side, so that the compiler may use vectors.
    fn product(&self, row: &[f32], factors: &[f32]) -> f32 {
        let mut sums = [0.0; 8];
        let parts = row.chunks(8).zip(self.weight.chunks(8).zip(factors.chunks(8)));
        for (row, (weight, factors)) in parts {
            for (sum, (row, (weight, factor))) in
                sums.iter_mut().zip(row.iter().zip(weight.iter().zip(factors)))
            {
                *sum += row * weight * factor;
            }
        }
        sums.iter().sum()
    }
}
