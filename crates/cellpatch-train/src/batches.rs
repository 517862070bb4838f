//! The shard loader as Burn's `DataLoader`, with a cursor.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::tensor::backend::Backend;
use cellpatch_data::{Loader, MaskedBatch};

/// A batch on its way to the model.
#[derive(Debug, Clone)]
pub struct Batch<C> {
    /// The cells.
    pub cells: C,
    /// Where the dropout of this batch starts to count from.
    pub dropout_seed: u64,
}

/// A batch of masked cells.
pub type PretrainingBatch = Batch<MaskedBatch>;

/// How a training reads its cells from a loader.
pub trait CellSource: Debug + Clone + Send + Sync + 'static {
    /// The cells of a batch.
    type Cells: Debug + Clone + Send + Sync + 'static;

    /// Batches of an epoch from `first_batch` on. The first error is the last item.
    fn read<'a>(
        &'a self,
        loader: &'a Loader,
        epoch: u64,
        first_batch: usize,
    ) -> CellIterator<'a, Self::Cells>;

    /// Cells in a batch.
    fn n_cells(cells: &Self::Cells) -> usize;
}

/// Batches as they are read.
pub type CellIterator<'a, C> = Box<dyn Iterator<Item = cellpatch_data::Result<C>> + Send + 'a>;

/// Cells with some of their genes hidden.
#[derive(Debug, Clone, Copy)]
pub struct MaskedCells;

impl CellSource for MaskedCells {
    type Cells = MaskedBatch;

    fn read<'a>(
        &'a self,
        loader: &'a Loader,
        epoch: u64,
        first_batch: usize,
    ) -> CellIterator<'a, MaskedBatch> {
        Box::new(loader.epoch(epoch, first_batch))
    }

    fn n_cells(cells: &MaskedBatch) -> usize {
        cells.n_cells()
    }
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
pub struct Batches<S> {
    source: S,
    loader: Arc<Loader>,
    cursor: Arc<Cursor>,
    seed: u64,
    range: Range<usize>,
}

impl<S: CellSource> Batches<S> {
    /// All batches of a loader; dropout counts from `seed`.
    pub fn new(source: S, loader: Arc<Loader>, cursor: Arc<Cursor>, seed: u64) -> Self {
        let range = 0..loader.n_batches();
        Self { source, loader, cursor, seed, range }
    }
}

impl<B: Backend, S: CellSource> DataLoader<B, Batch<S::Cells>> for Batches<S> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch<S::Cells>> + 'a> {
        let (epoch, batch) = {
            let state = self.cursor.lock();
            (state.epoch, state.batch.max(self.range.start))
        };
        let cells = self.source.read(&self.loader, epoch, batch);
        Box::new(Iter { cells, batches: self, epoch, batch, n_cells: 0 })
    }

    fn num_items(&self) -> usize {
        self.loader.n_cells()
    }

    fn to_device(&self, _device: &B::Device) -> Arc<dyn DataLoader<B, Batch<S::Cells>>> {
        // Batches stay on the host: the objective moves each part of them to its model's device.
        Arc::new(self.clone())
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<B, Batch<S::Cells>>> {
        let size = self.loader.options().batch_size;
        let range = start / size..end.div_ceil(size).min(self.range.end);
        Arc::new(Self { range, ..self.clone() })
    }
}

struct Iter<'a, S: CellSource> {
    cells: CellIterator<'a, S::Cells>,
    batches: &'a Batches<S>,
    epoch: u64,
    batch: usize,
    n_cells: usize,
}

impl<S: CellSource> Iterator for Iter<'_, S> {
    type Item = Batch<S::Cells>;

    fn next(&mut self) -> Option<Batch<S::Cells>> {
        if self.batch >= self.batches.range.end {
            return None;
        }
        match self.cells.next()? {
            Ok(cells) => {
                self.n_cells += S::n_cells(&cells);
                let dropout_seed = dropout_seed(self.batches.seed, self.epoch, self.batch);
                self.batch += 1;
                Some(Batch { cells, dropout_seed })
            }
            Err(error) => {
                self.batches.cursor.lock().failure = Some(error);
                None
            }
        }
    }
}

impl<S: CellSource> DataLoaderIterator<Batch<S::Cells>> for Iter<'_, S> {
    fn progress(&self) -> Progress {
        Progress::new(self.n_cells, self.batches.loader.n_cells())
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
