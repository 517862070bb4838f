//! One head's attention over one cell, forward and backward, without ever storing a score.
//!
//! Queries stand side by side in the lanes of vectors, a panel of two vectors at a time, and keys come one after the other
//! as single numbers. So a softmax is a lane's own affair: its maximum, its sum and its weights stay in registers and
//! nothing is transposed or summed across lanes. The backward pass computes the weights again from the logarithm of the
//! softmax's denominator (Dao et al. 2022, "FlashAttention").
//!
//! Scores are taken in powers of two: queries are scaled by `log2(e) / sqrt(H)` once.

mod batch;

pub use self::batch::{AttentionGradient, AttentionInput, attention_backward, attention_forward};

use std::f32::consts::LOG2_E;

use crate::dropout::{DropoutRows, DropoutStream};
use crate::exponential::exp2;
use crate::simd::{Simd, Vectorized};

/// A row of one head.
pub(crate) type HeadRow<const H: usize> = [f32; H];
/// `Q` rows of one head, transposed.
pub(crate) type Panel<const H: usize, const Q: usize> = [[f32; Q]; H];
/// A tile of weights or scores: of `K` keys, each two vectors of queries.
pub(crate) type Tile<V, const K: usize> = [[V; 2]; K];

/// How far above its reference a score may rise before the sums so far are scaled down, in powers of two.
const HEADROOM: f32 = 8.0;

/// What one head of one cell attends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'a, const H: usize> {
    pub(crate) queries: &'a [HeadRow<H>],
    pub(crate) keys: &'a [HeadRow<H>],
    /// As many as keys.
    pub(crate) values: &'a [HeadRow<H>],
    pub(crate) dropout: Option<DropoutStream>,
}

impl<const H: usize> Head<'_, H> {
    /// `softmax(Q K^T / sqrt(H)) V`.
    ///
    /// - output: for each query a row of `H`, `stride` apart
    /// - log_sum_exp: for each query, the logarithm of its softmax's denominator, in powers of two
    pub(crate) fn forward<S: Simd>(&self, output: &mut [f32], stride: usize, log_sum_exp: &mut [f32]) {
        match self.dropout {
            Some(_) => S::call(Forward::<H, true> { head: self, output, stride, log_sum_exp }),
            None => S::call(Forward::<H, false> { head: self, output, stride, log_sum_exp }),
        }
    }

    #[inline(always)]
    fn forward_panels<S: Simd, const K: usize, const Q: usize, const DROPPING: bool>(
        &self,
        output: &mut [f32],
        stride: usize,
        log_sum_exp: &mut [f32],
    ) {
        let scale = LOG2_E / (H as f32).sqrt();
        let kept_scale = self.dropout.map_or(1.0, |stream| stream.scale());
        let (tiles, rest) = self.keys.as_chunks::<K>();
        let (value_tiles, value_rest) = self.values.as_chunks::<K>();
        for (panel, (queries, log_sum_exp)) in
            self.queries.chunks(Q).zip(log_sum_exp.chunks_mut(Q)).enumerate()
        {
            let first = panel * Q;
            let queries = transposed::<H, Q>(queries, scale);
            let dropout = self.dropout.map(|stream| stream.rows::<Q>(first));
            let mut softmax = Softmax::<S, H, Q>::new();
            for (tile, (keys, values)) in tiles.iter().zip(value_tiles).enumerate() {
                softmax.read::<K, DROPPING>(&queries, keys, values, dropout.as_ref(), tile * K);
            }
            for (index, (key, value)) in rest.iter().zip(value_rest).enumerate() {
                let (key, value) = (std::array::from_ref(key), std::array::from_ref(value));
                let position = tiles.len() * K + index;
                softmax.read::<1, DROPPING>(&queries, key, value, dropout.as_ref(), position);
            }
            softmax.finish(kept_scale, &mut output[first * stride..], stride, log_sum_exp);
        }
    }
}

struct Forward<'a, const H: usize, const DROPPING: bool> {
    head: &'a Head<'a, H>,
    output: &'a mut [f32],
    stride: usize,
    log_sum_exp: &'a mut [f32],
}

impl<const H: usize, const DROPPING: bool> Vectorized for Forward<'_, H, DROPPING> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const K: usize, const Q: usize>(self) {
        self.head.forward_panels::<S, K, Q, DROPPING>(self.output, self.stride, self.log_sum_exp);
    }
}

/// The running softmax of a panel of queries, and the values gathered with it.
struct Softmax<S: Simd, const H: usize, const Q: usize> {
    gathered: Panel<H, Q>,
    /// What scores are taken relative to: never more than `HEADROOM` below the highest.
    reference: [S::Vector; 2],
    sum: [S::Vector; 2],
    empty: bool,
}

impl<S: Simd, const H: usize, const Q: usize> Softmax<S, H, Q> {
    #[inline(always)]
    fn new() -> Self {
        let zero = [S::splat(0.0); 2];
        Self { gathered: [[0.0; Q]; H], reference: zero, sum: zero, empty: true }
    }

    #[inline(always)]
    fn read<const K: usize, const DROPPING: bool>(
        &mut self,
        queries: &Panel<H, Q>,
        keys: &[HeadRow<H>; K],
        values: &[HeadRow<H>; K],
        dropout: Option<&DropoutRows<Q>>,
        first_key: usize,
    ) {
        let start = [S::sub(S::splat(0.0), self.reference[0]), S::sub(S::splat(0.0), self.reference[1])];
        let mut weights = products::<S, H, Q, K>(queries, keys, [start; K]);
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
            drop_some::<S, K, Q>(dropout, first_key, &mut weights);
        }
        gather::<S, H, Q, K>(&weights, values, &mut self.gathered);
    }

    #[cold]
    #[inline(always)]
    fn raise_reference<const K: usize>(&mut self, highest: [S::Vector; 2], scores: &mut Tile<S::Vector, K>) {
        for vector in 0..2 {
            // What was gathered before the first key is nothing, whatever it is scaled by.
            let rise = if self.empty { highest[vector] } else { S::max(S::splat(0.0), highest[vector]) };
            let factor = if self.empty { S::splat(1.0) } else { exp2::<S>(S::sub(S::splat(0.0), rise)) };
            self.reference[vector] = S::add(self.reference[vector], rise);
            self.sum[vector] = S::mul(self.sum[vector], factor);
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

    #[inline(always)]
    fn finish(self, kept_scale: f32, output: &mut [f32], stride: usize, log_sum_exp: &mut [f32]) {
        let (mut sums, mut references) = ([0.0; Q], [0.0; Q]);
        for vector in 0..2 {
            S::store(self.sum[vector], &mut sums[vector * S::LANES..]);
            S::store(self.reference[vector], &mut references[vector * S::LANES..]);
        }
        for (query, log_sum_exp) in log_sum_exp.iter_mut().enumerate() {
            *log_sum_exp = references[query] + sums[query].log2();
            let scale = kept_scale / sums[query];
            let row = &mut output[query * stride..][..H];
            for (element, gathered) in row.iter_mut().zip(&self.gathered) {
                *element = gathered[query] * scale;
            }
        }
    }
}

/// What the backward pass of a head is given beside its inputs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadGradient<'a, const H: usize> {
    /// The output of the forward pass, a row for each query.
    pub(crate) output: &'a [HeadRow<H>],
    /// Its gradient.
    pub(crate) gradient: &'a [HeadRow<H>],
    /// From the forward pass.
    pub(crate) log_sum_exp: &'a [f32],
}

/// Where a head's gradients are added to.
#[derive(Debug)]
pub(crate) struct HeadGradients<'a, const H: usize> {
    pub(crate) for_queries: &'a mut [HeadRow<H>],
    pub(crate) for_keys: &'a mut [HeadRow<H>],
    pub(crate) for_values: &'a mut [HeadRow<H>],
}

struct Backward<'a, const H: usize, const DROPPING: bool> {
    head: &'a Head<'a, H>,
    given: HeadGradient<'a, H>,
    into: HeadGradients<'a, H>,
}

impl<const H: usize, const DROPPING: bool> Vectorized for Backward<'_, H, DROPPING> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const K: usize, const Q: usize>(self) {
        self.head.backward_panels::<S, K, Q, DROPPING>(self.given, self.into);
    }
}

impl<const H: usize> Head<'_, H> {
    /// Adds to the gradients of queries, keys and values.
    pub(crate) fn backward<S: Simd>(&self, given: HeadGradient<'_, H>, into: HeadGradients<'_, H>) {
        match self.dropout {
            Some(_) => S::call(Backward::<H, true> { head: self, given, into }),
            None => S::call(Backward::<H, false> { head: self, given, into }),
        }
    }

    #[inline(always)]
    fn backward_panels<S: Simd, const K: usize, const Q: usize, const DROPPING: bool>(
        &self,
        given: HeadGradient<'_, H>,
        into: HeadGradients<'_, H>,
    ) {
        let HeadGradients { for_queries, for_keys, for_values } = into;
        let (tiles, rest) = self.keys.as_chunks::<K>();
        let (value_tiles, value_rest) = self.values.as_chunks::<K>();
        for (panel, for_queries) in for_queries.chunks_mut(Q).enumerate() {
            let first = panel * Q;
            let pass = BackwardPanel::<S, H, Q>::new(self, given, first, for_queries.len());
            let mut gathered = [[0.0; Q]; H];
            let (for_tiles, for_rest) = for_keys.as_chunks_mut::<K>();
            let (for_value_tiles, for_value_rest) = for_values.as_chunks_mut::<K>();
            for (tile, ((keys, values), (for_keys, for_values))) in
                tiles.iter().zip(value_tiles).zip(for_tiles.iter_mut().zip(for_value_tiles)).enumerate()
            {
                pass.read::<K, DROPPING>(keys, values, tile * K, &mut gathered, for_keys, for_values);
            }
            for (index, ((key, value), (for_key, for_value))) in
                rest.iter().zip(value_rest).zip(for_rest.iter_mut().zip(for_value_rest)).enumerate()
            {
                use std::array::{from_mut, from_ref};
                let position = tiles.len() * K + index;
                let (key, value) = (from_ref(key), from_ref(value));
                let (for_key, for_value) = (from_mut(for_key), from_mut(for_value));
                pass.read::<1, DROPPING>(key, value, position, &mut gathered, for_key, for_value);
            }
            for (query, row) in for_queries.iter_mut().enumerate() {
                for (element, gathered) in row.iter_mut().zip(&gathered) {
                    *element += gathered[query];
                }
            }
        }
    }
}

/// A panel of queries with what their backward pass needs.
struct BackwardPanel<'a, S: Simd, const H: usize, const Q: usize> {
    /// Scaled as in the forward pass.
    queries: Panel<H, Q>,
    /// Of the output, scaled by what kept weights are scaled by and by `1 / sqrt(H)`.
    gradients: Panel<H, Q>,
    query_rows: &'a [HeadRow<H>],
    /// Of the output, scaled by what kept weights are scaled by.
    gradient_rows: [HeadRow<H>; Q],
    /// `-log_sum_exp`
    start: [S::Vector; 2],
    /// For each query the product of its output and the output's gradient, by `1 / sqrt(H)`.
    delta: [S::Vector; 2],
    dropout: Option<DropoutRows<Q>>,
}

impl<'a, S: Simd, const H: usize, const Q: usize> BackwardPanel<'a, S, H, Q> {
    #[inline(always)]
    fn new(head: &Head<'a, H>, given: HeadGradient<'_, H>, first: usize, n: usize) -> Self {
        let range = first..first + n;
        let inverse_root = 1.0 / (H as f32).sqrt();
        let kept_scale = head.dropout.map_or(1.0, |stream| stream.scale());
        let gradients = &given.gradient[range.clone()];
        let (mut start, mut delta, mut gradient_rows) = ([0.0; Q], [0.0; Q], [[0.0; H]; Q]);
        for (start, log_sum_exp) in start.iter_mut().zip(&given.log_sum_exp[range.clone()]) {
            *start = -log_sum_exp;
        }
        for (delta, (output, gradient)) in
            delta.iter_mut().zip(given.output[range.clone()].iter().zip(gradients))
        {
            let product: f32 = output.iter().zip(gradient).map(|(a, b)| a * b).sum();
            *delta = product * inverse_root;
        }
        for (row, gradient) in gradient_rows.iter_mut().zip(gradients) {
            *row = gradient.map(|element| element * kept_scale);
        }
        let query_rows = &head.queries[range];
        Self {
            queries: transposed(query_rows, LOG2_E * inverse_root),
            gradients: transposed(gradients, kept_scale * inverse_root),
            query_rows,
            gradient_rows,
            start: [S::load(&start), S::load(&start[S::LANES..])],
            delta: [S::load(&delta), S::load(&delta[S::LANES..])],
            dropout: head.dropout.map(|stream| stream.rows(first)),
        }
    }

    #[inline(always)]
    fn read<const K: usize, const DROPPING: bool>(
        &self,
        keys: &[HeadRow<H>; K],
        values: &[HeadRow<H>; K],
        first_key: usize,
        for_queries: &mut Panel<H, Q>,
        for_keys: &mut [HeadRow<H>; K],
        for_values: &mut [HeadRow<H>; K],
    ) {
        let mut weights = products::<S, H, Q, K>(&self.queries, keys, [self.start; K]);
        for weight in &mut weights {
            *weight = [exp2::<S>(weight[0]), exp2::<S>(weight[1])];
        }
        let mut kept = weights;
        if DROPPING && let Some(dropout) = &self.dropout {
            drop_some::<S, K, Q>(dropout, first_key, &mut kept);
        }
        let kept_rows = stored::<S, Q, K>(&kept);
        let zero = [[S::splat(0.0); 2]; K];
        let of_weights = products::<S, H, Q, K>(&self.gradients, values, zero);
        let mut of_scores = zero;
        for key in 0..K {
            for vector in 0..2 {
                let drawn = S::mul(kept[key][vector], of_weights[key][vector]);
                let pulled = S::mul(weights[key][vector], self.delta[vector]);
                of_scores[key][vector] = S::sub(drawn, pulled);
            }
        }
        gather::<S, H, Q, K>(&of_scores, keys, for_queries);
        let score_rows = stored::<S, Q, K>(&of_scores);
        self.give_back::<K>(&kept_rows, &score_rows, for_keys, for_values);
    }

    /// Adds each query's share to the gradients of a tile's keys and values.
    #[inline(always)]
    fn give_back<const K: usize>(
        &self,
        weights: &[[f32; Q]; K],
        of_scores: &[[f32; Q]; K],
        for_keys: &mut [HeadRow<H>; K],
        for_values: &mut [HeadRow<H>; K],
    ) {
        for lanes in (0..H).step_by(S::LANES) {
            let (mut keys, mut values) = ([S::splat(0.0); K], [S::splat(0.0); K]);
            for key in 0..K {
                keys[key] = S::load(&for_keys[key][lanes..]);
                values[key] = S::load(&for_values[key][lanes..]);
            }
            for (query, (row, gradient)) in self.query_rows.iter().zip(&self.gradient_rows).enumerate() {
                let (row, gradient) = (S::load(&row[lanes..]), S::load(&gradient[lanes..]));
                for key in 0..K {
                    values[key] = S::fma(S::splat(weights[key][query]), gradient, values[key]);
                    keys[key] = S::fma(S::splat(of_scores[key][query]), row, keys[key]);
                }
            }
            for key in 0..K {
                S::store(keys[key], &mut for_keys[key][lanes..]);
                S::store(values[key], &mut for_values[key][lanes..]);
            }
        }
    }
}

/// `start` plus the product of each key with each query of a panel.
#[inline(always)]
fn products<S: Simd, const H: usize, const Q: usize, const K: usize>(
    panel: &Panel<H, Q>,
    keys: &[HeadRow<H>; K],
    start: Tile<S::Vector, K>,
) -> Tile<S::Vector, K> {
    let mut sums = start;
    for h in 0..H {
        let queries = [S::load(&panel[h]), S::load(&panel[h][S::LANES..])];
        for key in 0..K {
            let element = S::splat(keys[key][h]);
            sums[key][0] = S::fma(element, queries[0], sums[key][0]);
            sums[key][1] = S::fma(element, queries[1], sums[key][1]);
        }
    }
    sums
}

/// Adds the rows, each query weighting them in its own way.
#[inline(always)]
fn gather<S: Simd, const H: usize, const Q: usize, const K: usize>(
    weights: &Tile<S::Vector, K>,
    rows: &[HeadRow<H>; K],
    into: &mut Panel<H, Q>,
) {
    for h in 0..H {
        let (low, high) = into[h].split_at_mut(S::LANES);
        let mut sums = [S::load(low), S::load(high)];
        for key in 0..K {
            let element = S::splat(rows[key][h]);
            sums[0] = S::fma(element, weights[key][0], sums[0]);
            sums[1] = S::fma(element, weights[key][1], sums[1]);
        }
        S::store(sums[0], low);
        S::store(sums[1], high);
    }
}

/// Sets dropped weights to 0; kept ones are scaled elsewhere.
#[inline(always)]
pub(crate) fn drop_some<S: Simd, const K: usize, const Q: usize>(
    dropout: &DropoutRows<Q>,
    first_key: usize,
    weights: &mut Tile<S::Vector, K>,
) {
    if K == 1 {
        let odd = first_key % 2;
        let low = dropout.kept_pair::<S>(first_key / 2, 0)[odd];
        let high = dropout.kept_pair::<S>(first_key / 2, 1)[odd];
        weights[0] = [S::keep(low, weights[0][0]), S::keep(high, weights[0][1])];
        return;
    }
    for (pair, weights) in weights.chunks_exact_mut(2).enumerate() {
        let position = first_key / 2 + pair;
        let [even_0, odd_0] = dropout.kept_pair::<S>(position, 0);
        let [even_1, odd_1] = dropout.kept_pair::<S>(position, 1);
        weights[0] = [S::keep(even_0, weights[0][0]), S::keep(even_1, weights[0][1])];
        weights[1] = [S::keep(odd_0, weights[1][0]), S::keep(odd_1, weights[1][1])];
    }
}

#[inline(always)]
pub(crate) fn stored<S: Simd, const Q: usize, const K: usize>(tile: &Tile<S::Vector, K>) -> [[f32; Q]; K] {
    let mut rows = [[0.0; Q]; K];
    for (row, vectors) in rows.iter_mut().zip(tile) {
        let (low, high) = row.split_at_mut(S::LANES);
        S::store(vectors[0], low);
        S::store(vectors[1], high);
    }
    rows
}

/// Up to `Q` rows as a panel, scaled; missing ones are 0.
#[inline(always)]
fn transposed<const H: usize, const Q: usize>(rows: &[HeadRow<H>], scale: f32) -> Panel<H, Q> {
    let mut panel = [[0.0; Q]; H];
    for (query, row) in rows.iter().enumerate() {
        for (lanes, element) in panel.iter_mut().zip(row) {
            lanes[query] = element * scale;
        }
    }
    panel
}
