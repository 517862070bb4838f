//! Blocks of cells in compressed sparse rows.

/// The whole number nearest to a value from 0 to 2^23; anything else gives one that is no number's, or not below 2^23.
///
/// Without a branch and without the checks of a conversion, so that compilers take several at a time.
pub(crate) fn nearest_whole(value: f32) -> u32 {
    // Added to a power of two, the fraction is what does not fit.
    const SHIFT: f32 = 8_388_608.0;
    (value + SHIFT).to_bits().wrapping_sub(SHIFT.to_bits())
}

/// Whether a value is a whole number from 0 to `most`, which is below 2^23; without a branch too.
pub(crate) fn is_whole(value: f32, most: u32) -> bool {
    let whole = nearest_whole(value);
    (whole <= most) & (whole as i32 as f32 == value)
}

/// The largest number that [`is_whole`] knows.
pub(crate) const LARGEST_WHOLE: u32 = (1 << 23) - 1;

/// Consecutive cells of one matrix in CSR form, with the columns of the file they came from.
///
/// Columns ascend within a cell, every value is finite and not zero, and duplicate entries of the file are summed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CountBlock {
    /// The file's row of the first cell, counted from 0.
    pub first_row: usize,
    /// `n_cells + 1` offsets into `columns` and `values`; the first is 0.
    pub offsets: Vec<usize>,
    /// Gene columns of the file's matrix, counted from 0.
    pub columns: Vec<u32>,
    /// Values as stored in the file.
    pub values: Vec<f32>,
}

impl CountBlock {
    /// How many cells the block holds.
    pub fn n_cells(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Gives columns other numbers and drops those that get none. The order of those that stay must not change.
    pub(crate) fn retain_columns(&mut self, number: impl Fn(u32) -> Option<u32>) {
        let (mut kept, mut start) = (0, 0);
        for cell in 0..self.n_cells() {
            let end = self.offsets[cell + 1];
            self.offsets[cell] = kept;
            for at in start..end {
                if let Some(column) = number(self.columns[at]) {
                    (self.columns[kept], self.values[kept]) = (column, self.values[at]);
                    kept += 1;
                }
            }
            start = end;
        }
        if let Some(last) = self.offsets.last_mut() {
            *last = kept;
        }
        self.columns.truncate(kept);
        self.values.truncate(kept);
    }

    /// Columns and values of one cell, `index` counted from the block's start.
    pub fn cell(&self, index: usize) -> (&[u32], &[f32]) {
        let range = self.offsets[index]..self.offsets[index + 1];
        (&self.columns[range.clone()], &self.values[range])
    }

    /// Whether there is nothing to sort, to add up or to drop.
    fn is_tidy(&self) -> bool {
        let ascend = |columns: &[u32]| {
            let next = columns.get(1..).unwrap_or_default();
            columns.iter().zip(next).fold(true, |all, (first, second)| all & (first < second))
        };
        self.values.chunks(4096).all(|values| values.iter().fold(true, |all, &value| all & (value != 0.0)))
            && (0..self.n_cells()).all(|cell| ascend(self.cell(cell).0))
    }

    /// Sorts the columns of every cell, adds up entries of the same column and drops zeros.
    pub(crate) fn tidy(&mut self) {
        if self.is_tidy() {
            return;
        }
        let mut kept = 0;
        let mut start = 0;
        for cell in 0..self.n_cells() {
            let end = self.offsets[cell + 1];
            if !self.columns[start..end].is_sorted_by(|a, b| a < b) {
                let mut entries: Vec<(u32, f32)> = self.columns[start..end]
                    .iter()
                    .copied()
                    .zip(self.values[start..end].iter().copied())
                    .collect();
                // Stable, so that sums do not depend on the sorting algorithm.
                entries.sort_by_key(|&(column, _)| column);
                for (at, (column, value)) in (start..end).zip(entries) {
                    (self.columns[at], self.values[at]) = (column, value);
                }
            }
            self.offsets[cell] = kept;
            let mut at = start;
            while at < end {
                let column = self.columns[at];
                let mut value = self.values[at];
                at += 1;
                while at < end && self.columns[at] == column {
                    value += self.values[at];
                    at += 1;
                }
                if value != 0.0 {
                    (self.columns[kept], self.values[kept]) = (column, value);
                    kept += 1;
                }
            }
            start = end;
        }
        if let Some(last) = self.offsets.last_mut() {
            *last = kept;
        }
        self.columns.truncate(kept);
        self.values.truncate(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_told_from_others() {
        let is_whole = |value: f32| is_whole(value, LARGEST_WHOLE);
        for value in (0..1 << 23).step_by(997).chain([1, 2, 255, 256, 65_535, 65_536, (1 << 23) - 1]) {
            assert_eq!(nearest_whole(value as f32), value);
            assert!(is_whole(value as f32));
        }
        let others = [0.5, 1e-6, 7.999_999_5, 65_535.5, -1.0, -0.25, 8_388_608.0, 3e9, f32::MAX, f32::MIN];
        assert!(
            others
                .into_iter()
                .chain([f32::NAN, f32::INFINITY, f32::NEG_INFINITY])
                .all(|value| !is_whole(value))
        );
    }

    #[test]
    fn unsorted_and_duplicate_entries_become_ascending_sums() {
        let mut block = CountBlock {
            first_row: 0,
            offsets: vec![0, 4, 4, 6],
            columns: vec![3, 1, 3, 0, 2, 5],
            values: vec![1.0, 2.0, 4.0, 0.0, -1.0, 1.0],
        };
        block.tidy();
        assert_eq!(block.offsets, [0, 2, 2, 4]);
        assert_eq!(block.columns, [1, 3, 2, 5]);
        assert_eq!(block.values, [2.0, 5.0, -1.0, 1.0]);
    }
}
