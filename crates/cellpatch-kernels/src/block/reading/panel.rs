//! One panel of queries of one head over one spot's genes.

#![allow(
    clippy::needless_range_loop,
    reason = "plain loops over lanes are what becomes vector code; iterators hinder it here"
)]

use super::tables::Tables;
use crate::attention::{HeadRow, Panel, Tile};
use crate::dropout::DropoutRows;
use crate::exponential::exp2;
use crate::simd::Simd;

/// How far above its reference a score may rise before the sums so far are scaled down, in powers of two.
const HEADROOM: f32 = 8.0;
/// How far a spot's expression may raise scores above those of all genes at zero for these to be shared, in powers of two.
const HIGHEST_RISE: f32 = 60.0;
/// The least part of the zeros' sum that a spot's sum may be for the correction to keep its digits.
const LEAST_PART: f32 = 1.0 / 16.0;

/// What a panel of queries reads of a table.
#[derive(Clone, Copy)]
pub(super) struct PanelTable<'a, const H: usize, const Q: usize> {
    /// Of each row, relative to nothing.
    pub(super) scores: &'a [[f32; Q]],
    pub(super) score_slope: &'a [f32; Q],
    pub(super) values: &'a [HeadRow<H>],
    pub(super) value_slope: &'a HeadRow<H>,
    pub(super) zeros: Option<PanelZeros<'a, H, Q>>,
}

/// All genes at expression 0, as a panel of queries reads them.
#[derive(Clone, Copy)]
pub(super) struct PanelZeros<'a, const H: usize, const Q: usize> {
    pub(super) reference: &'a [f32; Q],
    pub(super) weights: &'a [[f32; Q]],
    pub(super) sum: &'a [f32; Q],
    pub(super) gathered: &'a Panel<H, Q>,
}

impl<'a, const H: usize, const Q: usize> PanelTable<'a, H, Q> {
    /// The `index`-th panel, counted over heads.
    #[inline(always)]
    pub(super) fn of(tables: &'a Tables, index: usize) -> Self {
        let (n_rows, head) = (tables.n_rows, index / tables.n_panels);
        let d = tables.memory_slope.len() / 2;
        let rows = index * n_rows..(index + 1) * n_rows;
        Self {
            scores: &tables.scores.as_chunks::<Q>().0[rows.clone()],
            score_slope: &tables.score_slopes.as_chunks::<Q>().0[index],
            values: &tables.values.as_chunks::<H>().0[head * n_rows..(head + 1) * n_rows],
            value_slope: &tables.memory_slope[d..].as_chunks::<H>().0[head],
            zeros: tables.zeros.as_ref().map(|zeros| PanelZeros {
                reference: &zeros.references.as_chunks::<Q>().0[index],
                weights: &zeros.weights.as_chunks::<Q>().0[rows],
                sum: &zeros.sums.as_chunks::<Q>().0[index],
                gathered: &zeros.gathered.as_chunks::<Q>().0.as_chunks::<H>().0[index],
            }),
        }
    }

    /// Scores of `K` genes at their values, plus `start`.
    #[inline(always)]
    pub(super) fn at<S: Simd, const K: usize>(
        &self,
        genes: &[u32; K],
        values: &[f32; K],
        start: [S::Vector; 2],
    ) -> Tile<S::Vector, K> {
        let slope = vectors::<S, Q>(self.score_slope);
        let mut scores = [start; K];
        for token in 0..K {
            let row = &self.scores[genes[token] as usize];
            let value = S::splat(values[token]);
            for vector in 0..2 {
                let score = S::fma(value, slope[vector], scores[token][vector]);
                scores[token][vector] = S::add(score, S::load(&row[vector * S::LANES..]));
            }
        }
        scores
    }

    /// Rows of values of `K` genes at expression 0.
    #[inline(always)]
    pub(super) fn rows<const K: usize>(&self, genes: &[u32; K]) -> [&'a HeadRow<H>; K] {
        let mut rows = [&self.values[0]; K];
        for token in 0..K {
            rows[token] = &self.values[genes[token] as usize];
        }
        rows
    }
}

/// Two vectors of a panel's row.
#[inline(always)]
pub(super) fn vectors<S: Simd, const Q: usize>(row: &[f32; Q]) -> [S::Vector; 2] {
    [S::load(row), S::load(&row[S::LANES..])]
}

/// What a panel of queries has read so far.
pub(super) struct Sums<S: Simd, const H: usize, const Q: usize> {
    gathered: Panel<H, Q>,
    /// Weights times values of expression.
    raised: [S::Vector; 2],
    sum: [S::Vector; 2],
    reference: [S::Vector; 2],
    empty: bool,
}

impl<S: Simd, const H: usize, const Q: usize> Sums<S, H, Q> {
    #[inline(always)]
    pub(super) fn new() -> Self {
        let zero = [S::splat(0.0); 2];
        Self { gathered: [[0.0; Q]; H], raised: zero, sum: zero, reference: zero, empty: true }
    }

    /// Reads genes by an online softmax.
    #[inline(always)]
    pub(super) fn read<const K: usize, const DROPPING: bool>(
        &mut self,
        table: &PanelTable<'_, H, Q>,
        (genes, values): (&[u32], &[f32]),
        dropout: Option<&DropoutRows<Q>>,
    ) {
        let (tiles, rest) = genes.as_chunks::<K>();
        let (value_tiles, value_rest) = values.as_chunks::<K>();
        for (tile, (genes, values)) in tiles.iter().zip(value_tiles).enumerate() {
            self.read_tile::<K, DROPPING>(table, genes, values, dropout, tile * K);
        }
        for (index, (gene, value)) in rest.iter().zip(value_rest).enumerate() {
            self.read_tile::<1, DROPPING>(table, &[*gene], &[*value], dropout, tiles.len() * K + index);
        }
    }

    #[inline(always)]
    fn read_tile<const K: usize, const DROPPING: bool>(
        &mut self,
        table: &PanelTable<'_, H, Q>,
        genes: &[u32; K],
        values: &[f32; K],
        dropout: Option<&DropoutRows<Q>>,
        first: usize,
    ) {
        let start = [S::sub(S::splat(0.0), self.reference[0]), S::sub(S::splat(0.0), self.reference[1])];
        let mut weights = table.at::<S, K>(genes, values, start);
        let mut highest = weights[0];
        for scores in &weights[1..] {
            highest = [S::max(scores[0], highest[0]), S::max(scores[1], highest[1])];
        }
        let headroom = S::splat(HEADROOM);
        if self.empty || S::any_above(highest[0], headroom) || S::any_above(highest[1], headroom) {
            self.raise_reference(highest, &mut weights);
        }
        for weight in &mut weights {
            *weight = [exp2::<S>(weight[0]), exp2::<S>(weight[1])];
            self.sum = [S::add(self.sum[0], weight[0]), S::add(self.sum[1], weight[1])];
        }
        if DROPPING && let Some(dropout) = dropout {
            crate::attention::drop_some::<S, K, Q>(dropout, first, &mut weights);
        }
        self.raise::<K>(&weights, values);
        gather_rows::<S, H, Q, K>(&weights, &table.rows(genes), &mut self.gathered);
    }

    #[inline(always)]
    fn raise<const K: usize>(&mut self, weights: &Tile<S::Vector, K>, values: &[f32; K]) {
        for token in 0..K {
            let value = S::splat(values[token]);
            for vector in 0..2 {
                self.raised[vector] = S::fma(value, weights[token][vector], self.raised[vector]);
            }
        }
    }

    #[cold]
    #[inline(always)]
    fn raise_reference<const K: usize>(&mut self, highest: [S::Vector; 2], scores: &mut Tile<S::Vector, K>) {
        for vector in 0..2 {
            // What was read before the first gene is nothing, whatever it is scaled by.
            let rise = if self.empty { highest[vector] } else { S::max(S::splat(0.0), highest[vector]) };
            let factor = if self.empty { S::splat(1.0) } else { exp2::<S>(S::sub(S::splat(0.0), rise)) };
            self.reference[vector] = S::add(self.reference[vector], rise);
            self.sum[vector] = S::mul(self.sum[vector], factor);
            self.raised[vector] = S::mul(self.raised[vector], factor);
            for score in scores.iter_mut() {
                score[vector] = S::sub(score[vector], rise);
            }
            for gathered in &mut self.gathered {
                let lanes = &mut gathered[vector * S::LANES..];
                S::store(S::mul(S::load(lanes), factor), lanes);
            }
        }
        self.empty = false;
    }

    /// Starts from all genes at zero and reads what the non-zeros change. False where that would lose digits: then
    /// nothing is to be made of the sums.
    #[inline(always)]
    pub(super) fn correct<const K: usize>(
        &mut self,
        table: &PanelTable<'_, H, Q>,
        zeros: &PanelZeros<'_, H, Q>,
        (genes, values): (&[u32], &[f32]),
    ) -> bool {
        let highest_value = values.iter().fold(0.0_f32, |highest, &value| highest.max(value.abs()));
        let (at_zero, slope) = (vectors::<S, Q>(zeros.reference), vectors::<S, Q>(table.score_slope));
        let mut factors = [S::splat(0.0); 2];
        let mut floor = [S::splat(0.0); 2];
        for vector in 0..2 {
            // No score is above it.
            let rise = S::mul(S::abs(slope[vector]), S::splat(highest_value));
            if S::any_above(rise, S::splat(HIGHEST_RISE)) {
                return false;
            }
            self.reference[vector] = S::add(at_zero[vector], rise);
            factors[vector] = exp2::<S>(S::sub(S::splat(0.0), rise));
            let lanes = vector * S::LANES;
            self.sum[vector] = S::mul(S::load(&zeros.sum[lanes..]), factors[vector]);
            floor[vector] = S::mul(self.sum[vector], S::splat(LEAST_PART));
            for (gathered, at_zero) in self.gathered.iter_mut().zip(zeros.gathered) {
                S::store(S::mul(S::load(&at_zero[lanes..]), factors[vector]), &mut gathered[lanes..]);
            }
        }
        self.empty = false;
        let (tiles, rest) = genes.as_chunks::<K>();
        let (value_tiles, value_rest) = values.as_chunks::<K>();
        for (genes, values) in tiles.iter().zip(value_tiles) {
            self.correct_tile::<K>(table, zeros, genes, values, factors);
        }
        for (gene, value) in rest.iter().zip(value_rest) {
            self.correct_tile::<1>(table, zeros, &[*gene], &[*value], factors);
        }
        !(S::any_above(floor[0], self.sum[0]) || S::any_above(floor[1], self.sum[1]))
    }

    #[inline(always)]
    fn correct_tile<const K: usize>(
        &mut self,
        table: &PanelTable<'_, H, Q>,
        zeros: &PanelZeros<'_, H, Q>,
        genes: &[u32; K],
        values: &[f32; K],
        factors: [S::Vector; 2],
    ) {
        let start = [S::sub(S::splat(0.0), self.reference[0]), S::sub(S::splat(0.0), self.reference[1])];
        let mut weights = table.at::<S, K>(genes, values, start);
        for weight in &mut weights {
            *weight = [exp2::<S>(weight[0]), exp2::<S>(weight[1])];
        }
        self.raise::<K>(&weights, values);
        for token in 0..K {
            let at_zero = vectors::<S, Q>(&zeros.weights[genes[token] as usize]);
            for vector in 0..2 {
                weights[token][vector] =
                    S::sub(weights[token][vector], S::mul(at_zero[vector], factors[vector]));
                self.sum[vector] = S::add(self.sum[vector], weights[token][vector]);
            }
        }
        gather_rows::<S, H, Q, K>(&weights, &table.rows(genes), &mut self.gathered);
    }

    /// - output: for each query a row of `H`, `stride` apart
    /// - log_sum_exp: of all lanes
    #[inline(always)]
    pub(super) fn finish(
        self,
        value_slope: &HeadRow<H>,
        kept_scale: f32,
        n_queries: usize,
        (output, stride): (&mut [f32], usize),
        log_sum_exp: &mut [f32],
    ) {
        let (mut sums, mut references, mut raised) = ([0.0; Q], [0.0; Q], [0.0; Q]);
        for vector in 0..2 {
            S::store(self.sum[vector], &mut sums[vector * S::LANES..]);
            S::store(self.reference[vector], &mut references[vector * S::LANES..]);
            S::store(self.raised[vector], &mut raised[vector * S::LANES..]);
        }
        for lane in 0..Q {
            log_sum_exp[lane] = references[lane] + sums[lane].log2();
        }
        for query in 0..n_queries {
            let scale = kept_scale / sums[query];
            let row = &mut output[query * stride..][..H];
            for h in 0..H {
                row[h] = (self.gathered[h][query] + value_slope[h] * raised[query]) * scale;
            }
        }
    }
}

/// Adds the rows, each query weighting them in its own way.
#[inline(always)]
pub(super) fn gather_rows<S: Simd, const H: usize, const Q: usize, const K: usize>(
    weights: &Tile<S::Vector, K>,
    rows: &[&HeadRow<H>; K],
    into: &mut Panel<H, Q>,
) {
    for h in 0..H {
        let (low, high) = into[h].split_at_mut(S::LANES);
        let mut sums = [S::load(low), S::load(high)];
        for token in 0..K {
            let element = S::splat(rows[token][h]);
            sums[0] = S::fma(element, weights[token][0], sums[0]);
            sums[1] = S::fma(element, weights[token][1], sums[1]);
        }
        S::store(sums[0], low);
        S::store(sums[1], high);
    }
}
