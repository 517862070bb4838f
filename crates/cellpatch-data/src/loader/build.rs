//! From stored cells to the batches a model takes.

use std::sync::Arc;

use super::Source;
use crate::{
    ExpressionBatch, GeneSelection, GeneToken, MaskedBatch, Masking,
    masking::{CellToMask, KEEP, Masker, sample},
    normalize::{normalize, normalize_counts},
    random::{Purpose, stream},
    shard::{CellCounts, StoredCells, StoredValues},
};

/// Makes batches of one kind; `Scratch` belongs to one thread.
pub(super) trait BuildBatch: Send + Sync + 'static {
    type Batch: Send + 'static;
    type Scratch;

    fn scratch(&self) -> Self::Scratch;

    /// A batch of the given cells.
    fn build(&self, cells: &[(&StoredCells, usize)], scratch: &mut Self::Scratch) -> Self::Batch;
}

/// Batches of another builder, made into something else on the same thread.
pub(super) struct Finished<K, F> {
    pub builder: K,
    pub finish: F,
}

impl<K: BuildBatch, T: Send + 'static, F: Fn(K::Batch) -> T + Send + Sync + 'static> BuildBatch
    for Finished<K, F>
{
    type Batch = T;
    type Scratch = K::Scratch;

    fn scratch(&self) -> K::Scratch {
        self.builder.scratch()
    }

    fn build(&self, cells: &[(&StoredCells, usize)], scratch: &mut K::Scratch) -> T {
        (self.finish)(self.builder.build(cells, scratch))
    }
}

/// Turns stored values into expression.
#[derive(Debug)]
pub(super) struct Normalizer {
    stored: StoredValues,
    values: Vec<f32>,
}

impl Normalizer {
    fn new(stored: StoredValues) -> Self {
        Self { stored, values: Vec::new() }
    }

    /// Expression of one cell's genes.
    fn expression<'a>(&'a mut self, cells: &'a StoredCells, cell: usize) -> &'a [f32] {
        let range = cells.offsets[cell]..cells.offsets[cell + 1];
        let total = cells.total_counts[cell] as f32;
        match &cells.counts {
            CellCounts::F32(values) if self.stored == StoredValues::Log1pF32 => return &values[range],
            CellCounts::F32(counts) => normalize(&counts[range], total, &mut self.values),
            CellCounts::U16(counts) => normalize_counts(&counts[range], total, &mut self.values),
        }
        &self.values
    }
}

/// Builds masked batches of one epoch.
#[derive(Debug)]
pub(super) struct MaskedBuilder {
    source: Arc<Source>,
    epoch: u64,
}

impl MaskedBuilder {
    pub(super) fn new(source: &Arc<Source>, epoch: u64) -> Self {
        Self { source: Arc::clone(source), epoch }
    }
}

impl BuildBatch for MaskedBuilder {
    type Batch = MaskedBatch;
    type Scratch = (Masker, Normalizer);

    fn scratch(&self) -> Self::Scratch {
        let options = &self.source.options;
        let masker = Masker::new(options.masking, options.seed, self.epoch);
        (masker, Normalizer::new(self.source.shards.manifest().values))
    }

    fn build(
        &self,
        cells: &[(&StoredCells, usize)],
        (masker, normalizer): &mut Self::Scratch,
    ) -> MaskedBatch {
        let mut batch = MaskedBatch::default();
        for &(stored, cell) in cells {
            masker.mask(
                CellToMask {
                    row: stored.rows[cell],
                    genes: stored.genes(cell),
                    values: normalizer.expression(stored, cell),
                    measured: self.source.shards.measured_genes(stored.sources[cell] as usize),
                },
                &mut batch,
            );
        }
        batch
    }
}

/// What of a cell is wanted.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    genes: Vec<u32>,
    values: Vec<f32>,
}

impl Wanted {
    fn of(&mut self, selection: &GeneSelection, genes: &[u32], values: &[f32]) -> (&[u32], &[f32]) {
        let Self { genes: new_genes, values: new_values } = self;
        new_genes.clear();
        new_values.clear();
        for (&gene, &value) in genes.iter().zip(values) {
            if selection.contains(GeneToken(gene)) {
                new_genes.push(gene);
                new_values.push(value);
            }
        }
        (new_genes, new_values)
    }
}

/// Builds unmasked batches.
#[derive(Debug)]
pub(super) struct ExpressionBuilder {
    stored: StoredValues,
    seed: u64,
    masking: Masking,
    genes: Option<GeneSelection>,
}

impl ExpressionBuilder {
    pub(super) fn new(source: &Arc<Source>) -> Self {
        let options = &source.options;
        Self {
            stored: source.shards.manifest().values,
            seed: options.seed,
            masking: options.masking,
            genes: options.genes.clone(),
        }
    }
}

impl BuildBatch for ExpressionBuilder {
    type Batch = ExpressionBatch;
    type Scratch = (Normalizer, Wanted, Vec<u32>, Vec<u8>);

    fn scratch(&self) -> Self::Scratch {
        (Normalizer::new(self.stored), Wanted::default(), Vec::new(), Vec::new())
    }

    fn build(
        &self,
        cells: &[(&StoredCells, usize)],
        (normalizer, wanted, order, fate): &mut Self::Scratch,
    ) -> ExpressionBatch {
        let mut batch = ExpressionBatch { offsets: vec![0], ..ExpressionBatch::default() };
        for &(stored, cell) in cells {
            let (row, genes) = (stored.rows[cell], stored.genes(cell));
            let values = normalizer.expression(stored, cell);
            let (genes, values) = match &self.genes {
                Some(selection) => wanted.of(selection, genes, values),
                None => (genes, values),
            };
            if genes.len() <= self.masking.max_input {
                batch.genes.extend_from_slice(genes);
                batch.values.extend_from_slice(values);
            } else {
                let mut random = stream(self.seed, Purpose::InputSample, 0, row);
                sample(genes.len(), self.masking.max_input, &mut random, order, fate);
                let kept =
                    || fate.iter().enumerate().filter(|&(_, &fate)| fate == KEEP).map(|(gene, _)| gene);
                batch.genes.extend(kept().map(|gene| genes[gene]));
                batch.values.extend(kept().map(|gene| values[gene]));
            }
            batch.rows.push(row);
            batch.offsets.push(batch.genes.len());
        }
        batch
    }
}
