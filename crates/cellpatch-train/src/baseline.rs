//! The yardstick of a pretraining loss: predicting every gene's training mean.

use cellpatch_data::{Loader, MaskedBatch};

use crate::Result;

/// At most this many training cells are masked to find the means.
const ENOUGH_CELLS: usize = 200_000;

/// Small data sets are masked up to this many times over, so that rare genes are drawn often enough.
const MOST_PASSES: u64 = 10;

/// Masks of the baseline come from epochs far above those of any training, so that it never sees a training mask.
const FIRST_EPOCH: u64 = 1 << 40;

/// Each gene's mean over the targets that masking draws from the training cells, zeros included, in log1p units.
///
/// It is the best prediction that knows the gene and nothing of the cell: what a model has to beat before it has
/// learned anything about cells.
#[derive(Debug, Clone)]
pub struct GeneMeans {
    means: Vec<f32>,
    overall: f32,
}

impl GeneMeans {
    /// Masks the training cells and averages their targets, gene by gene.
    ///
    /// - `capacity`: rows of the gene embedding, above every token of the data.
    ///
    /// # Errors
    /// Those of the loader.
    pub fn of_targets(training: &Loader, capacity: usize) -> Result<Self> {
        let n_cells = training.n_cells().max(1);
        let passes = (ENOUGH_CELLS / n_cells).clamp(1, MOST_PASSES as usize) as u64;
        let mut sums = vec![0.0_f64; capacity];
        let mut counts = vec![0_u32; capacity];
        let mut cells = 0;
        'passes: for pass in 0..passes {
            for batch in training.epoch(FIRST_EPOCH + pass, 0) {
                let batch = batch?;
                for (&gene, &value) in batch.target_genes.iter().zip(&batch.target_values) {
                    sums[gene as usize] += f64::from(value);
                    counts[gene as usize] += 1;
                }
                cells += batch.n_cells();
                if cells >= ENOUGH_CELLS {
                    break 'passes;
                }
            }
        }
        let n_targets = counts.iter().map(|&count| f64::from(count)).sum::<f64>().max(1.0);
        let overall = (sums.iter().sum::<f64>() / n_targets) as f32;
        let mean =
            |(&sum, &count): (&f64, &u32)| if count == 0 { overall } else { (sum / f64::from(count)) as f32 };
        Ok(Self { means: sums.iter().zip(&counts).map(mean).collect(), overall })
    }

    /// The prediction for a gene; the mean of all genes for one that no training cell measured.
    pub fn mean(&self, gene: u32) -> f32 {
        self.means.get(gene as usize).copied().unwrap_or(self.overall)
    }

    /// Sum of squared errors over a batch's targets.
    pub fn squared_error(&self, batch: &MaskedBatch) -> f64 {
        let error = |(&gene, &value): (&u32, &f32)| f64::from(value - self.mean(gene)).powi(2);
        batch.target_genes.iter().zip(&batch.target_values).map(error).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cellpatch_data::synthetic::{SyntheticConfig, write_h5ad};
    use cellpatch_data::{LoaderOptions, ShardOptions, Split, write_shards};
    use std::sync::Arc;

    #[test]
    fn no_constant_per_gene_beats_the_means_on_the_cells_they_come_from() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cells.h5ad");
        write_h5ad(&SyntheticConfig { n_cells: 300, ..Default::default() }, &file).unwrap();
        let shards =
            write_shards(&[file], &folder.path().join("shards"), &ShardOptions::default(), &mut |_| {})
                .unwrap();
        let shards = Arc::new(shards);
        let split = Split::random(&shards, 0.2, 1).unwrap();
        let loader = Loader::new(Arc::clone(&shards), split.train, LoaderOptions::default()).unwrap();
        let means = GeneMeans::of_targets(&loader, 2_001).unwrap();
        let moved = GeneMeans { means: means.means.iter().map(|mean| mean + 0.1).collect(), ..means.clone() };
        let overall = GeneMeans { means: vec![means.overall; 2_001], ..means.clone() };
        let error = |means: &GeneMeans| -> f64 {
            loader.epoch(FIRST_EPOCH, 0).map(|batch| means.squared_error(&batch.unwrap())).sum()
        };
        assert!(error(&means) < error(&moved) && error(&means) < error(&overall));
        assert_eq!(means.mean(9_999), means.overall, "a gene nobody measured");
    }
}
