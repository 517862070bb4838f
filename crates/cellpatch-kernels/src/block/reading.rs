//! Many spots read one table of genes by the same queries: the first block of CellPatch over a slice.
//!
//! Queries are the same for every spot and a gene's key is affine in its expression, so a score is an element of a table plus
//! the value times one number for each query: no key is made and no product of query and key. Values are affine, too: what is
//! gathered is a sum of table rows plus a multiple of one row.
//!
//! Where a spot is given all genes, zeros included, a gene that is zero has the same score and the same value for every spot.
//! The sum over all genes at zero is made once; a spot puts right what its non-zeros change. On the way back the zeros'
//! gradient is a product of what belongs to the gene and what belongs to the spot, so it is summed over spots first. All
//! of it is exact; where a spot's non-zeros outweigh the rest so far that the correction would lose digits, its genes are read
//! one by one.

mod backward;
mod forward;
mod panel;
mod tables;

pub use self::backward::{ReadingGradients, read_genes_backward};
pub use self::forward::{KeptReading, read_genes};

use super::{BlockShape, BlockWeights, Prepared};
use crate::sparse::SparseMatrix;

/// Whether genes that a spot does not express are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zeros {
    /// Only the non-zeros are read; a spot without any reads the padding token.
    LeftOut,
    /// Every gene is read with its value, as the authors' code does.
    Read,
}

/// Spots in front of the first block.
#[derive(Debug, Clone, Copy)]
pub struct ReadingInput<'a> {
    /// log1p-normalised: [spots, genes].
    pub expression: &'a SparseMatrix,
    /// What is read.
    pub zeros: Zeros,
    /// Patch tokens: [queries, d].
    pub queries: &'a [f32],
    /// Embedding of each gene at expression 0, and of the padding token: [genes + 1, d].
    pub embeddings: &'a [f32],
    /// What one unit of expression adds to an embedding: `[d]`.
    pub slope: &'a [f32],
}

impl ReadingInput<'_> {
    fn n_queries(&self, shape: &BlockShape) -> usize {
        self.queries.len() / shape.embedding_dim
    }

    /// Whether the zeros' part is made once for all spots: dropout draws for each spot anew.
    fn shares_zeros(&self, shape: &BlockShape) -> bool {
        self.zeros == Zeros::Read && shape.dropout == 0.0
    }

    fn check(&self, shape: &BlockShape) {
        let d = shape.embedding_dim;
        assert_eq!(
            self.embeddings.len(),
            (self.expression.n_columns() + 1) * d,
            "elements of the embeddings"
        );
        assert_eq!(self.slope.len(), d, "elements of the slope");
        assert!(self.queries.len().is_multiple_of(d), "elements of the queries");
    }
}

/// Genes of one spot, and their values.
#[derive(Debug, Default)]
struct Tokens {
    genes: Vec<u32>,
    values: Vec<f32>,
}

impl Tokens {
    /// Every gene of a spot with its value.
    fn every_gene(&mut self, expression: &SparseMatrix, spot: usize) {
        self.genes.clear();
        self.genes.extend(0..expression.n_columns() as u32);
        self.values.clear();
        self.values.resize(expression.n_columns(), 0.0);
        let (genes, values) = expression.row(spot);
        for (&gene, &value) in genes.iter().zip(values) {
            self.values[gene as usize] = value;
        }
    }

    /// A spot's non-zeros, or the padding token where it has none.
    fn non_zeros(&mut self, expression: &SparseMatrix, spot: usize) {
        let (genes, values) = expression.row(spot);
        self.genes.clear();
        self.genes.extend_from_slice(genes);
        self.values.clear();
        self.values.extend_from_slice(values);
        if genes.is_empty() {
            self.genes.push(expression.n_columns() as u32);
            self.values.push(0.0);
        }
    }
}

/// Spots in equal parts: of a number that does not depend on the number of threads.
fn spots_of_a_part(n_spots: usize, elements_of_a_part: usize) -> usize {
    const PARTS: usize = 16;
    const ELEMENTS: usize = 16 << 20;
    let n_parts = (ELEMENTS / elements_of_a_part.max(1)).clamp(2, PARTS);
    n_spots.div_ceil(n_parts).max(1)
}

#[cfg(test)]
mod tests;
