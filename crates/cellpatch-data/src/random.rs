//! Counter-based random streams: the same numbers whatever the order, the thread or the platform that asks.
//!
//! Every random decision of this crate (which genes of cell 17 are masked in epoch 3, where a row lands in the
//! permutation) draws from a stream of its own, addressed by what it is for. Nothing is handed from one decision
//! to the next, so work can be split, skipped and repeated freely.

use std::convert::Infallible;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng, TryRng};

/// What a stream is for. Streams of different purposes are independent.
///
/// The numbers are part of the file and checkpoint formats: never renumber them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Purpose {
    /// Where a cell goes in the global permutation of a shard set.
    Permutation = 1,
    /// Which cells stay under `max_cells`.
    Subsample = 2,
    /// Which rows go to validation.
    Split = 3,
    /// The order of row groups in an epoch.
    RowGroupOrder = 4,
    /// The order of rows inside a window of row groups.
    WindowShuffle = 5,
    /// The jitter on lengths and the order of batches inside a block.
    BatchOrder = 6,
    /// Which genes of a cell are masked.
    Masking = 7,
    /// Which genes of an unmasked cell stay when it has too many.
    InputSample = 8,
    /// Synthetic cells.
    Synthesis = 9,
}

/// The random stream of one item: `item` of `epoch`, for one purpose, under one seed.
///
/// The four numbers key ChaCha8 directly (seed, purpose and epoch are the key, the item is the nonce), so different
/// addresses can never share a stream.
pub fn stream(seed: u64, purpose: Purpose, epoch: u64, item: u64) -> RandomStream {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(purpose as u64).to_le_bytes());
    key[16..24].copy_from_slice(&epoch.to_le_bytes());
    key[24..].copy_from_slice(b"cellptch");
    let mut inner = ChaCha8Rng::from_seed(key);
    inner.set_stream(item);
    RandomStream { inner }
}

/// A stream of random numbers with the few draws this crate needs.
///
/// The algorithms are spelled out here instead of taken from `rand`, whose distributions may change between releases:
/// a checkpoint must resume to the same batches after an upgrade. It also implements `rand`'s `Rng`.
#[derive(Debug, Clone)]
pub struct RandomStream {
    inner: ChaCha8Rng,
}

impl RandomStream {
    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.inner.next_u64()
    }

    /// A uniform whole number in `0..bound`, without bias; 0 where `bound` is 0.
    ///
    /// Lemire's multiply-and-reject ("Fast random integer generation in an interval", 2019).
    #[inline]
    pub fn below(&mut self, bound: u32) -> u32 {
        let mut product = u64::from(self.inner.next_u32()) * u64::from(bound);
        if (product as u32) < bound {
            let threshold = bound.wrapping_neg() % bound;
            while (product as u32) < threshold {
                product = u64::from(self.inner.next_u32()) * u64::from(bound);
            }
        }
        (product >> 32) as u32
    }

    /// Puts a slice of at most 2^32 - 1 items in uniformly random order (Fisher-Yates, from the front).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        let n_items = items.len();
        self.partial_shuffle(items, n_items);
    }

    /// Moves a uniform sample of `n_chosen` items, in random order, to the front of the slice.
    pub fn partial_shuffle<T>(&mut self, items: &mut [T], n_chosen: usize) {
        debug_assert!(u32::try_from(items.len()).is_ok());
        for position in 0..n_chosen.min(items.len()) {
            let rest = (items.len() - position) as u32;
            items.swap(position, position + self.below(rest) as usize);
        }
    }
}

impl TryRng for RandomStream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.inner.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.inner.try_next_u64()
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.inner.try_fill_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_differ_by_every_part_of_their_address() {
        let first = |seed, purpose, epoch, item| stream(seed, purpose, epoch, item).bits();
        let base = first(1, Purpose::Masking, 2, 3);
        assert_eq!(base, first(1, Purpose::Masking, 2, 3));
        assert_ne!(base, first(2, Purpose::Masking, 2, 3));
        assert_ne!(base, first(1, Purpose::Split, 2, 3));
        assert_ne!(base, first(1, Purpose::Masking, 3, 3));
        assert_ne!(base, first(1, Purpose::Masking, 2, 4));
    }

    #[test]
    fn the_zero_stream_is_chacha8_of_its_key() {
        let mut key = [0u8; 32];
        key[8] = Purpose::Masking as u8;
        key[24..].copy_from_slice(b"cellptch");
        let mut reference = ChaCha8Rng::from_seed(key);
        assert_eq!(stream(0, Purpose::Masking, 0, 0).bits(), reference.next_u64());
    }

    #[test]
    fn below_is_uniform() {
        let mut random = stream(5, Purpose::Masking, 0, 0);
        let mut seen = [0u32; 7];
        for _ in 0..70_000 {
            seen[random.below(7) as usize] += 1;
        }
        let chi_square: f64 = seen.iter().map(|&n| (f64::from(n) - 10_000.0).powi(2) / 10_000.0).sum();
        assert!(chi_square < 22.5, "chi-square with 6 degrees of freedom is {chi_square}, p < 0.001");
        assert_eq!(random.below(0), 0);
        assert_eq!(random.below(1), 0);
    }

    #[test]
    fn a_shuffle_keeps_every_item_and_reaches_every_order() {
        let mut orders = std::collections::HashSet::new();
        for item in 0..400 {
            let mut items = [1, 2, 3, 4];
            stream(9, Purpose::WindowShuffle, 0, item).shuffle(&mut items);
            orders.insert(items);
            items.sort_unstable();
            assert_eq!(items, [1, 2, 3, 4]);
        }
        assert_eq!(orders.len(), 24);
    }
}
