//! Dropout from a counter, so that the backward pass finds what the forward pass drew without storing it.

use crate::simd::Simd;

/// What is dropped in one row of weights after another: of one head of one cell, say.
///
/// Every pair of neighbouring weights of a row has 32 random bits of its own, which depend on nothing but seed, stream, row
/// and position. The probability is rounded to a multiple of 2^-16.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DropoutStream {
    key: u64,
    /// A weight is kept if its 16 random bits are below this.
    threshold: u16,
}

/// The random state of `Q` rows that are worked on together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DropoutRows<const Q: usize> {
    offsets: [u32; Q],
    multipliers: [u32; Q],
    threshold: u32,
}

const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;
const LAST_MULTIPLIER: u32 = 0x846c_a68b;

impl DropoutStream {
    /// `None` if nothing is dropped.
    ///
    /// - stream: what distinguishes this stream from others of the seed, such as cell and head
    pub(crate) fn new(probability: f64, seed: u64, stream: [u64; 2]) -> Option<Self> {
        let threshold = ((1.0 - probability) * 65536.0).round().clamp(1.0, 65536.0);
        let key = stream.into_iter().fold(seed, |key, index| mix(key ^ mix(index)));
        (threshold < 65536.0).then_some(Self { key, threshold: threshold as u16 })
    }

    /// What a kept weight is multiplied by: exactly the inverse of the probability with which it is kept.
    pub(crate) fn scale(&self) -> f32 {
        (65536.0 / f64::from(self.threshold)) as f32
    }

    /// Which of a pair of weights of one row are kept.
    pub(crate) fn kept(&self, row: usize, pair: usize) -> [bool; 2] {
        let (offset, multiplier) = self.row_state(row);
        let mut bits = offset ^ (pair as u32).wrapping_mul(GOLDEN_RATIO as u32);
        bits = bits.wrapping_mul(multiplier);
        bits = (bits ^ (bits >> 16)).wrapping_mul(LAST_MULTIPLIER);
        bits ^= bits >> 16;
        [(bits & 0xffff) as u16, (bits >> 16) as u16].map(|bits| bits < self.threshold)
    }

    #[inline(always)]
    fn row_state(&self, row: usize) -> (u32, u32) {
        let bits = mix(self.key.wrapping_add((row as u64).wrapping_mul(GOLDEN_RATIO)));
        (bits as u32, (bits >> 32) as u32 | 1)
    }

    /// The rows from `first` on.
    pub(crate) fn rows<const Q: usize>(&self, first: usize) -> DropoutRows<Q> {
        let mut rows =
            DropoutRows { offsets: [0; Q], multipliers: [0; Q], threshold: u32::from(self.threshold) << 16 };
        for (row, (offset, multiplier)) in rows.offsets.iter_mut().zip(&mut rows.multipliers).enumerate() {
            (*offset, *multiplier) = self.row_state(first + row);
        }
        rows
    }
}

impl<const Q: usize> DropoutRows<Q> {
    /// Which of a pair of weights are kept, in one vector of rows: the weight at an even position and the next.
    #[inline(always)]
    pub(crate) fn kept_pair<S: Simd>(&self, pair: usize, vector: usize) -> [S::Mask; 2] {
        let lanes = vector * S::LANES;
        let counter = S::splat_bits((pair as u32).wrapping_mul(GOLDEN_RATIO as u32));
        let mut bits = S::xor(S::load_bits(&self.offsets[lanes..]), counter);
        bits = S::wrapping_mul(bits, S::load_bits(&self.multipliers[lanes..]));
        bits = S::xor(bits, S::shift_right_16(bits));
        bits = S::wrapping_mul(bits, S::splat_bits(LAST_MULTIPLIER));
        bits = S::xor(bits, S::shift_right_16(bits));
        let threshold = S::splat_bits(self.threshold);
        [S::below(S::shift_left_16(bits), threshold), S::below(bits, threshold)]
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

    /// Which of the first `width` weights of each row are kept.
    fn rows(stream: &DropoutStream, n_rows: usize, width: usize) -> Vec<Vec<bool>> {
        (0..n_rows).map(|row| (0..width / 2).flat_map(|pair| stream.kept(row, pair)).collect()).collect()
    }

    /// Counts of 2 million draws lie within 5 standard deviations of what independent draws would give: over all, within
    /// rows at many distances, and between rows at one position.
    #[test]
    fn weights_are_dropped_at_the_asked_rate_and_independently() {
        let (n_rows, width) = (2000, 1000);
        let rows = rows(&DropoutStream::new(0.1, 7, [3, 1]).unwrap(), n_rows, width);
        let within = |what: &str, found: usize, n: usize, probability: f64| {
            let n = n as f64;
            let spread = (n * probability * (1.0 - probability)).sqrt();
            let off = (found as f64 - n * probability) / spread;
            assert!(off.abs() < 5.0, "{what}: {found} of {n} at {probability}, {off} standard deviations");
        };
        let keep = 58982.0 / 65536.0;
        within("all", rows.iter().flatten().filter(|&&kept| kept).count(), n_rows * width, keep);
        let both = |a: &[bool], b: &[bool]| a.iter().zip(b).filter(|&(&a, &b)| a && b).count();
        for lag in [1, 2, 3, 4, 8, 16, 32, 64, 100] {
            let across = rows.iter().map(|row| both(&row[..width - lag], &row[lag..])).sum();
            within(&format!("{lag} along a row"), across, n_rows * (width - lag), keep * keep);
            let down = (lag..n_rows).map(|row| both(&rows[row - lag], &rows[row])).sum();
            within(&format!("{lag} rows apart"), down, (n_rows - lag) * width, keep * keep);
        }
        // The number kept in a row is binomial, too: its variance over rows is what it must be within 5 %.
        let mean = keep * width as f64;
        let kept = rows.iter().map(|row| row.iter().filter(|&&kept| kept).count() as f64);
        let variance = kept.map(|kept| (kept - mean).powi(2)).sum::<f64>() / n_rows as f64;
        let ratio = variance / (mean * (1.0 - keep));
        assert!((0.84..1.16).contains(&ratio), "variance of a row's number: {ratio} times what it must be");
    }

    #[test]
    fn heads_cells_and_seeds_have_streams_of_their_own() {
        let draw = |seed, cell, head| rows(&DropoutStream::new(0.5, seed, [cell, head]).unwrap(), 1, 64);
        let streams = [draw(1, 0, 0), draw(1, 0, 1), draw(1, 1, 0), draw(2, 0, 0), draw(1, 1, 1)];
        for (index, stream) in streams.iter().enumerate() {
            assert!(!streams[..index].contains(stream));
        }
        assert_eq!(draw(1, 0, 0), draw(1, 0, 0));
    }

    #[test]
    fn what_rounds_to_nothing_drops_nothing() {
        assert!(DropoutStream::new(0.0, 1, [0, 0]).is_none());
        assert!(DropoutStream::new(1e-6, 1, [0, 0]).is_none());
    }
}
