//! Which cells and genes are worth keeping, as scanpy's `filter_cells` and then `filter_genes` decide.

use crate::counts::CountBlock;

/// Thresholds of quality control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QualityFilter {
    /// Cells in which fewer genes are seen are dropped.
    pub min_genes: usize,
    /// Genes seen in fewer of the kept cells are dropped.
    pub min_cells: usize,
}

impl Default for QualityFilter {
    fn default() -> Self {
        Self { min_genes: 200, min_cells: 3 }
    }
}

impl QualityFilter {
    /// Keeps everything, as inference must.
    pub const OFF: Self = Self { min_genes: 0, min_cells: 0 };

    /// Whether a cell with these counts stays.
    pub fn keeps_cell(&self, counts: &[f32]) -> bool {
        // In short sums of narrow numbers, of which several are added at a time.
        let seen = |counts: &[f32]| counts.iter().map(|&count| u32::from(count > 0.0)).sum::<u32>() as usize;
        counts.chunks(1 << 16).map(seen).sum::<usize>() >= self.min_genes
    }
}

/// One pass over a matrix that settles which cells and genes stay.
///
/// One pass is enough: whether a cell stays depends on its own genes alone, and genes are counted in cells that stay.
#[derive(Debug, Clone)]
pub struct QualityPass {
    filter: QualityFilter,
    kept_cells: Vec<bool>,
    cells_per_gene: Vec<usize>,
}

/// The outcome of quality control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quality {
    /// One per cell, in the order they were seen.
    pub kept_cells: Vec<bool>,
    /// One per gene column.
    pub kept_genes: Vec<bool>,
    /// In how many of the kept cells each gene was seen.
    pub cells_per_gene: Vec<usize>,
}

impl QualityPass {
    /// Begins a pass over a matrix of `n_genes` columns.
    pub fn new(filter: QualityFilter, n_genes: usize) -> Self {
        Self { filter, kept_cells: Vec::new(), cells_per_gene: vec![0; n_genes] }
    }

    /// Takes the next block in. Columns beyond the matrix are not counted.
    pub fn observe(&mut self, block: &CountBlock) {
        self.observe_where(block, &|_| true);
    }

    /// Takes the next block in, as if it had only the cells that are `wanted` by their row in the file, and says which of
    /// its cells stay.
    pub(crate) fn observe_where(&mut self, block: &CountBlock, wanted: &dyn Fn(usize) -> bool) -> &[bool] {
        let n_before = self.kept_cells.len();
        for index in 0..block.n_cells() {
            let (columns, counts) = block.cell(index);
            let keep = wanted(block.first_row + index) && self.filter.keeps_cell(counts);
            self.kept_cells.push(keep);
            if !keep {
                continue;
            }
            for (&column, &count) in columns.iter().zip(counts) {
                if let Some(n_cells) = self.cells_per_gene.get_mut(column as usize) {
                    *n_cells += usize::from(count > 0.0);
                }
            }
        }
        &self.kept_cells[n_before..]
    }

    /// Ends the pass.
    pub fn finish(self) -> Quality {
        Quality {
            kept_genes: self.cells_per_gene.iter().map(|&n_cells| n_cells >= self.filter.min_cells).collect(),
            kept_cells: self.kept_cells,
            cells_per_gene: self.cells_per_gene,
        }
    }
}

impl Quality {
    /// How many cells stay.
    pub fn n_kept_cells(&self) -> usize {
        self.kept_cells.iter().filter(|&&kept| kept).count()
    }

    /// How many genes stay.
    pub fn n_kept_genes(&self) -> usize {
        self.kept_genes.iter().filter(|&&kept| kept).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn genes_are_counted_in_kept_cells_only() {
        // Cells with 2, 1 and 2 genes; gene 1 is in all three, genes 0 and 2 in one kept cell each.
        let block = CountBlock {
            first_row: 0,
            offsets: vec![0, 2, 3, 5],
            columns: vec![0, 1, 1, 1, 2],
            values: vec![1.0, 2.0, 5.0, 1.0, 1.0],
        };
        let mut pass = QualityPass::new(QualityFilter { min_genes: 2, min_cells: 2 }, 3);
        pass.observe(&block);
        let quality = pass.finish();
        assert_eq!(quality.kept_cells, [true, false, true]);
        assert_eq!(quality.cells_per_gene, [1, 2, 1]);
        assert_eq!(quality.kept_genes, [false, true, false]);
        assert_eq!((quality.n_kept_cells(), quality.n_kept_genes()), (2, 1));
    }

    #[test]
    fn a_filter_that_is_off_keeps_empty_cells_and_unseen_genes() {
        let block = CountBlock { offsets: vec![0, 0], ..CountBlock::default() };
        let mut pass = QualityPass::new(QualityFilter::OFF, 2);
        pass.observe(&block);
        let quality = pass.finish();
        assert_eq!((quality.n_kept_cells(), quality.n_kept_genes()), (1, 2));
    }
}
