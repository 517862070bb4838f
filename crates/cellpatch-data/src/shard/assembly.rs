//! From a feed of cells to a finished set: sample, buckets on disk, Parquet files, and the manifest last.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use super::{
    SOURCES_FILE, VOCABULARY_FILE,
    balance::{KeyCounts, KeyRanges},
    encode::{self, CellEncoder, FileCells, write_error},
    feed::{Categories, Feed, Plan, SpillTarget, block_bytes, one_ahead},
    folder::{UnfinishedFolder, cell_file_name},
    job::Job,
    kept::HeldCells,
    manifest::{CellFile, Manifest, QualityCounts, SourceEntry, StoredValues},
    options::{ShardOptions, ShardProgress, ShardStage},
    reader::ShardSet,
    sample::{SampleBounds, Strata},
    spill::{Bucket, BucketMark, Buckets, SpillLayout, bucket_path},
};
use crate::error::{Error, Result};

/// Bytes assumed for a cell's name when the size of the spill is estimated.
const TYPICAL_ID_BYTES: usize = 32;
/// Buckets at most; beyond it they grow.
const MAX_BUCKETS: usize = 4096;
/// Bytes of a gene and its count once they are encoded, at most, and of what encodes a row group.
const ENCODED_BYTES: f64 = 2.0;
const ENCODER_BYTES: f64 = (4 << 20) as f64;
/// Row groups encoded at a time, however little memory there is: one for each of two cores, and one that is written.
const MIN_AHEAD: usize = 3;
/// Where the second pass notes how far it is. Another name than that of programs whose buckets were laid out otherwise.
const SPILL_FILE: &str = "buckets.json";

/// The second half of making a set.
pub(super) struct Assembly<'a> {
    pub(super) options: &'a ShardOptions,
    /// Columns of `obs` to keep.
    pub(super) columns: Vec<String>,
    pub(super) folder: UnfinishedFolder,
    pub(super) progress: &'a mut dyn FnMut(ShardProgress),
}

/// How far the second pass is, after an input.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct SpillState {
    n_inputs: usize,
    buckets: Vec<BucketMark>,
    /// Categories of each column so far.
    categories: Vec<Vec<String>>,
    /// Cells of each source that were written, and that were left out for want of genes.
    cells: Vec<(u64, u64)>,
}

/// Everything that is in buckets.
struct Spilled {
    /// The buckets that have cells, and the files they are.
    buckets: Vec<(usize, BucketMark)>,
    layout: SpillLayout,
    categories: Vec<Vec<String>>,
}

impl Assembly<'_> {
    /// Makes the set; `first` is the input to name where nothing is left of all.
    pub(super) fn finish(
        mut self,
        feed: &mut dyn Feed,
        mut plan: Plan,
        job: &Job,
        first: &Path,
    ) -> Result<()> {
        let nothing = |filtered| Error::NoCells { path: first.to_path_buf(), filtered };
        let n_read: u64 = plan.sources.iter().map(|source| source.n_cells).sum();
        let sample = self.sample(feed)?;
        let counts = self.count(feed, sample.as_ref())?;
        if counts.n_cells() == 0 && plan.part.is_none() {
            return Err(nothing(n_read > 0));
        }
        let layout =
            SpillLayout { n_labels: self.columns.len(), counts_u16: plan.values == StoredValues::CountsU16 };
        let n_buckets = n_buckets(&plan.sources, counts.n_cells(), layout, self.options.max_memory);
        let ranges = counts.ranges(n_buckets);
        let all_columns = self.columns.clone();
        let target = SpillTarget {
            seed: self.options.seed,
            values: plan.values,
            columns: &all_columns,
            block_bytes: block_bytes(self.options.max_memory),
        };
        let mut categories = vec![Categories::default(); all_columns.len()];
        let held = feed.held(&target, &mut categories)?;
        let spilled = match &held {
            Some(cells) => {
                add_cells(&mut plan.sources, cells.n_cells());
                None
            }
            None => Some(self.spill(feed, &mut plan, &target, layout, &ranges)?),
        };
        let n_written = plan.sources.iter().map(|source| source.n_cells_written).sum::<u64>() as usize;
        if n_written == 0 && plan.part.is_none() {
            return Err(nothing(true));
        }
        let files = match (held, spilled) {
            (Some(cells), _) => {
                let encoder = self.encoder(&plan, categories.into_iter().map(|column| column.names))?;
                self.encode_held(&encoder, &cells, &ranges, n_written)?
            }
            (None, Some(spilled)) => {
                let encoder = self.encoder(&plan, spilled.categories.iter().cloned())?;
                self.encode(&encoder, &spilled, n_written)?
            }
            (None, None) => Vec::new(),
        };
        let mut manifest = self.manifest(plan, files, job)?;
        let set = ShardSet::of(self.folder.work().to_path_buf(), manifest.clone())?;
        manifest.shared_cells = set.shared_cells(self.options.max_memory / 4)?;
        self.folder.commit(&manifest)
    }

    /// What to leave of every stratum, where there are more than `max_cells` cells.
    fn sample(&self, feed: &mut dyn Feed) -> Result<Option<SampleBounds>> {
        let Some(max_cells) = self.options.max_cells else { return Ok(None) };
        let mut strata = Strata::default();
        for input in 0..feed.n_inputs() {
            feed.review(input, self.options.stratify.as_deref(), &mut |cell, label| {
                strata.add(label, cell.sample_key(self.options.seed));
                true
            })?;
        }
        Ok((strata.n_cells() > max_cells).then(|| strata.bounds(max_cells)))
    }

    /// Leaves the cells of the sample, if one is drawn, and counts where they will go.
    fn count(&self, feed: &mut dyn Feed, sample: Option<&SampleBounds>) -> Result<KeyCounts> {
        let seed = self.options.seed;
        let column = sample.and(self.options.stratify.as_deref());
        let mut counts = KeyCounts::default();
        for input in 0..feed.n_inputs() {
            feed.review(input, column, &mut |cell, label| {
                let stays = sample.is_none_or(|sample| sample.keeps(label, cell.sample_key(seed)));
                if stays {
                    counts.add(cell.key(seed));
                }
                stays
            })?;
        }
        Ok(counts)
    }

    /// Puts every cell in the bucket of its random key, from where an interrupted run stopped.
    fn spill(
        &mut self,
        feed: &dyn Feed,
        plan: &mut Plan,
        target: &SpillTarget<'_>,
        layout: SpillLayout,
        ranges: &KeyRanges,
    ) -> Result<Spilled> {
        let Self { options, columns, folder, progress } = self;
        let mut state = begun(folder, ranges, plan, feed.n_inputs()).unwrap_or_default();
        let mut buckets = None;
        if state.n_inputs < feed.n_inputs() {
            let memory = options.max_memory / 8;
            let resumed = Buckets::resume(folder.work(), ranges, memory, layout, &state.buckets)?;
            if resumed.is_none() {
                state = SpillState::default();
            }
            let fresh = || Buckets::new(folder.work(), ranges, memory, layout);
            buckets = Some(resumed.map_or_else(fresh, Ok)?);
        }
        state.categories.resize(columns.len(), Vec::new());
        state.cells.resize(plan.sources.len(), (0, 0));
        let mut categories: Vec<Categories> = state.categories.drain(..).map(Categories::of).collect();
        let total = (0..feed.n_inputs()).map(|input| feed.n_cells(input)).sum();
        let mut done = (0..state.n_inputs).map(|input| feed.n_cells(input)).sum();
        for input in state.n_inputs..feed.n_inputs() {
            let Some(buckets) = &mut buckets else { break };
            let cells = &mut state.cells;
            let mut spill = |cell: &super::spill::SpilledCell<'_>| {
                let (n_written, n_without_genes) = &mut cells[cell.source as usize];
                if cell.genes.is_empty() {
                    *n_without_genes += 1;
                    return Ok(());
                }
                *n_written += 1;
                buckets.push(cell)
            };
            let mut observe = |n_cells| {
                done += n_cells;
                progress(ShardProgress { stage: ShardStage::Permute, done, total });
            };
            feed.spill(input, target, &mut categories, &mut spill, &mut observe)?;
            state.n_inputs = input + 1;
            state.buckets = buckets.marks()?;
            state.categories = categories.iter().map(|column| column.names.clone()).collect();
            folder.save(SPILL_FILE, &state)?;
        }
        add_cells(&mut plan.sources, &state.cells);
        let buckets = state.buckets.into_iter().enumerate().filter(|(_, mark)| mark.bytes > 0).collect();
        let categories = categories.into_iter().map(|column| column.names).collect();
        Ok(Spilled { buckets, layout, categories })
    }

    /// - `categories`: of each column
    fn encoder(&self, plan: &Plan, categories: impl Iterator<Item = Vec<String>>) -> Result<CellEncoder> {
        let categories: Vec<Vec<String>> = categories.collect();
        let columns = self.columns.iter().zip(&categories);
        let columns: Vec<(&str, Vec<&str>)> = columns
            .map(|(name, names)| (name.as_str(), names.iter().map(String::as_str).collect()))
            .collect();
        let sources = plan.sources.iter().map(|source| source.name.as_str());
        let group_bytes = self.options.row_group_cells as f64 * genes_a_cell(&plan.sources) * ENCODED_BYTES;
        let n_ahead = (self.options.max_memory / 8) as f64 / (group_bytes + ENCODER_BYTES);
        let n_ahead = (n_ahead as usize).max(MIN_AHEAD);
        CellEncoder::new(plan.values, self.options.row_group_cells, n_ahead, sources, &columns)
            .map_err(|error| write_error(self.folder.work(), error))
    }

    /// Writes the files that [`encode`](Self::encode) would make of buckets, from memory.
    fn encode_held(
        &mut self,
        encoder: &CellEncoder,
        cells: &HeldCells<'_>,
        ranges: &KeyRanges,
        total: usize,
    ) -> Result<Vec<CellFile>> {
        let files = cells.ranges(|key| ranges.position(key)).into_iter().enumerate();
        let files = files.map(|(index, cells)| FileCells { name: cell_file_name(index), cells });
        let files: Vec<FileCells> = files.collect();
        let mut done = 0;
        encoder.write(cells, self.folder.work(), &files, |n_cells| {
            done += n_cells;
            (self.progress)(ShardProgress { stage: ShardStage::Write, done, total });
        })
    }

    /// Turns every bucket into a Parquet file; the next is read meanwhile.
    fn encode(&mut self, encoder: &CellEncoder, spilled: &Spilled, total: usize) -> Result<Vec<CellFile>> {
        let Self { folder, progress, .. } = self;
        let folder = &*folder;
        let mut files: Vec<CellFile> = Vec::with_capacity(spilled.buckets.len());
        let mut done = 0;
        let buckets = spilled.buckets.iter().enumerate().map(|(index, &(bucket, mark))| {
            let path = bucket_path(folder.work(), bucket);
            match encoded(folder, index) {
                Some(file) => Ok((index, path, None, Some(file))),
                None => {
                    Bucket::read(&path, spilled.layout, mark).map(|cells| (index, path, Some(cells), None))
                }
            }
        });
        one_ahead(buckets, |bucket| {
            let (index, path, cells, mut file) = bucket?;
            if let Some(cells) = cells {
                let name = cell_file_name(index);
                let whole = [FileCells { name, cells: 0..cells.n_cells() }];
                file = encoder.write(&cells, folder.work(), &whole, |_| {})?.pop();
                folder.save(&encoded_name(index), &file)?;
            }
            done += file.as_ref().map_or(0, CellFile::n_cells) as usize;
            files.extend(file);
            // Only now can it not be needed any more.
            match fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", &path, source));
                }
                _ => progress(ShardProgress { stage: ShardStage::Write, done, total }),
            }
            Ok(())
        })?;
        Ok(files)
    }

    /// Writes the other files, and describes everything but what sources have in common.
    fn manifest(&self, plan: Plan, files: Vec<CellFile>, job: &Job) -> Result<Manifest> {
        let work = self.folder.work();
        let Plan { vocabulary, sources, measured, values, part } = plan;
        vocabulary.write_parquet(&work.join(VOCABULARY_FILE))?;
        let names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
        encode::write_sources(&work.join(SOURCES_FILE), &names, &measured)?;
        let side_files = [VOCABULARY_FILE, SOURCES_FILE].iter().map(|name| encode::seal(work, name));
        let (format, version) = Manifest::current_format();
        let options = self.options;
        Ok(Manifest {
            format,
            version,
            job: job.hash.clone(),
            part,
            seed: options.seed,
            values,
            n_cells: files.iter().map(CellFile::n_cells).sum(),
            row_group_cells: options.row_group_cells as u32,
            n_genes: vocabulary.len() as u32,
            capacity: vocabulary.capacity() as u32,
            vocabulary_hash: vocabulary.hash(),
            quality: QualityCounts {
                min_genes: options.quality.min_genes,
                min_cells: options.quality.min_cells,
                n_cells_read: sources.iter().map(|source| source.n_cells).sum(),
                n_cells_kept: sources.iter().map(|source| source.n_cells_kept).sum(),
                max_cells: options.max_cells.map(|max_cells| max_cells as u64),
                stratify: options.stratify.clone(),
                n_cells_secondary: sources.iter().map(|source| source.n_cells_secondary).sum(),
            },
            obs_columns: self.columns.clone(),
            side_files: side_files.collect::<Result<_>>()?,
            sources,
            files,
            shared_cells: Vec::new(),
        })
    }
}

/// Notes how many cells of each source were written, and how many left out for want of genes.
fn add_cells(sources: &mut [SourceEntry], cells: &[(u64, u64)]) {
    for (source, &(n_written, n_without_genes)) in sources.iter_mut().zip(cells) {
        source.n_cells_written = n_written;
        source.n_cells_without_genes += n_without_genes;
    }
}

/// How far an interrupted run's second pass was, if it noted that.
fn begun(folder: &UnfinishedFolder, ranges: &KeyRanges, plan: &Plan, n_inputs: usize) -> Option<SpillState> {
    let state: SpillState = folder.load(SPILL_FILE)?;
    let fits = state.n_inputs <= n_inputs
        && state.buckets.len() == ranges.len()
        && state.cells.len() == plan.sources.len();
    fits.then_some(state)
}

/// What an interrupted run noted of a file it had finished, if the file is there.
fn encoded(folder: &UnfinishedFolder, index: usize) -> Option<CellFile> {
    let file: CellFile = folder.load(&encoded_name(index))?;
    let bytes = fs::metadata(folder.work().join(&file.name)).ok()?.len();
    (bytes == file.bytes).then_some(file)
}

fn encoded_name(index: usize) -> String {
    format!("encoded-{index:05}.json")
}

/// So many buckets that one would take a quarter of the memory as plain numbers; packed, it takes about a third of that.
fn n_buckets(sources: &[SourceEntry], n_cells: u64, layout: SpillLayout, max_memory: usize) -> usize {
    let cell_bytes =
        layout.cell_bytes(TYPICAL_ID_BYTES) as f64 + genes_a_cell(sources) * layout.gene_bytes() as f64;
    ((n_cells as f64 * cell_bytes / (max_memory as f64 / 4.0)).ceil() as usize).clamp(1, MAX_BUCKETS)
}

/// Genes of a cell, on average over all that passed quality control.
fn genes_a_cell(sources: &[SourceEntry]) -> f64 {
    let n_values: u64 = sources.iter().map(|source| source.n_values).sum();
    let n_kept: u64 = sources.iter().map(|source| source.n_cells_kept).sum();
    n_values as f64 / n_kept.max(1) as f64
}
