//! What spots express.

use std::sync::Arc;

use cellpatch_kernels::sparse::SparseMatrix;

use crate::error::{Error, Result};
use crate::resident::Resident;

/// log1p-normalised expression of the genes of a slice: [spots, genes], sparse. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Expression {
    matrix: Arc<Resident<SparseMatrix>>,
}

impl Expression {
    /// Of the non-zeros of each spot.
    ///
    /// - starts: where each spot's entries begin, and where the last's end: [spots + 1]
    /// - genes: column of each entry, strictly ascending within a spot
    /// - values: of each entry, log1p-normalised
    ///
    /// # Errors
    ///
    /// [`Error::BadExpression`] if lists are out of order or a value is not finite.
    pub fn from_sparse(
        starts: Vec<usize>,
        genes: Vec<u32>,
        values: Vec<f32>,
        n_genes: usize,
    ) -> Result<Self> {
        let n_spots = starts.len().saturating_sub(1);
        let bad = |reason| Error::BadExpression { n_spots, n_genes, reason };
        if !values.iter().all(|value| value.is_finite()) {
            return Err(bad("a value is not finite"));
        }
        let matrix = SparseMatrix::new(starts, genes, values, n_genes);
        let matrix = matrix.ok_or_else(|| bad("its lists are out of order or out of bounds"))?;
        Ok(Self { matrix: Arc::new(Resident::new(matrix)) })
    }

    /// Of every value, zeros included.
    ///
    /// - values: [spots, genes], row-major
    ///
    /// # Errors
    ///
    /// [`Error::BadExpression`] if they are no rows of genes or a value is not finite.
    pub fn from_dense(values: &[f32], n_genes: usize) -> Result<Self> {
        if n_genes == 0 || !values.len().is_multiple_of(n_genes) {
            let reason = "its values are no rows of genes";
            return Err(Error::BadExpression { n_spots: 0, n_genes, reason });
        }
        let (mut starts, mut genes, mut kept) = (vec![0], Vec::new(), Vec::new());
        for row in values.chunks_exact(n_genes) {
            for (gene, &value) in row.iter().enumerate().filter(|entry| *entry.1 != 0.0) {
                genes.push(gene as u32);
                kept.push(value);
            }
            starts.push(genes.len());
        }
        Self::from_sparse(starts, genes, kept, n_genes)
    }

    /// Spots.
    pub fn n_spots(&self) -> usize {
        self.matrix.n_rows()
    }

    /// Genes.
    pub fn n_genes(&self) -> usize {
        self.matrix.n_columns()
    }

    /// The matrix as the kernels take it.
    pub fn matrix(&self) -> &Arc<Resident<SparseMatrix>> {
        &self.matrix
    }

    /// Some spots, in the order given.
    ///
    /// # Errors
    ///
    /// [`Error::BadGraph`] if one of them is not there.
    pub fn of_spots(&self, spots: &[u32]) -> Result<Self> {
        let n_spots = self.n_spots();
        let (mut starts, mut genes, mut values) = (vec![0], Vec::new(), Vec::new());
        for &spot in spots {
            if spot as usize >= n_spots {
                return Err(Error::BadGraph { n_spots });
            }
            let (of_spot, entries) = self.matrix.row(spot as usize);
            genes.extend_from_slice(of_spot);
            values.extend_from_slice(entries);
            starts.push(genes.len());
        }
        Self::from_sparse(starts, genes, values, self.n_genes())
    }

    /// Sum of squares over the first spots.
    pub fn sum_of_squares(&self, n_spots: usize) -> f64 {
        let squares =
            |spot| self.matrix.row(spot).1.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>();
        (0..n_spots.min(self.n_spots())).map(squares).sum()
    }

    /// Sum of each gene over the first spots.
    pub fn sums_by_gene(&self, n_spots: usize) -> Vec<f32> {
        let sum = |gene| {
            let (spots, values) = self.matrix.column(gene);
            let counted = spots.iter().zip(values).filter(|entry| (*entry.0 as usize) < n_spots);
            counted.map(|(_, &value)| f64::from(value)).sum::<f64>() as f32
        };
        (0..self.n_genes()).map(sum).collect()
    }

    /// Every value, zeros included: [spots, genes].
    pub fn to_dense(&self) -> Vec<f32> {
        let mut dense = vec![0.0; self.n_spots() * self.n_genes()];
        for (spot, row) in dense.chunks_exact_mut(self.n_genes().max(1)).enumerate() {
            let (genes, values) = self.matrix.row(spot);
            for (&gene, &value) in genes.iter().zip(values) {
                row[gene as usize] = value;
            }
        }
        dense
    }
}
