//! Cells as rows of numbers.

use crate::error::{Error, Result};

/// Cells in some features, borrowed: `[n_cells, n_features]`, row-major, all finite.
#[derive(Debug, Clone, Copy)]
pub struct Cells<'a> {
    values: &'a [f32],
    n_cells: usize,
    n_features: usize,
}

impl<'a> Cells<'a> {
    /// Checks the shape and that every value is finite.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] when `values` does not fill the shape, [`Error::NotFinite`] for NaN and infinities.
    pub fn new(values: &'a [f32], n_cells: usize, n_features: usize) -> Result<Self> {
        if n_cells.checked_mul(n_features) != Some(values.len()) {
            return Err(Error::ShapeMismatch { n_values: values.len(), n_cells, n_features });
        }
        match values.iter().position(|value| !value.is_finite()) {
            Some(at) => {
                let (cell, feature) = (at / n_features, at % n_features);
                Err(Error::NotFinite { cell, feature, value: values[at] })
            }
            None => Ok(Self { values, n_cells, n_features }),
        }
    }

    /// How many cells there are.
    pub fn n_cells(&self) -> usize {
        self.n_cells
    }

    /// How many features each has.
    pub fn n_features(&self) -> usize {
        self.n_features
    }

    /// All values, `[n_cells, n_features]`, row-major.
    pub fn values(&self) -> &'a [f32] {
        self.values
    }

    /// One cell's features, `[n_features]`; none for a cell that is not there.
    pub fn cell(&self, cell: usize) -> &'a [f32] {
        let from = cell * self.n_features;
        self.values.get(from..from + self.n_features).unwrap_or_default()
    }

    /// The cells one after the other. Cells without features are empty slices.
    pub fn iter(&self) -> impl Iterator<Item = &'a [f32]> + use<'a> {
        let Self { values, n_cells, n_features } = *self;
        (0..n_cells).map(move |cell| &values[cell * n_features..(cell + 1) * n_features])
    }
}
