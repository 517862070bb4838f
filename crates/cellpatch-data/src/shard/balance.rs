//! Files of equal size: where to cut the order of all cells.

/// Counters of keys, by their highest bits.
const N_BINS: usize = 1 << 16;

/// How many of the keys that decide a cell's place fall where, in fixed memory.
#[derive(Debug)]
pub(super) struct KeyCounts(Vec<u64>);

/// Neighbouring ranges of keys that together are all keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyRanges {
    /// The first key of each range but the first.
    starts: Vec<u64>,
}

impl Default for KeyCounts {
    fn default() -> Self {
        Self(vec![0; N_BINS])
    }
}

impl KeyCounts {
    /// Counts a cell.
    pub(super) fn add(&mut self, key: u64) {
        self.0[(key >> 48) as usize] += 1;
    }

    /// How many cells were counted.
    pub(super) fn n_cells(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Ranges with equal numbers of cells, but for what is in one of 65,536 bins.
    pub(super) fn ranges(&self, n_ranges: usize) -> KeyRanges {
        let total = u128::from(self.n_cells());
        let n_ranges = n_ranges.clamp(1, N_BINS);
        let (mut starts, mut seen) = (Vec::with_capacity(n_ranges - 1), 0u128);
        for (bin, &n_cells) in (0u64..).zip(&self.0) {
            let wanted = total * (starts.len() as u128 + 1) / n_ranges as u128;
            // Cut before the bin that would lead further away from the wanted number of cells.
            let (before, after) = (seen.abs_diff(wanted), (seen + u128::from(n_cells)).abs_diff(wanted));
            if starts.len() + 1 < n_ranges && bin > 0 && before < after {
                starts.push(bin << 48);
            }
            seen += u128::from(n_cells);
        }
        KeyRanges { starts }
    }
}

impl KeyRanges {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.starts.len() + 1
    }

    /// Which range a key is in.
    pub(super) fn position(&self, key: u64) -> usize {
        self.starts.partition_point(|&start| start <= key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, stream};

    #[test]
    fn ranges_have_the_same_number_of_cells() {
        for (n_cells, n_ranges) in [(200_000u64, 7), (5_000, 40), (10, 3), (0, 5)] {
            let keys: Vec<u64> =
                (0..n_cells).map(|cell| stream(3, Purpose::Permutation, 0, cell).bits()).collect();
            let mut counts = KeyCounts::default();
            keys.iter().for_each(|&key| counts.add(key));
            let ranges = counts.ranges(n_ranges);
            let mut sizes = vec![0u64; ranges.len()];
            keys.iter().for_each(|&key| sizes[ranges.position(key)] += 1);
            if n_cells > 0 {
                assert_eq!(sizes.len(), n_ranges);
                let mean = n_cells as f64 / n_ranges as f64;
                let far = sizes.iter().map(|&size| (size as f64 - mean).abs()).fold(0.0, f64::max);
                assert!(far <= 2.0 + mean / 100.0, "{sizes:?}, mean {mean}");
            }
        }
    }
}
