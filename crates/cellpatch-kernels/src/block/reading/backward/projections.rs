//! From gradients of tables to those of what they are made of.

use super::{Part, ReadingGradients};
use crate::block::Prepared;
use crate::block::reading::ReadingInput;
use crate::block::reading::tables::Tables;
use crate::genes::project_rows_backward;
use crate::simd::{Instructions, Simd, Vectorized, dispatch};

/// From gradients of scores and values to those of queries, embeddings and projections.
pub(super) fn through_projections(
    block: &Prepared<'_>,
    input: &ReadingInput<'_>,
    tables: &Tables,
    part: Part<'_>,
    instructions: Instructions,
) -> ReadingGradients {
    let shape = &block.shape;
    let (d, head_dim) = (shape.embedding_dim, shape.head_dim());
    let n_queries = input.n_queries(shape);
    let lanes = 2 * instructions.lanes();
    let mut for_memory = vec![0.0; tables.memory.len()];
    let mut for_slope = vec![0.0; 2 * d];
    for_slope[d..].copy_from_slice(part.value_slopes);
    let mut for_queries = vec![0.0; n_queries * d];
    let n_rows = tables.n_rows;
    for (head, for_queries) in (0..shape.n_heads).zip(for_queries.chunks_exact_mut(n_queries * head_dim)) {
        let queries = &tables.queries[head * n_queries * head_dim..][..n_queries * head_dim];
        let columns = head * head_dim..(head + 1) * head_dim;
        for (query, (row, for_row)) in
            queries.chunks_exact(head_dim).zip(for_queries.chunks_exact_mut(head_dim)).enumerate()
        {
            let lane = (head * tables.n_panels + query / lanes) * lanes + query % lanes;
            let of_slope = part.score_slopes[lane];
            for h in 0..head_dim {
                for_row[h] += of_slope * tables.memory_slope[columns.start + h];
                for_slope[columns.start + h] += of_slope * row[h];
            }
        }
    }
    dispatch(
        instructions,
        KeysBackward {
            tables,
            head_dim,
            n_queries,
            part: &part,
            for_memory: &mut for_memory,
            for_queries: &mut for_queries,
        },
    );
    for (head, values) in part.values.chunks_exact(n_rows * head_dim).enumerate() {
        for (for_row, value) in for_memory.chunks_exact_mut(2 * d).zip(values.chunks_exact(head_dim)) {
            for_row[d + head * head_dim..][..head_dim].copy_from_slice(value);
        }
    }
    let mut weights = part.weights.to_vec();
    let (queries_projection, memory_projection) = block.weights.in_projection.split_at(d * d);
    let (for_embeddings, of_memory, for_bias) =
        project_rows_backward(input.embeddings, d, memory_projection, &for_memory, instructions);
    let (slope, of_slope, _) =
        project_rows_backward(input.slope, d, memory_projection, &for_slope, instructions);
    // By head to row by row.
    let mut projected = vec![0.0; n_queries * d];
    for (head, rows) in for_queries.chunks_exact(n_queries * head_dim).enumerate() {
        for (row, by_head) in projected.chunks_exact_mut(d).zip(rows.chunks_exact(head_dim)) {
            row[head * head_dim..][..head_dim].copy_from_slice(by_head);
        }
    }
    let (mut queries, of_queries, for_query_bias) =
        project_rows_backward(input.queries, d, queries_projection, &projected, instructions);
    for (gradient, residual) in queries.iter_mut().zip(part.queries.iter()) {
        *gradient += residual;
    }
    let (projection, rest) = weights.split_at_mut(3 * d * d);
    let of_memory = of_memory.iter().zip(&of_slope).map(|(a, b)| a + b);
    for (gradient, more) in projection.iter_mut().zip(of_queries.into_iter().chain(of_memory)) {
        *gradient += more;
    }
    for (gradient, more) in rest.iter_mut().zip(for_query_bias.iter().chain(&for_bias)) {
        *gradient += more;
    }
    ReadingGradients { queries, embeddings: for_embeddings, slope, weights }
}

/// The gradients of keys, and of queries by keys.
struct KeysBackward<'a> {
    tables: &'a Tables,
    head_dim: usize,
    n_queries: usize,
    part: &'a Part<'a>,
    for_memory: &'a mut [f32],
    for_queries: &'a mut [f32],
}

impl Vectorized for KeysBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const K: usize, const Q: usize>(self) {
        let Self { tables, head_dim, n_queries, part, for_memory, for_queries } = self;
        let width = tables.memory_slope.len();
        let mut exact = vec![0.0_f32; head_dim * Q];
        let mut queries = vec![0.0_f32; head_dim * Q];
        for (index, scores) in part.scores.chunks_exact(tables.n_rows * Q).enumerate() {
            let (head, first) = (index / tables.n_panels, index % tables.n_panels * Q);
            let n = Q.min(n_queries - first);
            let rows = (head * n_queries + first) * head_dim..(head * n_queries + first + n) * head_dim;
            queries.fill(0.0);
            exact.fill(0.0);
            for (lane, row) in tables.queries[rows.clone()].chunks_exact(head_dim).enumerate() {
                for h in 0..head_dim {
                    queries[h * Q + lane] = row[h];
                }
            }
            let keys = tables.memory.chunks_exact(width).zip(for_memory.chunks_exact_mut(width));
            for (scores, (key, for_key)) in scores.chunks_exact(Q).zip(keys) {
                for h in 0..head_dim {
                    let key = S::splat(key[head * head_dim + h]);
                    let mut sum = S::splat(0.0);
                    for lanes in (0..Q).step_by(S::LANES) {
                        let score = S::load(&scores[lanes..]);
                        let at = h * Q + lanes;
                        S::store(S::fma(key, score, S::load(&exact[at..])), &mut exact[at..]);
                        sum = S::fma(score, S::load(&queries[at..]), sum);
                    }
                    for_key[head * head_dim + h] += S::sum(sum);
                }
            }
            for (lane, row) in for_queries[rows].chunks_exact_mut(head_dim).enumerate() {
                for h in 0..head_dim {
                    row[h] += exact[h * Q + lane];
                }
            }
        }
    }
}

/// The gradient of scores and values of all genes at zero, from the spots' sums.
pub(super) struct ZerosBackward<'a, 'b> {
    pub(super) tables: &'a Tables,
    pub(super) head_dim: usize,
    pub(super) part: &'a mut Part<'b>,
}

impl Vectorized for ZerosBackward<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const K: usize, const Q: usize>(self) {
        let Self { tables, head_dim, part } = self;
        let Some(zeros) = &tables.zeros else { return };
        let n_rows = tables.n_rows;
        let inverse_root = 1.0 / (head_dim as f32).sqrt();
        let mut columns = vec![0.0_f32; head_dim * Q];
        let panels = part.zeros.chunks_exact(Q * head_dim).zip(part.zero_products.chunks_exact(Q));
        for (index, (rows, products)) in panels.enumerate() {
            for (lane, row) in rows.chunks_exact(head_dim).enumerate() {
                for h in 0..head_dim {
                    columns[h * Q + lane] = row[h];
                }
            }
            let weights = &zeros.weights[index * n_rows * Q..][..n_rows * Q];
            let scores = &mut part.scores[index * n_rows * Q..][..n_rows * Q];
            let of_head = index / tables.n_panels * n_rows * head_dim..;
            let values = tables.values[of_head.clone()].chunks_exact(head_dim);
            let values = values.zip(part.values[of_head].chunks_exact_mut(head_dim));
            let genes = weights.chunks_exact(Q).zip(scores.chunks_exact_mut(Q)).zip(values);
            // The padding token is no gene.
            for ((weights, scores), (value, for_value)) in genes.take(n_rows - 1) {
                for h in 0..head_dim {
                    let mut of_value = S::splat(0.0);
                    for lanes in (0..Q).step_by(S::LANES) {
                        let column = S::load(&columns[h * Q + lanes..]);
                        of_value = S::fma(S::load(&weights[lanes..]), column, of_value);
                    }
                    for_value[h] += S::sum(of_value);
                }
                for lanes in (0..Q).step_by(S::LANES) {
                    let mut product = S::splat(0.0);
                    for h in 0..head_dim {
                        product = S::fma(S::splat(value[h]), S::load(&columns[h * Q + lanes..]), product);
                    }
                    let product = S::mul(product, S::splat(inverse_root));
                    let pulled = S::sub(product, S::load(&products[lanes..]));
                    let score = S::fma(S::load(&weights[lanes..]), pulled, S::load(&scores[lanes..]));
                    S::store(score, &mut scores[lanes..]);
                }
            }
        }
    }
}
