//! Blocks of cells in compressed sparse rows.

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

    /// Columns and values of one cell, `index` counted from the block's start.
    pub fn cell(&self, index: usize) -> (&[u32], &[f32]) {
        let range = self.offsets[index]..self.offsets[index + 1];
        (&self.columns[range.clone()], &self.values[range])
    }
}
