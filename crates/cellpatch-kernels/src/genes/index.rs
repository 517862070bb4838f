//! Which genes a batch has, and where.

use rayon::prelude::*;

use crate::block::PaddedRows;

/// Genes that one task sums.
const GENES: usize = 64;

/// The distinct genes of a padded batch.
#[derive(Debug, Clone)]
pub struct GeneIndex {
    genes: Vec<u32>,
    rows: Vec<u32>,
    /// Slots ordered by gene, and by position within a gene.
    slots: Vec<u32>,
    /// Where each gene's slots begin, and where the last's end.
    starts: Vec<u32>,
}

impl GeneIndex {
    /// - tokens: gene of each slot: [cells, genes]
    /// - slots: which of them count
    /// - capacity: tokens are below it
    ///
    /// # Panics
    /// When a token is not below the capacity.
    pub fn new(tokens: &[u32], slots: PaddedRows<'_>, capacity: usize) -> Self {
        let attended = |cell: usize| cell * slots.padded..cell * slots.padded + slots.of(cell);
        let n_cells = tokens.len() / slots.padded;
        // How often each gene occurs, then where the next of its slots goes.
        let mut next = vec![0_u32; capacity];
        for cell in 0..n_cells {
            for &token in &tokens[attended(cell)] {
                assert!((token as usize) < capacity, "gene {token} in a table of {capacity}");
                next[token as usize] += 1;
            }
        }
        let n_genes = next.iter().filter(|&&count| count > 0).count();
        let (mut genes, mut starts) = (Vec::with_capacity(n_genes), Vec::with_capacity(n_genes + 1));
        let mut row_of = vec![0_u32; capacity];
        let mut total = 0;
        for (token, next) in next.iter_mut().enumerate() {
            let count = std::mem::replace(next, total);
            if count > 0 {
                row_of[token] = genes.len() as u32;
                genes.push(token as u32);
                starts.push(total);
                total += count;
            }
        }
        starts.push(total);
        let mut rows = vec![0_u32; tokens.len()];
        let mut order = vec![0_u32; total as usize];
        for cell in 0..n_cells {
            for slot in attended(cell) {
                let token = tokens[slot] as usize;
                rows[slot] = row_of[token];
                order[next[token] as usize] = slot as u32;
                next[token] += 1;
            }
        }
        Self { genes, rows, slots: order, starts }
    }

    /// Tokens of the batch's genes, ascending: what each row of its tables stands for.
    pub fn genes(&self) -> &[u32] {
        &self.genes
    }

    /// Row of each slot's gene: [cells, genes]; 0 at padding.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Slots ordered by gene, and by position within a gene.
    pub fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// Where each gene's part of [`GeneIndex::slots`] begins, and where the last's ends.
    pub fn starts(&self) -> &[u32] {
        &self.starts
    }

    pub(super) fn sum(&self, slots: &[f32], width: usize) -> Vec<f32> {
        let mut sums = vec![0.0; self.genes.len() * width];
        sums.par_chunks_mut(GENES * width).enumerate().for_each(|(chunk, sums)| {
            // Some genes are in every cell, and the terms are of both signs: single precision would lose a small sum.
            let mut exact = vec![0.0_f64; width];
            for (gene, sum) in (chunk * GENES..).zip(sums.chunks_exact_mut(width)) {
                exact.fill(0.0);
                for &slot in &self.slots[self.starts[gene] as usize..self.starts[gene + 1] as usize] {
                    let row = &slots[slot as usize * width..][..width];
                    for (sum, element) in exact.iter_mut().zip(row) {
                        *sum += f64::from(*element);
                    }
                }
                for (sum, exact) in sum.iter_mut().zip(&exact) {
                    *sum = *exact as f32;
                }
            }
        });
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_found_and_summed_by_gene() {
        let tokens = [5, 2, 5, 9, /* padding */ 1, 2, 9, 5, 1, 1];
        let slots = PaddedRows { padded: 5, lengths: Some(&[4, 3]) };
        let index = GeneIndex::new(&tokens, slots, 10);
        assert_eq!(index.genes(), [2, 5, 9]);
        assert_eq!(index.rows(), [1, 0, 1, 2, 0, 0, 2, 1, 0, 0]);
        assert_eq!((index.slots(), index.starts()), (&[1, 5, 0, 2, 7, 3, 6][..], &[0, 2, 5, 7][..]));
        let values: Vec<f32> = (0..10).map(|slot| (1 << slot) as f32).collect();
        assert_eq!(index.sum(&values, 1), [2.0 + 32.0, 1.0 + 4.0 + 128.0, 8.0 + 64.0]);
    }

    #[test]
    #[should_panic(expected = "gene 10 in a table of 10")]
    fn a_gene_outside_the_table_is_no_gene() {
        GeneIndex::new(&[10], PaddedRows { padded: 1, lengths: None }, 10);
    }
}
