//! The forward pass.

use rayon::prelude::*;

use super::panel::{PanelTable, Sums};
use super::tables::Tables;
use super::{BlockShape, BlockWeights, Prepared, ReadingInput, Tokens, Zeros};
use crate::block::feedforward;
use crate::dropout::DropoutStream;
use crate::simd::{Instructions, Simd, Vectorized, dispatch};
use crate::workspace::FeedforwardRows;

/// Spots that one task reads.
const SPOTS: usize = 16;

/// What the backward pass needs beside the inputs.
#[derive(Debug, Clone)]
pub struct KeptReading {
    /// What attention gathered, before the output projection: [spots, queries, d].
    pub gathered: Vec<f32>,
    /// Logarithm (base 2) of each softmax's denominator: [spots, heads, queries], queries filled up to panels.
    pub log_sum_exp: Vec<f32>,
}

/// Computes the block for every spot.
///
/// - output: [spots, queries, d]
///
/// # Panics
/// When the shape is not [served](BlockShape::is_served_by) by the instructions, or slices are not of the sizes stated.
pub fn read_genes(
    shape: &BlockShape,
    weights: &BlockWeights<'_>,
    input: &ReadingInput<'_>,
    instructions: Instructions,
) -> (Vec<f32>, KeptReading) {
    assert!(shape.is_served_by(instructions), "no kernel for {shape:?}");
    input.check(shape);
    let block = Prepared::new(*shape, *weights);
    let tables = Tables::new(&block, input, instructions);
    let n_spots = input.expression.n_rows();
    let rows = input.queries.len();
    let lanes = shape.n_heads * tables.n_panels * 2 * instructions.lanes();
    let (mut output, mut gathered) = (vec![0.0; n_spots * rows], vec![0.0; n_spots * rows]);
    let mut log_sum_exp = vec![0.0; n_spots * lanes];
    let kept = gathered.par_chunks_mut(SPOTS * rows).zip(log_sum_exp.par_chunks_mut(SPOTS * lanes));
    let parts = output.par_chunks_mut(SPOTS * rows).zip(kept);
    parts.enumerate().for_each(|(part, (output, (gathered, log_sum_exp)))| {
        let (block, tables, first) = (&block, &tables, part * SPOTS);
        dispatch(instructions, Spots { block, input, tables, first, output, gathered, log_sum_exp });
    });
    (output, KeptReading { gathered, log_sum_exp })
}

struct Spots<'a> {
    block: &'a Prepared<'a>,
    input: &'a ReadingInput<'a>,
    tables: &'a Tables,
    first: usize,
    output: &'a mut [f32],
    gathered: &'a mut [f32],
    log_sum_exp: &'a mut [f32],
}

impl Vectorized for Spots<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const K: usize, const Q: usize>(self) {
        match self.block.shape.head_dim() {
            8 => self.read::<S, 8, Q>(),
            16 => self.read::<S, 16, Q>(),
            _ => self.read::<S, 32, Q>(),
        }
    }
}

impl Spots<'_> {
    #[inline(always)]
    fn read<S: Simd, const H: usize, const Q: usize>(self) {
        let Self { block, input, tables, first, output, gathered, log_sum_exp } = self;
        let shape = &block.shape;
        let (d, rows) = (shape.embedding_dim, input.queries.len());
        let n_queries = input.n_queries(shape);
        let lanes = shape.n_heads * tables.n_panels * Q;
        let (mut tokens, mut all, mut scratch) =
            (Tokens::default(), Tokens::default(), FeedforwardRows::default());
        let spots = gathered.chunks_exact_mut(rows).zip(log_sum_exp.chunks_exact_mut(lanes));
        for (index, (gathered, log_sum_exp)) in spots.enumerate() {
            let spot = first + index;
            all.genes.clear();
            if input.zeros == Zeros::Read && tables.zeros.is_none() {
                tokens.every_gene(input.expression, spot);
            } else {
                tokens.non_zeros(input.expression, spot);
            }
            for (panel, log_sum_exp) in log_sum_exp.chunks_exact_mut(Q).enumerate() {
                let (head, panel_of_head) = (panel / tables.n_panels, panel % tables.n_panels);
                let first_query = panel_of_head * Q;
                S::call(OnePanel::<H, Q> {
                    table: PanelTable::of(tables, panel),
                    input,
                    spot,
                    tokens: &tokens,
                    all: &mut all,
                    dropout: DropoutStream::new(shape.dropout, shape.seed, [spot as u64, head as u64]),
                    first_query,
                    n_queries: Q.min(n_queries - first_query),
                    output: &mut gathered[first_query * d + head * H..],
                    stride: d,
                    log_sum_exp,
                });
            }
        }
        let spots = gathered.chunks_exact(rows).zip(output.chunks_exact_mut(rows));
        for (gathered, output) in spots {
            feedforward::forward::<S>(block, gathered, input.queries, output, &mut scratch);
        }
    }
}

struct OnePanel<'a, const H: usize, const Q: usize> {
    table: PanelTable<'a, H, Q>,
    input: &'a ReadingInput<'a>,
    spot: usize,
    tokens: &'a Tokens,
    /// Every gene of the spot, once it was needed.
    all: &'a mut Tokens,
    dropout: Option<DropoutStream>,
    first_query: usize,
    n_queries: usize,
    output: &'a mut [f32],
    stride: usize,
    log_sum_exp: &'a mut [f32],
}

impl<const H: usize, const Q: usize> Vectorized for OnePanel<'_, H, Q> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const K: usize, const LANES: usize>(self) {
        let Self { table, input, spot, tokens, all, dropout, first_query, n_queries, .. } = self;
        let some = (&tokens.genes[..], &tokens.values[..]);
        let kept_scale = dropout.map_or(1.0, |stream| stream.scale());
        let mut sums = Sums::<S, H, Q>::new();
        match (&table.zeros, dropout) {
            (Some(zeros), _) => {
                // A spot without any non-zero changes nothing.
                let (genes, values) = input.expression.row(spot);
                if !sums.correct::<K>(&table, zeros, (genes, values)) {
                    if all.genes.is_empty() {
                        all.every_gene(input.expression, spot);
                    }
                    sums = Sums::new();
                    sums.read::<K, false>(&table, (&all.genes, &all.values), None);
                }
            }
            (None, Some(stream)) => {
                sums.read::<K, true>(&table, some, Some(&stream.rows::<Q>(first_query)));
            }
            (None, None) => sums.read::<K, false>(&table, some, None),
        }
        let output = (self.output, self.stride);
        sums.finish(table.value_slope, kept_scale, n_queries, output, self.log_sum_exp);
    }
}
