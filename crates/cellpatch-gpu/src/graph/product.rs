//! Products of a sparse matrix with a dense one, in both directions.

use cubecl::prelude::*;

use super::lists::{WeightedLists, weighted_sums};
use crate::buffer::Buffer;

/// One compressed direction: of each major index, its entries in order of the minor index.
#[derive(Debug, Clone)]
struct Compressed {
    n_minors: usize,
    starts: Buffer<u32>,
    indices: Buffer<u32>,
    values: Buffer<f32>,
}

impl Compressed {
    fn new<'a, R: Runtime>(
        client: &ComputeClient<R>,
        n_minors: usize,
        majors: impl Iterator<Item = (&'a [u32], &'a [f32])>,
    ) -> Self {
        let (mut starts, mut indices, mut values) = (vec![0], Vec::new(), Vec::new());
        for (minors, entries) in majors {
            indices.extend_from_slice(minors);
            values.extend_from_slice(entries);
            starts.push(indices.len() as u32);
        }
        Self {
            n_minors,
            starts: Buffer::of(client, &starts),
            indices: Buffer::of(client, &indices),
            values: Buffer::of(client, &values),
        }
    }
}

/// A sparse matrix on a device, compressed by rows and by columns. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct SparseMatrix {
    by_row: Compressed,
    by_column: Compressed,
}

impl SparseMatrix {
    /// A copy of the matrix.
    ///
    /// # Panics
    ///
    /// If it has 2^32 entries or more.
    pub fn new<R: Runtime>(
        client: &ComputeClient<R>,
        matrix: &cellpatch_kernels::sparse::SparseMatrix,
    ) -> Self {
        let (n_rows, n_columns) = (matrix.n_rows(), matrix.n_columns());
        assert!(u32::try_from(matrix.n_entries()).is_ok(), "{} entries", matrix.n_entries());
        Self {
            by_row: Compressed::new(client, n_columns, (0..n_rows).map(|row| matrix.row(row))),
            by_column: Compressed::new(client, n_rows, (0..n_columns).map(|column| matrix.column(column))),
        }
    }

    /// The product with a dense matrix.
    ///
    /// - dense: [columns, width]
    /// - output: [rows, width]
    ///
    /// # Panics
    ///
    /// If the dense matrix has another number of elements.
    pub fn multiply<R: Runtime>(
        &self,
        client: &ComputeClient<R>,
        dense: &Buffer<f32>,
        width: usize,
    ) -> Buffer<f32> {
        product(client, &self.by_row, dense, width)
    }

    /// The product of the transpose with a dense matrix.
    ///
    /// - dense: [rows, width]
    /// - output: [columns, width]
    ///
    /// # Panics
    ///
    /// If the dense matrix has another number of elements.
    pub fn transposed_multiply<R: Runtime>(
        &self,
        client: &ComputeClient<R>,
        dense: &Buffer<f32>,
        width: usize,
    ) -> Buffer<f32> {
        product(client, &self.by_column, dense, width)
    }
}

fn product<R: Runtime>(
    client: &ComputeClient<R>,
    sparse: &Compressed,
    dense: &Buffer<f32>,
    width: usize,
) -> Buffer<f32> {
    assert_eq!(dense.len(), sparse.n_minors * width, "elements of the dense matrix");
    let Compressed { starts, indices, values, .. } = sparse;
    let lists = WeightedLists { starts, rows: indices, places: None, weights: values };
    weighted_sums(client, lists, dense, width, false)
}
