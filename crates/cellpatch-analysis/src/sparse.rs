//! Cells as rows of the few genes they express.

use rayon::prelude::*;

use crate::error::{Error, Result};

/// Cells in many features of which most are zero, borrowed in compressed rows (CSR): cell `i` has the values
/// `values[row_pointers[i]..row_pointers[i + 1]]` at the features `features[...]` of the same range.
#[derive(Debug, Clone, Copy)]
pub struct SparseCells<'a> {
    row_pointers: &'a [usize],
    features: &'a [u32],
    values: &'a [f32],
    n_features: usize,
}

impl<'a> SparseCells<'a> {
    /// Checks the rows.
    ///
    /// - `row_pointers`: `[n_cells + 1]`, ascending from 0 to the number of values
    /// - `features`: `[n_values]`, ascending within a cell, below `n_features`
    /// - `values`: `[n_values]`, finite, such as log1p-normalised expression
    ///
    /// # Errors
    /// [`Error::BadRowPointers`], [`Error::LengthMismatch`] where features and values differ in length,
    /// [`Error::BadFeature`] and [`Error::NotFinite`] with the cell.
    pub fn new(
        row_pointers: &'a [usize],
        features: &'a [u32],
        values: &'a [f32],
        n_features: usize,
    ) -> Result<Self> {
        let n_values = values.len();
        if features.len() != n_values {
            return Err(Error::LengthMismatch {
                what: "feature numbers of sparse values",
                n_found: features.len(),
                n_expected: n_values,
            });
        }
        let ends = (row_pointers.first().copied(), row_pointers.last().copied());
        if ends != (Some(0), Some(n_values)) {
            let (from, to) = (ends.0.unwrap_or(0), ends.1.unwrap_or(0));
            return Err(Error::BadRowPointers {
                row: row_pointers.len().saturating_sub(2),
                from,
                to,
                n_values,
            });
        }
        for (row, pair) in row_pointers.windows(2).enumerate() {
            let (from, to) = (pair[0], pair[1]);
            if from > to || to > n_values {
                return Err(Error::BadRowPointers { row, from, to, n_values });
            }
        }
        let cells = Self { row_pointers, features, values, n_features };
        for cell in 0..cells.n_cells() {
            let mut least = 0;
            for (feature, value) in cells.cell(cell) {
                if feature < least || feature >= n_features {
                    return Err(Error::BadFeature { cell, feature, n_features });
                }
                if !value.is_finite() {
                    return Err(Error::NotFinite { cell, feature, value });
                }
                least = feature + 1;
            }
        }
        Ok(cells)
    }

    /// How many cells there are.
    pub fn n_cells(&self) -> usize {
        self.row_pointers.len() - 1
    }

    /// How many features there are.
    pub fn n_features(&self) -> usize {
        self.n_features
    }

    /// A cell's features and values, in ascending order of the feature.
    pub(crate) fn cell(&self, cell: usize) -> impl Iterator<Item = (usize, f32)> + use<'a> {
        let row = self.row_pointers[cell]..self.row_pointers[cell + 1];
        let features = self.features[row.clone()].iter().map(|feature| *feature as usize);
        features.zip(self.values[row].iter().copied())
    }

    /// The cells times `n` columns: `[n_cells, n]` of `[n_features, n]`, row-major.
    pub(crate) fn times(&self, right: &[f64], n: usize) -> Vec<f64> {
        let mut product = vec![0.0; self.n_cells() * n];
        product.par_chunks_mut(n).enumerate().for_each(|(cell, row)| {
            for (feature, value) in self.cell(cell) {
                add(row, f64::from(value), &right[feature * n..][..n]);
            }
        });
        product
    }

    /// The cells with only some of their features, given in ascending order, which are numbered anew.
    pub(crate) fn keeping(&self, features: &[usize]) -> KeptFeatures {
        let mut numbers = vec![None; self.n_features];
        for (number, &feature) in features.iter().enumerate() {
            numbers[feature] = Some(number as u32);
        }
        let mut kept = KeptFeatures {
            row_pointers: vec![0],
            features: Vec::new(),
            values: Vec::new(),
            n_features: features.len(),
        };
        for cell in 0..self.n_cells() {
            for (feature, value) in self.cell(cell) {
                if let Some(number) = numbers[feature] {
                    kept.features.push(number);
                    kept.values.push(value);
                }
            }
            kept.row_pointers.push(kept.values.len());
        }
        kept
    }

    /// The same cells by feature.
    pub(crate) fn transposed(&self) -> SparseFeatures {
        let mut starts = vec![0; self.n_features + 1];
        for feature in self.features {
            starts[*feature as usize + 1] += 1;
        }
        for at in 0..self.n_features {
            starts[at + 1] += starts[at];
        }
        let mut next = starts.clone();
        let (mut cells, mut values) = (vec![0; self.values.len()], vec![0.0; self.values.len()]);
        for cell in 0..self.n_cells() {
            for (feature, value) in self.cell(cell) {
                let at = next[feature];
                (cells[at], values[at]) = (cell as u32, value);
                next[feature] += 1;
            }
        }
        SparseFeatures { starts, cells, values }
    }
}

/// Cells with some of their features only.
#[derive(Debug)]
pub(crate) struct KeptFeatures {
    row_pointers: Vec<usize>,
    features: Vec<u32>,
    values: Vec<f32>,
    n_features: usize,
}

impl KeptFeatures {
    pub(crate) fn cells(&self) -> SparseCells<'_> {
        let Self { row_pointers, features, values, n_features } = self;
        SparseCells { row_pointers, features, values, n_features: *n_features }
    }
}

/// Features as columns of the cells that have them (CSC).
#[derive(Debug)]
pub(crate) struct SparseFeatures {
    starts: Vec<usize>,
    cells: Vec<u32>,
    values: Vec<f32>,
}

impl SparseFeatures {
    pub(crate) fn n_features(&self) -> usize {
        self.starts.len() - 1
    }

    /// A feature's cells and values, in ascending order of the cell.
    pub(crate) fn feature(&self, feature: usize) -> impl Iterator<Item = (usize, f32)> {
        let column = self.starts[feature]..self.starts[feature + 1];
        let cells = self.cells[column.clone()].iter().map(|cell| *cell as usize);
        cells.zip(self.values[column].iter().copied())
    }

    /// The features times `n` columns: `[n_features, n]` of `[n_cells, n]`, row-major. Each sum runs over the cells in
    /// their order, on whatever thread.
    pub(crate) fn times(&self, right: &[f64], n: usize) -> Vec<f64> {
        let mut product = vec![0.0; self.n_features() * n];
        product.par_chunks_mut(n).enumerate().for_each(|(feature, row)| {
            for (cell, value) in self.feature(feature) {
                add(row, f64::from(value), &right[cell * n..][..n]);
            }
        });
        product
    }
}

/// Adds a multiple of one row to another.
pub(crate) fn add(row: &mut [f64], factor: f64, other: &[f64]) {
    for (sum, x) in row.iter_mut().zip(other) {
        *sum += factor * x;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_and_features_multiply_as_the_matrix_they_stand_for() {
        // [[1, 0, 2], [0, 0, 0], [0, 3, 0]]
        let cells = SparseCells::new(&[0, 2, 2, 3], &[0, 2, 1], &[1.0, 2.0, 3.0], 3).unwrap();
        assert_eq!(cells.times(&[1.0, 10.0, 2.0, 20.0, 3.0, 30.0], 2), [7.0, 70.0, 0.0, 0.0, 6.0, 60.0]);
        assert_eq!(cells.transposed().times(&[1.0, 5.0, 7.0], 1), [1.0, 21.0, 2.0]);
        assert_eq!(cells.keeping(&[1, 2]).cells().times(&[10.0, 1.0], 1), [2.0, 0.0, 30.0]);
    }

    #[test]
    fn broken_rows_are_refused_with_their_place() {
        let new = SparseCells::new;
        assert!(matches!(new(&[], &[], &[], 3), Err(Error::BadRowPointers { .. })));
        assert!(matches!(new(&[0, 2], &[0], &[1.0], 3), Err(Error::BadRowPointers { to: 2, .. })));
        assert!(matches!(
            new(&[0, 2, 1, 2], &[0, 1], &[1.0, 1.0], 3),
            Err(Error::BadRowPointers { row: 1, from: 2, to: 1, n_values: 2 })
        ));
        assert!(matches!(
            new(&[0, 9, 1], &[0], &[1.0], 3),
            Err(Error::BadRowPointers { row: 0, from: 0, to: 9, n_values: 1 })
        ));
        assert!(matches!(new(&[0, 1], &[0, 1], &[1.0], 3), Err(Error::LengthMismatch { .. })));
        for features in [[1, 1], [1, 0], [0, 3]] {
            let found = SparseCells::new(&[0, 2], &features, &[1.0, 1.0], 3);
            assert!(matches!(found, Err(Error::BadFeature { cell: 0, n_features: 3, .. })), "{features:?}");
        }
        let found = new(&[0, 0, 1], &[2], &[f32::NAN], 3);
        assert!(matches!(found, Err(Error::NotFinite { cell: 1, feature: 2, .. })));
    }
}
