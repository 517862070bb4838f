//! Which rows of a shard set take part.

use std::ops::Range;

/// A set of global rows of one shard set, one bit a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowSelection {
    n_rows: u64,
    n_selected: u64,
    words: Vec<u64>,
}

impl RowSelection {
    /// Every row of a shard set with `n_rows` rows.
    pub fn all(n_rows: u64) -> Self {
        Self::from_rows(n_rows, 0..n_rows)
    }

    /// The given rows, in any order, of a shard set with `n_rows` rows. Rows beyond the end are left out.
    pub fn from_rows(n_rows: u64, rows: impl IntoIterator<Item = u64>) -> Self {
        let mut words = vec![0u64; n_rows.div_ceil(64) as usize];
        for row in rows {
            if row < n_rows {
                words[(row / 64) as usize] |= 1 << (row % 64);
            }
        }
        let n_selected = words.iter().map(|word| u64::from(word.count_ones())).sum();
        Self { n_rows, n_selected, words }
    }

    /// Every row that is not in this selection.
    pub fn complement(&self) -> Self {
        Self::from_rows(self.n_rows, (0..self.n_rows).filter(|&row| !self.contains(row)))
    }

    /// How many rows are selected.
    pub fn len(&self) -> usize {
        self.n_selected as usize
    }

    /// Whether no row is selected.
    pub fn is_empty(&self) -> bool {
        self.n_selected == 0
    }

    /// How many rows the shard set has.
    pub fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// Whether a row is selected.
    pub fn contains(&self, row: u64) -> bool {
        row < self.n_rows && self.words[(row / 64) as usize] >> (row % 64) & 1 == 1
    }

    /// The selected rows, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.n_rows).filter(|&row| self.contains(row))
    }

    /// How many rows of a range are selected.
    pub(crate) fn count_in(&self, range: Range<u64>) -> usize {
        range.filter(|&row| self.contains(row)).count()
    }
}
