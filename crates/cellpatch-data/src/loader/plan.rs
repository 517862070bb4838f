//! Which cells an epoch visits in which order, worked out from row counts alone.

use std::ops::Range;

use super::Source;
use crate::{
    error::Result,
    random::{Purpose, stream},
    shard::{RowGroup, StoredCells},
};

/// Consecutive row groups of an epoch's order that are shuffled together.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Window {
    groups: Vec<RowGroup>,
    /// Cells of each group that are selected.
    n_selected: Vec<u32>,
    /// Positions of its cells in the epoch's order.
    positions: Range<usize>,
}

/// A cell of a window: the group it is in, and its place among that group's selected cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CellPlace {
    pub(super) group: u32,
    pub(super) cell: u32,
}

/// The order of one epoch, and where in it to start.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    windows: Vec<Window>,
    seed: u64,
    epoch: u64,
    shuffle: bool,
    length_buckets: bool,
    batch_size: usize,
    /// Cells of the epoch, without those of a short last batch if it is left out.
    n_cells: usize,
    pub(super) first_batch: usize,
}

impl Plan {
    pub(super) fn new(source: &Source, epoch: u64, first_batch: usize) -> Self {
        let options = &source.options;
        let mut groups: Vec<(RowGroup, u32)> = (source.shards.row_groups().iter())
            .map(|group| (*group, source.selection.count_in(group.rows()) as u32))
            .filter(|&(_, n_selected)| n_selected > 0)
            .collect();
        if options.shuffle {
            stream(options.seed, Purpose::RowGroupOrder, epoch, 0).shuffle(&mut groups);
        }
        Self {
            windows: windows(&groups, options.window_cells.max(options.batch_size)),
            seed: options.seed,
            epoch,
            shuffle: options.shuffle,
            length_buckets: options.length_buckets,
            batch_size: options.batch_size,
            n_cells: match options.drop_last {
                true => source.selection.len() / options.batch_size * options.batch_size,
                false => source.selection.len(),
            },
            first_batch,
        }
    }

    /// Batches from `first_batch` to the end of the epoch.
    pub(super) fn n_remaining(&self) -> usize {
        self.n_cells.div_ceil(self.batch_size).saturating_sub(self.first_batch)
    }

    /// Windows from the one that completes `first_batch` to the last.
    pub(super) fn windows_to_read(&self) -> Range<usize> {
        let first = (0..self.windows.len()).find(|&window| self.batches(window).end > self.first_batch);
        first.unwrap_or(self.windows.len())..self.windows.len()
    }

    /// Batches that are cut when a window has been read.
    pub(super) fn batches(&self, window: usize) -> Range<usize> {
        let start = self.windows[window].positions.start / self.batch_size;
        let end = match window + 1 == self.windows.len() {
            true => self.n_cells.div_ceil(self.batch_size),
            false => self.windows[window].positions.end / self.batch_size,
        };
        start..end
    }

    pub(super) fn n_groups(&self, window: usize) -> usize {
        self.windows[window].groups.len()
    }

    /// Cells of a window in the epoch's order.
    pub(super) fn order(&self, window: usize) -> Vec<CellPlace> {
        let n_selected = &self.windows[window].n_selected;
        let mut order: Vec<CellPlace> = (0u32..)
            .zip(n_selected)
            .flat_map(|(group, &n_cells)| (0..n_cells).map(move |cell| CellPlace { group, cell }))
            .collect();
        if self.shuffle {
            stream(self.seed, Purpose::WindowShuffle, self.epoch, window as u64).shuffle(&mut order);
        }
        order
    }

    /// How many cells at the end of a window's order wait for the next window to fill their batch.
    ///
    /// A window has at least one batch of cells, unless it is the last: what is left over is always its own.
    pub(super) fn n_carried(&self, window: usize) -> usize {
        match window + 1 == self.windows.len() {
            true => 0,
            false => self.windows[window].positions.end % self.batch_size,
        }
    }

    /// The files that a window is in, without repetition.
    pub(super) fn files(&self, window: usize) -> Vec<usize> {
        let mut files = Vec::new();
        for group in &self.windows[window].groups {
            if !files.contains(&group.file) {
                files.push(group.file);
            }
        }
        files
    }

    /// Reads the selected cells of one group of a window.
    pub(super) fn read_group(&self, source: &Source, window: usize, group: usize) -> Result<StoredCells> {
        source.shards.decode(self.windows[window].groups[group], &|row| source.selection.contains(row))
    }

    /// Puts the cells of a block into batches: each item is the places of one batch's cells in `lengths`.
    ///
    /// `lengths` are genes a cell, in the epoch's order. With length buckets, shuffled batches hold cells of similar
    /// length, but for a short last one, which is made of the last cells and stays last.
    pub(super) fn cut(&self, window: usize, lengths: &[usize]) -> Vec<Vec<usize>> {
        let batches = self.batches(window);
        let n_wanted = (batches.len() * self.batch_size).min(lengths.len());
        let n_full = n_wanted / self.batch_size * self.batch_size;
        let mut order: Vec<usize> = (0..n_wanted).collect();
        if !self.shuffle {
            return order.chunks(self.batch_size).map(<[usize]>::to_vec).collect();
        }
        let mut random = stream(self.seed, Purpose::BatchOrder, self.epoch, window as u64);
        // Up to an eighth more or less, in whole numbers: neighbours in length are not always the same cells.
        let keys: Vec<u64> = lengths
            .iter()
            .map(|&length| length as u64 * (7 * 65_536 + u64::from(random.below(2 * 65_536))))
            .collect();
        if self.length_buckets {
            order[..n_full].sort_unstable_by_key(|&cell| (keys[cell], cell));
        }
        let mut cut: Vec<Vec<usize>> =
            order[..n_full].chunks(self.batch_size).map(<[usize]>::to_vec).collect();
        random.shuffle(&mut cut);
        if n_full < n_wanted {
            cut.push(order[n_full..].to_vec());
        }
        cut
    }
}

/// Groups row groups into windows of at least `n_least` selected cells; the last may have fewer.
fn windows(groups: &[(RowGroup, u32)], n_least: usize) -> Vec<Window> {
    let mut windows: Vec<Window> = Vec::new();
    for &(group, n_selected) in groups {
        let end = windows.last().map_or(0, |window| window.positions.end);
        match windows.last_mut() {
            Some(window) if window.positions.len() < n_least => {
                window.groups.push(group);
                window.n_selected.push(n_selected);
                window.positions.end += n_selected as usize;
            }
            _ => windows.push(Window {
                groups: vec![group],
                n_selected: vec![n_selected],
                positions: end..end + n_selected as usize,
            }),
        }
    }
    windows
}
