//! A batch of cells as the model takes it.

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use crate::error::{Error, Result};
use crate::lengths::GeneLengths;
use crate::tokens::GeneTokens;

/// Genes and expression values that the encoder reads, padded to the longest cell.
#[derive(Debug, Clone)]
pub struct GeneValues<B: Backend> {
    /// Gene tokens: [cells, longest], 0 where there is no gene.
    pub genes: GeneTokens<B>,
    /// log1p-normalised expression: [cells, longest], 0 where there is no gene.
    pub values: Tensor<B, 2>,
    /// True number of genes of each cell.
    pub lengths: GeneLengths,
}

/// Genes whose expression the decoder predicts, padded to the longest cell.
#[derive(Debug, Clone)]
pub struct GeneTargets<B: Backend> {
    /// Gene tokens: [cells, longest], 0 where there is no gene.
    pub genes: GeneTokens<B>,
    /// True number of targets of each cell.
    pub lengths: GeneLengths,
}

impl<B: Backend> GeneValues<B> {
    /// Pads cells into a batch.
    ///
    /// - genes: for each cell, its gene tokens (from 1)
    /// - values: for each cell, as many values, log1p-normalised
    ///
    /// # Errors
    ///
    /// [`Error::BadInput`] if a cell has not as many values as genes.
    pub fn pad(genes: &[&[u32]], values: &[&[f32]], device: &B::Device) -> Result<Self> {
        let n_genes: Vec<usize> = genes.iter().map(|cell| cell.len()).collect();
        let n_values: Vec<usize> = values.iter().map(|cell| cell.len()).collect();
        if n_genes != n_values {
            return Err(Error::BadInput {
                what: "expression values per cell",
                found: n_values,
                expected: n_genes,
            });
        }
        let lengths = GeneLengths::new(n_genes);
        Ok(Self {
            genes: pad_genes(genes, &lengths, device),
            values: pad_values(values, &lengths, device),
            lengths,
        })
    }

    /// A batch of tensors that are padded already.
    ///
    /// - genes, values: [cells, longest]
    ///
    /// # Errors
    ///
    /// [`Error::BadInput`] if shapes and lengths disagree.
    pub fn from_padded(
        genes: impl Into<GeneTokens<B>>,
        values: Tensor<B, 2>,
        lengths: GeneLengths,
    ) -> Result<Self> {
        let genes = genes.into();
        check_shape("gene tokens", genes.dims(), &lengths)?;
        check_shape("expression values", values.dims(), &lengths)?;
        Ok(Self { genes, values, lengths })
    }

    /// Cells in the batch.
    pub fn n_cells(&self) -> usize {
        self.lengths.n_cells()
    }
}

impl<B: Backend> GeneTargets<B> {
    /// Pads the target genes of cells into a batch.
    ///
    /// - genes: for each cell, its target tokens (from 1)
    pub fn pad(genes: &[&[u32]], device: &B::Device) -> Self {
        let lengths = GeneLengths::new(genes.iter().map(|cell| cell.len()).collect::<Vec<_>>());
        Self { genes: pad_genes(genes, &lengths, device), lengths }
    }

    /// Targets in a tensor that is padded already.
    ///
    /// - genes: [cells, longest]
    ///
    /// # Errors
    ///
    /// [`Error::BadInput`] if shape and lengths disagree.
    pub fn from_padded(genes: impl Into<GeneTokens<B>>, lengths: GeneLengths) -> Result<Self> {
        let genes = genes.into();
        check_shape("target tokens", genes.dims(), &lengths)?;
        Ok(Self { genes, lengths })
    }

    /// Cells in the batch.
    pub fn n_cells(&self) -> usize {
        self.lengths.n_cells()
    }
}

/// Pads one row of values per cell, 0 in the empty slots.
///
/// - values: for each cell, as many values as `lengths` says; what is missing is 0, what is too much is left out
/// - output: [cells, longest]
pub fn pad_values<B: Backend>(values: &[&[f32]], lengths: &GeneLengths, device: &B::Device) -> Tensor<B, 2> {
    let shape = [lengths.n_cells(), lengths.longest()];
    Tensor::from_data(TensorData::new(pad_rows(values, lengths), shape), device)
}

fn pad_genes<B: Backend>(genes: &[&[u32]], lengths: &GeneLengths, device: &B::Device) -> GeneTokens<B> {
    GeneTokens::new(pad_rows(genes, lengths), [lengths.n_cells(), lengths.longest()], device)
}

/// Pads one row per cell on the host, as [`pad_values`] does.
///
/// - output: [cells, longest] in row-major order
pub fn pad_rows<T: Copy + Default>(rows: &[&[T]], lengths: &GeneLengths) -> Vec<T> {
    let width = lengths.longest();
    let mut elements = vec![T::default(); lengths.n_cells() * width];
    for (slots, row) in elements.chunks_exact_mut(width).zip(rows) {
        for (slot, &value) in slots.iter_mut().zip(*row) {
            *slot = value;
        }
    }
    elements
}

fn check_shape(what: &'static str, found: [usize; 2], lengths: &GeneLengths) -> Result<()> {
    let expected = [lengths.n_cells(), lengths.longest()];
    if found == expected {
        return Ok(());
    }
    Err(Error::BadInput { what, found: found.to_vec(), expected: expected.to_vec() })
}
