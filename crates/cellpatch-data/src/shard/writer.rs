//! Making a shard set of input files: a pass over each for quality control and tokens, then one that hands out cells.

use std::path::{Path, PathBuf};

use super::{
    assembler::{AscendingTokens, CellAssembler},
    assembly::Assembly,
    feed::{Categories, CellPlace, Feed, Plan, SpillTarget, block_bytes, blocks_ahead, source_names},
    folder::{UnfinishedFolder, hash_files},
    job::{InputFile, Job},
    kept::{HeldCells, HeldInput, KeptCells},
    manifest::{Manifest, PartEntry, StoredValues},
    options::{ShardOptions, ShardProgress, ShardStage},
    reader::ShardSet,
    spill::{NO_LABEL, SpilledCell},
    survey::{self, Statistics, Survey},
};
use crate::{
    CellSource, GeneVocabulary,
    error::{Error, Result},
    source::{genes_under, open_cells},
};

/// Makes a shard set of `inputs` in the folder `out`, which must be empty, new, or left by an interrupted run.
///
/// Quality control follows scanpy, file by file: cells with too few genes go first, then genes seen in too few of the
/// cells that stay. Cells that a file's own `is_primary_data` calls copies are as if they were not there. Cells left without
/// any gene of the vocabulary are dropped too. The cells of all files are then put in one uniformly random order, fixed by
/// the seed and the order of `inputs`.
///
/// Cells that fit in half of [`ShardOptions::max_memory`] are read once. Of more, inputs are read twice, and besides the result
/// the folder needs room for all cells while this runs, about two bytes a count. Memory stays at about [`ShardOptions::max_memory`] plus,
/// of each cell, a byte, 4 for each label column (8 more while it is read) and 8 for a sample.
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
    let open = |path: &Path| open_cells(path, &options.choice);
    write_sources(inputs, &open, out, options, options.max_memory / 2, progress)
}

type OpenSource<'a> = dyn Fn(&Path) -> Result<Box<dyn CellSource>> + 'a;

/// [`write_shards`] for any kind of source.
///
/// - `keep_bytes`: what cells may take that are kept from the first pass to the second
pub(super) fn write_sources(
    inputs: &[PathBuf],
    open: &OpenSource<'_>,
    out: &Path,
    options: &ShardOptions,
    keep_bytes: usize,
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
        opened: Vec::new(),
        keep_bytes,
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
    /// The first inputs, open: finding out what an input holds takes as long as reading some thousand cells.
    opened: Vec<Box<dyn CellSource>>,
    /// Room for cells of the first pass.
    keep_bytes: usize,
}

/// Inputs that stay open at most.
const MAX_OPENED: usize = 16;

impl FileFeed<'_> {
    /// Opens every input before any long work, and counts cells.
    ///
    /// - `all`: the inputs of other parts too: a column must be in one of them
    fn check(&mut self, all: &[PathBuf], options: &ShardOptions) -> Result<usize> {
        let (mut n_cells, mut n_bytes) = (0, 0_usize);
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
            let is_first = self.opened.len() < MAX_OPENED;
            n_cells += source.n_cells();
            n_bytes = n_bytes.saturating_add(KeptCells::expected_bytes(source.as_ref()));
            if let Some(vocabulary) = &options.vocabulary {
                let genes = genes_under(source.as_ref(), options.vocabulary.as_ref(), options.mouse)?;
                survey::check_match(source.as_ref(), &genes, vocabulary, options)?;
            }
            missing = add(source.as_ref());
            if is_first {
                self.opened.push(source);
            }
        }
        // What will not be kept whole would only take room.
        if n_bytes > self.keep_bytes {
            self.keep_bytes = 0;
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

    /// Does something with an input.
    fn with_source<T>(&self, input: usize, act: impl FnOnce(&dyn CellSource) -> Result<T>) -> Result<T> {
        match self.opened.get(input) {
            Some(source) => act(source.as_ref()),
            None => act((self.open)(self.paths[input])?.as_ref()),
        }
    }

    /// Whether a set was made of the inputs as they are now.
    fn made(&self, manifest: &Manifest) -> Result<bool> {
        if manifest.sources.len() != self.paths.len() {
            return Ok(false);
        }
        for (input, entry) in manifest.sources.iter().enumerate() {
            let (bytes, sha256) = self.with_source(input, |source| hash_files(&source.files()))?;
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
        for index in 0..self.paths.len() {
            let mut observe = |n_cells_of_block: usize| {
                done += n_cells_of_block;
                progress(ShardProgress { stage: ShardStage::Survey, done, total });
            };
            let survey = self.with_source(index, |source| {
                let genes = genes_under(source, options.vocabulary.as_ref(), options.mouse)?;
                let note = format!("survey-{index:05}.json");
                let (statistics, cells) = match folder.load::<Statistics>(&note) {
                    Some(statistics) => {
                        observe(source.n_cells());
                        (statistics, None)
                    }
                    None => {
                        let block_bytes = block_bytes(options.max_memory);
                        let keep_bytes = self.keep_bytes;
                        let read = survey::read(
                            source,
                            genes.len(),
                            options,
                            block_bytes,
                            keep_bytes,
                            &mut observe,
                        )?;
                        folder.save(&note, &read.0)?;
                        read
                    }
                };
                Ok(Survey { cells, ..statistics.assign(source, &genes, options, &mut vocabulary)? })
            });
            let mut survey = survey?;
            survey.entry.name.clone_from(&self.names[index]);
            self.keep_bytes -= survey.cells.as_ref().map_or(0, KeptCells::n_bytes).min(self.keep_bytes);
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
            Some(column) => self.with_source(input, |source| {
                let present = source.obs_columns().iter().any(|present| present == column);
                present.then(|| source.labels(column)).transpose()
            })?,
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

    fn held(&self, target: &SpillTarget<'_>, categories: &mut [Categories]) -> Result<Option<HeldCells<'_>>> {
        if self.surveys.iter().any(|survey| survey.cells.is_none()) {
            return Ok(None);
        }
        let mut inputs = Vec::with_capacity(self.surveys.len());
        for (input, survey) in self.surveys.iter().enumerate() {
            let Some(cells) = &survey.cells else { return Ok(None) };
            let held = self.with_source(input, |source| {
                let labels = label_codes(source, target.columns, categories)?;
                let normalize_first = survey.must_be_normalized(target.values);
                HeldInput::new(cells, survey, normalize_first, source.cell_names()?, labels)
            })?;
            let Some(held) = held else { return Ok(None) };
            inputs.push(held);
        }
        let key = |input: usize, row| CellPlace { source: self.positions[input], row }.key(target.seed);
        Ok(Some(HeldCells::new(inputs, key)))
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
        self.with_source(input, |source| {
            let mut names = source.cell_names()?;
            let labels = label_codes(source, target.columns, categories)?;
            let mut cells = CellAssembler::new(survey.must_be_normalized(target.values));
            let ascending = AscendingTokens::of(&survey.columns);
            let (mut codes, mut name_row) = (Vec::with_capacity(labels.len()), 0);
            let mut spill_row = |row: usize, columns: &[u32], values: &[f32]| {
                if !survey.keeps(row) {
                    return Ok(());
                }
                let name = names.nth(row - name_row).transpose()?;
                name_row = row + 1;
                match &ascending {
                    Some(tokens) => cells.assemble_ascending(columns, values, tokens),
                    None => {
                        let entries = columns.iter().copied().zip(values.iter().copied());
                        cells.assemble(entries, &survey.columns);
                    }
                }
                codes.clear();
                codes.extend(labels.iter().map(|codes| codes.get(row).copied().unwrap_or(NO_LABEL)));
                let place = CellPlace { source: self.positions[input], row: row as u32 };
                spill(&SpilledCell {
                    key: place.key(target.seed),
                    source: input as u32,
                    row: place.row,
                    total_counts: cells.total_counts,
                    cell_id: name.as_deref().unwrap_or_default(),
                    labels: &codes,
                    genes: &cells.genes,
                    counts: &cells.counts,
                })
            };
            if let Some(kept) = &survey.cells {
                kept.for_each(spill_row)?;
                observe(survey.kept_cells.len());
                return Ok(());
            }
            blocks_ahead(source.blocks(target.block_bytes)?, |block| {
                for cell in 0..block.n_cells() {
                    let (columns, values) = block.cell(cell);
                    spill_row(block.first_row + cell, columns, values)?;
                }
                observe(block.n_cells());
                Ok(())
            })
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
