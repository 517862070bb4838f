//! Products of a sparse matrix with a dense one, in both directions.
//!
//! The dense matrix is packed into panels of columns that fit into a core's second cache; a row's sums stay in registers
//! while the panel's rows come by. Each output row is one task's and its terms are added in order of columns: the same bits
//! whatever the number of threads.

use rayon::prelude::*;

use crate::simd::{Instructions, Simd, Vectorized, dispatch};

/// Columns of a panel: 3,000 rows of them are 768 KB.
const PANEL: usize = 64;
/// Rows of the sparse matrix that one task multiplies.
const ROWS: usize = 64;

/// One compressed direction of a sparse matrix: of each major index, its entries in order of the minor index.
#[derive(Debug, Clone, PartialEq)]
struct Compressed {
    starts: Vec<usize>,
    indices: Vec<u32>,
    values: Vec<f32>,
}

impl Compressed {
    fn entries(&self, major: usize) -> (&[u32], &[f32]) {
        let range = self.starts[major]..self.starts[major + 1];
        (&self.indices[range.clone()], &self.values[range])
    }

    /// The other direction, by a counting sort: entries stay in the order of the major index.
    fn transposed(&self, n_minor: usize) -> Self {
        let mut starts = vec![0_usize; n_minor + 1];
        for &minor in &self.indices {
            starts[minor as usize + 1] += 1;
        }
        for minor in 0..n_minor {
            starts[minor + 1] += starts[minor];
        }
        let mut next = starts.clone();
        let (mut indices, mut values) = (vec![0; self.indices.len()], vec![0.0; self.values.len()]);
        for major in 0..self.starts.len() - 1 {
            let (minors, entries) = self.entries(major);
            for (&minor, &value) in minors.iter().zip(entries) {
                let position = &mut next[minor as usize];
                indices[*position] = major as u32;
                values[*position] = value;
                *position += 1;
            }
        }
        Self { starts, indices, values }
    }
}

/// A sparse matrix, compressed by rows and by columns.
#[derive(Debug, Clone, PartialEq)]
pub struct SparseMatrix {
    n_rows: usize,
    n_columns: usize,
    by_row: Compressed,
    by_column: Compressed,
}

impl SparseMatrix {
    /// A matrix of the entries of each row.
    ///
    /// - starts: where each row's entries begin, and where the last's end: [rows + 1]
    /// - columns: of each entry, strictly ascending within a row
    /// - values: of each entry
    /// - output: `None` where that does not hold
    pub fn new(starts: Vec<usize>, columns: Vec<u32>, values: Vec<f32>, n_columns: usize) -> Option<Self> {
        let n_rows = starts.len().checked_sub(1)?;
        let ends = starts[0] == 0 && starts[n_rows] == columns.len() && columns.len() == values.len();
        if !ends || !starts.is_sorted() {
            return None;
        }
        let ascending = starts.windows(2).all(|row| {
            let row = &columns[row[0]..row[1]];
            row.is_sorted_by(|a, b| a < b) && row.last().is_none_or(|&last| (last as usize) < n_columns)
        });
        let by_row = Compressed { starts, indices: columns, values };
        ascending.then(|| Self { n_rows, n_columns, by_column: by_row.transposed(n_columns), by_row })
    }

    /// Rows.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Columns.
    pub fn n_columns(&self) -> usize {
        self.n_columns
    }

    /// Entries.
    pub fn n_entries(&self) -> usize {
        self.by_row.values.len()
    }

    /// Columns and values of a row's entries.
    pub fn row(&self, row: usize) -> (&[u32], &[f32]) {
        self.by_row.entries(row)
    }

    /// Rows and values of a column's entries.
    pub fn column(&self, column: usize) -> (&[u32], &[f32]) {
        self.by_column.entries(column)
    }

    /// The product with a dense matrix.
    ///
    /// - dense: [columns, width], row-major
    /// - output: [rows, width]
    pub fn multiply(&self, dense: &[f32], width: usize, instructions: Instructions) -> Vec<f32> {
        assert_eq!(dense.len(), self.n_columns * width, "elements of the dense matrix");
        product(&self.by_row, self.n_rows, dense, width, instructions)
    }

    /// The product of the transpose with a dense matrix.
    ///
    /// - dense: [rows, width], row-major
    /// - output: [columns, width]
    pub fn transposed_multiply(&self, dense: &[f32], width: usize, instructions: Instructions) -> Vec<f32> {
        assert_eq!(dense.len(), self.n_rows * width, "elements of the dense matrix");
        product(&self.by_column, self.n_columns, dense, width, instructions)
    }
}

fn product(
    sparse: &Compressed,
    n_majors: usize,
    dense: &[f32],
    width: usize,
    instructions: Instructions,
) -> Vec<f32> {
    let panels = packed(dense, width);
    let panel_len = panels.len() / width.div_ceil(PANEL).max(1);
    let mut output = vec![0.0; n_majors * width];
    output.par_chunks_mut(ROWS * width.max(1)).enumerate().for_each(|(chunk, output)| {
        let first = chunk * ROWS;
        dispatch(instructions, Rows { sparse, first, panels: &panels, panel_len, width, output });
    });
    output
}

/// [rows, width] as panels [panels, rows, PANEL], the last filled up with zeros.
fn packed(dense: &[f32], width: usize) -> Vec<f32> {
    let n_rows = dense.len() / width.max(1);
    let mut panels = vec![0.0; width.div_ceil(PANEL) * n_rows * PANEL];
    panels.par_chunks_mut((n_rows * PANEL).max(1)).enumerate().for_each(|(panel, rows)| {
        let first = panel * PANEL;
        let n = PANEL.min(width - first);
        for (packed, row) in rows.chunks_exact_mut(PANEL).zip(dense.chunks_exact(width)) {
            packed[..n].copy_from_slice(&row[first..first + n]);
        }
    });
    panels
}

struct Rows<'a> {
    sparse: &'a Compressed,
    first: usize,
    panels: &'a [f32],
    panel_len: usize,
    width: usize,
    output: &'a mut [f32],
}

impl Vectorized for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, const K: usize, const Q: usize>(self) {
        // As many vectors as a panel has: 4 of 16 lanes, 8 of 8.
        if S::LANES == 16 { self.panels::<S, 4>() } else { self.panels::<S, 8>() }
    }
}

impl Rows<'_> {
    #[inline(always)]
    fn panels<S: Simd, const V: usize>(self) {
        let Self { sparse, first, panels, panel_len, width, output } = self;
        for (panel, rows) in panels.chunks_exact(panel_len).enumerate() {
            let (rows, column) = (rows.as_chunks::<PANEL>().0, panel * PANEL);
            for (row, output) in output.chunks_exact_mut(width).enumerate() {
                let (indices, values) = sparse.entries(first + row);
                let mut sums = [S::splat(0.0); V];
                for (&index, &value) in indices.iter().zip(values) {
                    let (row, value) = (&rows[index as usize], S::splat(value));
                    for vector in 0..V {
                        sums[vector] = S::fma(value, S::load(&row[vector * S::LANES..]), sums[vector]);
                    }
                }
                let mut elements = [0.0; PANEL];
                for vector in 0..V {
                    S::store(sums[vector], &mut elements[vector * S::LANES..]);
                }
                let n = PANEL.min(width - column);
                output[column..column + n].copy_from_slice(&elements[..n]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(n_rows: usize, n_columns: usize) -> (SparseMatrix, Vec<f32>) {
        let mut dense = vec![0.0; n_rows * n_columns];
        let (mut starts, mut columns, mut values) = (vec![0], Vec::new(), Vec::new());
        for row in 0..n_rows {
            for column in 0..n_columns {
                // Row 2 has no entry, and neither has column 3.
                if row != 2 && column != 3 && (row * 31 + column * 17) % 5 == 0 {
                    let value = ((row * 7 + column * 3) % 11) as f32 - 4.5;
                    dense[row * n_columns + column] = value;
                    columns.push(column as u32);
                    values.push(value);
                }
            }
            starts.push(columns.len());
        }
        (SparseMatrix::new(starts, columns, values, n_columns).unwrap(), dense)
    }

    #[test]
    fn products_are_those_of_the_dense_matrix() {
        for (n_rows, n_columns, width) in [(1, 1, 1), (5, 9, 3), (130, 77, 64), (70, 200, 130)] {
            let (sparse, dense) = matrix(n_rows, n_columns);
            let numbers = |n: usize| (0..n).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect::<Vec<_>>();
            let (right, left) = (numbers(n_columns * width), numbers(n_rows * width));
            for instructions in Instructions::available() {
                let product = sparse.multiply(&right, width, instructions);
                let back = sparse.transposed_multiply(&left, width, instructions);
                for c in 0..width {
                    for row in 0..n_rows {
                        let terms = (0..n_columns).map(|k| dense[row * n_columns + k] * right[k * width + c]);
                        assert!((product[row * width + c] - terms.sum::<f32>()).abs() < 1e-4);
                    }
                    for column in 0..n_columns {
                        let terms = (0..n_rows).map(|k| dense[k * n_columns + column] * left[k * width + c]);
                        assert!((back[column * width + c] - terms.sum::<f32>()).abs() < 1e-4);
                    }
                }
            }
        }
    }

    #[test]
    fn entries_out_of_order_or_out_of_bounds_are_no_matrix() {
        let matrix = |starts: &[usize], columns: &[u32]| {
            SparseMatrix::new(starts.to_vec(), columns.to_vec(), vec![1.0; columns.len()], 3)
        };
        assert!(matrix(&[0, 2], &[0, 2]).is_some());
        assert!(matrix(&[0, 2], &[2, 0]).is_none());
        assert!(matrix(&[0, 2], &[1, 1]).is_none());
        assert!(matrix(&[0, 1], &[3]).is_none());
        assert!(matrix(&[0, 2, 1], &[0]).is_none());
        assert!(matrix(&[], &[]).is_none());
    }
}
