//! Whole blocks, forward and backward.

use cellpatch_gpu::block::{BlockInput, BlockWeights, block_backward, block_forward, serves};
use cellpatch_gpu::dropout::Seed;
use cellpatch_gpu::feedforward::FeedforwardWeights;
use cellpatch_gpu::memory::{Floats, PaddedRows};
use cellpatch_kernels::block as cpu;
use cellpatch_kernels::norm::NormWeights;

use crate::device::{Client, apart, client, numbers, read};

const EPSILON: f32 = 1e-5;

/// What queries read.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reads {
    Itself,
    Memory,
}

/// One call on the host.
struct Call {
    shape: cpu::BlockShape,
    reads: Reads,
    weights: Vec<Vec<f32>>,
    queries: Vec<f32>,
    memory: Vec<f32>,
    for_output: Vec<f32>,
    shared: bool,
    query_lengths: Vec<usize>,
    memory_lengths: Vec<usize>,
}

/// Output, gradients of queries and memory, and those of the weights.
struct Results {
    names: Vec<String>,
    tensors: Vec<Vec<f32>>,
}

fn results(output: Vec<f32>, for_queries: Vec<f32>, for_memory: Vec<f32>, weights: Vec<Vec<f32>>) -> Results {
    let mut names = vec!["output".into(), "query gradient".into(), "memory gradient".into()];
    names.extend((0..weights.len()).map(|index| format!("gradient of weight {index}")));
    let mut tensors = vec![output, for_queries, for_memory];
    tensors.extend(weights);
    Results { names, tensors }
}

fn longest(lengths: &[usize]) -> usize {
    lengths.iter().copied().max().unwrap_or(0).max(1)
}

impl Call {
    fn new(reads: Reads, queries: &[usize], memory: &[usize], d: usize, n_heads: usize, mlp: usize) -> Self {
        let shape =
            cpu::BlockShape { embedding_dim: d, n_heads, mlp_dim: mlp, dropout: 0.0, seed: 0x0123_4567_89ab };
        let n_cells = memory.len();
        let shared = queries.len() == 1 && n_cells > 1;
        let (n_queries, n_keys) = (longest(queries), longest(memory));
        let weights = cpu::WeightGradients::sizes(&shape).into_iter().enumerate();
        let weights = weights.map(|(index, n)| {
            // Gains lie about 1.
            let centre = if [4, 10].contains(&index) { 1.0 } else { 0.0 };
            let spread = if n > 3 * d { 0.3 } else { 0.2 };
            numbers(n, 100 + index as u64, spread).into_iter().map(|number| centre + number).collect()
        });
        let mut for_output = numbers(n_cells * n_queries * d, 7, 1.0);
        if !shared {
            for (rows, &n) in for_output.chunks_exact_mut(n_queries * d).zip(queries) {
                rows[n.max(1) * d..].fill(0.0);
            }
        }
        Self {
            shape,
            reads,
            weights: weights.collect(),
            queries: numbers(queries.len() * n_queries * d, 8, 1.5),
            memory: numbers(n_cells * n_keys * d, 9, 1.5),
            for_output,
            shared,
            query_lengths: queries.to_vec(),
            memory_lengths: memory.to_vec(),
        }
    }

    fn on_the_cpu(&self) -> Results {
        let w: Vec<&[f32]> = self.weights.iter().map(Vec::as_slice).collect();
        let norm = |gain, bias| NormWeights { gain, bias, epsilon: EPSILON };
        let weights = cpu::BlockWeights {
            in_projection: w[0],
            in_projection_bias: w[1],
            out_projection: w[2],
            out_projection_bias: w[3],
            attention_norm: norm(w[4], w[5]),
            expand: w[6],
            expand_bias: w[7],
            contract: w[8],
            contract_bias: w[9],
            mlp_norm: norm(w[10], w[11]),
        };
        let n_cells = self.memory_lengths.len();
        let query_rows = cpu::PaddedRows {
            padded: longest(&self.query_lengths),
            lengths: (!self.shared).then_some(&self.query_lengths),
        };
        let memory_rows = match self.reads {
            Reads::Itself => query_rows,
            Reads::Memory => {
                cpu::PaddedRows { padded: longest(&self.memory_lengths), lengths: Some(&self.memory_lengths) }
            }
        };
        let input = cpu::BlockInput {
            n_cells,
            queries: &self.queries,
            query_rows,
            memory: match self.reads {
                Reads::Itself => cpu::Memory::Own,
                Reads::Memory => cpu::Memory::Rows(&self.memory),
            },
            memory_rows,
        };
        let instructions = self.shape.instructions().unwrap();
        let mut output = vec![0.0; self.for_output.len()];
        let mut gathered = output.clone();
        let mut log_sum_exp = vec![0.0; n_cells * self.shape.n_heads * query_rows.padded];
        let kept = cpu::Kept { gathered: &mut gathered, log_sum_exp: &mut log_sum_exp };
        let into = cpu::BlockOutput { output: &mut output, kept: Some(kept) };
        cpu::block_forward(&self.shape, &weights, &input, into, instructions);
        let mut for_queries = vec![0.0; self.queries.len()];
        let n_memory = if self.reads == Reads::Memory { self.memory.len() } else { 0 };
        let mut for_memory = vec![0.0; n_memory];
        let gradient = cpu::BlockGradient {
            gathered: &gathered,
            log_sum_exp: &log_sum_exp,
            for_output: &self.for_output,
            for_queries: &mut for_queries,
            for_memory: &mut for_memory,
            for_expression: &mut [],
        };
        let mut sums = cpu::block_backward(&self.shape, &weights, &input, gradient, instructions);
        let sizes = cpu::WeightGradients::sizes(&self.shape);
        let for_weights = sizes.map(|n| sums.drain(..n).collect()).to_vec();
        results(output, for_queries, for_memory, for_weights)
    }

    fn on_the_device(&self, client: &Client) -> Results {
        let w: Vec<Floats> = self.weights.iter().map(|weight| Floats::from_slice(client, weight)).collect();
        let cpu::BlockShape { embedding_dim, n_heads, mlp_dim, dropout, seed } = self.shape;
        assert!(serves(client, embedding_dim, n_heads, mlp_dim));
        let weights = BlockWeights {
            n_heads,
            in_projection: &w[0],
            in_projection_bias: &w[1],
            feedforward: FeedforwardWeights {
                embedding_dim,
                mlp_dim,
                out_projection: &w[2],
                out_projection_bias: &w[3],
                attention_gain: &w[4],
                attention_bias: &w[5],
                expand: &w[6],
                expand_bias: &w[7],
                contract: &w[8],
                contract_bias: &w[9],
                mlp_gain: &w[10],
                mlp_bias: &w[11],
                epsilon: EPSILON,
            },
        };
        let [queries, memory, for_output] =
            [&self.queries, &self.memory, &self.for_output].map(|floats| Floats::from_slice(client, floats));
        let n_cells = self.memory_lengths.len();
        let rows = |lengths: &[usize], ragged: bool| {
            PaddedRows::new(client, n_cells, longest(lengths), ragged.then_some(lengths))
        };
        let query_rows = rows(&self.query_lengths, !self.shared);
        let memory_rows = match self.reads {
            Reads::Itself => query_rows.clone(),
            Reads::Memory => rows(&self.memory_lengths, true),
        };
        let input = BlockInput {
            n_cells,
            queries: &queries,
            queries_are_shared: self.shared,
            query_rows: &query_rows,
            memory: (self.reads == Reads::Memory).then_some(&memory),
            memory_rows: &memory_rows,
            dropout,
            seed: &Seed::new(client, seed),
        };
        let computed = block_forward(client, &weights, &input);
        let gradients = block_backward(client, &weights, &input, &computed.attention, &for_output);
        let for_memory = gradients.for_memory.map_or_else(Vec::new, |floats| read(client, &floats));
        let for_weights = gradients.for_weights.iter().map(|floats| read(client, floats)).collect();
        let mut output = read(client, &computed.output);
        if !self.shared {
            let padded = longest(&self.query_lengths) * embedding_dim;
            for (rows, &n) in output.chunks_exact_mut(padded).zip(&self.query_lengths) {
                rows[n.max(1) * embedding_dim..].fill(0.0);
            }
        }
        results(output, read(client, &gradients.for_queries), for_memory, for_weights)
    }

    fn check(&self, client: &Client) {
        let (found, expected) = (self.on_the_device(client), self.on_the_cpu());
        for ((found, expected), name) in found.tensors.iter().zip(&expected.tensors).zip(&found.names) {
            let difference = apart(found, expected);
            let call = (self.reads, &self.query_lengths, &self.memory_lengths, self.shape);
            assert!(difference < 2e-5, "{name} of {call:?}: {difference:e}");
        }
    }
}

#[test]
fn a_block_is_the_cpus_with_every_gradient() {
    let Some(client) = client() else { return };
    for dropout in [0.0, 0.1] {
        for (reads, queries, memory) in [
            (Reads::Itself, &[1][..], &[1][..]),
            (Reads::Itself, &[33, 0, 16, 64], &[33, 0, 16, 64]),
            (Reads::Memory, &[17, 1, 5], &[40, 0, 33]),
            (Reads::Memory, &[24], &[65, 1, 2, 0, 9]),
        ] {
            let mut call = Call::new(reads, queries, memory, 32, 2, 64);
            call.shape.dropout = dropout;
            call.check(&client);
        }
    }
}

#[test]
fn other_widths_are_served_too() {
    let Some(client) = client() else { return };
    for (d, n_heads, mlp) in [(16, 2, 32), (48, 3, 32)] {
        Call::new(Reads::Itself, &[20, 7], &[20, 7], d, n_heads, mlp).check(&client);
    }
}

#[test]
fn many_rows_are_summed_in_one_order() {
    let Some(client) = client() else { return };
    let call = Call::new(Reads::Memory, &[300; 20], &[3; 20], 32, 2, 64);
    call.check(&client);
    assert_eq!(call.on_the_device(&client).tensors, call.on_the_device(&client).tensors);
}
