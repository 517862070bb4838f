//! Where a training step's time goes, against what the machine can do.

use std::fmt::Write;
use std::hint::black_box;
use std::time::Instant;

use cellpatch_kernels::Instructions;
use cellpatch_kernels::adam::{AdamStep, adam};
use cellpatch_kernels::attention::{
    AttentionGradient, AttentionInput, attention_backward, attention_forward,
};
use cellpatch_kernels::block::{
    BlockGradient, BlockInput, BlockOutput, BlockShape, BlockWeights, Kept, Memory, PaddedRows,
    block_backward, block_forward,
};
use cellpatch_kernels::norm::NormWeights;
use cellpatch_kernels::peak::multiply_adds_per_second;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::Result;
use crate::turns::median;

const D: usize = 32;
const MLP: usize = 64;
const N_HEADS: usize = 2;
const HEAD: usize = D / N_HEADS;
const RUNS: usize = 9;

/// One part of a step.
struct Part {
    name: String,
    /// Floating-point operations, a multiply-add as two; exponentials are not counted.
    operations: f64,
    /// Bytes that must come from or go to memory beyond the caches.
    bytes: f64,
    seconds: f64,
}

/// A batch of 32 cells of 1,000 genes and 500 targets, part by part, with dropout 0.1, as a Markdown table.
pub(crate) fn table() -> Result<String> {
    let instructions = Instructions::detect();
    let peak = 2.0 * multiply_adds_per_second(instructions);
    let bandwidth = memory_bandwidth();
    let mut text = String::new();
    writeln!(text, "Instructions: {instructions:?}, {} threads.", rayon::current_num_threads())?;
    writeln!(
        text,
        "Measured peaks: {:.0} GFLOP/s of multiply-adds, {:.1} GB/s of memory (read two, write one).\n",
        peak / 1e9,
        bandwidth / 1e9
    )?;
    writeln!(text, "| part | GFLOP | ms | GFLOP/s | of the FMA peak | MB | of the memory's rate |")?;
    writeln!(text, "|---|---:|---:|---:|---:|---:|---:|")?;
    for part in parts(instructions) {
        let rate = part.operations / part.seconds;
        writeln!(
            text,
            "| {} | {:.2} | {:.2} | {:.0} | {:.0} % | {:.0} | {:.0} % |",
            part.name,
            part.operations / 1e9,
            part.seconds * 1e3,
            rate / 1e9,
            100.0 * rate / peak,
            part.bytes / 1e6,
            100.0 * part.bytes / part.seconds / bandwidth,
        )?;
    }
    Ok(text)
}

fn parts(instructions: Instructions) -> Vec<Part> {
    let cells = 32;
    let mut parts = Vec::new();
    parts.extend(attention("the decoder's self-attention alone, 500 targets", cells, 500, 500, instructions));
    parts.extend(attention("the same, 8 cells of 1,000 targets", 8, 1000, 1000, instructions));
    for (name, queries, keys) in [
        ("encoder: 64 patches read 1,000 genes (projected each)", 64, Some(1000)),
        ("encoder: patches among themselves (there are two of it)", 64, None),
        ("decoder: 500 targets read 64 patches", 500, Some(64)),
        ("decoder: targets among themselves", 500, None),
    ] {
        parts.extend(block(name, cells, queries, keys, instructions));
    }
    parts.push(optimizer());
    parts
}

fn random(n: usize, spread: f32) -> Vec<f32> {
    let mut random = StdRng::seed_from_u64(n as u64);
    (0..n).map(|_| random.random_range(-spread..spread)).collect()
}

fn all(padded: usize) -> PaddedRows<'static> {
    PaddedRows { padded, lengths: None }
}

/// Median seconds of several runs, after one to warm up.
fn timed(mut work: impl FnMut()) -> f64 {
    work();
    let seconds = (0..RUNS).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    });
    median(seconds.collect())
}

/// Forward and backward pass of attention alone.
fn attention(name: &str, cells: usize, queries: usize, keys: usize, instructions: Instructions) -> [Part; 2] {
    let (q, k, v) =
        (random(cells * queries * D, 1.0), random(cells * keys * D, 1.0), random(cells * keys * D, 1.0));
    let input = AttentionInput {
        n_cells: cells,
        n_heads: N_HEADS,
        width: D,
        queries: &q,
        query_rows: all(queries),
        keys: &k,
        values: &v,
        key_rows: all(keys),
        dropout: 0.1,
        seed: 1,
    };
    let (mut output, mut log_sum_exp) = (vec![0.0; q.len()], vec![0.0; cells * N_HEADS * queries]);
    let forward = timed(|| attention_forward(&input, &mut output, &mut log_sum_exp, instructions));
    let [mut for_queries, mut for_keys, mut for_values] = [&q, &k, &v].map(|rows| vec![0.0; rows.len()]);
    let backward = timed(|| {
        let gradient = AttentionGradient {
            output: &output,
            log_sum_exp: &log_sum_exp,
            for_output: &q,
            for_queries: &mut for_queries,
            for_keys: &mut for_keys,
            for_values: &mut for_values,
        };
        attention_backward(&input, gradient, instructions);
    });
    let scores = (cells * N_HEADS * queries * keys) as f64;
    let part = |pass: &str, products: f64, bytes: usize, seconds| Part {
        name: format!("{name}, {pass}"),
        operations: scores * products * 2.0 * HEAD as f64,
        bytes: bytes as f64 * 4.0,
        seconds,
    };
    let rows = 2 * q.len() + k.len() + v.len();
    [part("forward", 2.0, rows, forward), part("backward", 5.0, 2 * rows, backward)]
}

/// Forward and backward pass of a block; without keys its rows read each other.
fn block(
    name: &str,
    cells: usize,
    queries: usize,
    keys: Option<usize>,
    instructions: Instructions,
) -> [Part; 2] {
    let weights = [3 * D * D, 3 * D, D * D, D, D, D, D * MLP, MLP, MLP * D, D, D, D].map(|n| random(n, 0.3));
    let norm = |gain: usize| NormWeights { gain: &weights[gain], bias: &weights[gain + 1], epsilon: 1e-5 };
    let weights = BlockWeights {
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
    let shape = BlockShape { embedding_dim: D, n_heads: N_HEADS, mlp_dim: MLP, dropout: 0.1, seed: 1 };
    // Patches are the same for every cell where they read genes.
    let shared = queries == 64 && keys.is_some();
    let rows = random(if shared { queries * D } else { cells * queries * D }, 1.0);
    let memory = random(keys.map_or(0, |keys| cells * keys * D), 1.0);
    let input = BlockInput {
        n_cells: cells,
        queries: &rows,
        query_rows: all(queries),
        memory: if keys.is_some() { Memory::Rows(&memory) } else { Memory::Own },
        memory_rows: all(keys.unwrap_or(queries)),
    };
    let n = cells * queries * D;
    let (mut output, mut gathered, mut log_sum_exp) =
        (vec![0.0; n], vec![0.0; n], vec![0.0; cells * N_HEADS * queries]);
    let forward = timed(|| {
        let kept = Some(Kept { gathered: &mut gathered, log_sum_exp: &mut log_sum_exp });
        block_forward(&shape, &weights, &input, BlockOutput { output: &mut output, kept }, instructions);
    });
    let (mut for_queries, mut for_memory) = (vec![0.0; rows.len()], vec![0.0; memory.len()]);
    let backward = timed(|| {
        let gradient = BlockGradient {
            gathered: &gathered,
            log_sum_exp: &log_sum_exp,
            for_output: &output,
            for_queries: &mut for_queries,
            for_memory: &mut for_memory,
            for_expression: &mut [],
        };
        black_box(block_backward(&shape, &weights, &input, gradient, instructions));
    });
    let keys = keys.unwrap_or(queries);
    let attention = (cells * queries * keys * D) as f64;
    // Multiply-adds of the linear layers: queries, output and MLP of each query, and two projections of each key.
    let linear = (cells * (queries * (2 * D * D + 2 * D * MLP) + keys * 2 * D * D)) as f64;
    let part = |pass: &str, products: f64, passes: f64, bytes: usize, seconds| Part {
        name: format!("{name}, {pass}"),
        operations: 2.0 * (attention * products + linear * passes),
        bytes: bytes as f64 * 4.0,
        seconds,
    };
    let touched = rows.len() + memory.len();
    [
        part("forward", 2.0, 1.0, touched + 2 * n, forward),
        part("backward", 5.0, 2.0, 2 * touched + 2 * n, backward),
    ]
}

/// Adam over the gene table.
fn optimizer() -> Part {
    let n = 70_000 * D;
    let (mut parameter, gradient) = (random(n, 1.0), random(n, 1.0));
    let (mut moment_1, mut moment_2) = (vec![0.0; n], vec![0.0; n]);
    let step = AdamStep {
        learning_rate: 1e-4,
        beta_1: 0.9,
        beta_2: 0.999,
        epsilon: 1e-8,
        weight_decay: 5e-5,
        time: 1,
    };
    let seconds = timed(|| adam(&step, &mut parameter, &gradient, &mut moment_1, &mut moment_2));
    Part {
        name: "Adam over the gene table of 70,000 x 32".into(),
        operations: 14.0 * n as f64,
        bytes: 7.0 * 4.0 * n as f64,
        seconds,
    }
}

/// Bytes a second of adding two large arrays into a third, on all threads.
fn memory_bandwidth() -> f64 {
    use rayon::prelude::*;
    let n = 32 << 20;
    let (a, b, mut c) = (vec![1.0_f32; n], vec![2.0_f32; n], vec![0.0_f32; n]);
    let chunk = 1 << 16;
    let seconds = timed(|| {
        c.par_chunks_mut(chunk).zip(a.par_chunks(chunk).zip(b.par_chunks(chunk))).for_each(|(c, (a, b))| {
            for (c, (a, b)) in c.iter_mut().zip(a.iter().zip(b)) {
                *c = a + b;
            }
        });
        black_box(&c);
    });
    3.0 * 4.0 * n as f64 / seconds
}
