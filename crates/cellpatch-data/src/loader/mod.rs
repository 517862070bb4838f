//! The streaming loader: from shards to batches, the same for any number of threads, from any batch on.
//!
//! An epoch visits row groups in random order. Consecutive row groups form a *window* of about
//! [`LoaderOptions::window_cells`] cells, whose rows are shuffled; the shuffled windows one after the other are the
//! order of the epoch. Batches are cut from it window by window: what does not fill a batch is carried into the next
//! window, so only an epoch's last batch can be short. Inside a window, cells of similar length can share a
//! batch, which saves padding; the batches are then shuffled again.
//!
//! The order follows from the manifest, the selection, the seed and the epoch alone. So starting at batch 10,000 reads
//! one window and the part of its predecessor that was carried over, and nothing before.

mod build;
mod plan;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuilder};

pub use self::stream::Epoch;
use self::{
    build::{ExpressionBuilder, Finished, MaskedBuilder},
    plan::Plan,
};
use crate::{
    ExpressionBatch, GeneSelection, MaskedBatch, Masking, RowSelection,
    error::{Error, Result},
    shard::ShardSet,
};

/// How cells are loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct LoaderOptions {
    /// Cells a batch; only the last of an epoch may have fewer.
    pub batch_size: usize,
    /// Seed of order and masks.
    pub seed: u64,
    /// How cells are masked; its `max_input` also limits unmasked cells.
    pub masking: Masking,
    /// The genes that unmasked cells are reduced to; none for all.
    pub genes: Option<GeneSelection>,
    /// Cells that are decoded and shuffled together, at least; at least one batch. Memory grows with it: two windows
    /// are held at a time, at about 6 bytes a gene of a cell.
    pub window_cells: usize,
    /// Threads that decode and mask; 0 for all cores.
    pub threads: usize,
    /// Batches that wait ready, at most.
    pub prefetch: usize,
    /// Whether every epoch has an order of its own. Otherwise cells come in row order: for validation and inference.
    pub shuffle: bool,
    /// Whether cells of similar length share a batch, which saves padding. Length goes with tissue and assay, so such
    /// batches are less alike than random ones, and training on them is noisier.
    pub length_buckets: bool,
    /// Whether a short last batch is left out.
    pub drop_last: bool,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        Self {
            batch_size: 512,
            seed: 0,
            masking: Masking::default(),
            genes: None,
            window_cells: 8192,
            threads: 0,
            prefetch: 4,
            shuffle: true,
            length_buckets: false,
            drop_last: false,
        }
    }
}

impl LoaderOptions {
    fn check(&self) -> Result<()> {
        self.masking.check()?;
        let least_one = [
            ("batch-size", self.batch_size),
            ("prefetch", self.prefetch),
            ("window-cells", self.window_cells),
        ];
        match least_one.into_iter().find(|&(_, value)| value == 0) {
            Some((option, _)) => {
                Err(Error::BadOption { option, value: "0".into(), reason: "it must be at least 1".into() })
            }
            None => Ok(()),
        }
    }
}

/// Loads the selected cells of a shard set, epoch by epoch.
#[derive(Debug)]
pub struct Loader {
    source: Arc<Source>,
}

/// What the threads of an epoch share.
#[derive(Debug, Clone)]
struct Source {
    shards: Arc<ShardSet>,
    selection: RowSelection,
    options: LoaderOptions,
    threads: Arc<ThreadPool>,
    rank: Rank,
}

/// One of several processes that divide every batch among them.
#[derive(Debug, Clone, Copy)]
struct Rank {
    rank: usize,
    world_size: usize,
}

impl Rank {
    /// The members of a batch that are this process's: as many as those of any other, or one more or less.
    fn part_of<'a, T>(&self, batch: &'a [T]) -> &'a [T] {
        let start = |rank: usize| batch.len() * rank / self.world_size;
        &batch[start(self.rank)..start(self.rank + 1)]
    }
}

impl Loader {
    /// Prepares to load the cells of `selection`.
    ///
    /// # Errors
    /// [`Error::BadOption`] if an option makes no sense or the selection belongs to another shard set,
    /// [`Error::NoCells`] if nothing is selected, or nothing fills a batch where short ones are left out.
    pub fn new(shards: Arc<ShardSet>, selection: RowSelection, options: LoaderOptions) -> Result<Self> {
        options.check()?;
        if selection.n_rows() != shards.n_cells() as u64 {
            return Err(Error::BadOption {
                option: "selection",
                value: format!("of {} rows", selection.n_rows()),
                reason: format!("the shard set has {} cells", shards.n_cells()),
            });
        }
        let threads = ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .thread_name(|index| format!("cells-{index}"))
            .build()
            .map_err(|source| {
                Error::io("start threads to read", shards.path(), std::io::Error::other(source))
            })?;
        let (threads, rank) = (Arc::new(threads), Rank { rank: 0, world_size: 1 });
        let loader = Self { source: Arc::new(Source { shards, selection, options, threads, rank }) };
        if loader.n_batches() == 0 {
            return Err(Error::NoCells { path: loader.shards().path().to_path_buf(), filtered: false });
        }
        Ok(loader)
    }

    /// The same batches, of which only one process's part is made: the parts of all ranks are the whole batches, in
    /// order. A batch with fewer cells than there are processes leaves some of them an empty part.
    ///
    /// Row groups are decoded whole by every process, since the cells of a batch lie anywhere in a window; masking and
    /// everything after it is of the part alone. What the loader says of cells and batches stays that of the whole.
    ///
    /// # Errors
    /// [`Error::BadOption`] if there is no such rank.
    pub fn of_rank(&self, rank: usize, world_size: usize) -> Result<Self> {
        if rank >= world_size {
            let reason = format!("ranks are counted from 0, and there are {world_size} processes");
            return Err(Error::BadOption { option: "rank", value: rank.to_string(), reason });
        }
        let source = Source { rank: Rank { rank, world_size }, ..Source::clone(&self.source) };
        Ok(Self { source: Arc::new(source) })
    }

    /// The shard set the cells come from.
    pub fn shards(&self) -> &Arc<ShardSet> {
        &self.source.shards
    }

    /// The cells that are loaded.
    pub fn selection(&self) -> &RowSelection {
        &self.source.selection
    }

    /// How the cells are loaded.
    pub fn options(&self) -> &LoaderOptions {
        &self.source.options
    }

    /// Cells an epoch visits.
    pub fn n_cells(&self) -> usize {
        let n_selected = self.source.selection.len();
        match self.source.options.drop_last {
            true => n_selected - n_selected % self.source.options.batch_size,
            false => n_selected,
        }
    }

    /// Batches an epoch has, whatever its number.
    pub fn n_batches(&self) -> usize {
        self.n_cells().div_ceil(self.source.options.batch_size)
    }

    /// Masked batches of one epoch, from batch `first_batch` on: exactly the tail of the whole epoch.
    ///
    /// Order (if shuffled) and masks depend on `epoch`; a cell's mask depends on nothing else but the seed and its row.
    /// Validation that should ask the same question each time passes the same epoch each time.
    ///
    /// Reading happens on background threads, which wait when [`LoaderOptions::prefetch`] batches are ready and end
    /// when the iterator is dropped. The first error is the last item.
    pub fn epoch(&self, epoch: u64, first_batch: usize) -> Epoch<MaskedBatch> {
        self.finished_epoch(epoch, first_batch, |batch| batch)
    }

    /// [`Loader::epoch`] with each batch made into something else on the loader's threads, such as what a device is given:
    /// several batches at a time, so that no one waits for it.
    pub fn finished_epoch<T: Send + 'static>(
        &self,
        epoch: u64,
        first_batch: usize,
        finish: impl Fn(MaskedBatch) -> T + Send + Sync + 'static,
    ) -> Epoch<T> {
        let plan = Plan::new(&self.source, epoch, first_batch);
        let builder = Finished { builder: MaskedBuilder::new(&self.source, epoch), finish };
        Epoch::start(Arc::clone(&self.source), plan, builder)
    }

    /// Unmasked batches, for features and for training on labels; otherwise as [`Loader::epoch`].
    ///
    /// A cell with more than [`Masking::max_input`] of the wanted genes is reduced to a uniform sample, the same in every epoch.
    pub fn expressions(&self, epoch: u64, first_batch: usize) -> Epoch<ExpressionBatch> {
        let plan = Plan::new(&self.source, epoch, first_batch);
        let builder = ExpressionBuilder::new(&self.source);
        Epoch::start(Arc::clone(&self.source), plan, builder)
    }
}
