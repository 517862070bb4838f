//! Making a shard set: two passes over the inputs, a permutation on disk, Parquet files, and the manifest last.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use rayon::prelude::*;

use super::{
    SOURCES_FILE, VOCABULARY_FILE,
    encode::{self, CellEncoder},
    folder::{UnfinishedFolder, cell_file_name, hash_files},
    manifest::{CellFile, Manifest, QualityCounts, StoredValues},
    options::{ShardOptions, ShardProgress, ShardStage},
    reader::ShardSet,
    spill::{Bucket, Buckets, NO_LABEL, SpillLayout, SpilledCell},
    survey::{self, ColumnFate, Survey},
};
use crate::{
    CellSource, CountBlock, GeneVocabulary,
    error::{Error, Result},
    normalize::normalize,
    random::{Purpose, stream},
    source::{genes_under, open_cells},
};

/// Bytes assumed for a cell's name when the size of the spill is estimated.
const TYPICAL_ID_BYTES: usize = 32;
/// Buckets at most; beyond it they grow.
const MAX_BUCKETS: usize = 4096;

/// Makes a shard set of `inputs` in the folder `out`, which must be empty, new, or left by an interrupted run.
///
/// Quality control follows scanpy, file by file: cells with too few genes go first, then genes seen in too few of the
/// cells that stay. Cells left without any gene of the vocabulary are dropped too. The cells of all files are then put
/// in one uniformly random order, fixed by the seed and the order of `inputs`.
///
/// Besides the result, the folder needs room for all cells uncompressed while this runs. Memory stays at about
/// [`ShardOptions::max_memory`] plus cell names and labels of the largest file. When it fails, it takes back what it has
/// written; when it is killed, the next call on the same folder does.
///
/// # Errors
/// [`Error::FolderNotEmpty`] and [`Error::FolderBusy`] for the folder, [`Error::Missing`] if no input has one of
/// the label columns, [`Error::FewGenesMatched`] and [`Error::VocabularyFull`] for genes, [`Error::NoCells`] if nothing
/// is left, [`Error::Io`] where the disk is full or cannot be written, and whatever is wrong with an input file.
pub fn write_shards(
    inputs: &[PathBuf],
    out: &Path,
    options: &ShardOptions,
    progress: &mut dyn FnMut(ShardProgress),
) -> Result<ShardSet> {
    write_sources(inputs, &|path| open_cells(path, &options.choice), out, options, progress)
}

/// [`write_shards`] for any kind of source.
pub(super) fn write_sources(
    inputs: &[PathBuf],
    open: &dyn Fn(&Path) -> Result<Box<dyn CellSource>>,
    out: &Path,
    options: &ShardOptions,
    progress: &mut dyn FnMut(ShardProgress),
) -> Result<ShardSet> {
    options.check()?;
    let n_cells_read = check_inputs(inputs, open, options)?;
    let folder = UnfinishedFolder::claim(out)?;
    let mut job = Job { inputs, open, options, work: folder.work().to_path_buf(), progress };
    let (vocabulary, mut surveys) = job.survey(n_cells_read)?;
    let n_kept = job.sample(&mut surveys);
    if n_kept == 0 {
        return Err(Error::NoCells { path: inputs[0].clone(), filtered: n_cells_read > 0 });
    }
    let values = stored_values(&surveys);
    let layout =
        SpillLayout { n_labels: options.obs_columns.len(), counts_u16: values == StoredValues::CountsU16 };
    let (buckets, categories) = job.permute(&mut surveys, layout, values)?;
    let n_written: u64 = surveys.iter().map(|survey| survey.entry.n_cells_written).sum();
    if n_written == 0 {
        return Err(Error::NoCells { path: inputs[0].clone(), filtered: true });
    }
    let files = job.encode(&surveys, buckets, layout, values, &categories, n_written as usize)?;
    let manifest = job.manifest(&vocabulary, surveys, files, values)?;
    folder.commit(&manifest)?;
    ShardSet::open(out)
}

/// Opens every input before any long work, and counts cells.
fn check_inputs(
    inputs: &[PathBuf],
    open: &dyn Fn(&Path) -> Result<Box<dyn CellSource>>,
    options: &ShardOptions,
) -> Result<usize> {
    if inputs.is_empty() {
        let reason = "at least one input file is needed".into();
        return Err(Error::BadOption { option: "data", value: "empty".into(), reason });
    }
    let mut n_cells = 0;
    let mut available: Vec<String> = Vec::new();
    for path in inputs {
        let source = open(path)?;
        n_cells += source.n_cells();
        if let Some(vocabulary) = &options.vocabulary {
            survey::check_match(
                &genes_under(source.as_ref(), options.vocabulary.as_ref(), options.mouse)?,
                vocabulary,
                options.min_match,
                path,
            )?;
        }
        for name in source.obs_columns() {
            if !available.contains(&name) {
                available.push(name);
            }
        }
    }
    match options.obs_columns.iter().find(|name| !available.contains(name)) {
        Some(name) => Err(Error::Missing {
            path: inputs[0].clone(),
            what: "label column",
            name: name.clone(),
            available,
        }),
        None => Ok(n_cells),
    }
}

/// Counts fit in 16 bits, or they do not; one source of logarithms makes all cells logarithms.
fn stored_values(surveys: &[Survey]) -> StoredValues {
    if surveys.iter().any(|survey| survey.is_log1p) {
        StoredValues::Log1pF32
    } else if surveys.iter().all(|survey| survey.largest <= f32::from(u16::MAX)) {
        StoredValues::CountsU16
    } else {
        StoredValues::CountsF32
    }
}

/// One call of [`write_shards`].
struct Job<'a> {
    inputs: &'a [PathBuf],
    open: &'a dyn Fn(&Path) -> Result<Box<dyn CellSource>>,
    options: &'a ShardOptions,
    work: PathBuf,
    progress: &'a mut dyn FnMut(ShardProgress),
}

impl Job<'_> {
    fn block_bytes(&self) -> usize {
        self.options.max_memory / 16
    }

    /// First pass: quality control and tokens, source by source.
    fn survey(&mut self, n_cells: usize) -> Result<(GeneVocabulary, Vec<Survey>)> {
        let options = self.options;
        let mut vocabulary =
            options.vocabulary.clone().unwrap_or_else(|| GeneVocabulary::new(options.capacity));
        let grow = options.extend_vocabulary || options.vocabulary.is_none();
        let block_bytes = self.block_bytes();
        let mut surveys: Vec<Survey> = Vec::with_capacity(self.inputs.len());
        let mut done = 0;
        for path in self.inputs {
            let source = (self.open)(path)?;
            let progress = &mut *self.progress;
            let mut observe = |n_cells_of_block: usize| {
                done += n_cells_of_block;
                progress(ShardProgress { stage: ShardStage::Survey, done, total: n_cells });
            };
            let statistics = survey::read(source.as_ref(), options, block_bytes, &mut observe)?;
            let mut survey = statistics.assign(&mut vocabulary, grow, path)?;
            (survey.entry.bytes, survey.entry.sha256) = hash_files(&source.files())?;
            survey.entry.file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            survey.entry.name = unique_name(path, &surveys);
            survey.entry.matrix = source.matrix();
            survey.is_log1p = source.is_log1p();
            surveys.push(survey);
        }
        Ok((vocabulary, surveys))
    }

    /// Unmarks kept cells beyond `max_cells`: those with the largest random numbers. Says how many are left.
    fn sample(&self, surveys: &mut [Survey]) -> usize {
        let n_kept: usize = surveys.iter().map(|survey| survey.entry.n_cells_kept as usize).sum();
        let Some(max_cells) = self.options.max_cells.filter(|&max_cells| max_cells < n_kept) else {
            return n_kept;
        };
        let seed = self.options.seed;
        let key =
            |source: usize, cell: usize| stream(seed, Purpose::Subsample, source as u64, cell as u64).bits();
        let kept = |survey: &Survey| -> Vec<usize> {
            (0..survey.kept_cells.len()).filter(|&cell| survey.kept_cells[cell]).collect()
        };
        let mut keys: Vec<u64> = Vec::with_capacity(n_kept);
        for (source, survey) in surveys.iter().enumerate() {
            keys.extend(kept(survey).into_iter().map(|cell| key(source, cell)));
        }
        let (_, &mut first_out, _) = keys.select_nth_unstable(max_cells);
        for (source, survey) in surveys.iter_mut().enumerate() {
            for cell in kept(survey) {
                survey.kept_cells[cell] = key(source, cell) < first_out;
            }
        }
        max_cells
    }

    /// Second pass: every kept cell goes to the bucket of its random key.
    ///
    /// Gives the buckets' files and the categories of each label column.
    fn permute(
        &mut self,
        surveys: &mut [Survey],
        layout: SpillLayout,
        values: StoredValues,
    ) -> Result<(Vec<PathBuf>, Vec<Vec<String>>)> {
        let total: usize = surveys.iter().map(|survey| survey.kept_cells.len()).sum();
        let n_buckets = n_buckets(surveys, layout, self.options.max_memory);
        let mut buckets = Buckets::new(&self.work, n_buckets, self.options.max_memory / 8, layout);
        let mut categories = vec![Categories::default(); self.options.obs_columns.len()];
        let mut done = 0;
        for (index, (path, survey)) in self.inputs.iter().zip(surveys).enumerate() {
            let source = (self.open)(path)?;
            let cell_ids = source.cell_ids()?;
            let labels = self.label_codes(source.as_ref(), &mut categories)?;
            let mut cells = CellAssembler {
                normalize_first: values == StoredValues::Log1pF32 && !survey.is_log1p,
                ..Default::default()
            };
            for block in source.blocks(self.block_bytes())? {
                let block = block?;
                for cell in 0..block.n_cells() {
                    let row = block.first_row + cell;
                    if !survey.kept_cells.get(row).is_some_and(|&kept| kept) {
                        continue;
                    }
                    cells.assemble(&block, cell, survey);
                    if cells.genes.is_empty() {
                        survey.entry.n_cells_without_genes += 1;
                        continue;
                    }
                    survey.entry.n_cells_written += 1;
                    cells.labels.clear();
                    cells
                        .labels
                        .extend(labels.iter().map(|codes| codes.get(row).copied().unwrap_or(NO_LABEL)));
                    buckets.push(&SpilledCell {
                        key: stream(self.options.seed, Purpose::Permutation, index as u64, row as u64).bits(),
                        source: index as u32,
                        total_counts: cells.total_counts,
                        cell_id: cell_ids.get(row).map_or("", String::as_str),
                        labels: &cells.labels,
                        genes: &cells.genes,
                        counts: &cells.counts,
                    })?;
                }
                done += block.n_cells();
                (self.progress)(ShardProgress { stage: ShardStage::Permute, done, total });
            }
        }
        Ok((buckets.finish()?, categories.into_iter().map(|column| column.names).collect()))
    }

    /// Codes of each label column in `categories`, which grow; no codes where the source lacks the column.
    fn label_codes(&self, source: &dyn CellSource, categories: &mut [Categories]) -> Result<Vec<Vec<u32>>> {
        let present = source.obs_columns();
        let columns = self.options.obs_columns.iter().zip(categories);
        let codes = columns.map(|(name, categories)| {
            if !present.contains(name) {
                return Ok(Vec::new());
            }
            let labels = source.labels(name)?;
            let merged: Vec<u32> = labels.categories.iter().map(|label| categories.code(label)).collect();
            let code = |code: &Option<u32>| code.and_then(|code| merged.get(code as usize).copied());
            Ok(labels.codes.iter().map(|own| code(own).unwrap_or(NO_LABEL)).collect())
        });
        codes.collect()
    }

    /// Turns every bucket into a Parquet file, two at a time: more would exceed the memory that was granted.
    fn encode(
        &mut self,
        surveys: &[Survey],
        buckets: Vec<PathBuf>,
        layout: SpillLayout,
        values: StoredValues,
        categories: &[Vec<String>],
        total: usize,
    ) -> Result<Vec<CellFile>> {
        let names = self.options.obs_columns.iter().map(String::as_str);
        let categories = categories.iter().map(|names| names.iter().map(String::as_str).collect());
        let obs_columns: Vec<(&str, Vec<&str>)> = names.zip(categories).collect();
        let sources = surveys.iter().map(|survey| survey.entry.name.as_str());
        let encoder = CellEncoder::new(values, self.options.row_group_cells, sources, &obs_columns);
        let work = &self.work;
        let encode = |(index, path): (usize, &PathBuf)| {
            let bucket = Bucket::read(path, layout)?;
            std::fs::remove_file(path).map_err(|source| Error::io("remove", path, source))?;
            encoder.write(&bucket, work, cell_file_name(index))
        };
        let mut files: Vec<CellFile> = Vec::with_capacity(buckets.len());
        let mut done = 0;
        for pair in buckets.chunks(2) {
            let written: Result<Vec<CellFile>> = pair
                .par_iter()
                .enumerate()
                .map(|(offset, path)| encode((files.len() + offset, path)))
                .collect();
            files.extend(written?);
            done = files[files.len() - pair.len()..]
                .iter()
                .fold(done, |done, file| done + file.n_cells() as usize);
            (self.progress)(ShardProgress { stage: ShardStage::Write, done, total });
        }
        Ok(files)
    }

    /// Writes the other files, and describes everything.
    fn manifest(
        &self,
        vocabulary: &GeneVocabulary,
        surveys: Vec<Survey>,
        files: Vec<CellFile>,
        values: StoredValues,
    ) -> Result<Manifest> {
        vocabulary.write_parquet(&self.work.join(VOCABULARY_FILE))?;
        let (entries, measured): (Vec<_>, Vec<_>) =
            surveys.into_iter().map(|survey| (survey.entry, survey.measured)).unzip();
        let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        encode::write_sources(&self.work.join(SOURCES_FILE), &names, &measured)?;
        let side_files = [VOCABULARY_FILE, SOURCES_FILE].iter().map(|name| encode::seal(&self.work, name));
        let (format, version) = Manifest::current_format();
        Ok(Manifest {
            format,
            version,
            seed: self.options.seed,
            values,
            n_cells: files.iter().map(CellFile::n_cells).sum(),
            row_group_cells: self.options.row_group_cells as u32,
            n_genes: vocabulary.len() as u32,
            capacity: vocabulary.capacity() as u32,
            vocabulary_hash: vocabulary.hash(),
            quality: QualityCounts {
                min_genes: self.options.quality.min_genes,
                min_cells: self.options.quality.min_cells,
                n_cells_read: entries.iter().map(|entry| entry.n_cells).sum(),
                n_cells_kept: entries.iter().map(|entry| entry.n_cells_kept).sum(),
                max_cells: self.options.max_cells.map(|max_cells| max_cells as u64),
            },
            obs_columns: self.options.obs_columns.clone(),
            side_files: side_files.collect::<Result<_>>()?,
            sources: entries,
            files,
        })
    }
}

/// So many buckets that one takes a quarter of the memory.
fn n_buckets(surveys: &[Survey], layout: SpillLayout, max_memory: usize) -> usize {
    let n_bytes: f64 = (surveys.iter())
        .map(|survey| {
            let n_kept = survey.kept_cells.iter().filter(|&&kept| kept).count() as f64;
            let n_genes = survey.n_values as f64 / (survey.entry.n_cells_kept.max(1) as f64);
            n_kept * (layout.cell_bytes(TYPICAL_ID_BYTES) as f64 + n_genes * layout.gene_bytes() as f64)
        })
        .sum();
    ((n_bytes / (max_memory as f64 / 4.0)).ceil() as usize).clamp(1, MAX_BUCKETS)
}

/// The file's or folder's name without its endings, with a number where an earlier source has the same.
fn unique_name(path: &Path, earlier: &[Survey]) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let unpacked = Path::new(name.strip_suffix(".gz").unwrap_or(&name));
    let stem = if path.is_dir() { unpacked.file_name() } else { unpacked.file_stem() };
    let stem = stem.unwrap_or_default().to_string_lossy().into_owned();
    let taken = |name: &str| earlier.iter().any(|survey| survey.entry.name == name);
    let numbered = (2..).map(|number| format!("{stem}-{number}"));
    std::iter::once(stem.clone()).chain(numbered).find(|name| !taken(name)).unwrap_or(stem)
}

/// Labels of one column over all sources, in order of appearance.
#[derive(Debug, Clone, Default)]
struct Categories {
    names: Vec<String>,
    codes: HashMap<String, u32>,
}

impl Categories {
    fn code(&mut self, label: &str) -> u32 {
        if let Some(&code) = self.codes.get(label) {
            return code;
        }
        let code = self.names.len() as u32;
        self.names.push(label.to_owned());
        self.codes.insert(label.to_owned(), code);
        code
    }
}

/// Turns one row of a block after the other into tokens and counts.
#[derive(Debug, Default)]
struct CellAssembler {
    /// Whether counts must become logarithms, because those of other sources are.
    normalize_first: bool,
    pairs: Vec<(u32, f32)>,
    genes: Vec<u32>,
    counts: Vec<f32>,
    labels: Vec<u32>,
    total_counts: f64,
}

impl CellAssembler {
    /// Counts of columns with the same token are summed.
    fn assemble(&mut self, block: &CountBlock, cell: usize, survey: &Survey) {
        let (columns, values) = block.cell(cell);
        self.pairs.clear();
        self.total_counts = 0.0;
        for (&column, &value) in columns.iter().zip(values) {
            match survey.columns.get(column as usize) {
                Some(ColumnFate::Token(token)) => self.pairs.push((*token, value)),
                Some(ColumnFate::Unknown) => {}
                Some(ColumnFate::Filtered) | None => continue,
            }
            self.total_counts += f64::from(value);
        }
        // Stable: sums of fractions must not depend on how the sort treats equal tokens.
        if !self.pairs.is_sorted_by_key(|&(token, _)| token) {
            self.pairs.sort_by_key(|&(token, _)| token);
        }
        self.genes.clear();
        self.counts.clear();
        for &(token, value) in &self.pairs {
            match self.counts.last_mut() {
                Some(count) if self.genes.last() == Some(&token) => *count += value,
                _ => {
                    self.genes.push(token);
                    self.counts.push(value);
                }
            }
        }
        if self.normalize_first {
            let counts = std::mem::take(&mut self.counts);
            normalize(&counts, self.total_counts as f32, &mut self.counts);
        }
    }
}
