//! One head of one cell: the arithmetic of attention, forward and backward.
//!
//! Everything is packed first: queries, keys and values of the head as arrays of `[f32; H]`, and keys (in the
//! backward pass values too) once more with 16 of them side by side, so that a score is a sum of products of vectors.
//! The packing costs as much as one query; the loops after it have fixed lengths, no bounds to check, and become
//! vector instructions without being written as such.

use super::dropout::DropoutStream;
use super::exponential::{exp, multiply_add};

/// Keys handled at a time.
pub(super) const TILE: usize = 64;
/// Queries handled at a time: as many as keep their sums in registers.
const QUERIES: usize = 4;
/// Keys side by side in the transposed packing.
const LANES: usize = 16;

/// Rows of a tile: keys or values.
type Tile<const H: usize> = [[f32; H]; TILE];
/// The same numbers, element by element, 16 rows side by side.
type Transposed<const H: usize> = [[[f32; LANES]; H]; TILE / LANES];
/// A number for each query and key of a tile.
type Scores = [[f32; TILE]; QUERIES];

/// What the processor can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instructions {
    /// What every processor of its kind can.
    Portable,
    /// 256-bit vectors and fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Instructions {
    pub(super) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            return Self::Avx2;
        }
        Self::Portable
    }
}

/// One head's numbers, packed, and room for its results. Reused from head to head.
#[derive(Debug, Default)]
pub(super) struct HeadPass<const H: usize> {
    n_keys: usize,
    /// Already divided by the square root of `H`. Filled up with zeros to a multiple of [`QUERIES`], as all that
    /// belongs to queries.
    queries: Vec<[[f32; H]; QUERIES]>,
    output: Vec<[[f32; H]; QUERIES]>,
    gradient: Vec<[[f32; H]; QUERIES]>,
    query_gradient: Vec<[[f32; H]; QUERIES]>,
    log_sum_exp: Vec<[f32; QUERIES]>,
    /// Gradient times output: what the softmax's backward pass subtracts.
    correction: Vec<[f32; QUERIES]>,
    /// Filled up with zeros to whole tiles, as all that belongs to keys.
    keys: Vec<Tile<H>>,
    values: Vec<Tile<H>>,
    keys_transposed: Vec<Transposed<H>>,
    values_transposed: Vec<Transposed<H>>,
    key_gradient: Vec<Tile<H>>,
    value_gradient: Vec<Tile<H>>,
}

impl<const H: usize> HeadPass<H> {
    /// - rows: [queries][H]
    pub(super) fn take_queries<'a>(&mut self, rows: impl ExactSizeIterator<Item = &'a [f32]>) {
        let scale = scale::<H>();
        pack(&mut self.queries, rows);
        for query in self.queries.as_flattened_mut().as_flattened_mut() {
            *query *= scale;
        }
        reset(&mut self.output, self.queries.len(), [[0.0; H]; QUERIES]);
    }

    /// - keys, values: [keys][H]
    pub(super) fn take_keys_and_values<'a>(
        &mut self,
        keys: impl ExactSizeIterator<Item = &'a [f32]>,
        values: impl ExactSizeIterator<Item = &'a [f32]>,
    ) {
        self.n_keys = keys.len();
        pack(&mut self.keys, keys);
        pack(&mut self.values, values);
        transpose(&self.keys, &mut self.keys_transposed);
    }

    /// - gradient, output: [queries][H]
    /// - log_sum_exp: [queries]
    pub(super) fn take_gradients<'a>(
        &mut self,
        gradient: impl ExactSizeIterator<Item = &'a [f32]>,
        output: impl ExactSizeIterator<Item = &'a [f32]>,
        log_sum_exp: &[f32],
    ) {
        pack(&mut self.gradient, gradient);
        pack(&mut self.output, output);
        let n_blocks = self.queries.len();
        reset(&mut self.log_sum_exp, n_blocks, [0.0; QUERIES]);
        self.log_sum_exp.as_flattened_mut()[..log_sum_exp.len()].copy_from_slice(log_sum_exp);
        reset(&mut self.correction, n_blocks, [0.0; QUERIES]);
        let rows = self.gradient.as_flattened().iter().zip(self.output.as_flattened());
        for (correction, (gradient, output)) in self.correction.as_flattened_mut().iter_mut().zip(rows) {
            *correction = gradient.iter().zip(output).map(|(gradient, output)| gradient * output).sum();
        }
        transpose(&self.values, &mut self.values_transposed);
        reset(&mut self.query_gradient, n_blocks, [[0.0; H]; QUERIES]);
        reset(&mut self.key_gradient, self.keys.len(), [[0.0; H]; TILE]);
        reset(&mut self.value_gradient, self.keys.len(), [[0.0; H]; TILE]);
    }

    /// [queries][H], and a few rows more.
    pub(super) fn output(&self) -> impl Iterator<Item = &[f32; H]> {
        self.output.as_flattened().iter()
    }

    /// [queries][H], and a few rows more.
    pub(super) fn query_gradient(&self) -> impl Iterator<Item = &[f32; H]> {
        self.query_gradient.as_flattened().iter()
    }

    /// [keys][H], and a few rows more.
    pub(super) fn key_gradient(&self) -> impl Iterator<Item = &[f32; H]> {
        self.key_gradient.as_flattened().iter()
    }

    /// [keys][H], and a few rows more.
    pub(super) fn value_gradient(&self) -> impl Iterator<Item = &[f32; H]> {
        self.value_gradient.as_flattened().iter()
    }

    /// Fills `output` and the logarithm of each query's softmax denominator.
    pub(super) fn forward(
        &mut self,
        instructions: Instructions,
        dropout: Option<&DropoutStream>,
        log_sum_exp: &mut [f32],
    ) {
        match instructions {
            Instructions::Portable => self.forward_with::<false>(dropout, log_sum_exp),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Instructions::detect` found the features that the function is compiled for.
            Instructions::Avx2 => unsafe { self.forward_avx2(dropout, log_sum_exp) },
        }
    }

    /// Fills the gradients of queries, keys and values.
    pub(super) fn backward(&mut self, instructions: Instructions, dropout: Option<&DropoutStream>) {
        match instructions {
            Instructions::Portable => self.backward_with::<false>(dropout),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Instructions::detect` found the features that the function is compiled for.
            Instructions::Avx2 => unsafe { self.backward_avx2(dropout) },
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn forward_avx2(&mut self, dropout: Option<&DropoutStream>, log_sum_exp: &mut [f32]) {
        self.forward_with::<true>(dropout, log_sum_exp);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn backward_avx2(&mut self, dropout: Option<&DropoutStream>) {
        self.backward_with::<true>(dropout);
    }

    /// Tile after tile with a running maximum (Milakov and Gimelshein 2018, "Online normalizer calculation for
    /// softmax").
    #[inline(always)]
    fn forward_with<const FUSED: bool>(&mut self, dropout: Option<&DropoutStream>, log_sum_exp: &mut [f32]) {
        let results = self.output.iter_mut().zip(log_sum_exp.chunks_mut(QUERIES));
        for (block, (queries, (output, log_sum_exp))) in self.queries.iter().zip(results).enumerate() {
            let mut highest = [f32::NEG_INFINITY; QUERIES];
            let mut sum = [0.0; QUERIES];
            let mut gathered = [[0.0; H]; QUERIES];
            for (tile, (keys, values)) in self.keys_transposed.iter().zip(&self.values).enumerate() {
                let n_real = (self.n_keys - tile * TILE).min(TILE);
                let mut weights = scores::<H, FUSED>(queries, keys);
                for query in 0..QUERIES {
                    let row = &mut weights[query];
                    let new_highest = highest[query].max(maximum(&row[..n_real]));
                    let shrink = exp::<FUSED>(highest[query] - new_highest);
                    highest[query] = new_highest;
                    for weight in row.iter_mut() {
                        *weight = exp::<FUSED>(*weight - new_highest);
                    }
                    row[n_real..].fill(0.0);
                    sum[query] = sum[query] * shrink + total(row);
                    for element in &mut gathered[query] {
                        *element *= shrink;
                    }
                    if let Some(stream) = dropout {
                        let factors = stream.row(block * QUERIES + query).factors(tile);
                        for (weight, factor) in row.iter_mut().zip(factors) {
                            *weight *= factor;
                        }
                    }
                }
                gather::<H, FUSED>(&weights, values, &mut gathered);
            }
            for query in 0..QUERIES {
                for (output, gathered) in output[query].iter_mut().zip(gathered[query]) {
                    *output = gathered / sum[query];
                }
            }
            for (query, log_sum_exp) in log_sum_exp.iter_mut().enumerate() {
                *log_sum_exp = highest[query] + sum[query].ln();
            }
        }
    }

    #[inline(always)]
    fn backward_with<const FUSED: bool>(&mut self, dropout: Option<&DropoutStream>) {
        for tile in 0..self.keys.len() {
            let n_real = (self.n_keys - tile * TILE).min(TILE);
            let (key_gradient, value_gradient) =
                (&mut self.key_gradient[tile], &mut self.value_gradient[tile]);
            for block in 0..self.queries.len() {
                let (queries, gradient) = (&self.queries[block], &self.gradient[block]);
                let mut weights = scores::<H, FUSED>(queries, &self.keys_transposed[tile]);
                let mut score_gradient = scores::<H, FUSED>(gradient, &self.values_transposed[tile]);
                for query in 0..QUERIES {
                    let (log_sum_exp, correction) =
                        (self.log_sum_exp[block][query], self.correction[block][query]);
                    let (weights, score_gradient) = (&mut weights[query], &mut score_gradient[query]);
                    for weight in weights.iter_mut() {
                        *weight = exp::<FUSED>(*weight - log_sum_exp);
                    }
                    weights[n_real..].fill(0.0);
                    let Some(stream) = dropout else {
                        for (gradient, weight) in score_gradient.iter_mut().zip(&*weights) {
                            *gradient = weight * (*gradient - correction);
                        }
                        continue;
                    };
                    let factors = stream.row(block * QUERIES + query).factors(tile);
                    for ((gradient, weight), factor) in score_gradient.iter_mut().zip(weights).zip(factors) {
                        *gradient = *weight * (*gradient * factor - correction);
                        *weight *= factor;
                    }
                }
                gather::<H, FUSED>(&score_gradient, &self.keys[tile], &mut self.query_gradient[block]);
                spread::<H, FUSED>(&score_gradient, queries, key_gradient);
                spread::<H, FUSED>(&weights, gradient, value_gradient);
            }
        }
        for element in self.query_gradient.as_flattened_mut().as_flattened_mut() {
            *element *= scale::<H>();
        }
    }
}

fn scale<const H: usize>() -> f32 {
    (H as f32).sqrt().recip()
}

/// Every query times every key of a tile.
#[inline(always)]
fn scores<const H: usize, const FUSED: bool>(queries: &[[f32; H]; QUERIES], keys: &Transposed<H>) -> Scores {
    let mut scores = [[0.0; TILE]; QUERIES];
    for (group, keys) in keys.iter().enumerate() {
        let mut sums = [[0.0; LANES]; QUERIES];
        for (element, lanes) in keys.iter().enumerate() {
            for query in 0..QUERIES {
                for lane in 0..LANES {
                    sums[query][lane] =
                        multiply_add::<FUSED>(queries[query][element], lanes[lane], sums[query][lane]);
                }
            }
        }
        for query in 0..QUERIES {
            scores[query][group * LANES..(group + 1) * LANES].copy_from_slice(&sums[query]);
        }
    }
    scores
}

/// Adds to each query the tile's rows, each times its weight.
#[inline(always)]
fn gather<const H: usize, const FUSED: bool>(
    weights: &Scores,
    rows: &Tile<H>,
    sums: &mut [[f32; H]; QUERIES],
) {
    let mut gathered = *sums;
    for (key, row) in rows.iter().enumerate() {
        for query in 0..QUERIES {
            for element in 0..H {
                gathered[query][element] =
                    multiply_add::<FUSED>(weights[query][key], row[element], gathered[query][element]);
            }
        }
    }
    *sums = gathered;
}

/// Adds to each row of a tile the queries, each times its weight.
#[inline(always)]
fn spread<const H: usize, const FUSED: bool>(
    weights: &Scores,
    queries: &[[f32; H]; QUERIES],
    sums: &mut Tile<H>,
) {
    for (key, sum) in sums.iter_mut().enumerate() {
        for query in 0..QUERIES {
            for element in 0..H {
                sum[element] =
                    multiply_add::<FUSED>(weights[query][key], queries[query][element], sum[element]);
            }
        }
    }
}

/// In 8 independent strands, then one: the order vector instructions want.
#[inline(always)]
fn total(row: &[f32; TILE]) -> f32 {
    let mut strands = [0.0; 8];
    for eight in row.as_chunks::<8>().0 {
        for (strand, element) in strands.iter_mut().zip(eight) {
            *strand += element;
        }
    }
    strands.iter().sum()
}

#[inline(always)]
fn maximum(row: &[f32]) -> f32 {
    let mut strands = [f32::NEG_INFINITY; 8];
    let (eights, rest) = row.as_chunks::<8>();
    for eight in eights {
        for (strand, &element) in strands.iter_mut().zip(eight) {
            *strand = if element > *strand { element } else { *strand };
        }
    }
    strands.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Packs rows into groups of `N`, the last filled up with zeros.
fn pack<'a, const H: usize, const N: usize>(
    packed: &mut Vec<[[f32; H]; N]>,
    rows: impl ExactSizeIterator<Item = &'a [f32]>,
) {
    reset(packed, rows.len().div_ceil(N), [[0.0; H]; N]);
    for (slot, row) in packed.as_flattened_mut().iter_mut().zip(rows) {
        slot.copy_from_slice(row);
    }
}

fn transpose<const H: usize>(tiles: &[Tile<H>], transposed: &mut Vec<Transposed<H>>) {
    transposed.resize(tiles.len(), [[[0.0; LANES]; H]; TILE / LANES]);
    for (tile, transposed) in tiles.iter().zip(transposed) {
        for (key, row) in tile.iter().enumerate() {
            for (element, &value) in row.iter().enumerate() {
                transposed[key / LANES][element][key % LANES] = value;
            }
        }
    }
}

fn reset<T: Clone>(buffer: &mut Vec<T>, n: usize, value: T) {
    buffer.clear();
    buffer.resize(n, value);
}
