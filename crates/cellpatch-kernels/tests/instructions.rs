//! Every set of instructions computes the same blocks, with dropout and all, up to rounding; and no number of threads
//! changes a bit.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use cellpatch_kernels::Instructions;
use cellpatch_kernels::block::{
    BlockGradient, BlockInput, BlockOutput, BlockShape, BlockWeights, Kept, Memory, PaddedRows,
    block_backward, block_forward,
};
use cellpatch_kernels::genes::{Expression, GeneIndex, GeneMemory, project_rows};
use cellpatch_kernels::norm::NormWeights;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A block and a batch in front of it.
#[derive(Debug, Clone)]
struct Case {
    n_heads: usize,
    head_dim: usize,
    n_queries: Vec<usize>,
    n_keys: Vec<usize>,
    memory: Reads,
    dropout: f64,
    seed: u64,
}

impl Case {
    fn shape(&self) -> BlockShape {
        let (n_heads, dropout) = (self.n_heads, self.dropout);
        BlockShape { embedding_dim: n_heads * self.head_dim, n_heads, mlp_dim: MLP, dropout, seed: 3 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Reads {
    Itself,
    Rows,
    Genes,
}

const MLP: usize = 48;
const N_GENES: u32 = 40;

/// Output, gradients of queries, memory and expression, and of the weights.
fn compute(case: &Case, instructions: Instructions) -> Vec<Vec<f32>> {
    let d = case.n_heads * case.head_dim;
    let mut random = StdRng::seed_from_u64(case.seed);
    let mut numbers = |n: usize, spread: f32| -> Vec<f32> {
        (0..n).map(|_| random.random_range(-spread..spread)).collect()
    };
    let sizes = [3 * d * d, 3 * d, d * d, d, d, d, d * MLP, MLP, MLP * d, d, d, d];
    let weights = sizes.map(|n| numbers(n, 0.4));
    let norm = |gain: usize| NormWeights { gain: &weights[gain], bias: &weights[gain + 1], epsilon: 1e-5 };
    let block = BlockWeights {
        in_projection: &weights[0],
        in_projection_bias: &weights[1],
        out_projection: &weights[2],
        out_projection_bias: &weights[3],
        attention_norm: norm(4),
        expand: &weights[6],
        expand_bias: &weights[7],
        contract: &weights[8],
        contract_bias: &weights[9],
        mlp_norm: norm(10),
    };
    let shape = case.shape();
    let n_cells = case.n_queries.len();
    let longest = |lengths: &[usize]| lengths.iter().copied().max().unwrap().max(1);
    let (queries, keys) = (longest(&case.n_queries), longest(&case.n_keys));
    // Those who read genes are the same for every cell.
    let shared = case.memory == Reads::Genes;
    let rows = numbers(if shared { queries * d } else { n_cells * queries * d }, 2.0);
    let memory = numbers(n_cells * keys * d, 2.0);
    let values = numbers(n_cells * keys, 3.0);
    let tokens: Vec<u32> = (0..n_cells * keys).map(|slot| (slot as u32 * 17 + 3) % N_GENES).collect();
    let (embeddings, expression) = (numbers(N_GENES as usize * d, 1.0), numbers(2 * d, 0.3));
    let cotangent = numbers(n_cells * queries * d, 1.0);

    let query_rows = PaddedRows { padded: queries, lengths: (!shared).then_some(&case.n_queries) };
    let memory_rows = match case.memory {
        Reads::Itself => query_rows,
        _ => PaddedRows { padded: keys, lengths: Some(&case.n_keys) },
    };
    let index =
        GeneIndex::new(&tokens, PaddedRows { padded: keys, lengths: Some(&case.n_keys) }, N_GENES as usize);
    let chosen: Vec<f32> =
        index.genes().iter().flat_map(|&gene| &embeddings[gene as usize * d..][..d]).copied().collect();
    let table = project_rows(&chosen, d, &weights[0][d * d..], Some(&weights[1][d..]), instructions);
    let memory = match case.memory {
        Reads::Itself => Memory::Own,
        Reads::Rows => Memory::Rows(&memory),
        Reads::Genes => Memory::Genes(GeneMemory {
            rows: index.rows(),
            table: &table,
            values: &values,
            expression: Expression::Continuous(&expression),
        }),
    };
    let input = BlockInput { n_cells, queries: &rows, query_rows, memory, memory_rows };
    let mut output = vec![0.0; n_cells * queries * d];
    let mut gathered = output.clone();
    let mut log_sum_exp = vec![0.0; n_cells * case.n_heads * queries];
    let kept = Kept { gathered: &mut gathered, log_sum_exp: &mut log_sum_exp };
    block_forward(
        &shape,
        &block,
        &input,
        BlockOutput { output: &mut output, kept: Some(kept) },
        instructions,
    );
    let mut unkept = vec![0.0; output.len()];
    block_forward(&shape, &block, &input, BlockOutput { output: &mut unkept, kept: None }, instructions);
    assert_eq!(output, unkept);

    let mut for_queries = vec![0.0; rows.len()];
    let mut for_memory = vec![
        0.0;
        match case.memory {
            Reads::Itself => 0,
            Reads::Rows => n_cells * keys * d,
            Reads::Genes => n_cells * keys * 2 * d,
        }
    ];
    let mut for_expression = vec![0.0; if shared { 2 * d } else { 0 }];
    let gradient = BlockGradient {
        gathered: &gathered,
        log_sum_exp: &log_sum_exp,
        for_output: &cotangent,
        for_queries: &mut for_queries,
        for_memory: &mut for_memory,
        for_expression: &mut for_expression,
    };
    let for_weights = block_backward(&shape, &block, &input, gradient, instructions);
    vec![output, for_queries, for_memory, for_expression, for_weights]
}

fn cases() -> impl Strategy<Value = Case> {
    let lengths = prop::collection::vec((1..150_usize, 1..200_usize), 1..6);
    let memory = prop::sample::select(vec![Reads::Itself, Reads::Rows, Reads::Genes]);
    let heads = prop::sample::select(vec![(2, 16), (1, 32), (3, 16), (4, 8)]);
    let dropout = prop::sample::select(vec![0.0, 0.1, 0.5]);
    (lengths, memory, heads, dropout, any::<u64>()).prop_map(
        |(lengths, memory, (n_heads, head_dim), dropout, seed)| {
            let (n_queries, n_keys) = lengths.into_iter().unzip();
            Case { n_heads, head_dim, n_queries, n_keys, memory, dropout, seed }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_set_of_instructions_computes_the_same(case in cases()) {
        let shape = case.shape();
        let served = Instructions::available().into_iter().filter(|&instructions| shape.is_served_by(instructions));
        let results: Vec<_> = served.map(|instructions| compute(&case, instructions)).collect();
        for others in &results[1..] {
            for (found, expected) in others.iter().zip(&results[0]) {
                let largest = expected.iter().fold(1.0_f32, |largest, element| largest.max(element.abs()));
                for (found, expected) in found.iter().zip(expected) {
                    prop_assert!((found - expected).abs() <= 2e-5 * largest, "{found} {expected} of {largest}");
                }
            }
        }
    }

    #[test]
    fn no_number_of_threads_changes_a_bit(case in cases(), n_threads in 2..6_usize) {
        let run = |n_threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            pool.install(|| compute(&case, case.shape().instructions().unwrap()))
        };
        prop_assert_eq!(run(1), run(n_threads));
    }
}
