//! What every block is held against before it is handed out.

use std::path::PathBuf;

use super::ValueKind;
use crate::counts::{CountBlock, LARGEST_WHOLE, is_whole};
use crate::error::{Error, Result};

/// What a matrix promises of its entries.
#[derive(Debug, Clone)]
pub(crate) struct BlockCheck {
    /// The file, for errors.
    pub(crate) path: PathBuf,
    /// The matrix, for errors.
    pub(crate) matrix: String,
    /// Columns there are.
    pub(crate) n_genes: usize,
    /// What its values were taken for; `None` where they only have to be finite.
    pub(crate) expected: Option<ValueKind>,
}

impl BlockCheck {
    /// Checks columns and values of a tidy block.
    pub(crate) fn check(&self, block: &CountBlock) -> Result<()> {
        if self.is_plain(block) {
            return Ok(());
        }
        let must_be_whole = self.expected == Some(ValueKind::Counts);
        let may_be_negative = matches!(self.expected, None | Some(ValueKind::Scaled { .. }));
        for cell in 0..block.n_cells() {
            let row = block.first_row + cell;
            let (columns, values) = block.cell(cell);
            if let Some(&column) = columns.last().filter(|&&column| column as usize >= self.n_genes) {
                return Err(Error::Invalid {
                    path: self.path.clone(),
                    dataset: self.matrix.clone(),
                    reason: format!("cell {row} has an entry at column {column} of {}", self.n_genes),
                });
            }
            let bad = |value: &f32| !value.is_finite() || (*value < 0.0 && !may_be_negative);
            if let Some(at) = values.iter().position(bad) {
                return Err(Error::BadValue {
                    path: self.path.clone(),
                    dataset: self.matrix.clone(),
                    value: f64::from(values[at]),
                    row,
                    column: columns[at] as usize,
                });
            }
            if let Some(at) = values.iter().position(|value| must_be_whole && value.fract() != 0.0) {
                return Err(Error::NotCounts {
                    path: self.path.clone(),
                    dataset: self.matrix.clone(),
                    found: format!("{} at cell {row}, gene column {}", values[at], columns[at]),
                });
            }
        }
        Ok(())
    }

    /// Whether all columns are there and all values are counts of usual size, which any matrix may hold. Nothing is looked
    /// at one by one.
    fn is_plain(&self, block: &CountBlock) -> bool {
        let is_count = |value: f32| (value > 0.0) & is_whole(value, LARGEST_WHOLE);
        let last_column = |cell| block.cell(cell).0.last().map_or(0, |&column| column as usize);
        (0..block.n_cells()).all(|cell| last_column(cell) < self.n_genes)
            && block
                .values
                .chunks(4096)
                .all(|values| values.iter().fold(true, |all, &value| all & is_count(value)))
    }
}
