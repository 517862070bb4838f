//! Which genes the patches attend in cells of each class.

use std::collections::HashMap;

use cellpatch_data::ExpressionBatch;
use cellpatch_model::{Encoder, ModelBackend};

use crate::Result;
use crate::features::padded;

/// Cells computed at a time: their attention maps are held in memory.
const CELLS: usize = 16;

/// How much a gene is attended in the cells of one class.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct GeneAttention {
    /// Cells of the class that express the gene.
    pub n_expressing: usize,
    /// Mean over these cells of the attention to the gene, averaged over patches and heads, in units of the cell's average
    /// gene: 1 is neither more nor less than others.
    pub mean: f64,
}

/// Attention of the cross block to genes, class by class (paper, Supplementary Fig. 7).
#[derive(Debug, Clone, Default)]
pub struct AttentionByClass {
    n_cells: Vec<usize>,
    /// Number of cells and sum by (gene token, class).
    sums: HashMap<(u32, u32), (usize, f64)>,
}

impl AttentionByClass {
    /// Nothing seen of any class yet.
    pub fn new(n_classes: usize) -> Self {
        Self { n_cells: vec![0; n_classes], sums: HashMap::new() }
    }

    /// Cells seen of each class.
    pub fn n_cells(&self) -> &[usize] {
        &self.n_cells
    }

    /// Adds cells.
    ///
    /// - classes: of each cell, below the number of classes; cells without one are passed over
    ///
    /// # Errors
    /// Those of the model's input checks.
    pub fn add<B: ModelBackend>(
        &mut self,
        encoder: &Encoder<B>,
        cells: &ExpressionBatch,
        classes: &[Option<u32>],
        device: &B::Device,
    ) -> Result<()> {
        let mut known: Vec<(usize, u32)> =
            classes.iter().enumerate().filter_map(|(cell, class)| Some((cell, (*class)?))).collect();
        known.sort_by_key(|&(cell, _)| (cells.offsets[cell + 1] - cells.offsets[cell], cell));
        for group in known.chunks(CELLS) {
            let part = cells.select(&group.iter().map(|&(cell, _)| cell).collect::<Vec<_>>());
            // [cells, 1, genes]: the mean over patches.
            let scores = encoder.cross_scores(&padded(&part, device)?).mean_dim(1);
            let [_, _, width] = scores.dims();
            let scores: Vec<f32> = scores.into_data().iter::<f32>().collect();
            for ((cell, &(_, class)), scores) in group.iter().enumerate().zip(scores.chunks_exact(width)) {
                let (genes, _) = part.cell(cell);
                self.n_cells[class as usize] += 1;
                for (&gene, &score) in genes.iter().zip(scores) {
                    let (n, sum) = self.sums.entry((gene, class)).or_default();
                    *n += 1;
                    *sum += f64::from(score) * genes.len() as f64;
                }
            }
        }
        Ok(())
    }

    /// A gene's attention in a class; 0 where no cell of it expresses the gene.
    pub fn of(&self, gene: u32, class: u32) -> GeneAttention {
        match self.sums.get(&(gene, class)) {
            Some(&(n_expressing, sum)) => GeneAttention { n_expressing, mean: sum / n_expressing as f64 },
            None => GeneAttention::default(),
        }
    }

    /// Genes that any cell expresses, ascending.
    pub fn genes(&self) -> Vec<u32> {
        let mut genes: Vec<u32> = self.sums.keys().map(|&(gene, _)| gene).collect();
        genes.sort_unstable();
        genes.dedup();
        genes
    }

    /// The genes of a class that are attended most beyond what they are in the other classes, the first most. Only genes that
    /// at least a tenth of the class's cells express count.
    pub fn top(&self, class: u32, n_genes: usize) -> Vec<(u32, f64)> {
        let n_cells = self.n_cells.get(class as usize).copied().unwrap_or(0);
        let others: Vec<u32> =
            (0..self.n_cells.len() as u32).filter(|&c| c != class && self.n_cells[c as usize] > 0).collect();
        let expressed = |gene: &u32| 10 * self.of(*gene, class).n_expressing >= n_cells.max(1);
        let mut ranked: Vec<(u32, f64)> = (self.genes().into_iter().filter(expressed))
            .map(|gene| {
                let elsewhere: f64 = others.iter().map(|&class| self.of(gene, class).mean).sum();
                let mean = self.of(gene, class).mean;
                (gene, mean - elsewhere / others.len().max(1) as f64)
            })
            .collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        ranked.truncate(n_genes);
        ranked.into_iter().map(|(gene, _)| (gene, self.of(gene, class).mean)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::Flex;
    use cellpatch_model::Preset;

    #[test]
    fn attention_over_a_cell_averages_to_one() {
        let device = Default::default();
        let model = Preset::Tiny.config().init::<Flex>(&device);
        let cells = ExpressionBatch {
            rows: vec![0, 1, 2],
            offsets: vec![0, 4, 5, 8],
            genes: vec![3, 9, 20, 41, 7, 3, 9, 12],
            values: vec![1.0, 0.5, 2.0, 0.1, 3.0, 1.0, 1.0, 0.2],
        };
        let mut attention = AttentionByClass::new(2);
        attention.add(model.encoder(), &cells, &[Some(0), None, Some(1)], &device).unwrap();
        assert_eq!(attention.n_cells(), [1, 1]);
        assert_eq!(attention.genes(), [3, 9, 12, 20, 41]);
        let of_first: f64 = [3, 9, 20, 41].iter().map(|&gene| attention.of(gene, 0).mean).sum();
        assert!((of_first / 4.0 - 1.0).abs() < 1e-5, "{of_first}");
        assert_eq!(attention.of(20, 1), GeneAttention::default());
        assert_eq!(attention.top(0, 9).len(), 4);
    }
}
