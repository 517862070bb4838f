//! Making a shard set of input files: a pass over each for quality control and tokens, then one that hands out cells.

use std::path::{Path, PathBuf};

use super::{
    assembly::Assembly,
    feed::{Categories, CellPlace, Feed, Plan, SpillTarget, one_ahead, source_names},
    folder::{UnfinishedFolder, hash_files},
    job::{InputFile, Job},
    manifest::{Manifest, PartEntry, StoredValues},
    options::{ShardOptions, ShardProgress, ShardStage},
    reader::ShardSet,
    spill::{NO_LABEL, SpilledCell},
    survey::{self, ColumnFate, Statistics, Survey},
};
use crate::{
    CellSource, CountBlock, GeneVocabulary,
    error::{Error, Result},
    normalize::normalize,
    source::{genes_under, open_cells},
};

/// Makes a shard set of `inputs` in the folder `out`, which must be empty, new, or left by an interrupted run.
///
/// Quality control follows scanpy, file by file: cells with too few genes go first, then genes seen in too few of the
/// cells that stay. Cells that a file's own `is_primary_data` calls copies are as if they were not there. Cells left without
/// any gene of the vocabulary are dropped too. The cells of all files are then put in one uniformly random order, fixed by
/// the seed and the order of `inputs`.
///
/// Besides the result, the folder needs room for all cells uncompressed while this runs. Memory stays at about
/// [`ShardOptions::max_memory`] plus cell names and labels of the largest file and, for a sample, 8 bytes a cell.
///
/// When it fails, it takes back what it has written. When it is killed, the same call goes on with what was finished:
/// inputs that were read, buckets that became files. The result is the same, byte for byte. On a folder where the same call
/// was completed before, it compares the inputs with what was read then, and is done.
///
/// With [`ShardOptions::part`], `inputs` are still all of them, in the same order for every part; what is written is a set
/// of the part's own cells, for [`merge_shards`](super::merge_shards).
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

type OpenSource<'a> = dyn Fn(&Path) -> Result<Box<dyn CellSource>> + 'a;

/// [`write_shards`] for any kind of source.
pub(super) fn write_sources(
    inputs: &[PathBuf],
    open: &OpenSource<'_>,
    out: &Path,
    options: &ShardOptions,
    progress: &mut dyn FnMut(ShardProgress),
) -> Result<ShardSet> {
    options.check()?;
    if inputs.is_empty() {
        let reason = "at least one input file is needed".into();
        return Err(Error::BadOption { option: "data", value: "empty".into(), reason });
    }
    let files: Vec<InputFile> = inputs.iter().map(|path| InputFile::of(path)).collect::<Result<_>>()?;
    let own = match options.part {
        Some(part) => part.inputs(&files.iter().map(|file| file.bytes).collect::<Vec<_>>())?,
        None => (0..inputs.len()).collect(),
    };
    let part = options.part.map(|part| PartEntry {
        part,
        sources: own.iter().map(|&input| input as u32).collect(),
        n_sources: inputs.len() as u32,
    });
    let names = source_names(inputs.iter().map(PathBuf::as_path));
    let mut feed = FileFeed {
        paths: own.iter().map(|&input| inputs[input].as_path()).collect(),
        names: own.iter().map(|&input| names[input].clone()).collect(),
        positions: own.iter().map(|&input| input as u32).collect(),
        surveys: Vec::new(),
        open,
    };
    let job = Job::of_files(&files, options);
    let n_cells = feed.check(inputs, options)?;
    if let Some(set) = job.finished(out, part.as_ref(), options, |manifest| feed.made(manifest))? {
        return Ok(set);
    }
    let folder = UnfinishedFolder::claim(out, &job.text)?;
    let vocabulary = feed.survey(&folder, options, n_cells, progress)?;
    let plan = feed.plan(vocabulary, part);
    let first = feed.paths[0];
    Assembly { options, columns: options.columns(), folder, progress }
        .finish(&mut feed, plan, &job, first)?;
    ShardSet::open(out)
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

/// Input files, all or those of a part.
struct FileFeed<'a> {
    paths: Vec<&'a Path>,
    /// Unique among all inputs of the set.
    names: Vec<String>,
    /// Positions among all inputs of the set.
    positions: Vec<u32>,
    surveys: Vec<Survey>,
    open: &'a OpenSource<'a>,
}

impl FileFeed<'_> {
    /// Opens every input before any long work, and counts cells.
    ///
    /// - `all`: the inputs of other parts too: a column must be in one of them
    fn check(&self, all: &[PathBuf], options: &ShardOptions) -> Result<usize> {
        let mut n_cells = 0;
        let mut available: Vec<String> = Vec::new();
        let mut add = |source: &dyn CellSource| {
            for name in source.obs_columns() {
                if !available.contains(&name) {
                    available.push(name);
                }
            }
            options.columns().into_iter().find(|name| !available.contains(name))
        };
        let mut missing = None;
        for path in &self.paths {
            let source = (self.open)(path)?;
            n_cells += source.n_cells();
            if let Some(vocabulary) = &options.vocabulary {
                let genes = genes_under(source.as_ref(), options.vocabulary.as_ref(), options.mouse)?;
                survey::check_match(&genes, vocabulary, options.min_match, path)?;
            }
            missing = add(source.as_ref());
        }
        for path in all.iter().filter(|path| !self.paths.contains(&path.as_path())) {
            if missing.is_none() {
                break;
            }
            missing = add((self.open)(path)?.as_ref());
        }
        match missing {
            Some(name) => Err(Error::Missing { path: all[0].clone(), what: "label column", name, available }),
            None => Ok(n_cells),
        }
    }

    /// Whether a set was made of the inputs as they are now.
    fn made(&self, manifest: &Manifest) -> Result<bool> {
        if manifest.sources.len() != self.paths.len() {
            return Ok(false);
        }
        for (path, entry) in self.paths.iter().zip(&manifest.sources) {
            let (bytes, sha256) = hash_files(&(self.open)(path)?.files())?;
            if (bytes, &sha256) != (entry.bytes, &entry.sha256) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// First pass: quality control and tokens, source by source.
    fn survey(
        &mut self,
        folder: &UnfinishedFolder,
        options: &ShardOptions,
        total: usize,
        progress: &mut dyn FnMut(ShardProgress),
    ) -> Result<GeneVocabulary> {
        let mut vocabulary =
            options.vocabulary.clone().unwrap_or_else(|| GeneVocabulary::new(options.capacity));
        let mut done = 0;
        for (index, path) in self.paths.iter().enumerate() {
            let source = (self.open)(path)?;
            let mut observe = |n_cells_of_block: usize| {
                done += n_cells_of_block;
                progress(ShardProgress { stage: ShardStage::Survey, done, total });
            };
            let note = format!("survey-{index:05}.json");
            let statistics = match folder.load::<Statistics>(&note) {
                Some(statistics) => {
                    observe(source.n_cells());
                    statistics
                }
                None => {
                    let statistics =
                        survey::read(source.as_ref(), options, options.max_memory / 16, &mut observe)?;
                    folder.save(&note, &statistics)?;
                    statistics
                }
            };
            let mut survey = statistics.assign(source.as_ref(), options, &mut vocabulary)?;
            survey.entry.name.clone_from(&self.names[index]);
            self.surveys.push(survey);
        }
        Ok(vocabulary)
    }

    fn plan(&mut self, vocabulary: GeneVocabulary, part: Option<PartEntry>) -> Plan {
        Plan {
            vocabulary,
            sources: self.surveys.iter().map(|survey| survey.entry.clone()).collect(),
            measured: self.surveys.iter_mut().map(|survey| std::mem::take(&mut survey.measured)).collect(),
            values: stored_values(&self.surveys),
            part,
        }
    }
}

impl Feed for FileFeed<'_> {
    fn n_inputs(&self) -> usize {
        self.paths.len()
    }

    fn n_cells(&self, input: usize) -> usize {
        self.surveys[input].kept_cells.len()
    }

    fn review(
        &mut self,
        input: usize,
        column: Option<&str>,
        keep: &mut dyn FnMut(CellPlace, Option<&str>) -> bool,
    ) -> Result<()> {
        let labels = match column {
            Some(column) => {
                let source = (self.open)(self.paths[input])?;
                let present = source.obs_columns().iter().any(|present| present == column);
                present.then(|| source.labels(column)).transpose()?
            }
            None => None,
        };
        let label = |row: usize| {
            let labels = labels.as_ref()?;
            let code = labels.codes.get(row).copied().flatten()?;
            labels.categories.get(code as usize).map(String::as_str)
        };
        let source = self.positions[input];
        for (row, kept) in self.surveys[input].kept_cells.iter_mut().enumerate() {
            *kept = *kept && keep(CellPlace { source, row: row as u32 }, label(row));
        }
        Ok(())
    }

    fn spill(
        &self,
        input: usize,
        target: &SpillTarget<'_>,
        categories: &mut [Categories],
        spill: &mut dyn FnMut(&SpilledCell<'_>) -> Result<()>,
        observe: &mut dyn FnMut(usize),
    ) -> Result<()> {
        let survey = &self.surveys[input];
        let source = (self.open)(self.paths[input])?;
        let cell_ids = source.cell_ids()?;
        let labels = label_codes(source.as_ref(), target.columns, categories)?;
        let mut cells = CellAssembler {
            normalize_first: target.values == StoredValues::Log1pF32 && !survey.is_log1p,
            ..Default::default()
        };
        one_ahead(source.blocks(target.block_bytes)?, |block| {
            let block = block?;
            for cell in 0..block.n_cells() {
                let row = block.first_row + cell;
                if !survey.keeps(row) {
                    continue;
                }
                cells.assemble(&block, cell, survey);
                cells.labels.clear();
                cells.labels.extend(labels.iter().map(|codes| codes.get(row).copied().unwrap_or(NO_LABEL)));
                let place = CellPlace { source: self.positions[input], row: row as u32 };
                spill(&SpilledCell {
                    key: place.key(target.seed),
                    source: input as u32,
                    row: place.row,
                    total_counts: cells.total_counts,
                    cell_id: cell_ids.get(row).map_or("", String::as_str),
                    labels: &cells.labels,
                    genes: &cells.genes,
                    counts: &cells.counts,
                })?;
            }
            observe(block.n_cells());
            Ok(())
        })
    }
}

/// Codes of each column in `categories`, which grow; no codes where the source lacks the column.
fn label_codes(
    source: &dyn CellSource,
    columns: &[String],
    categories: &mut [Categories],
) -> Result<Vec<Vec<u32>>> {
    let present = source.obs_columns();
    let codes = columns.iter().zip(categories).map(|(name, categories)| {
        let labels = present.contains(name).then(|| source.labels(name)).transpose()?;
        Ok(labels.map_or_else(Vec::new, |labels| categories.codes(&labels)))
    });
    codes.collect()
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
