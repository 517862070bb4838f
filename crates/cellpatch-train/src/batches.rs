//! A source of batches as Burn's `DataLoader`, with a cursor.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::tensor::backend::Backend;
use cellpatch_data::Loader;

use crate::prepared::{Preparation, PreparedCells};
use crate::{Error, Result};

/// A batch on its way to the model.
#[derive(Debug, Clone)]
pub struct Batch<C> {
    /// The cells.
    pub cells: C,
    /// Where the dropout of this batch starts to count from.
    pub dropout_seed: u64,
}

/// A batch of masked cells.
pub type PretrainingBatch = Batch<PreparedCells>;

/// Where the batches of a training, or of its validation, come from.
///
/// A batch is a function of epoch and number: that is what makes a resumed run the same as one that never stopped.
pub trait BatchSource: Debug + Clone + Send + Sync + 'static {
    /// The cells of a batch.
    type Cells: Debug + Clone + Send + Sync + 'static;

    /// Batches in an epoch.
    fn n_batches(&self) -> usize;

    /// Cells in an epoch.
    fn n_cells(&self) -> usize;

    /// Batches of an epoch from `first_batch` on. The first error is the last item.
    ///
    /// - epoch: from 1; 0 is validation
    fn read(&self, epoch: u64, first_batch: usize) -> BatchIterator<'_, Self::Cells>;

    /// Cells in a batch.
    fn cells_in(cells: &Self::Cells) -> usize;
}

/// Batches as they are read.
pub type BatchIterator<'a, C> = Box<dyn Iterator<Item = Result<C>> + Send + 'a>;

/// Cells of a loader with some of their genes hidden.
#[derive(Debug, Clone)]
pub struct MaskedCells {
    /// Where they come from.
    pub loader: Arc<Loader>,
    /// How the loader's threads make them ready for the model.
    pub preparation: Preparation,
}

impl BatchSource for MaskedCells {
    type Cells = PreparedCells;

    fn n_batches(&self) -> usize {
        self.loader.n_batches()
    }

    fn n_cells(&self) -> usize {
        self.loader.n_cells()
    }

    fn read(&self, epoch: u64, first_batch: usize) -> BatchIterator<'_, PreparedCells> {
        let preparation = self.preparation.clone();
        let prepare = move |batch| preparation.prepare(&batch);
        Box::new(self.loader.finished_epoch(epoch, first_batch, prepare).map(|cells| Ok(cells?)))
    }

    fn cells_in(cells: &PreparedCells) -> usize {
        cells.n_cells()
    }
}

/// The source's position and its last error, shared between a [`Batches`] and whoever steers it.
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
    failure: Option<Error>,
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
    pub fn take_failure(&self) -> Option<Error> {
        self.lock().failure.take()
    }
}

/// The batches of one source.
#[derive(Debug, Clone)]
pub struct Batches<S> {
    source: S,
    cursor: Arc<Cursor>,
    seed: u64,
    range: Range<usize>,
}

impl<S: BatchSource> Batches<S> {
    /// All batches of a source; dropout counts from `seed`.
    pub fn new(source: S, cursor: Arc<Cursor>, seed: u64) -> Self {
        let range = 0..source.n_batches();
        Self { source, cursor, seed, range }
    }
}

impl<B: Backend, S: BatchSource> DataLoader<B, Batch<S::Cells>> for Batches<S> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch<S::Cells>> + 'a> {
        let (epoch, batch) = {
            let state = self.cursor.lock();
            (state.epoch, state.batch.max(self.range.start))
        };
        let cells = self.source.read(epoch, batch);
        Box::new(Iter { cells, batches: self, epoch, batch, n_cells: 0 })
    }

    fn num_items(&self) -> usize {
        self.source.n_cells()
    }

    fn to_device(&self, _device: &B::Device) -> Arc<dyn DataLoader<B, Batch<S::Cells>>> {
        // Batches stay on the host: the objective moves each part of them to its model's device.
        Arc::new(self.clone())
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<B, Batch<S::Cells>>> {
        // Adjacent slices of cells become adjacent ranges of batches, and together all of them.
        let batch_of = |cell: usize| {
            let share = cell.min(self.source.n_cells()) as u128 * self.source.n_batches() as u128;
            (share / self.source.n_cells().max(1) as u128) as usize
        };
        let range = batch_of(start).max(self.range.start)..batch_of(end).min(self.range.end);
        Arc::new(Self { range, ..self.clone() })
    }
}

struct Iter<'a, S: BatchSource> {
    cells: BatchIterator<'a, S::Cells>,
    batches: &'a Batches<S>,
    epoch: u64,
    batch: usize,
    n_cells: usize,
}

impl<S: BatchSource> Iterator for Iter<'_, S> {
    type Item = Batch<S::Cells>;

    fn next(&mut self) -> Option<Batch<S::Cells>> {
        if self.batch >= self.batches.range.end {
            return None;
        }
        match self.cells.next()? {
            Ok(cells) => {
                self.n_cells += S::cells_in(&cells);
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

impl<S: BatchSource> DataLoaderIterator<Batch<S::Cells>> for Iter<'_, S> {
    fn progress(&self) -> Progress {
        Progress::new(self.n_cells, self.batches.source.n_cells())
    }
}

/// The batches of a training that is not validated: none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoBatches;

impl<B: Backend, C: Debug + Clone + Send + Sync + 'static> DataLoader<B, Batch<C>> for NoBatches {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Batch<C>> + 'a> {
        Box::new(NoIter(std::iter::empty()))
    }

    fn num_items(&self) -> usize {
        0
    }

    fn to_device(&self, _device: &B::Device) -> Arc<dyn DataLoader<B, Batch<C>>> {
        Arc::new(*self)
    }

    fn slice(&self, _start: usize, _end: usize) -> Arc<dyn DataLoader<B, Batch<C>>> {
        Arc::new(*self)
    }
}

struct NoIter<C>(std::iter::Empty<Batch<C>>);

impl<C> Iterator for NoIter<C> {
    type Item = Batch<C>;

    fn next(&mut self) -> Option<Batch<C>> {
        self.0.next()
    }
}

impl<C> DataLoaderIterator<Batch<C>> for NoIter<C> {
    fn progress(&self) -> Progress {
        Progress::new(0, 0)
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
