//! Sums of counts by gene, block by block.

use crate::counts::CountBlock;
use crate::error::Result;
use crate::source::CellBlocks;

/// Means and variances of genes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Moments {
    n_cells: usize,
    sums: Sums,
}

impl Moments {
    /// Those of the kept cells.
    pub(super) fn of(blocks: CellBlocks, n_genes: usize, is_kept: impl Fn(usize) -> bool) -> Result<Self> {
        let mut moments = Self { n_cells: 0, sums: Sums::new(n_genes) };
        for block in blocks {
            moments.n_cells += moments.sums.observe(&block?, &is_kept, |_, count| count);
        }
        Ok(moments)
    }

    pub(super) fn n_cells(&self) -> usize {
        self.n_cells
    }

    pub(super) fn n_genes(&self) -> usize {
        self.sums.of_counts.len()
    }

    pub(super) fn mean(&self, gene: usize) -> f64 {
        self.sums.of_counts[gene] / (self.n_cells as f64).max(1.0)
    }

    /// With the divisor `n_cells - 1`; 0 below two cells.
    pub(super) fn variance(&self, gene: usize) -> f64 {
        let (n, mean) = (self.n_cells as f64, self.mean(gene));
        if self.n_cells < 2 {
            return 0.0;
        }
        (self.sums.of_squares[gene] / n - mean * mean).max(0.0) * (n / (n - 1.0))
    }

    /// The genes whose counts are not all the same.
    pub(super) fn varying(&self) -> impl Iterator<Item = usize> {
        (0..self.n_genes()).filter(|&gene| self.mean(gene) > 0.0 && self.variance(gene) > 0.0)
    }
}

/// Sums of counts that were cut off above.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ClippedMoments {
    sums: Sums,
}

impl ClippedMoments {
    /// Those of the kept cells, with counts above the limit of their gene taken as the limit.
    pub(super) fn of(blocks: CellBlocks, is_kept: impl Fn(usize) -> bool, limits: Vec<f64>) -> Result<Self> {
        let mut sums = Sums::new(limits.len());
        for block in blocks {
            sums.observe(&block?, &is_kept, |gene, count| count.min(limits[gene]));
        }
        Ok(Self { sums })
    }

    pub(super) fn sum(&self, gene: usize) -> f64 {
        self.sums.of_counts[gene]
    }

    pub(super) fn sum_of_squares(&self, gene: usize) -> f64 {
        self.sums.of_squares[gene]
    }
}

/// Sums of values and of their squares, one a gene.
#[derive(Debug, Clone, PartialEq)]
struct Sums {
    of_counts: Vec<f64>,
    of_squares: Vec<f64>,
}

impl Sums {
    fn new(n_genes: usize) -> Self {
        Self { of_counts: vec![0.0; n_genes], of_squares: vec![0.0; n_genes] }
    }

    /// Adds what `value` makes of the counts of a block's kept cells, and says how many these are.
    fn observe(
        &mut self,
        block: &CountBlock,
        is_kept: impl Fn(usize) -> bool,
        value: impl Fn(usize, f64) -> f64,
    ) -> usize {
        let mut n_cells = 0;
        for cell in (0..block.n_cells()).filter(|cell| is_kept(block.first_row + cell)) {
            let (columns, counts) = block.cell(cell);
            for (&column, &count) in columns.iter().zip(counts) {
                let value = value(column as usize, f64::from(count));
                self.of_counts[column as usize] += value;
                self.of_squares[column as usize] += value * value;
            }
            n_cells += 1;
        }
        n_cells
    }
}
