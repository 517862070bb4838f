//! Dropout from a counter, so that the backward pass finds what the forward pass drew without storing it.

use super::head::TILE;

/// Which softmax weights of one head of one cell are dropped.
#[derive(Debug, Clone, Copy)]
pub(super) struct DropoutStream {
    key: u64,
    /// A weight is kept if its 16 random bits are below this.
    threshold: u32,
    /// What a kept weight is multiplied by: exactly the inverse of the probability with which it is kept.
    scale: f32,
}

/// The random numbers of one query's row.
#[derive(Debug, Clone, Copy)]
pub(super) struct DropoutRow {
    offset: u32,
    mask: u32,
    threshold: u32,
    scale: f32,
}

const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

impl DropoutStream {
    /// `None` if nothing is dropped. The probability is rounded to a multiple of 2^-16.
    pub(super) fn new(probability: f64, seed: u64, cell: usize, head: usize) -> Option<Self> {
        if probability == 0.0 {
            return None;
        }
        let threshold = ((1.0 - probability) * 65536.0).round().clamp(1.0, 65536.0);
        let key = [cell as u64, head as u64].into_iter().fold(seed, |key, index| mix(key ^ mix(index)));
        Some(Self { key, threshold: threshold as u32, scale: (65536.0 / threshold) as f32 })
    }

    #[inline(always)]
    pub(super) fn row(&self, query: usize) -> DropoutRow {
        let bits = mix(self.key.wrapping_add((query as u64).wrapping_mul(GOLDEN_RATIO)));
        DropoutRow {
            offset: bits as u32,
            mask: (bits >> 32) as u32,
            threshold: self.threshold,
            scale: self.scale,
        }
    }
}

impl DropoutRow {
    /// What to multiply a tile's weights by: 0 or the scale. One 32-bit number decides about two weights.
    #[inline(always)]
    pub(super) fn factors(&self, tile: usize) -> [f32; TILE] {
        const HALF: usize = TILE / 2;
        let mut factors = [0.0; TILE];
        let (low, high) = factors.split_at_mut(HALF);
        for (lane, (low, high)) in low.iter_mut().zip(high).enumerate() {
            let counter = (tile * HALF + lane) as u32;
            let mut bits = counter.wrapping_mul(GOLDEN_RATIO as u32).wrapping_add(self.offset);
            bits = (bits ^ (bits >> 16)).wrapping_mul(0x7feb_352d) ^ self.mask;
            bits = (bits ^ (bits >> 15)).wrapping_mul(0x846c_a68b);
            bits ^= bits >> 16;
            *low = if (bits & 0xffff) < self.threshold { self.scale } else { 0.0 };
            *high = if (bits >> 16) < self.threshold { self.scale } else { 0.0 };
        }
        factors
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
#[inline(always)]
fn mix(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(GOLDEN_RATIO);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts of 6.5 million draws lie within 5 standard deviations of what independent draws would give: over all,
    /// for the same key in neighbouring queries, and for neighbouring keys.
    #[test]
    fn weights_are_dropped_at_the_asked_rate_and_independently() {
        let (n_rows, n_tiles) = (1000, 10);
        let stream = DropoutStream::new(0.1, 7, 3, 1).unwrap();
        let row = |query| -> Vec<bool> {
            (0..n_tiles).flat_map(|tile| stream.row(query).factors(tile)).map(|factor| factor > 0.0).collect()
        };
        let rows: Vec<Vec<bool>> = (0..n_rows).map(row).collect();
        let within = |found: usize, n: usize, probability: f64| {
            let n = n as f64;
            let spread = (n * probability * (1.0 - probability)).sqrt();
            assert!((found as f64 - n * probability).abs() < 5.0 * spread, "{found} of {n} at {probability}");
        };
        let keep = 58982.0 / 65536.0;
        let width = rows[0].len();
        within(rows.iter().flatten().filter(|&&kept| kept).count(), n_rows * width, keep);
        let both = |a: &[bool], b: &[bool]| a.iter().zip(b).filter(|&(&a, &b)| a && b).count();
        let down = rows.windows(2).map(|pair| both(&pair[0], &pair[1])).sum();
        within(down, (n_rows - 1) * width, keep * keep);
        let across = rows.iter().map(|row| both(&row[..width - 1], &row[1..])).sum();
        within(across, n_rows * (width - 1), keep * keep);
        let halves = rows.iter().map(|row| both(&row[..width - TILE / 2], &row[TILE / 2..])).sum();
        within(halves, n_rows * (width - TILE / 2), keep * keep);
    }

    #[test]
    fn heads_cells_and_seeds_have_streams_of_their_own() {
        let factors = |seed, cell, head| DropoutStream::new(0.5, seed, cell, head).unwrap().row(0).factors(0);
        let streams =
            [factors(1, 0, 0), factors(1, 0, 1), factors(1, 1, 0), factors(2, 0, 0), factors(1, 1, 1)];
        for (index, stream) in streams.iter().enumerate() {
            assert!(!streams[..index].contains(stream));
        }
        assert_eq!(factors(1, 0, 0), factors(1, 0, 0));
    }
}
