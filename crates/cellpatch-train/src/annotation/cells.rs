//! Labelled cells on their way to the model.

use std::sync::Arc;

use cellpatch_data::{ExpressionBatch, Loader};

use crate::batches::{Batch, BatchIterator, BatchSource, mix};

/// Cells with their classes.
#[derive(Debug, Clone)]
pub struct LabelledBatch {
    /// The cells.
    pub cells: ExpressionBatch,
    /// The class of each.
    pub classes: Vec<u32>,
}

impl LabelledBatch {
    /// The classes of some cells, by row of the shard set.
    pub(super) fn new(cells: ExpressionBatch, class_of_row: &[Option<u32>]) -> Self {
        // Only rows with a class are ever selected.
        let class = |&row: &u64| class_of_row.get(row as usize).copied().flatten().unwrap_or_default();
        Self { classes: cells.rows.iter().map(class).collect(), cells }
    }
}

/// Labelled cells of a loader; epoch 0, which is validation, with all their genes, others with some left out at random.
#[derive(Debug, Clone)]
pub struct LabelledCells {
    pub(super) loader: Arc<Loader>,
    pub(super) class_of_row: Arc<[Option<u32>]>,
    pub(super) gene_dropout: f32,
    pub(super) seed: u64,
}

/// A batch of labelled cells and its dropout.
pub(super) type SeededBatch = Batch<LabelledBatch>;

impl BatchSource for LabelledCells {
    type Cells = LabelledBatch;

    fn n_batches(&self) -> usize {
        self.loader.n_batches()
    }

    fn n_cells(&self) -> usize {
        self.loader.n_cells()
    }

    fn read(&self, epoch: u64, first_batch: usize) -> BatchIterator<'_, LabelledBatch> {
        let dropout = if epoch == 0 { 0.0 } else { self.gene_dropout };
        let seed = mix(self.seed ^ mix(epoch));
        Box::new(self.loader.expressions(epoch, first_batch).map(move |cells| {
            let cells = cells?;
            let cells = if dropout > 0.0 { without_some_genes(&cells, dropout, seed) } else { cells };
            Ok(LabelledBatch::new(cells, &self.class_of_row))
        }))
    }

    fn cells_in(cells: &LabelledBatch) -> usize {
        cells.cells.n_cells()
    }
}

/// Leaves every gene of every cell out with a probability, but never all genes of a cell. What is left out depends on the
/// seed, the row and the gene alone.
fn without_some_genes(cells: &ExpressionBatch, dropout: f32, seed: u64) -> ExpressionBatch {
    let mut left = ExpressionBatch { rows: cells.rows.clone(), offsets: vec![0], ..Default::default() };
    let threshold = (f64::from(dropout) * 2.0_f64.powi(64)) as u64;
    for (cell, &row) in cells.rows.iter().enumerate() {
        let of_row = mix(seed ^ mix(row));
        let (genes, values) = cells.cell(cell);
        let before = left.genes.len();
        for (&gene, &value) in genes.iter().zip(values) {
            if mix(of_row ^ u64::from(gene)) >= threshold {
                left.genes.push(gene);
                left.values.push(value);
            }
        }
        if left.genes.len() == before
            && let (Some(&gene), Some(&value)) = (genes.first(), values.first())
        {
            left.genes.push(gene);
            left.values.push(value);
        }
        left.offsets.push(left.genes.len());
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_the_asked_share_of_genes_is_left_out_and_never_all() {
        let n_genes = 2_000_usize;
        let cells = ExpressionBatch {
            rows: vec![4, 9, 11],
            offsets: vec![0, n_genes, 2 * n_genes, 2 * n_genes + 1],
            genes: (1..=n_genes as u32).chain(1..=n_genes as u32).chain([7]).collect(),
            values: vec![1.5; 2 * n_genes + 1],
        };
        let left = without_some_genes(&cells, 0.3, 5);
        assert_eq!(left, without_some_genes(&cells, 0.3, 5));
        let share = left.offsets[1] as f64 / n_genes as f64;
        assert!((0.65..0.75).contains(&share), "{share}");
        assert_ne!(left.cell(0).0, left.cell(1).0, "each cell loses other genes");
        assert_ne!(left.cell(0).0, without_some_genes(&cells, 0.3, 6).cell(0).0);
        assert_eq!(without_some_genes(&cells, 0.999, 5).cell(2), (&[7][..], &[1.5][..]));
    }
}
