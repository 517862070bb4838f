//! The reading of tables against the same block over rows of embeddings.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::block::{
    BlockGradient, BlockInput, BlockOutput, Kept, Memory, PaddedRows, WeightGradients, block_backward,
    block_forward,
};
use crate::norm::NormWeights;
use crate::simd::Instructions;

const MLP: usize = 48;

struct Case {
    shape: BlockShape,
    zeros: Zeros,
    expression: SparseMatrix,
    queries: Vec<f32>,
    embeddings: Vec<f32>,
    slope: Vec<f32>,
    weights: Vec<Vec<f32>>,
    cotangent: Vec<f32>,
}

fn numbers(n: usize, seed: usize, spread: f32) -> Vec<f32> {
    let mut random = StdRng::seed_from_u64(seed as u64);
    (0..n).map(|_| random.random_range(-spread..spread)).collect()
}

impl Case {
    /// Spots from empty to full; the last one full.
    fn new(zeros: Zeros, head_dim: usize, n_queries: usize, slope: f32) -> Self {
        let (n_spots, n_genes, d) = (37, 45, 2 * head_dim);
        let (mut starts, mut columns, mut values) = (vec![0], Vec::new(), Vec::new());
        for spot in 0..n_spots {
            for gene in 0..n_genes {
                if (gene * 13 + spot * 7) % n_spots < spot || spot + 1 == n_spots {
                    columns.push(gene as u32);
                    values.push(0.3 + ((gene * 5 + spot * 3) % 17) as f32 * 0.2);
                }
            }
            starts.push(columns.len());
        }
        let sizes = [3 * d * d, 3 * d, d * d, d, d, d, d * MLP, MLP, MLP * d, d, d, d];
        Self {
            shape: BlockShape { embedding_dim: d, n_heads: 2, mlp_dim: MLP, dropout: 0.0, seed: 1 },
            zeros,
            expression: SparseMatrix::new(starts, columns, values, n_genes).unwrap(),
            queries: numbers(n_queries * d, 1, 1.0),
            embeddings: numbers((n_genes + 1) * d, 2, 1.0),
            slope: numbers(d, 3, slope),
            weights: sizes.iter().enumerate().map(|(seed, &n)| numbers(n, 10 + seed, 0.5)).collect(),
            cotangent: numbers(n_spots * n_queries * d, 4, 1.0),
        }
    }

    fn weights(&self) -> BlockWeights<'_> {
        let w = &self.weights;
        let norm = |gain: usize| NormWeights { gain: &w[gain], bias: &w[gain + 1], epsilon: 1e-5 };
        BlockWeights {
            in_projection: &w[0],
            in_projection_bias: &w[1],
            out_projection: &w[2],
            out_projection_bias: &w[3],
            attention_norm: norm(4),
            expand: &w[6],
            expand_bias: &w[7],
            contract: &w[8],
            contract_bias: &w[9],
            mlp_norm: norm(10),
        }
    }

    fn input(&self) -> ReadingInput<'_> {
        ReadingInput {
            expression: &self.expression,
            zeros: self.zeros,
            queries: &self.queries,
            embeddings: &self.embeddings,
            slope: &self.slope,
        }
    }

    /// Output, and gradients of queries, embeddings, slope and weights.
    fn by_tables(&self, instructions: Instructions) -> [Vec<f32>; 5] {
        let (weights, input) = (self.weights(), self.input());
        let (output, kept) = read_genes(&self.shape, &weights, &input, instructions);
        let kept = (&kept.gathered[..], &kept.log_sum_exp[..]);
        let back = read_genes_backward(&self.shape, &weights, &input, kept, &self.cotangent, instructions);
        [output, back.queries, back.embeddings, back.slope, back.weights]
    }

    /// The same by a block that reads a row for every gene it is given.
    fn by_rows(&self, instructions: Instructions) -> [Vec<f32>; 5] {
        let (n_spots, n_genes) = (self.expression.n_rows(), self.expression.n_columns());
        let d = self.shape.embedding_dim;
        let tokens: Vec<Tokens> = (0..n_spots)
            .map(|spot| {
                let mut tokens = Tokens::default();
                match self.zeros {
                    Zeros::Read => tokens.every_gene(&self.expression, spot),
                    Zeros::LeftOut => tokens.non_zeros(&self.expression, spot),
                }
                tokens
            })
            .collect();
        let lengths: Vec<usize> = tokens.iter().map(|tokens| tokens.genes.len()).collect();
        let mut memory = vec![0.0; n_spots * n_genes * d];
        for (tokens, rows) in tokens.iter().zip(memory.chunks_exact_mut(n_genes * d)) {
            for ((&gene, &value), row) in
                tokens.genes.iter().zip(&tokens.values).zip(rows.chunks_exact_mut(d))
            {
                let embedding = &self.embeddings[gene as usize * d..][..d];
                for ((number, embedding), slope) in row.iter_mut().zip(embedding).zip(&self.slope) {
                    *number = embedding + value * slope;
                }
            }
        }
        let n_queries = self.queries.len() / d;
        let input = BlockInput {
            n_cells: n_spots,
            queries: &self.queries,
            query_rows: PaddedRows { padded: n_queries, lengths: None },
            memory: Memory::Rows(&memory),
            memory_rows: PaddedRows { padded: n_genes, lengths: Some(&lengths) },
        };
        let rows = n_spots * n_queries * d;
        let (mut output, mut gathered) = (vec![0.0; rows], vec![0.0; rows]);
        let mut log_sum_exp = vec![0.0; n_spots * 2 * n_queries];
        let kept = Kept { gathered: &mut gathered, log_sum_exp: &mut log_sum_exp };
        let results = BlockOutput { output: &mut output, kept: Some(kept) };
        block_forward(&self.shape, &self.weights(), &input, results, instructions);
        let (mut for_queries, mut for_memory) = (vec![0.0; self.queries.len()], vec![0.0; memory.len()]);
        let gradient = BlockGradient {
            gathered: &gathered,
            log_sum_exp: &log_sum_exp,
            for_output: &self.cotangent,
            for_queries: &mut for_queries,
            for_memory: &mut for_memory,
            for_expression: &mut [],
        };
        let weights = block_backward(&self.shape, &self.weights(), &input, gradient, instructions);
        let (mut embeddings, mut slope) = (vec![0.0; self.embeddings.len()], vec![0.0; d]);
        for (tokens, rows) in tokens.iter().zip(for_memory.chunks_exact(n_genes * d)) {
            for ((&gene, &value), row) in tokens.genes.iter().zip(&tokens.values).zip(rows.chunks_exact(d)) {
                for h in 0..d {
                    embeddings[gene as usize * d + h] += row[h];
                    slope[h] += value * row[h];
                }
            }
        }
        [output, for_queries, embeddings, slope, weights]
    }
}

fn assert_same(found: &[Vec<f32>; 5], expected: &[Vec<f32>; 5], tolerance: f32, what: &str) {
    let names = ["output", "queries", "embeddings", "slope", "weights"];
    for ((found, expected), name) in found.iter().zip(expected).zip(names) {
        assert_eq!(found.len(), expected.len(), "{name} {what}");
        let largest = expected.iter().fold(1.0_f32, |largest, element| largest.max(element.abs()));
        for (index, (a, b)) in found.iter().zip(expected).enumerate() {
            assert!((a - b).abs() <= tolerance * largest, "{name}[{index}] {what}: {a} {b} of {largest}");
        }
    }
}

#[test]
fn tables_give_what_rows_give_with_every_gradient() {
    for zeros in [Zeros::LeftOut, Zeros::Read] {
        for (head_dim, n_queries) in [(16, 64), (16, 8), (8, 5), (32, 33)] {
            let case = Case::new(zeros, head_dim, n_queries, 0.5);
            for instructions in Instructions::available() {
                if case.shape.is_served_by(instructions) {
                    let what = format!("{zeros:?} {head_dim} {n_queries} {instructions:?}");
                    assert_same(&case.by_tables(instructions), &case.by_rows(instructions), 3e-5, &what);
                }
            }
        }
    }
}

/// Where expression decides, little is left of the sum over all genes at zero, and it is not used.
#[test]
fn zeros_are_not_shared_where_digits_would_be_lost() {
    // Scores of hundreds have fewer digits after the point, however they are computed.
    for (slope, tolerance) in [(3.0, 3e-5), (8.0, 3e-5), (40.0, 3e-4)] {
        let case = Case::new(Zeros::Read, 16, 64, slope);
        let instructions = Instructions::detect();
        let (found, expected) = (case.by_tables(instructions), case.by_rows(instructions));
        assert_same(&found, &expected, tolerance, &format!("slope {slope}"));
    }
}

#[test]
fn dropout_drops_some_and_its_gradient_is_that_of_what_was_computed() {
    for zeros in [Zeros::LeftOut, Zeros::Read] {
        let mut case = Case::new(zeros, 16, 8, 0.5);
        let whole = case.by_tables(Instructions::detect());
        case.shape.dropout = 0.3;
        let loss = |case: &Case| -> f64 {
            let (output, _) = read_genes(&case.shape, &case.weights(), &case.input(), Instructions::detect());
            output.iter().zip(&case.cotangent).map(|(a, b)| f64::from(a * b)).sum()
        };
        let [output, _, embeddings, slope, _] = case.by_tables(Instructions::detect());
        assert_ne!(output, whole[0]);
        let mut check = |which: fn(&mut Case) -> &mut Vec<f32>, gradient: &[f32]| {
            let direction = numbers(gradient.len(), 77, 1.0);
            let mut moved = |by: f32| {
                for (element, direction) in which(&mut case).iter_mut().zip(&direction) {
                    *element += by * direction;
                }
                loss(&case)
            };
            let (up, down) = (moved(1e-3), moved(-2e-3));
            moved(1e-3);
            let expected: f64 = gradient.iter().zip(&direction).map(|(a, b)| f64::from(a * b)).sum();
            let slope = (up - down) / 2e-3;
            assert!((slope - expected).abs() < 1e-2 * (1.0 + expected.abs()), "{slope} {expected}");
        };
        check(|case| &mut case.embeddings, &embeddings);
        check(|case| &mut case.slope, &slope);
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for zeros in [Zeros::LeftOut, Zeros::Read] {
        let case = Case::new(zeros, 16, 64, 0.5);
        let run = |n_threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            pool.install(|| case.by_tables(Instructions::detect()))
        };
        let one = run(1);
        assert_eq!(one, run(2));
        assert_eq!(one, run(5));
    }
}

#[test]
fn gradients_lie_in_the_order_of_a_blocks_weights() {
    let case = Case::new(Zeros::LeftOut, 16, 8, 0.5);
    let total: usize = WeightGradients::sizes(&case.shape).iter().sum();
    assert_eq!(case.by_tables(Instructions::detect())[4].len(), total);
}
