//! One panel of queries of one head over one spot's genes, on the way back.

#![allow(
    clippy::needless_range_loop,
    reason = "plain loops over lanes are what becomes vector code; iterators hinder it here"
)]

use crate::attention::{HeadRow, Panel, Tile, drop_some, stored};
use crate::block::reading::panel::{PanelTable, PanelZeros, vectors};
use crate::block::reading::{ReadingInput, Tokens};
use crate::dropout::{DropoutRows, DropoutStream};
use crate::exponential::exp2;
use crate::simd::{Simd, Vectorized};

/// A spot whose softmax sums to less than this part of the zeros' reads its genes one by one, in powers of two.
const LEAST_PART: f32 = -4.0;

/// Scores of all genes at zero, and what their softmax is scaled by.
type ZeroScores<'a, V, const Q: usize> = (&'a [[f32; Q]], [V; 2]);

/// Where a panel's gradients are added to.
pub(super) struct PanelInto<'a, const H: usize, const Q: usize> {
    pub(super) scores: &'a mut [[f32; Q]],
    pub(super) score_slopes: &'a mut [f32],
    pub(super) values: &'a mut [HeadRow<H>],
    pub(super) value_slope: &'a mut HeadRow<H>,
    pub(super) zeros: Option<(&'a mut [HeadRow<H>], &'a mut [f32])>,
}

pub(super) struct OnePanel<'a, const H: usize, const Q: usize> {
    pub(super) table: PanelTable<'a, H, Q>,
    pub(super) input: &'a ReadingInput<'a>,
    pub(super) spot: usize,
    pub(super) tokens: &'a Tokens,
    pub(super) all: &'a mut Tokens,
    pub(super) dropout: Option<DropoutStream>,
    pub(super) first_query: usize,
    pub(super) n_queries: usize,
    pub(super) gathered: &'a [f32],
    pub(super) gradient: &'a [f32],
    pub(super) stride: usize,
    pub(super) log_sum_exp: &'a [f32],
    pub(super) into: PanelInto<'a, H, Q>,
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
    fn can_share(&self, zeros: &PanelZeros<'_, H, Q>) -> bool {
        let mut share = true;
        for lane in 0..Q {
            let at_zero = zeros.reference[lane] + zeros.sum[lane].log2();
            share &= self.log_sum_exp[lane] - at_zero >= LEAST_PART;
        }
        share
    }

    /// By what the zeros' weights are multiplied in this spot.
    #[inline(always)]
    fn factors(&self, zeros: &PanelZeros<'_, H, Q>) -> ([S::Vector; 2], [f32; Q]) {
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
        zeros: Option<ZeroScores<'_, S::Vector, Q>>,
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
        zeros: Option<ZeroScores<'_, S::Vector, Q>>,
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
