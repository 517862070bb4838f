//! Where the cells of a set come from.

use std::{collections::HashMap, path::Path, sync::mpsc};

use super::{
    kept::HeldCells,
    manifest::{PartEntry, SourceEntry, StoredValues},
    spill::{NO_LABEL, SpilledCell},
};
use crate::{
    CellBlocks, CountBlock, GeneVocabulary, Labels,
    error::Result,
    random::{Purpose, stream},
};

/// Cells on their way into a set, input by input. What an input is, a file or a part with many sources, is the feed's.
pub(super) trait Feed {
    /// How many inputs there are.
    fn n_inputs(&self) -> usize;

    /// How many cells an input has, kept or not.
    fn n_cells(&self, input: usize) -> usize;

    /// Shows every kept cell of an input, in any order; it stays if `keep` says so.
    ///
    /// - `column`: whose label the cells are shown with
    fn review(
        &mut self,
        input: usize,
        column: Option<&str>,
        keep: &mut dyn FnMut(CellPlace, Option<&str>) -> bool,
    ) -> Result<()>;

    /// All cells that [`spill`](Self::spill) would hand out; `None` unless all are in memory.
    fn held(
        &self,
        _target: &SpillTarget<'_>,
        _categories: &mut [Categories],
    ) -> Result<Option<HeldCells<'_>>> {
        Ok(None)
    }

    /// Hands out every kept cell of an input, one without genes too.
    ///
    /// - `target`: what values the set has; those of the feed are made so
    /// - `categories`: of each column to keep; labels become codes in them, and they grow
    /// - `observe`: is told from time to time how many more cells were read
    fn spill(
        &self,
        input: usize,
        target: &SpillTarget<'_>,
        categories: &mut [Categories],
        spill: &mut dyn FnMut(&SpilledCell<'_>) -> Result<()>,
        observe: &mut dyn FnMut(usize),
    ) -> Result<()>;
}

/// What cells are made for.
pub(super) struct SpillTarget<'a> {
    pub(super) seed: u64,
    pub(super) values: StoredValues,
    /// Columns of `obs` to keep.
    pub(super) columns: &'a [String],
    /// Bytes of a block of cells.
    pub(super) block_bytes: usize,
}

/// Bytes of a block of cells under a limit: no more than what stays in a processor's cache from one use to the next.
pub(super) fn block_bytes(max_memory: usize) -> usize {
    (max_memory / 16).min(4 << 20)
}

/// What is known of all cells together before the first is written.
pub(super) struct Plan {
    pub(super) vocabulary: GeneVocabulary,
    pub(super) sources: Vec<SourceEntry>,
    /// Tokens each source measured, ascending.
    pub(super) measured: Vec<Vec<u32>>,
    pub(super) values: StoredValues,
    pub(super) part: Option<PartEntry>,
}

/// A cell of the whole set, whatever part it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CellPlace {
    /// Position of its source among those of the whole set.
    pub(super) source: u32,
    /// Row in the source.
    pub(super) row: u32,
}

impl CellPlace {
    /// The random number that decides where the cell goes.
    pub(super) fn key(self, seed: u64) -> u64 {
        stream(seed, Purpose::Permutation, u64::from(self.source), u64::from(self.row)).bits()
    }

    /// The random number that decides whether it is in a sample.
    pub(super) fn sample_key(self, seed: u64) -> u64 {
        stream(seed, Purpose::Subsample, u64::from(self.source), u64::from(self.row)).bits()
    }
}

/// Labels of one column over all sources, in order of appearance.
#[derive(Debug, Clone, Default)]
pub(super) struct Categories {
    pub(super) names: Vec<String>,
    codes: HashMap<String, u32>,
}

impl Categories {
    pub(super) fn of(names: Vec<String>) -> Self {
        let mut categories = Self::default();
        names.iter().for_each(|name| {
            categories.code(name);
        });
        categories
    }

    pub(super) fn code(&mut self, label: &str) -> u32 {
        if let Some(&code) = self.codes.get(label) {
            return code;
        }
        let code = self.names.len() as u32;
        self.names.push(label.to_owned());
        self.codes.insert(label.to_owned(), code);
        code
    }

    /// The codes of a column whose categories become part of these.
    pub(super) fn codes(&mut self, labels: &Labels) -> Vec<u32> {
        let merged: Vec<u32> = labels.categories.iter().map(|label| self.code(label)).collect();
        let code = |code: &Option<u32>| code.and_then(|code| merged.get(code as usize).copied());
        labels.codes.iter().map(|own| code(own).unwrap_or(NO_LABEL)).collect()
    }
}

/// The file's or folder's name without its endings, with a number where an earlier one has the same.
pub(super) fn source_names<'a>(paths: impl Iterator<Item = &'a Path>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let unpacked = Path::new(name.strip_suffix(".gz").unwrap_or(&name));
        let stem = if path.is_dir() { unpacked.file_name() } else { unpacked.file_stem() };
        let stem = stem.unwrap_or_default().to_string_lossy().into_owned();
        let numbered = (2..).map(|number| format!("{stem}-{number}"));
        let free = std::iter::once(stem.clone()).chain(numbered).find(|name| !names.contains(name));
        names.push(free.unwrap_or(stem));
    }
    names
}

/// Takes items on this thread while another makes the next one: at most two exist at a time.
pub(super) fn one_ahead<T: Send>(
    items: impl Iterator<Item = T> + Send,
    mut take: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(0);
        scope.spawn(move || {
            // Fails when the taker gave up.
            for item in items {
                if sender.send(item).is_err() {
                    break;
                }
            }
        });
        receiver.into_iter().try_for_each(&mut take)
    })
}

/// The same of blocks of cells, which are read into those that were taken.
pub(super) fn blocks_ahead(
    mut blocks: CellBlocks,
    mut take: impl FnMut(&CountBlock) -> Result<()>,
) -> Result<()> {
    let (give_back, taken) = mpsc::channel();
    let blocks = std::iter::from_fn(move || {
        if let Ok(block) = taken.try_recv() {
            blocks.reuse(block);
        }
        blocks.next()
    });
    one_ahead(blocks, |block| {
        let block = block?;
        take(&block)?;
        // Nobody wants it once the last is read.
        let _ = give_back.send(block);
        Ok(())
    })
}
