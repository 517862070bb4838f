//! The threads of an epoch: one reads windows, one makes batches, and both spread their work over the loader's pool.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{Builder, JoinHandle},
};

use rayon::prelude::*;

use super::{Source, build::BuildBatch, plan::Plan};
use crate::{
    error::{Error, Result},
    loader::plan::CellPlace,
    shard::StoredCells,
};

/// Batches of one epoch, in order; see [`Loader::epoch`](super::Loader::epoch).
///
/// After an error there are no more batches. Dropping it stops the threads behind it and waits for them.
#[derive(Debug)]
pub struct Epoch<B> {
    batches: Option<Receiver<Result<B>>>,
    n_remaining: usize,
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
    path: PathBuf,
}

/// The cells that a window completes to batches.
struct Block {
    window: usize,
    /// The carried cells come first, then the window's row groups.
    groups: Vec<StoredCells>,
    /// Cells in the epoch's order.
    order: Vec<CellPlace>,
}

impl<B: Send + 'static> Epoch<B> {
    pub(super) fn start(source: Arc<Source>, plan: Plan, builder: impl BuildBatch<Batch = B>) -> Self {
        let (batch_sender, batches) = sync_channel(source.options.prefetch);
        let (block_sender, blocks) = sync_channel(0);
        let stop = Arc::new(AtomicBool::new(false));
        let mut epoch = Self {
            batches: Some(batches),
            n_remaining: plan.n_remaining(),
            stop: Arc::clone(&stop),
            workers: Vec::new(),
            path: source.shards.path().to_path_buf(),
        };
        if epoch.n_remaining == 0 {
            return epoch;
        }
        let reader = Reader { source: Arc::clone(&source), plan: plan.clone(), stop: Arc::clone(&stop) };
        let errors = batch_sender.clone();
        let spawned = Builder::new()
            .name("cell-reader".into())
            .spawn(move || reader.run(&block_sender))
            .and_then(|worker| {
                epoch.workers.push(worker);
                Builder::new()
                    .name("cell-batcher".into())
                    .spawn(move || run_batcher(&source, &plan, &builder, &stop, &blocks, &batch_sender))
            })
            .map(|worker| epoch.workers.push(worker));
        if let Err(error) = spawned {
            // The queue is empty and holds at least one.
            let _ = errors.send(Err(Error::io("start threads to read", &epoch.path, error)));
        }
        epoch
    }
}

impl<B> Iterator for Epoch<B> {
    type Item = Result<B>;

    fn next(&mut self) -> Option<Result<B>> {
        if self.n_remaining == 0 {
            return None;
        }
        let received = self.batches.as_ref().and_then(|batches| batches.recv().ok());
        let item = received.unwrap_or_else(|| Err(Error::LoaderStopped { path: self.path.clone() }));
        self.n_remaining = match item {
            Ok(_) => self.n_remaining - 1,
            Err(_) => 0,
        };
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let least = self.n_remaining.min(1);
        (least, Some(self.n_remaining))
    }
}

impl<B> Drop for Epoch<B> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A thread that waits to send wakes up when nobody can receive.
        self.batches = None;
        for worker in self.workers.drain(..) {
            // A panic of the thread has already shown itself as an early end.
            let _ = worker.join();
        }
    }
}

/// Reads windows and hands on what they complete.
struct Reader {
    source: Arc<Source>,
    plan: Plan,
    stop: Arc<AtomicBool>,
}

impl Reader {
    fn run(&self, blocks: &SyncSender<Result<Block>>) {
        let windows = self.plan.windows_to_read();
        // The window before the first may be needed for what it leaves over.
        let turns =
            (windows.start.saturating_sub(1)..windows.end).map(|window| (window, self.plan.files(window)));
        let ahead = match self.source.shards.fetch_ahead(turns) {
            Ok(ahead) => ahead,
            Err(error) => {
                let _ = blocks.send(Err(error));
                return;
            }
        };
        let mut carried = match windows.start {
            0 => None,
            first => match self.read_carried(first - 1) {
                Ok(carried) => Some(carried),
                Err(error) => {
                    let _ = blocks.send(Err(error));
                    return;
                }
            },
        };
        for window in windows {
            if let Some(ahead) = &ahead {
                ahead.reached(window);
            }
            let block = self.read_block(window, carried.take());
            if let Ok(block) = &block {
                carried = Some(self.carry(block));
            }
            let failed = block.is_err();
            if blocks.send(block).is_err() || failed || self.stop.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    fn read_block(&self, window: usize, carried: Option<StoredCells>) -> Result<Block> {
        let all: Vec<u32> = (0..self.plan.n_groups(window) as u32).collect();
        let mut groups = self.read_groups(window, &all)?;
        let mut order = self.plan.order(window);
        if let Some(carried) = carried {
            order.iter_mut().for_each(|place| place.group += 1);
            let places = (0..carried.n_cells() as u32).map(|cell| CellPlace { group: 0, cell });
            order.splice(..0, places);
            groups.insert(0, carried);
        }
        Ok(Block { window, groups, order })
    }

    /// Copies the cells that wait for the next window.
    fn carry(&self, block: &Block) -> StoredCells {
        let places = &block.order[block.order.len() - self.plan.n_carried(block.window)..];
        let mut carried = StoredCells::new(self.source.shards.manifest().values);
        places
            .iter()
            .for_each(|place| carried.push(&block.groups[place.group as usize], place.cell as usize));
        carried
    }

    /// Reads the cells that a window leaves to the next, and only the row groups they are in.
    fn read_carried(&self, window: usize) -> Result<StoredCells> {
        let order = self.plan.order(window);
        let places = &order[order.len() - self.plan.n_carried(window)..];
        let mut needed: Vec<u32> = places.iter().map(|place| place.group).collect();
        needed.sort_unstable();
        needed.dedup();
        let groups = self.read_groups(window, &needed)?;
        let mut carried = StoredCells::new(self.source.shards.manifest().values);
        for place in places {
            if let Ok(slot) = needed.binary_search(&place.group) {
                carried.push(&groups[slot], place.cell as usize);
            }
        }
        Ok(carried)
    }

    fn read_groups(&self, window: usize, groups: &[u32]) -> Result<Vec<StoredCells>> {
        let read = |&group: &u32| match self.stop.load(Ordering::Relaxed) {
            true => Err(Error::LoaderStopped { path: self.source.shards.path().to_path_buf() }),
            false => self.plan.read_group(&self.source, window, group as usize),
        };
        self.source.threads.install(|| groups.par_iter().map(read).collect())
    }
}

/// Cuts blocks into batches, a batch a thread at a time, and sends them in order.
fn run_batcher<K: BuildBatch>(
    source: &Source,
    plan: &Plan,
    builder: &K,
    stop: &AtomicBool,
    blocks: &Receiver<Result<Block>>,
    batches: &SyncSender<Result<K::Batch>>,
) {
    for block in blocks {
        let block = match block {
            Ok(block) => block,
            Err(error) => {
                let _ = batches.send(Err(error));
                return;
            }
        };
        let cell = |place: &CellPlace| (&block.groups[place.group as usize], place.cell as usize);
        let lengths: Vec<usize> =
            (block.order.iter().map(cell)).map(|(cells, cell)| cells.genes(cell).len()).collect();
        let cut = plan.cut(block.window, &lengths);
        let n_skipped = plan.first_batch.saturating_sub(plan.batches(block.window).start).min(cut.len());
        for together in cut[n_skipped..].chunks(source.threads.current_num_threads()) {
            let build = |scratch: &mut K::Scratch, members: &Vec<usize>| {
                let own = source.rank.part_of(members);
                let cells: Vec<_> = own.iter().map(|&member| cell(&block.order[member])).collect();
                builder.build(&cells, scratch)
            };
            let built: Vec<K::Batch> = source
                .threads
                .install(|| together.par_iter().map_init(|| builder.scratch(), build).collect());
            for batch in built {
                if stop.load(Ordering::Relaxed) || batches.send(Ok(batch)).is_err() {
                    return;
                }
            }
        }
    }
}
