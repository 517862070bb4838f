//! The shard loader as Burn's `DataLoader`, with a cursor.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::tensor::backend::Backend;
use cellpatch_data::{Loader, MaskedBatch};

/// A batch on its way to the model.
#[derive(Debug, Clone)]
pub struct PretrainingBatch {
    /// The masked cells.
    pub cells: MaskedBatch,
    /// Where the dropout of this batch starts to count from.
    pub dropout_seed: u64,
}

/// The loader's position and its last error, shared between a [`Batches`] and whoever steers it.
///
/// Burn's `DataLoader` has neither: its iterator starts at the beginning and cannot fail.
#[derive(Debug, Default)]
pub struct Cursor {
    state: Mutex<CursorState>,
}

#[derive(Debug, Default)]
struct CursorState {
    epoch: u64,
    batch: usize,
    failure: Option<cellpatch_data::Error>,
}

impl Cursor {
    fn lock(&self) -> MutexGuard<'_, CursorState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the next iteration start at a batch of an epoch.
    pub fn set(&self, epoch: u64, batch: usize) {
        let mut state = self.lock();
        (state.epoch, state.batch) = (epoch, batch);
    }

    /// The error that ended the last iteration early, if one did.
    pub fn take_failure(&self) -> Option<cellpatch_data::Error> {
        self.lock().failure.take()
    }
}

/// The batches of one split.
#[derive(Debug, Clone)]
pub struct Batches {
    loader: Arc<Loader>,
    cursor: Arc<Cursor>,
    seed: u64,
    range: Range<usize>,
}

impl Batches {
    /// All batches of a loader; dropout counts from `seed`.
    pub fn new(loader: Arc<Loader>, cursor: Arc<Cursor>, seed: u64) -> Self {
        let range = 0..loader.n_batches();
        Self { loader, cursor, seed, range }
    }
}

impl<B: Backend> DataLoader<B, PretrainingBatch> for Batches {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<PretrainingBatch> + 'a> {
        let (epoch, batch) = {
            let state = self.cursor.lock();
            (state.epoch, state.batch.max(self.range.start))
        };
        let batches = self.loader.epoch(epoch, batch);
        Box::new(Iter { batches: Box::new(batches), source: self, epoch, batch, cells: 0 })
    }

    fn num_items(&self) -> usize {
        self.loader.n_cells()
    }

    fn to_device(&self, _device: &B::Device) -> Arc<dyn DataLoader<B, PretrainingBatch>> {
        // Batches stay on the host: the objective moves each part of them to its model's device.
        Arc::new(self.clone())
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<B, PretrainingBatch>> {
        let size = self.loader.options().batch_size;
        let range = start / size..end.div_ceil(size).min(self.range.end);
        Arc::new(Self { range, ..self.clone() })
    }
}

struct Iter<'a> {
    batches: Box<dyn Iterator<Item = cellpatch_data::Result<MaskedBatch>> + Send + 'a>,
    source: &'a Batches,
    epoch: u64,
    batch: usize,
    cells: usize,
}

impl Iterator for Iter<'_> {
    type Item = PretrainingBatch;

    fn next(&mut self) -> Option<PretrainingBatch> {
        if self.batch >= self.source.range.end {
            return None;
        }
        match self.batches.next()? {
            Ok(cells) => {
                self.cells += cells.n_cells();
                let dropout_seed = dropout_seed(self.source.seed, self.epoch, self.batch);
                self.batch += 1;
                Some(PretrainingBatch { cells, dropout_seed })
            }
            Err(error) => {
                self.source.cursor.lock().failure = Some(error);
                None
            }
        }
    }
}

impl DataLoaderIterator<PretrainingBatch> for Iter<'_> {
    fn progress(&self) -> Progress {
        Progress::new(self.cells, self.source.loader.n_cells())
    }
}

/// A seed that differs between any two batches of a run (the finaliser of SplitMix64 over a running mix).
fn dropout_seed(seed: u64, epoch: u64, batch: usize) -> u64 {
    [epoch, batch as u64].into_iter().fold(mix(seed), |state, counter| mix(state ^ mix(counter)))
}

/// The next seed after `seed`, for the parts of one batch.
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_batches_share_a_dropout_seed() {
        let mut seeds: Vec<u64> =
            (0..40).flat_map(|epoch| (0..500).map(move |batch| dropout_seed(7, epoch, batch))).collect();
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), 40 * 500);
    }
}
