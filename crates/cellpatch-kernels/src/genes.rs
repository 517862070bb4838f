//! Genes in front of the first block: which a batch has, what is tabulated of them, and how gradients come back to them.
//!
//! The embedding of a gene's expression is a row of the gene table plus something that depends on the value only: a multiple
//! of one vector, or a row of a small table of bins. So its key and value in the first block are a row of a table too, made
//! once for each gene of the batch, plus a multiple of one vector or a row of a small table: no token is projected.

mod index;
mod table;

pub use self::index::GeneIndex;
pub use self::table::{project_rows, project_rows_backward};

use crate::block::PaddedRows;

/// Keys and values of a batch's genes.
#[derive(Debug, Clone, Copy)]
pub struct GeneMemory<'a> {
    /// For each slot of the padded batch the row of its gene in the table: [cells, genes].
    pub rows: &'a [u32],
    /// Keys and values at expression 0, or without it: [genes of the batch, 2 d].
    pub table: &'a [f32],
    /// For each slot its log1p-normalised expression: [cells, genes].
    pub values: &'a [f32],
    /// What the expression adds.
    pub expression: Expression<'a>,
}

/// What an expression value adds to a gene's key and value.
#[derive(Debug, Clone, Copy)]
pub enum Expression<'a> {
    /// A multiple of one row: [2 d].
    Continuous(&'a [f32]),
    /// One of some rows, that of the rounded and clamped value: [bins, 2 d].
    Binned(&'a [f32]),
}

impl Expression<'_> {
    /// The row that belongs to a value and the factor it is taken with.
    #[inline(always)]
    fn term(&self, value: f32, width: usize) -> (usize, f32) {
        match self {
            Self::Continuous(_) => (0, value),
            Self::Binned(bins) => {
                let highest = (bins.len() / width - 1) as f32;
                (value.clamp(0.0, highest).round_ties_even() as usize, 1.0)
            }
        }
    }

    fn rows(&self) -> &[f32] {
        match self {
            Self::Continuous(rows) | Self::Binned(rows) => rows,
        }
    }
}

impl GeneMemory<'_> {
    /// Keys by head, then values by head, of a cell's first slots.
    ///
    /// - first: slot of the batch where the cell begins
    /// - memory: [2 heads, n, head_dim], filled
    #[inline(always)]
    pub(crate) fn fill(&self, first: usize, n: usize, head_dim: usize, memory: &mut [f32]) {
        let width = memory.len() / n;
        let slots = first..first + n;
        for (slot, (&gene, &value)) in self.rows[slots.clone()].iter().zip(&self.values[slots]).enumerate() {
            let (row, factor) = self.expression.term(value, width);
            let added = &self.expression.rows()[row * width..][..width];
            let gene = &self.table[gene as usize * width..][..width];
            for (part, (gene, added)) in
                gene.chunks_exact(head_dim).zip(added.chunks_exact(head_dim)).enumerate()
            {
                let slot = &mut memory[(part * n + slot) * head_dim..][..head_dim];
                for ((slot, gene), added) in slot.iter_mut().zip(gene).zip(added) {
                    *slot = gene + factor * added;
                }
            }
        }
    }

    /// The gradient of what [`GeneMemory::fill`] filled, slot by slot and by row of the expression.
    ///
    /// - memory: by head, with the width of a head and the number of slots: [2 heads, n, head_dim]
    /// - for_slots: [n or more, 2 d], replaced
    /// - for_expression: [rows, 2 d], added to
    #[inline(always)]
    pub(crate) fn give_back(
        &self,
        first: usize,
        (memory, head_dim, n): (&[f32], usize, usize),
        for_slots: &mut [f32],
        for_expression: &mut [f32],
    ) {
        let width = memory.len() / n;
        for (slot, (for_slot, &value)) in
            for_slots.chunks_exact_mut(width).zip(&self.values[first..first + n]).enumerate()
        {
            let (row, factor) = self.expression.term(value, width);
            let for_row = &mut for_expression[row * width..][..width];
            let parts = for_slot.chunks_exact_mut(head_dim).zip(for_row.chunks_exact_mut(head_dim));
            for (part, (for_part, for_row)) in parts.enumerate() {
                let gradient = &memory[(part * n + slot) * head_dim..][..head_dim];
                for ((gradient, for_part), for_row) in gradient.iter().zip(for_part).zip(for_row) {
                    *for_part = *gradient;
                    *for_row += factor * gradient;
                }
            }
        }
    }
}

/// Adds the rows of a padded batch's slots up by gene, each gene's in the order of slots.
///
/// - slots: [cells, genes, width]
/// - output: [genes of the batch, width]
pub fn sum_by_gene(index: &GeneIndex, slots: &[f32], width: usize) -> Vec<f32> {
    index.sum(slots, width)
}

/// The rows of a padded batch that gather a table's rows.
///
/// - table: [genes of the batch, width]
/// - output: [cells, genes, width]; padding is 0
pub fn gather_rows(table: &[f32], width: usize, rows: &[u32], slots: PaddedRows<'_>, output: &mut [f32]) {
    use rayon::prelude::*;
    let cells = output.par_chunks_exact_mut(slots.padded * width).zip(rows.par_chunks_exact(slots.padded));
    cells.enumerate().for_each(|(cell, (output, rows))| {
        let n = slots.of(cell);
        for (slot, &row) in output.chunks_exact_mut(width).zip(&rows[..n]) {
            slot.copy_from_slice(&table[row as usize * width..][..width]);
        }
    });
}
