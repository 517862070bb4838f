//! Masked gene modelling: which genes of a cell the model sees and which it must predict.

use serde::{Deserialize, Serialize};

use crate::{
    MaskedBatch,
    error::{Error, Result},
    random::{Purpose, RandomStream, stream},
};

/// How cells are masked. The defaults are the paper's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Masking {
    /// Share of a cell's non-zero genes that become targets, in 0..1; rounded half up.
    pub masked_fraction: f64,
    /// Genes with zero counts that join the targets, for each masked gene; rounded half up.
    pub zeros_per_masked: f64,
    /// Most genes a cell shows to the model.
    pub max_input: usize,
    /// Most genes a cell must predict.
    pub max_targets: usize,
}

impl Default for Masking {
    fn default() -> Self {
        Self { masked_fraction: 0.3, zeros_per_masked: 0.5, max_input: 3000, max_targets: 1000 }
    }
}

impl Masking {
    /// Checks every number.
    ///
    /// # Errors
    /// [`Error::BadOption`] names the first that makes no sense.
    pub fn check(&self) -> Result<()> {
        let bad = |option, value: String, reason: &str| {
            Err(Error::BadOption { option, value, reason: reason.into() })
        };
        if !(self.masked_fraction > 0.0 && self.masked_fraction < 1.0) {
            return bad("masked-fraction", self.masked_fraction.to_string(), "it must be between 0 and 1");
        }
        if !(self.zeros_per_masked >= 0.0 && self.zeros_per_masked <= 1000.0) {
            return bad("zeros-per-masked", self.zeros_per_masked.to_string(), "it must not be negative");
        }
        if self.max_input == 0 {
            return bad("max-input", "0".into(), "a cell needs at least one gene to show");
        }
        if self.max_targets == 0 {
            return bad("max-targets", "0".into(), "a cell needs at least one gene to predict");
        }
        Ok(())
    }

    /// Genes masked out of a cell with `n_genes` non-zero genes: at least one, and at least one is left.
    ///
    /// A cell with fewer than two genes is not masked: it would have nothing left to predict from.
    pub fn n_masked(&self, n_genes: usize) -> usize {
        if n_genes < 2 {
            return 0;
        }
        round_half_up(self.masked_fraction * n_genes as f64).clamp(1, n_genes - 1)
    }

    /// Genes with zero counts that join `n_masked` masked genes, if the cell has that many.
    pub fn n_zeros(&self, n_masked: usize) -> usize {
        round_half_up(self.zeros_per_masked * n_masked as f64)
    }
}

/// The tiny term keeps products such as 0.3 * 35, a hair under 10.5 in binary, on the side arithmetic puts them.
fn round_half_up(value: f64) -> usize {
    (value + 0.5 + 1e-9).floor() as usize
}

/// One cell about to be masked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CellToMask<'a> {
    /// Global row, which with seed and epoch addresses the cell's random stream.
    pub(crate) row: u64,
    /// Tokens of its non-zero genes, ascending.
    pub(crate) genes: &'a [u32],
    /// Their expression.
    pub(crate) values: &'a [f32],
    /// Tokens its source measured, ascending; they include `genes`.
    pub(crate) measured: &'a [u32],
}

/// What becomes of a gene.
pub(crate) const KEEP: u8 = 0;
const MASK: u8 = 1;
const DROP: u8 = 2;

/// Masks one cell after the other without allocating for each.
#[derive(Debug, Default)]
pub(crate) struct Masker {
    masking: Masking,
    seed: u64,
    epoch: u64,
    order: Vec<u32>,
    fate: Vec<u8>,
    /// A bit a token: expressed in this cell, or already drawn as a zero.
    taken: Vec<u64>,
    zeros: Vec<u32>,
}

impl Masker {
    pub(crate) fn new(masking: Masking, seed: u64, epoch: u64) -> Self {
        Self { masking, seed, epoch, ..Self::default() }
    }

    /// Appends the masked cell to `batch`.
    pub(crate) fn mask(&mut self, cell: CellToMask<'_>, batch: &mut MaskedBatch) {
        let CellToMask { row, genes, values, measured } = cell;
        let mut random = stream(self.seed, Purpose::Masking, self.epoch, row);
        if batch.input_offsets.is_empty() {
            batch.input_offsets.push(0);
            batch.target_offsets.push(0);
        }
        let n_masked = self.masking.n_masked(genes.len());
        self.decide_fates(genes.len(), n_masked, &mut random);
        let n_zeros = self.masking.n_zeros(n_masked).min(measured.len().saturating_sub(genes.len()));
        self.draw_zeros(genes, measured, n_zeros, &mut random);

        let first_target = batch.target_genes.len();
        // Written to both sides, and kept where it belongs: a branch would be guessed wrong for every third gene.
        let (mut input, mut target) = (batch.input_genes.len(), first_target);
        batch.input_genes.resize(input + genes.len(), 0);
        batch.input_values.resize(input + genes.len(), 0.0);
        batch.target_genes.resize(target + genes.len(), 0);
        batch.target_values.resize(target + genes.len(), 0.0);
        for ((&gene, &value), &fate) in genes.iter().zip(values).zip(&self.fate) {
            (batch.input_genes[input], batch.input_values[input]) = (gene, value);
            (batch.target_genes[target], batch.target_values[target]) = (gene, value);
            input += usize::from(fate == KEEP);
            target += usize::from(fate == MASK);
        }
        batch.input_genes.truncate(input);
        batch.input_values.truncate(input);
        batch.target_genes.truncate(target);
        batch.target_values.truncate(target);
        batch.target_genes.extend_from_slice(&self.zeros);
        batch.target_values.resize(batch.target_genes.len(), 0.0);
        self.cap_targets(first_target, &mut random, batch);

        batch.rows.push(row);
        batch.input_offsets.push(batch.input_genes.len());
        batch.target_offsets.push(batch.target_genes.len());
    }

    /// One permutation decides everything: its head is masked, and what follows is dropped where input is too long.
    fn decide_fates(&mut self, n_genes: usize, n_masked: usize, random: &mut RandomStream) {
        let n_dropped = (n_genes - n_masked).saturating_sub(self.masking.max_input);
        self.order.clear();
        self.order.extend(0..n_genes as u32);
        random.partial_shuffle(&mut self.order, n_masked + n_dropped);
        self.fate.clear();
        self.fate.resize(n_genes, KEEP);
        for (position, &gene) in self.order[..n_masked + n_dropped].iter().enumerate() {
            self.fate[gene as usize] = if position < n_masked { MASK } else { DROP };
        }
    }

    /// Draws `n_zeros` of the measured genes that are not in `genes`, without replacement.
    fn draw_zeros(&mut self, genes: &[u32], measured: &[u32], n_zeros: usize, random: &mut RandomStream) {
        self.zeros.clear();
        if n_zeros == 0 {
            return;
        }
        let n_tokens = measured.last().max(genes.last()).map_or(0, |&token| token as usize + 1);
        if self.taken.len() * 64 < n_tokens {
            self.taken.resize(n_tokens.div_ceil(64), 0);
        }
        genes.iter().for_each(|&gene| set_bit(&mut self.taken, gene));
        let n_free = measured.len() - genes.len();
        // Rejection takes about measured / (free - drawn) tries a gene; listing what is free costs one pass.
        if n_free - n_zeros < measured.len() / 8 {
            self.zeros.extend(measured.iter().filter(|&&token| !bit(&self.taken, token)));
            random.partial_shuffle(&mut self.zeros, n_zeros);
            self.zeros.truncate(n_zeros);
        } else {
            while self.zeros.len() < n_zeros {
                let token = measured[random.below(measured.len() as u32) as usize];
                if !bit(&self.taken, token) {
                    set_bit(&mut self.taken, token);
                    self.zeros.push(token);
                }
            }
        }
        genes.iter().chain(&self.zeros).for_each(|&token| self.taken[token as usize / 64] = 0);
    }

    /// Keeps a uniform sample of the targets from `first` on, in their order.
    fn cap_targets(&mut self, first: usize, random: &mut RandomStream, batch: &mut MaskedBatch) {
        let n_targets = batch.target_genes.len() - first;
        if n_targets <= self.masking.max_targets {
            return;
        }
        sample(n_targets, self.masking.max_targets, random, &mut self.order, &mut self.fate);
        let mut end = first;
        for (position, &fate) in (first..).zip(&self.fate) {
            if fate == KEEP {
                batch.target_genes[end] = batch.target_genes[position];
                batch.target_values[end] = batch.target_values[position];
                end += 1;
            }
        }
        batch.target_genes.truncate(end);
        batch.target_values.truncate(end);
    }
}

/// Decides which `n_kept` of `n_items` items stay, uniformly: their `fate` is [`KEEP`].
pub(crate) fn sample(
    n_items: usize,
    n_kept: usize,
    random: &mut RandomStream,
    order: &mut Vec<u32>,
    fate: &mut Vec<u8>,
) {
    order.clear();
    order.extend(0..n_items as u32);
    random.partial_shuffle(order, n_kept);
    fate.clear();
    fate.resize(n_items, DROP);
    order.iter().take(n_kept).for_each(|&item| fate[item as usize] = KEEP);
}

fn bit(bits: &[u64], token: u32) -> bool {
    bits[token as usize / 64] >> (token % 64) & 1 == 1
}

fn set_bit(bits: &mut [u64], token: u32) {
    bits[token as usize / 64] |= 1 << (token % 64);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const MEASURED: u32 = 5000;

    fn mask(masking: Masking, genes: &[u32], measured: &[u32], row: u64) -> MaskedBatch {
        let values: Vec<f32> = genes.iter().map(|&gene| gene as f32).collect();
        let mut batch = MaskedBatch::default();
        Masker::new(masking, 1, 2).mask(CellToMask { row, genes, values: &values, measured }, &mut batch);
        batch
    }

    fn every_other(n_genes: u32) -> Vec<u32> {
        (0..n_genes).map(|gene| 2 * gene + 1).collect()
    }

    proptest! {
        #[test]
        fn a_gene_is_seen_or_asked_for_never_both(
            n_genes in 0u32..2500,
            n_more in 0u32..3000,
            row in any::<u64>(),
            max_input in 1usize..2000,
            max_targets in 1usize..1000,
        ) {
            let masking = Masking { max_input, max_targets, ..Masking::default() };
            let genes = every_other(n_genes);
            let measured: Vec<u32> = (1..=2 * n_genes + n_more).collect();
            let batch = mask(masking, &genes, &measured, row);
            let n_masked = masking.n_masked(genes.len());
            let n_zeros = masking.n_zeros(n_masked).min(measured.len() - genes.len());
            prop_assert_eq!(batch.input_genes.len(), (genes.len() - n_masked).min(max_input));
            prop_assert_eq!(batch.target_genes.len(), (n_masked + n_zeros).min(max_targets));
            let distinct: HashSet<u32> = batch.input_genes.iter().chain(&batch.target_genes).copied().collect();
            prop_assert_eq!(distinct.len(), batch.input_genes.len() + batch.target_genes.len());
            prop_assert!(batch.input_genes.is_sorted());
            let expressed: HashSet<u32> = genes.iter().copied().collect();
            for (gene, value) in batch.input_genes.iter().zip(&batch.input_values) {
                prop_assert_eq!(*gene as f32, *value);
            }
            for (gene, value) in batch.target_genes.iter().zip(&batch.target_values) {
                prop_assert_eq!(*value, if expressed.contains(gene) { *gene as f32 } else { 0.0 });
                prop_assert!(measured.contains(gene));
            }
        }
    }

    #[test]
    fn thirty_percent_are_masked_rounded_half_up() {
        let n_masked = |n_genes| Masking::default().n_masked(n_genes);
        let expected = [(0, 0), (1, 0), (2, 1), (3, 1), (5, 2), (15, 5), (35, 11), (1000, 300), (1005, 302)];
        for (n_genes, expected) in expected {
            assert_eq!(n_masked(n_genes), expected, "{n_genes} genes");
        }
        assert_eq!([0, 1, 2, 3, 5].map(|n_masked| Masking::default().n_zeros(n_masked)), [0, 1, 1, 2, 3]);
        let greedy = Masking { masked_fraction: 0.99, ..Masking::default() };
        assert_eq!(greedy.n_masked(10), 9, "one is left to predict from");
    }

    #[test]
    fn a_cell_with_one_gene_shows_it_and_predicts_nothing() {
        let batch = mask(Masking::default(), &[7], &[1, 7, 9], 0);
        assert_eq!((batch.input_genes, batch.target_genes), (vec![7], vec![]));
        assert_eq!((batch.input_offsets, batch.target_offsets), (vec![0, 1], vec![0, 0]));
    }

    #[test]
    fn masks_change_with_row_and_epoch_and_not_with_batch_mates() {
        let (genes, measured) = (every_other(200), (1..=MEASURED).collect::<Vec<_>>());
        let alone = mask(Masking::default(), &genes, &measured, 5);
        assert_ne!(alone.target_genes, mask(Masking::default(), &genes, &measured, 6).target_genes);
        let values = vec![1.0; 200];
        let mut masker = Masker::new(Masking::default(), 1, 2);
        let mut batch = MaskedBatch::default();
        for row in [9, 5] {
            masker.mask(CellToMask { row, genes: &genes, values: &values, measured: &measured }, &mut batch);
        }
        assert_eq!(batch.target(1).0, alone.target_genes);
        let mut other_epoch = MaskedBatch::default();
        Masker::new(Masking::default(), 1, 3).mask(
            CellToMask { row: 5, genes: &genes, values: &values, measured: &measured },
            &mut other_epoch,
        );
        assert_ne!(other_epoch.target_genes, alone.target_genes);
    }

    /// Chi-square per degree of freedom stays near 1 if every gene is drawn equally often.
    fn unevenness(drawn: &[u32]) -> f64 {
        let mean = drawn.iter().sum::<u32>() as f64 / drawn.len() as f64;
        drawn.iter().map(|&n| (f64::from(n) - mean).powi(2) / mean).sum::<f64>() / (drawn.len() - 1) as f64
    }

    #[test]
    fn masked_genes_and_zeros_are_uniform_by_rejection_and_by_listing() {
        // 100 of 400 measured genes are expressed: rejection. 100 of 110: listing.
        for n_measured in [400u32, 110] {
            let genes: Vec<u32> = (1..=100).collect();
            let measured: Vec<u32> = (1..=n_measured).collect();
            let mut drawn = vec![0u32; n_measured as usize + 1];
            for row in 0..4000 {
                mask(Masking::default(), &genes, &measured, row)
                    .target_genes
                    .iter()
                    .for_each(|&gene| drawn[gene as usize] += 1);
            }
            assert_eq!(drawn[1..=100].iter().sum::<u32>(), 4000 * 30);
            assert_eq!(drawn[101..].iter().sum::<u32>(), 4000 * 15.min(n_measured - 100));
            // Sampling without replacement is more even than independent draws; 1.5 is far outside either.
            for part in [&drawn[1..=100], &drawn[101..]] {
                assert!(unevenness(part) < 1.5, "{n_measured}: {}", unevenness(part));
            }
        }
    }

    #[test]
    fn a_cap_keeps_a_uniform_mix_of_masked_genes_and_zeros() {
        let masking = Masking { max_targets: 9, max_input: 20, ..Masking::default() };
        let (genes, measured) = ((1..=100).collect::<Vec<_>>(), (1..=1000).collect::<Vec<_>>());
        let (mut shown, mut n_masked) = (vec![0u32; 100], 0);
        for row in 0..4000 {
            let batch = mask(masking, &genes, &measured, row);
            n_masked += batch.target_genes.iter().filter(|&&gene| gene <= 100).count();
            batch.input_genes.iter().for_each(|&gene| shown[gene as usize - 1] += 1);
        }
        let per_cell = n_masked as f64 / 4000.0;
        assert!((per_cell - 6.0).abs() < 0.1, "30 of 45 targets are masked genes, so 6 of 9: {per_cell}");
        assert!(unevenness(&shown) < 1.5);
    }
}
