//! Tables of scores and values of genes.

use super::{Prepared, ReadingInput};
use crate::exponential::exp2;
use crate::genes::project_rows;
use crate::matrix::{Layout, Start, multiply};
use crate::simd::{Instructions, Simd, Vectorized, dispatch};

/// What spots read, for one set of instructions.
#[derive(Debug)]
pub(super) struct Tables {
    /// Genes and the padding token.
    pub(super) n_rows: usize,
    /// Panels of queries of each head.
    pub(super) n_panels: usize,
    /// Projected queries: [heads, queries, H].
    pub(super) queries: Vec<f32>,
    /// Keys and values at expression 0: [rows, 2 d].
    pub(super) memory: Vec<f32>,
    /// What one unit of expression adds to them: `[2 d]`.
    pub(super) memory_slope: Vec<f32>,
    /// Scores at expression 0, in powers of two: [heads, panels, rows, Q].
    pub(super) scores: Vec<f32>,
    /// What one unit of expression adds to a score: [heads, panels, Q].
    pub(super) score_slopes: Vec<f32>,
    /// Values at expression 0: [heads, rows, H].
    pub(super) values: Vec<f32>,
    /// All genes at expression 0, where that is read.
    pub(super) zeros: Option<ZeroTables>,
}

/// The sums over all genes at expression 0.
#[derive(Debug)]
pub(super) struct ZeroTables {
    /// The highest score of each query: [heads, panels, Q].
    pub(super) references: Vec<f32>,
    /// Powers of two of scores relative to it: [heads, panels, rows, Q].
    pub(super) weights: Vec<f32>,
    /// Their sums: [heads, panels, Q].
    pub(super) sums: Vec<f32>,
    /// What is gathered with them: [heads, panels, H, Q].
    pub(super) gathered: Vec<f32>,
}

impl Tables {
    pub(super) fn new(block: &Prepared<'_>, input: &ReadingInput<'_>, instructions: Instructions) -> Self {
        let shape = &block.shape;
        let (d, head_dim, n_heads) = (shape.embedding_dim, shape.head_dim(), shape.n_heads);
        let projection = &block.weights.in_projection[d * d..];
        let memory = project_rows(input.embeddings, d, projection, Some(block.memory_bias()), instructions);
        let memory_slope = project_rows(input.slope, d, projection, None, instructions);
        let n_rows = input.embeddings.len() / d;
        let mut values = vec![0.0; n_rows * d];
        for (head, values) in values.chunks_exact_mut(n_rows * head_dim).enumerate() {
            for (value, row) in values.chunks_exact_mut(head_dim).zip(memory.chunks_exact(2 * d)) {
                value.copy_from_slice(&row[d + head * head_dim..][..head_dim]);
            }
        }
        let n_queries = input.n_queries(shape);
        let lanes = 2 * instructions.lanes();
        let n_panels = n_queries.div_ceil(lanes);
        let mut tables = Self {
            n_rows,
            n_panels,
            queries: vec![0.0; n_queries * d],
            memory,
            memory_slope,
            scores: vec![0.0; n_heads * n_panels * n_rows * lanes],
            score_slopes: vec![0.0; n_heads * n_panels * lanes],
            values,
            zeros: None,
        };
        dispatch(instructions, FillScores { block, input, tables: &mut tables });
        if input.shares_zeros(shape) {
            let mut zeros = ZeroTables {
                references: vec![0.0; tables.score_slopes.len()],
                weights: vec![0.0; tables.scores.len()],
                sums: vec![0.0; tables.score_slopes.len()],
                gathered: vec![0.0; tables.score_slopes.len() * head_dim],
            };
            dispatch(instructions, FillZeros { tables: &tables, head_dim, zeros: &mut zeros });
            tables.zeros = Some(zeros);
        }
        tables
    }
}

struct FillScores<'a> {
    block: &'a Prepared<'a>,
    input: &'a ReadingInput<'a>,
    tables: &'a mut Tables,
}

impl Vectorized for FillScores<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const K: usize, const Q: usize>(self) {
        let Self { block, input, tables } = self;
        let shape = &block.shape;
        let (d, head_dim) = (shape.embedding_dim, shape.head_dim());
        let n_queries = input.n_queries(shape);
        multiply::<S>(
            (input.queries, Layout::row_major(d)),
            n_queries,
            &block.for_queries,
            d,
            Start::Bias(block.query_bias()),
            (&mut tables.queries, Layout::by_head(n_queries, head_dim)),
        );
        let scale = std::f32::consts::LOG2_E / (head_dim as f32).sqrt();
        let n_panels = tables.n_panels;
        let panels =
            tables.scores.chunks_exact_mut(tables.n_rows * Q).zip(tables.score_slopes.chunks_exact_mut(Q));
        let mut queries = vec![0.0; head_dim * Q];
        for (index, (scores, slopes)) in panels.enumerate() {
            let (head, panel) = (index / n_panels, index % n_panels);
            queries.fill(0.0);
            let rows = &tables.queries[head * n_queries * head_dim..][..n_queries * head_dim];
            for (lane, row) in rows.chunks_exact(head_dim).skip(panel * Q).take(Q).enumerate() {
                for (h, element) in row.iter().enumerate() {
                    queries[h * Q + lane] = element * scale;
                }
            }
            // Keys of one head lie in rows of 2 d.
            let keys = &tables.memory[head * head_dim..];
            let keys = (keys, Layout { row: 2 * d, group: head_dim, next_group: 0 });
            let into = (scores, Layout::row_major(Q));
            multiply::<S>(keys, tables.n_rows, &queries, Q, Start::Zero, into);
            let slope = (&tables.memory_slope[head * head_dim..], Layout::row_major(head_dim));
            multiply::<S>(slope, 1, &queries, Q, Start::Zero, (slopes, Layout::row_major(Q)));
        }
    }
}

struct FillZeros<'a> {
    tables: &'a Tables,
    head_dim: usize,
    zeros: &'a mut ZeroTables,
}

impl Vectorized for FillZeros<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const K: usize, const Q: usize>(self) {
        let Self { tables, head_dim, zeros } = self;
        let (n_rows, n_genes) = (tables.n_rows, tables.n_rows - 1);
        let n_panels = tables.n_panels;
        let sums = zeros.sums.chunks_exact_mut(Q).zip(zeros.gathered.chunks_exact_mut(head_dim * Q));
        let outputs =
            zeros.references.chunks_exact_mut(Q).zip(zeros.weights.chunks_exact_mut(n_rows * Q)).zip(sums);
        for (index, ((references, weights), (sums, gathered))) in outputs.enumerate() {
            // The padding token is no gene.
            let scores = &tables.scores[index * n_rows * Q..][..n_genes * Q];
            let values = &tables.values[index / n_panels * n_rows * head_dim..][..n_genes * head_dim];
            for lanes in (0..Q).step_by(S::LANES) {
                let mut highest = S::splat(f32::NEG_INFINITY);
                for scores in scores.chunks_exact(Q) {
                    highest = S::max(highest, S::load(&scores[lanes..]));
                }
                S::store(highest, &mut references[lanes..]);
                let mut sum = S::splat(0.0);
                let rows = scores.chunks_exact(Q).zip(weights.chunks_exact_mut(Q));
                for ((scores, weights), values) in rows.zip(values.chunks_exact(head_dim)) {
                    let weight = exp2::<S>(S::sub(S::load(&scores[lanes..]), highest));
                    S::store(weight, &mut weights[lanes..]);
                    sum = S::add(sum, weight);
                    for (value, gathered) in values.iter().zip(gathered.chunks_exact_mut(Q)) {
                        let gathered = &mut gathered[lanes..];
                        S::store(S::fma(S::splat(*value), weight, S::load(gathered)), gathered);
                    }
                }
                S::store(sum, &mut sums[lanes..]);
            }
        }
    }
}
