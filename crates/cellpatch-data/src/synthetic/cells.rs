//! A synthetic data set as blocks of cells.

use rayon::prelude::*;

use super::config::SyntheticConfig;
use super::donor::{Batch, Donor};
use super::gene::SyntheticGene;
use super::model::{ExpressionModel, Scratch, SyntheticCell};
use crate::{CountBlock, Result};

/// Cells that one thread draws with one set of buffers.
const CELLS_PER_TASK: usize = 32;

/// Synthetic cells, drawn when they are asked for.
///
/// Each cell has a random stream of its own, so a cell's counts depend on the configuration and its index alone, not
/// on threads, on blocks, or on how many cells there are.
#[derive(Debug)]
pub struct SyntheticCells {
    model: ExpressionModel,
    n_cells: usize,
}

/// Consecutive synthetic cells: raw counts and the truth they were drawn from.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct SyntheticBlock {
    /// Raw counts; columns are indices into [`SyntheticCells::genes`].
    pub counts: CountBlock,
    /// One entry a cell.
    pub cells: Vec<SyntheticCell>,
}

impl SyntheticCells {
    /// Draws genes, programmes, donors and batches; cells follow block by block.
    ///
    /// # Errors
    /// [`crate::Error::BadOption`] if the configuration is not valid.
    pub fn generate(config: &SyntheticConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self { model: ExpressionModel::new(config), n_cells: config.n_cells })
    }

    /// Number of cells.
    pub fn n_cells(&self) -> usize {
        self.n_cells
    }

    /// The genes, in the order of the columns.
    pub fn genes(&self) -> &[SyntheticGene] {
        &self.model.genes
    }

    pub(super) fn donors(&self) -> &[Donor] {
        &self.model.donors
    }

    pub(super) fn batches(&self) -> &[Batch] {
        &self.model.batches
    }

    /// All cells in order, in blocks of `cells_per_block` (at least 1; the last may be shorter). One block is held at
    /// a time, and its cells are drawn on all threads of the current rayon pool.
    pub fn blocks(&self, cells_per_block: usize) -> impl Iterator<Item = SyntheticBlock> + '_ {
        let step = cells_per_block.max(1);
        (0..self.n_cells).step_by(step).map(move |first| self.block(first, step))
    }

    /// Up to `n_cells` cells from index `first_row` on; empty past the last cell.
    pub fn block(&self, first_row: usize, n_cells: usize) -> SyntheticBlock {
        let end = first_row.saturating_add(n_cells).min(self.n_cells);
        let starts: Vec<usize> = (first_row..end).step_by(CELLS_PER_TASK).collect();
        let parts: Vec<SyntheticBlock> =
            starts.into_par_iter().map(|start| self.draw(start..(start + CELLS_PER_TASK).min(end))).collect();
        let mut block = empty_block(first_row);
        for part in parts {
            let base = block.counts.columns.len();
            block.counts.offsets.extend(part.counts.offsets.iter().skip(1).map(|offset| base + offset));
            block.counts.columns.extend(part.counts.columns);
            block.counts.values.extend(part.counts.values);
            block.cells.extend(part.cells);
        }
        block
    }

    fn draw(&self, rows: std::ops::Range<usize>) -> SyntheticBlock {
        let mut scratch = Scratch::default();
        let mut block = empty_block(rows.start);
        for row in rows {
            let CountBlock { columns, values, .. } = &mut block.counts;
            let cell = self.model.draw_cell(row, &mut scratch, columns, values);
            block.counts.offsets.push(block.counts.columns.len());
            block.cells.push(cell);
        }
        block
    }
}

fn empty_block(first_row: usize) -> SyntheticBlock {
    let counts = CountBlock { first_row, offsets: vec![0], ..CountBlock::default() };
    SyntheticBlock { counts, cells: Vec::new() }
}
