//! The backward pass.

mod panel;
mod projections;

use rayon::prelude::*;

use self::panel::{OnePanel, PanelInto};
use self::projections::{ZerosBackward, through_projections};
use super::panel::PanelTable;
use super::tables::Tables;
use super::{BlockShape, BlockWeights, Prepared, ReadingInput, Tokens, Zeros, spots_of_a_part};
use crate::block::WeightGradients;
use crate::block::feedforward::{self, Transposed};
use crate::dropout::DropoutStream;
use crate::reduce::sum_of_parts;
use crate::simd::{Instructions, Simd, Vectorized, dispatch};
use crate::workspace::{FeedforwardRows, sized};

/// Gradients of [`read_genes`](super::read_genes).
#[derive(Debug, Clone)]
pub struct ReadingGradients {
    /// [queries, d]
    pub queries: Vec<f32>,
    /// [genes + 1, d]
    pub embeddings: Vec<f32>,
    /// `[d]`
    pub slope: Vec<f32>,
    /// Of the block's weights, in the order of [`WeightGradients`].
    pub weights: Vec<f32>,
}

/// Sizes of what one part of the spots adds up, in order.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    /// [heads, panels, rows, Q]
    scores: usize,
    /// [heads, panels, Q]
    score_slopes: usize,
    /// [heads, rows, H]
    values: usize,
    /// [heads, H]
    value_slopes: usize,
    /// [heads, panels, Q, H], and [heads, panels, Q]; nothing where zeros are not shared.
    zeros: [usize; 2],
    /// Of the residual: [queries, d].
    queries: usize,
    weights: usize,
}

impl Sizes {
    fn new(tables: &Tables, shape: &BlockShape, n_queries: usize) -> Self {
        let lanes = tables.score_slopes.len();
        Self {
            scores: tables.scores.len(),
            score_slopes: lanes,
            values: tables.values.len(),
            value_slopes: shape.embedding_dim,
            zeros: tables.zeros.as_ref().map_or([0; 2], |_| [lanes * shape.head_dim(), lanes]),
            queries: n_queries * shape.embedding_dim,
            weights: WeightGradients::total(shape),
        }
    }

    fn in_order(&self) -> [usize; 8] {
        let Self { scores, score_slopes, values, value_slopes, zeros, queries, weights } = *self;
        [scores, score_slopes, values, value_slopes, zeros[0], zeros[1], queries, weights]
    }

    fn total(&self) -> usize {
        self.in_order().iter().sum()
    }

    fn split<'a>(&self, buffer: &'a mut [f32]) -> Part<'a> {
        let mut rest = buffer;
        let [scores, score_slopes, values, value_slopes, zeros, zero_products, queries, weights] =
            self.in_order().map(|size| {
                let (part, remaining) = std::mem::take(&mut rest).split_at_mut(size);
                rest = remaining;
                part
            });
        Part { scores, score_slopes, values, value_slopes, zeros, zero_products, queries, weights }
    }
}

/// What one part of the spots adds up.
struct Part<'a> {
    scores: &'a mut [f32],
    score_slopes: &'a mut [f32],
    values: &'a mut [f32],
    value_slopes: &'a mut [f32],
    /// Gradients of what was gathered, each by the inverse of its softmax's denominator.
    zeros: &'a mut [f32],
    /// The same of their products with what was gathered.
    zero_products: &'a mut [f32],
    queries: &'a mut [f32],
    weights: &'a mut [f32],
}

/// - kept: of the forward pass
/// - for_output: gradient of its output, [spots, queries, d]
///
/// # Panics
/// As [`read_genes`](super::read_genes).
pub fn read_genes_backward(
    shape: &BlockShape,
    weights: &BlockWeights<'_>,
    input: &ReadingInput<'_>,
    kept: (&[f32], &[f32]),
    for_output: &[f32],
    instructions: Instructions,
) -> ReadingGradients {
    assert!(shape.is_served_by(instructions), "no kernel for {shape:?}");
    input.check(shape);
    let block = Prepared::new(*shape, *weights);
    let tables = Tables::new(&block, input, instructions);
    let back = Transposed::new(&block);
    let n_queries = input.n_queries(shape);
    let sizes = Sizes::new(&tables, shape, n_queries);
    let n_spots = input.expression.n_rows();
    let spots = spots_of_a_part(n_spots, sizes.total());
    let mut parts = vec![0.0; n_spots.div_ceil(spots) * sizes.total()];
    parts.par_chunks_exact_mut(sizes.total()).enumerate().for_each(|(index, part)| {
        let range = index * spots..n_spots.min((index + 1) * spots);
        let (block, back, tables, into) = (&block, &back, &tables, sizes.split(part));
        dispatch(instructions, SpotsBackward { block, back, input, tables, range, kept, for_output, into });
    });
    let mut sums = sum_of_parts(&parts, sizes.total());
    drop(parts);
    let mut part = sizes.split(&mut sums);
    if tables.zeros.is_some() {
        dispatch(
            instructions,
            ZerosBackward { tables: &tables, head_dim: shape.head_dim(), part: &mut part },
        );
    }
    through_projections(&block, input, &tables, part, instructions)
}

struct SpotsBackward<'a> {
    block: &'a Prepared<'a>,
    back: &'a Transposed,
    input: &'a ReadingInput<'a>,
    tables: &'a Tables,
    range: std::ops::Range<usize>,
    /// Gathered and log_sum_exp of all spots.
    kept: (&'a [f32], &'a [f32]),
    for_output: &'a [f32],
    into: Part<'a>,
}

impl Vectorized for SpotsBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const K: usize, const Q: usize>(self) {
        match self.block.shape.head_dim() {
            8 => self.compute::<S, 8, Q>(),
            16 => self.compute::<S, 16, Q>(),
            _ => self.compute::<S, 32, Q>(),
        }
    }
}

impl SpotsBackward<'_> {
    #[inline(always)]
    fn compute<S: Simd, const H: usize, const Q: usize>(self) {
        let Self { block, back, input, tables, range, kept, for_output, into } = self;
        let shape = &block.shape;
        let (d, rows) = (shape.embedding_dim, input.queries.len());
        let n_queries = input.n_queries(shape);
        let lanes = shape.n_heads * tables.n_panels * Q;
        let mut gradients = WeightGradients::in_buffer(shape, into.weights);
        let (mut tokens, mut all, mut scratch) =
            (Tokens::default(), Tokens::default(), FeedforwardRows::default());
        let (mut for_gathered, mut for_queries) = (Vec::new(), Vec::new());
        for spot in range {
            let gathered = &kept.0[spot * rows..][..rows];
            let for_gathered = sized(&mut for_gathered, rows);
            let for_queries = sized(&mut for_queries, rows);
            feedforward::backward::<S>(
                (block, back),
                (gathered, input.queries),
                &for_output[spot * rows..][..rows],
                (for_gathered, for_queries),
                &mut gradients,
                &mut scratch,
            );
            for (sum, gradient) in into.queries.iter_mut().zip(for_queries.iter()) {
                *sum += gradient;
            }
            all.genes.clear();
            if input.zeros == Zeros::Read && tables.zeros.is_none() {
                tokens.every_gene(input.expression, spot);
            } else {
                tokens.non_zeros(input.expression, spot);
            }
            let log_sum_exp = kept.1[spot * lanes..][..lanes].chunks_exact(Q);
            for (panel, log_sum_exp) in log_sum_exp.enumerate() {
                let (head, panel_of_head) = (panel / tables.n_panels, panel % tables.n_panels);
                let first_query = panel_of_head * Q;
                let scores =
                    &mut into.scores.as_chunks_mut::<Q>().0[panel * tables.n_rows..][..tables.n_rows];
                let values = &mut into.values.as_chunks_mut::<H>().0[head * tables.n_rows..][..tables.n_rows];
                let zeros = match tables.zeros {
                    Some(_) => Some((
                        &mut into.zeros.as_chunks_mut::<H>().0[panel * Q..][..Q],
                        &mut into.zero_products[panel * Q..][..Q],
                    )),
                    None => None,
                };
                S::call(OnePanel::<H, Q> {
                    table: PanelTable::of(tables, panel),
                    input,
                    spot,
                    tokens: &tokens,
                    all: &mut all,
                    dropout: DropoutStream::new(shape.dropout, shape.seed, [spot as u64, head as u64]),
                    first_query,
                    n_queries: Q.min(n_queries - first_query),
                    gathered: &gathered[first_query * d + head * H..],
                    gradient: &for_gathered[first_query * d + head * H..],
                    stride: d,
                    log_sum_exp,
                    into: PanelInto {
                        scores,
                        score_slopes: &mut into.score_slopes[panel * Q..][..Q],
                        values,
                        value_slope: &mut into.value_slopes.as_chunks_mut::<H>().0[head],
                        zeros,
                    },
                });
            }
        }
    }
}
