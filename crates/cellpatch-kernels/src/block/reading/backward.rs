//! The backward pass.

use rayon::prelude::*;

use super::panel::{PanelTable, vectors};
use super::tables::Tables;
use super::{BlockShape, BlockWeights, Prepared, ReadingInput, Tokens, Zeros, spots_of_a_part};
use crate::attention::{HeadRow, Panel, Tile, drop_some, stored};
use crate::block::WeightGradients;
use crate::block::feedforward::{self, Transposed};
use crate::dropout::{DropoutRows, DropoutStream};
use crate::exponential::exp2;
use crate::genes::project_rows_backward;
use crate::reduce::sum_of_parts;
use crate::simd::{Instructions, Simd, Vectorized, dispatch};
use crate::workspace::{FeedforwardRows, sized};

/// A spot whose softmax sums to less than this part of the zeros' reads its genes one by one, in powers of two.
const LEAST_PART: f32 = -4.0;

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

/// From gradients of scores and values to those of queries, embeddings and projections.
fn through_projections(
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
struct ZerosBackward<'a, 'b> {
    tables: &'a Tables,
    head_dim: usize,
    part: &'a mut Part<'b>,
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

/// Where a panel's gradients are added to.
struct PanelInto<'a, const H: usize, const Q: usize> {
    scores: &'a mut [[f32; Q]],
    score_slopes: &'a mut [f32],
    values: &'a mut [HeadRow<H>],
    value_slope: &'a mut HeadRow<H>,
    zeros: Option<(&'a mut [HeadRow<H>], &'a mut [f32])>,
}

struct OnePanel<'a, const H: usize, const Q: usize> {
    table: PanelTable<'a, H, Q>,
    input: &'a ReadingInput<'a>,
    spot: usize,
    tokens: &'a Tokens,
    all: &'a mut Tokens,
    dropout: Option<DropoutStream>,
    first_query: usize,
    n_queries: usize,
    gathered: &'a [f32],
    gradient: &'a [f32],
    stride: usize,
    log_sum_exp: &'a [f32],
    into: PanelInto<'a, H, Q>,
}

impl<const H: usize, const Q: usize> Vectorized for OnePanel<'_, H, Q> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const K: usize, const LANES: usize>(mut self) {
        let dropout = self.dropout.map(|stream| stream.rows::<Q>(self.first_query));
        let kept_scale = self.dropout.map_or(1.0, |stream| stream.scale());
        let mut pass = Pass::<S, H, Q>::new(&self, kept_scale);
        let some = (&self.tokens.genes[..], &self.tokens.values[..]);
        let table = self.table;
        let into = &mut self.into;
        match table.zeros {
            Some(zeros) if pass.can_share(&zeros) => {
                let some = self.input.expression.row(self.spot);
                let (factors, stored_factors) = pass.factors(&zeros);
                pass.read_all::<K, true, false>(&table, some, None, into, Some((zeros.weights, factors)));
                if let Some((rows, products)) = &mut into.zeros {
                    pass.add_zeros(&stored_factors, rows, products);
                }
            }
            Some(_) => {
                if self.all.genes.is_empty() {
                    self.all.every_gene(self.input.expression, self.spot);
                }
                let all = (&self.all.genes[..], &self.all.values[..]);
                pass.read_all::<K, false, false>(&table, all, None, into, None);
            }
            None if dropout.is_some() => {
                pass.read_all::<K, false, true>(&table, some, dropout.as_ref(), into, None);
            }
            None => pass.read_all::<K, false, false>(&table, some, None, into, None),
        }
        pass.finish(into);
    }
}

/// One panel of queries of one spot on the way back.
struct Pass<S: Simd, const H: usize, const Q: usize> {
    /// Of what was gathered, scaled by what kept weights are scaled by and by `1 / sqrt(H)`.
    gradients: Panel<H, Q>,
    /// Of what was gathered, scaled by what kept weights are scaled by.
    gradient_rows: [HeadRow<H>; Q],
    log_sum_exp: [f32; Q],
    /// `-log_sum_exp`
    start: [S::Vector; 2],
    /// For each query the product of what was gathered and its gradient, by `1 / sqrt(H)`.
    delta: [S::Vector; 2],
    /// Gradients times the slope of values.
    of_slope: [S::Vector; 2],
    for_slope: [S::Vector; 2],
    raised: [S::Vector; 2],
}

impl<S: Simd, const H: usize, const Q: usize> Pass<S, H, Q> {
    #[inline(always)]
    fn new(panel: &OnePanel<'_, H, Q>, kept_scale: f32) -> Self {
        let inverse_root = 1.0 / (H as f32).sqrt();
        let (mut gradients, mut gradient_rows) = ([[0.0; Q]; H], [[0.0; H]; Q]);
        let (mut log_sum_exp, mut start, mut delta) = ([0.0; Q], [0.0; Q], [0.0; Q]);
        for lane in 0..Q {
            log_sum_exp[lane] = panel.log_sum_exp[lane];
            start[lane] = -panel.log_sum_exp[lane];
        }
        for query in 0..panel.n_queries {
            let gathered = &panel.gathered[query * panel.stride..][..H];
            let gradient = &panel.gradient[query * panel.stride..][..H];
            let mut product = 0.0;
            for h in 0..H {
                product += gathered[h] * gradient[h];
                gradient_rows[query][h] = gradient[h] * kept_scale;
                gradients[h][query] = gradient[h] * kept_scale * inverse_root;
            }
            delta[query] = product * inverse_root;
        }
        let zero = [S::splat(0.0); 2];
        let mut of_slope = zero;
        for h in 0..H {
            let row = vectors::<S, Q>(&gradients[h]);
            let slope = S::splat(panel.table.value_slope[h]);
            of_slope = [S::fma(slope, row[0], of_slope[0]), S::fma(slope, row[1], of_slope[1])];
        }
        Self {
            gradients,
            gradient_rows,
            log_sum_exp,
            start: vectors::<S, Q>(&start),
            delta: vectors::<S, Q>(&delta),
            of_slope,
            for_slope: zero,
            raised: zero,
        }
    }

    /// Whether no query's softmax sums to so little of the zeros' that the difference would lose digits.
    #[inline(always)]
    fn can_share(&self, zeros: &super::panel::PanelZeros<'_, H, Q>) -> bool {
        let mut share = true;
        for lane in 0..Q {
            let at_zero = zeros.reference[lane] + zeros.sum[lane].log2();
            share &= self.log_sum_exp[lane] - at_zero >= LEAST_PART;
        }
        share
    }

    /// By what the zeros' weights are multiplied in this spot.
    #[inline(always)]
    fn factors(&self, zeros: &super::panel::PanelZeros<'_, H, Q>) -> ([S::Vector; 2], [f32; Q]) {
        let reference = vectors::<S, Q>(zeros.reference);
        let mut factors = [S::splat(0.0); 2];
        let mut stored = [0.0; Q];
        for vector in 0..2 {
            factors[vector] = exp2::<S>(S::add(reference[vector], self.start[vector]));
            S::store(factors[vector], &mut stored[vector * S::LANES..]);
        }
        (factors, stored)
    }

    #[inline(always)]
    fn add_zeros(&self, factors: &[f32; Q], rows: &mut [HeadRow<H>], products: &mut [f32]) {
        let mut delta = [0.0; Q];
        for vector in 0..2 {
            S::store(self.delta[vector], &mut delta[vector * S::LANES..]);
        }
        for lane in 0..Q {
            products[lane] += factors[lane] * delta[lane];
            for h in 0..H {
                rows[lane][h] += factors[lane] * self.gradient_rows[lane][h];
            }
        }
    }

    #[inline(always)]
    fn read_all<const K: usize, const SHARED: bool, const DROPPING: bool>(
        &mut self,
        table: &PanelTable<'_, H, Q>,
        (genes, values): (&[u32], &[f32]),
        dropout: Option<&DropoutRows<Q>>,
        into: &mut PanelInto<'_, H, Q>,
        zeros: Option<(&[[f32; Q]], [S::Vector; 2])>,
    ) {
        let (tiles, rest) = genes.as_chunks::<K>();
        let (value_tiles, value_rest) = values.as_chunks::<K>();
        for (tile, (genes, values)) in tiles.iter().zip(value_tiles).enumerate() {
            self.read::<K, SHARED, DROPPING>(table, (genes, values, tile * K), dropout, into, zeros);
        }
        for (index, (gene, value)) in rest.iter().zip(value_rest).enumerate() {
            let position = tiles.len() * K + index;
            self.read::<1, SHARED, DROPPING>(table, (&[*gene], &[*value], position), dropout, into, zeros);
        }
    }

    #[inline(always)]
    fn read<const K: usize, const SHARED: bool, const DROPPING: bool>(
        &mut self,
        table: &PanelTable<'_, H, Q>,
        (genes, values, first): (&[u32; K], &[f32; K], usize),
        dropout: Option<&DropoutRows<Q>>,
        into: &mut PanelInto<'_, H, Q>,
        zeros: Option<(&[[f32; Q]], [S::Vector; 2])>,
    ) {
        let rows = table.rows(genes);
        let mut weights = table.at::<S, K>(genes, values, self.start);
        for weight in &mut weights {
            *weight = [exp2::<S>(weight[0]), exp2::<S>(weight[1])];
        }
        let mut kept = weights;
        if DROPPING && let Some(dropout) = dropout {
            drop_some::<S, K, Q>(dropout, first, &mut kept);
        }
        // Gradient of each weight without what expression adds to the value.
        let mut of_weights: Tile<S::Vector, K> = [[S::splat(0.0); 2]; K];
        for h in 0..H {
            let gradients = vectors::<S, Q>(&self.gradients[h]);
            for token in 0..K {
                let element = S::splat(rows[token][h]);
                of_weights[token][0] = S::fma(element, gradients[0], of_weights[token][0]);
                of_weights[token][1] = S::fma(element, gradients[1], of_weights[token][1]);
            }
        }
        for token in 0..K {
            let value = S::splat(values[token]);
            let at_zero = match zeros {
                Some((weights, _)) if SHARED => vectors::<S, Q>(&weights[genes[token] as usize]),
                _ => [S::splat(0.0); 2],
            };
            let scores = &mut into.scores[genes[token] as usize];
            for vector in 0..2 {
                let of_weight = S::fma(value, self.of_slope[vector], of_weights[token][vector]);
                let pulled = S::mul(weights[token][vector], self.delta[vector]);
                let mut of_score = S::sub(S::mul(kept[token][vector], of_weight), pulled);
                self.for_slope[vector] = S::fma(value, of_score, self.for_slope[vector]);
                self.raised[vector] = S::fma(value, kept[token][vector], self.raised[vector]);
                if SHARED && let Some((_, factors)) = zeros {
                    let at_zero = S::mul(at_zero[vector], factors[vector]);
                    let of_zero = S::sub(of_weights[token][vector], self.delta[vector]);
                    of_score = S::sub(of_score, S::mul(at_zero, of_zero));
                    kept[token][vector] = S::sub(kept[token][vector], at_zero);
                }
                let lanes = &mut scores[vector * S::LANES..];
                S::store(S::add(S::load(lanes), of_score), lanes);
            }
        }
        let shares = stored::<S, Q, K>(&kept);
        for lanes in (0..H).step_by(S::LANES) {
            let mut sums = [S::splat(0.0); K];
            for token in 0..K {
                sums[token] = S::load(&into.values[genes[token] as usize][lanes..]);
            }
            for query in 0..Q {
                let row = S::load(&self.gradient_rows[query][lanes..]);
                for token in 0..K {
                    sums[token] = S::fma(S::splat(shares[token][query]), row, sums[token]);
                }
            }
            for token in 0..K {
                S::store(sums[token], &mut into.values[genes[token] as usize][lanes..]);
            }
        }
    }

    #[inline(always)]
    fn finish(self, into: &mut PanelInto<'_, H, Q>) {
        let mut raised = [0.0; Q];
        for vector in 0..2 {
            let lanes = vector * S::LANES;
            S::store(self.raised[vector], &mut raised[lanes..]);
            let slopes = &mut into.score_slopes[lanes..];
            S::store(S::add(S::load(slopes), self.for_slope[vector]), slopes);
        }
        for query in 0..Q {
            for h in 0..H {
                into.value_slope[h] += raised[query] * self.gradient_rows[query][h];
            }
        }
    }
}
