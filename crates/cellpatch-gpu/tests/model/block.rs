//! Whole blocks, forward and backward.

use cellpatch_gpu::block::{
    BlockInput, BlockMemory, BlockWeights, GeneMemory, block_backward, block_forward, serves,
};
use cellpatch_gpu::dropout::Seed;
use cellpatch_gpu::feedforward::FeedforwardWeights;
use cellpatch_gpu::genes::BatchGenes;
use cellpatch_gpu::memory::{Floats, PaddedRows, stores};
use cellpatch_kernels::block as cpu;
use cellpatch_kernels::genes::{GeneIndex, sum_by_gene};
use cellpatch_kernels::norm::NormWeights;
use cubecl::prelude::*;
use half::{bf16, f16};

use crate::device::{Client, apart, client, numbers, read};

const EPSILON: f32 = 1e-5;

/// What queries read.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reads {
    Itself,
    Memory,
    Genes,
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
    genes: HostGenes,
}

/// The genes that a memory is made of, where queries read them.
struct HostGenes {
    tokens: Vec<u32>,
    /// [CAPACITY, d]
    table: Vec<f32>,
    expression: Vec<f32>,
    slope: Vec<f32>,
    shift: Vec<f32>,
}

/// Rows of the gene table.
const CAPACITY: usize = 60;

impl HostGenes {
    /// Gene 7 is everywhere, and some genes are nowhere.
    fn new(lengths: &[usize], d: usize) -> Self {
        let padded = longest(lengths);
        let n = lengths.len() * padded;
        let real = |slot: usize| slot % padded < lengths[slot / padded];
        let drawn = numbers(n, 20, 1.0).into_iter().enumerate();
        let tokens = drawn.map(|(slot, draw)| match slot % padded {
            _ if !real(slot) => 0,
            0 => 7,
            _ => 8 + (draw.abs() * 40.0) as u32,
        });
        let expression = numbers(n, 21, 2.0).into_iter().enumerate();
        let expression = expression.map(|(slot, draw)| if real(slot) { draw + 2.0 } else { 0.0 });
        Self {
            tokens: tokens.collect(),
            table: numbers(CAPACITY * d, 22, 1.0),
            expression: expression.collect(),
            slope: numbers(d, 23, 0.5),
            shift: numbers(d, 24, 0.5),
        }
    }

    /// The embedding of each slot: [cells, genes, d].
    fn embeddings(&self) -> Vec<f32> {
        let d = self.slope.len();
        let slots = self.tokens.iter().zip(&self.expression);
        let slot = |(&token, &value): (&u32, &f32)| {
            (0..d).map(move |i| self.table[token as usize * d + i] + value * self.slope[i] + self.shift[i])
        };
        slots.flat_map(slot).collect()
    }

    fn index(&self, lengths: &[usize]) -> GeneIndex {
        let rows = cpu::PaddedRows { padded: longest(lengths), lengths: Some(lengths) };
        GeneIndex::new(&self.tokens, rows, CAPACITY)
    }

    /// Gradients of table, slope, shift and expression from that of the slots' embeddings.
    fn gradients(&self, for_slots: &[f32], lengths: &[usize]) -> [Vec<f32>; 4] {
        let d = self.slope.len();
        let index = self.index(lengths);
        let by_gene = sum_by_gene(&index, for_slots, d);
        let mut for_table = vec![0.0; self.table.len()];
        for (&gene, row) in index.genes().iter().zip(by_gene.chunks_exact(d)) {
            for_table[gene as usize * d..][..d].copy_from_slice(row);
        }
        let sum = |factor: &dyn Fn(usize) -> f32| -> Vec<f32> {
            let mut sums = vec![0.0_f64; d];
            for (slot, row) in for_slots.chunks_exact(d).enumerate() {
                for (sum, element) in sums.iter_mut().zip(row) {
                    *sum += f64::from(factor(slot) * element);
                }
            }
            sums.into_iter().map(|sum| sum as f32).collect()
        };
        let product = |row: &[f32]| row.iter().zip(&self.slope).map(|(a, b)| a * b).sum();
        let for_expression = for_slots.chunks_exact(d).map(product).collect();
        [for_table, sum(&|slot| self.expression[slot]), sum(&|_| 1.0), for_expression]
    }
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
        let genes = HostGenes::new(memory, d);
        Self {
            shape,
            reads,
            weights: weights.collect(),
            queries: numbers(queries.len() * n_queries * d, 8, 1.5),
            memory: match reads {
                Reads::Genes => genes.embeddings(),
                Reads::Itself | Reads::Memory => numbers(n_cells * n_keys * d, 9, 1.5),
            },
            genes,
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
            Reads::Memory | Reads::Genes => {
                cpu::PaddedRows { padded: longest(&self.memory_lengths), lengths: Some(&self.memory_lengths) }
            }
        };
        let input = cpu::BlockInput {
            n_cells,
            queries: &self.queries,
            query_rows,
            memory: match self.reads {
                Reads::Itself => cpu::Memory::Own,
                Reads::Memory | Reads::Genes => cpu::Memory::Rows(&self.memory),
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
        let n_memory = if self.reads == Reads::Itself { 0 } else { self.memory.len() };
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
        if self.reads == Reads::Genes {
            let [for_table, beside @ ..] = self.genes.gradients(&for_memory, &self.memory_lengths);
            return results(output, for_queries, for_table, [for_weights, beside.to_vec()].concat());
        }
        results(output, for_queries, for_memory, for_weights)
    }

    fn on_the_device(&self, client: &Client) -> Results {
        self.stored(client, f32::as_type_native_unchecked().storage_type())
    }

    /// On the device, where what lies between the kernels is stored as said.
    fn stored(&self, client: &Client, between: StorageType) -> Results {
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
            Reads::Memory | Reads::Genes => rows(&self.memory_lengths, true),
        };
        let genes = BatchGenes::new(client, &self.genes.index(&self.memory_lengths), CAPACITY);
        let [table, expression, slope, shift] =
            [&self.genes.table, &self.genes.expression, &self.genes.slope, &self.genes.shift]
                .map(|floats| Floats::from_slice(client, floats));
        let embeddings = genes.gather(client, &table, embedding_dim, &shift);
        let input = BlockInput {
            n_cells,
            queries: &queries,
            queries_are_shared: self.shared,
            query_rows: &query_rows,
            memory: match self.reads {
                Reads::Itself => BlockMemory::Own,
                Reads::Memory => BlockMemory::Rows(&memory),
                Reads::Genes => BlockMemory::Genes(GeneMemory {
                    genes: &genes,
                    embeddings: &embeddings,
                    expression: &expression,
                    slope: &slope,
                    differentiates_expression: true,
                }),
            },
            memory_rows: &memory_rows,
            between,
            dropout,
            seed: &Seed::new(client, seed),
        };
        let computed = block_forward(client, &weights, &input);
        let gradients = block_backward(client, &weights, &input, &computed.attention, &for_output);
        let mut for_weights: Vec<Vec<f32>> =
            gradients.for_weights.iter().map(|floats| read(client, floats)).collect();
        let mut for_memory = gradients.for_memory;
        if let (Some(for_genes), Some(for_embeddings)) = (gradients.for_genes, &for_memory) {
            for_memory = Some(genes.spread(client, for_embeddings, embedding_dim));
            let beside = [for_genes.for_slope, for_genes.for_shift, for_genes.for_expression.unwrap()];
            for_weights.extend(beside.each_ref().map(|floats| read(client, floats)));
        }
        let for_memory = for_memory.map_or_else(Vec::new, |floats| read(client, &floats));
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
        self.check_within(self.on_the_device(client), 2e-5);
    }

    fn check_within(&self, found: Results, tolerance: f32) {
        let expected = self.on_the_cpu();
        for ((found, expected), name) in found.tensors.iter().zip(&expected.tensors).zip(&found.names) {
            let difference = apart(found, expected);
            let call = (self.reads, &self.query_lengths, &self.memory_lengths, self.shape);
            assert!(difference < tolerance, "{name} of {call:?}: {difference:e}");
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
            (Reads::Genes, &[24], &[65, 1, 2, 0, 9]),
            (Reads::Genes, &[1], &[1]),
            (Reads::Genes, &[70], &[0]),
            (Reads::Genes, &[17, 1, 5], &[40, 0, 33]),
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

#[test]
fn sixteen_bits_between_the_kernels_cost_digits_and_nothing_else() {
    let Some(client) = client() else { return };
    // Half a unit in the last place, a few times over.
    for (storage, tolerance) in [
        (f16::as_type_native_unchecked().storage_type(), 4e-3),
        (bf16::as_type_native_unchecked().storage_type(), 3e-2),
    ] {
        if !stores(&client, storage) {
            eprintln!("skipped: {storage} is unknown to this device");
            continue;
        }
        for (reads, queries, memory) in [
            (Reads::Itself, &[33, 0, 16, 64][..], &[33, 0, 16, 64][..]),
            (Reads::Memory, &[24], &[65, 1, 2, 0, 9]),
            (Reads::Genes, &[24], &[65, 1, 2, 0, 9]),
        ] {
            let mut call = Call::new(reads, queries, memory, 32, 2, 64);
            call.shape.dropout = 0.1;
            let found = call.stored(&client, storage);
            assert_ne!(found.tensors, call.on_the_device(&client).tensors, "{storage} was not used");
            call.check_within(found, tolerance);
        }
    }
}
