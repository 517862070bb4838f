//! Joining the parts of a set, each sharded by a process of its own.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::{Float32Type, Float64Type, Int32Type, UInt16Type, UInt32Type},
};

use super::{
    assembly::Assembly,
    column,
    decode::{list, source_indices},
    feed::{Categories, CellPlace, Feed, Plan, SpillTarget, one_ahead},
    folder::UnfinishedFolder,
    job::{InputFile, Job},
    manifest::{Manifest, PartEntry, SourceEntry, StoredValues},
    options::{ShardOptions, ShardProgress},
    reader::{ShardSet, bad_file, named},
    spill::{NO_LABEL, SpilledCell},
};
use crate::{
    QualityFilter,
    error::{Error, Result},
    normalize::normalize,
};

/// Cells that are Arrow arrays at a time, when all columns are read.
const PIECE_CELLS: usize = 256;
/// The same, when only light columns are read.
const LIGHT_CELLS: usize = 65_536;
/// Missing parts that are looked for: a manifest may claim any number.
const MISSING_NAMED: usize = 100;

/// How [`merge_shards`] joins parts; the rest was said when they were made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeOptions {
    /// As [`ShardOptions::max_memory`].
    pub max_memory: usize,
    /// As [`ShardOptions::max_cells`].
    pub max_cells: Option<usize>,
    /// As [`ShardOptions::stratify`]; one of the columns that the parts keep.
    pub stratify: Option<String>,
}

impl Default for MergeOptions {
    fn default() -> Self {
        Self { max_memory: ShardOptions::default().max_memory, max_cells: None, stratify: None }
    }
}

/// Joins the parts of a set in the folder `out`: the same cells in the same order, with the same tokens, as
/// [`write_shards`](super::write_shards) makes of all inputs at once.
///
/// The same holds of a sample, unless some of its cells turn out to have no gene of the vocabulary: a sample of all inputs
/// at once then has fewer cells, and one of parts does not.
///
/// The parts stay as they are. Memory and what happens on failures is as in [`write_shards`](super::write_shards), with
/// parts in place of input files.
///
/// # Errors
/// [`Error::NotAPart`] for a folder that is no part, or one of another set; [`Error::MissingParts`] if some are not given;
/// [`Error::NoCells`] if no part has any; [`Error::ChecksumMismatch`] and [`Error::Parquet`] for a damaged part; for the
/// folder `out` as [`write_shards`](super::write_shards).
pub fn merge_shards(
    parts: &[PathBuf],
    out: &Path,
    options: &MergeOptions,
    progress: &mut dyn FnMut(ShardProgress),
) -> Result<ShardSet> {
    let parts: Vec<ShardSet> = parts.iter().map(ShardSet::open).collect::<Result<_>>()?;
    let Some(first) = parts.first() else {
        let reason = "at least one part is needed".into();
        return Err(Error::BadOption { option: "parts", value: "empty".into(), reason });
    };
    let mut feed = PartFeed::of(&parts)?;
    let manifest = first.manifest();
    let quality =
        QualityFilter { min_genes: manifest.quality.min_genes, min_cells: manifest.quality.min_cells };
    let options = ShardOptions {
        seed: manifest.seed,
        quality,
        obs_columns: manifest.obs_columns.clone(),
        row_group_cells: manifest.row_group_cells as usize,
        max_memory: options.max_memory,
        max_cells: options.max_cells,
        stratify: options.stratify.clone(),
        ..ShardOptions::default()
    };
    options.check()?;
    if let Some(column) = options.stratify.iter().find(|column| !manifest.obs_columns.contains(column)) {
        return Err(Error::Missing {
            path: first.path().to_path_buf(),
            what: "label column",
            name: column.clone(),
            available: manifest.obs_columns.clone(),
        });
    }
    let manifests = feed.parts.iter().map(|part| InputFile::of(&part.set.path().join(super::MANIFEST_FILE)));
    let manifests: Vec<InputFile> = manifests.collect::<Result<_>>()?;
    let job = Job::new(manifest.job.clone(), manifests, &options);
    let plan = feed.plan()?;
    let made = |manifest: &Manifest| {
        let files = |sources: &[SourceEntry]| -> Vec<String> {
            sources.iter().map(|source| source.sha256.clone()).collect()
        };
        Ok(files(&manifest.sources) == files(&plan.sources))
    };
    if let Some(set) = job.finished(out, None, &options, made)? {
        return Ok(set);
    }
    let folder = UnfinishedFolder::claim(out, &job.text)?;
    Assembly { options: &options, columns: options.columns(), folder, progress }.finish(
        &mut feed,
        plan,
        &job,
        first.path(),
    )?;
    ShardSet::open(out)
}

/// All parts of a set, in their order.
struct PartFeed<'a> {
    parts: Vec<Part<'a>>,
    seed: u64,
}

struct Part<'a> {
    set: &'a ShardSet,
    entry: &'a PartEntry,
    /// Which rows a sample keeps; empty for all.
    kept: Vec<bool>,
}

impl<'a> PartFeed<'a> {
    /// Checks that these are all parts of one set.
    fn of(sets: &'a [ShardSet]) -> Result<Self> {
        let not_a_part =
            |set: &ShardSet, reason: String| Error::NotAPart { path: set.path().to_path_buf(), reason };
        let mut parts: Vec<Part<'a>> = Vec::with_capacity(sets.len());
        for set in sets {
            let entry = (set.manifest().part.as_ref())
                .ok_or_else(|| not_a_part(set, "it is a set of its own, made without --part".into()))?;
            let (own, first) = (set.manifest(), sets[0].manifest());
            if own.job != first.job || own.vocabulary_hash != first.vocabulary_hash {
                let reason = format!(
                    "its inputs, vocabulary or options differ from those of {}",
                    sets[0].path().display()
                );
                return Err(not_a_part(set, reason));
            }
            if let Some(other) = parts.iter().find(|other| other.entry.part == entry.part) {
                let reason = format!("it is part {}, and so is {}", entry.part, other.set.path().display());
                return Err(not_a_part(set, reason));
            }
            if entry.sources.len() != own.sources.len()
                || entry.part.count != parts.first().map_or(entry.part.count, |part| part.entry.part.count)
            {
                return Err(not_a_part(
                    set,
                    format!("its manifest contradicts itself about part {}", entry.part),
                ));
            }
            parts.push(Part { set, entry, kept: Vec::new() });
        }
        parts.sort_by_key(|part| part.entry.part.index);
        let count = parts[0].entry.part.count;
        let is_missing = |index: &u32| parts.iter().all(|part| part.entry.part.index != *index);
        let missing: Vec<u32> = (1..=count).filter(is_missing).take(MISSING_NAMED).collect();
        if !missing.is_empty() {
            return Err(Error::MissingParts { path: sets[0].path().to_path_buf(), missing, count });
        }
        let sources: BTreeSet<u32> =
            parts.iter().flat_map(|part| part.entry.sources.iter().copied()).collect();
        let n_sources = parts[0].entry.n_sources;
        if !sources.iter().copied().eq(0..n_sources)
            || parts.iter().map(|part| part.entry.sources.len()).sum::<usize>() != n_sources as usize
        {
            return Err(not_a_part(&sets[0], "the parts do not have every input once".into()));
        }
        Ok(Self { parts, seed: sets[0].manifest().seed })
    }

    fn plan(&self) -> Result<Plan> {
        let first = &self.parts[0].set;
        let mut sources: Vec<(u32, SourceEntry, Vec<u32>)> = Vec::new();
        for part in &self.parts {
            for (source, (&position, entry)) in
                part.entry.sources.iter().zip(&part.set.manifest().sources).enumerate()
            {
                sources.push((position, entry.clone(), part.set.measured_genes(source).to_vec()));
            }
        }
        sources.sort_by_key(|&(position, ..)| position);
        let stored = self.parts.iter().map(|part| part.set.manifest().values);
        let values = stored.reduce(widest).unwrap_or(first.manifest().values);
        Ok(Plan {
            vocabulary: first.vocabulary()?,
            measured: sources.iter_mut().map(|(_, _, measured)| std::mem::take(measured)).collect(),
            sources: sources.into_iter().map(|(_, entry, _)| entry).collect(),
            values,
            part: None,
        })
    }
}

/// The type that holds what both hold.
fn widest(a: StoredValues, b: StoredValues) -> StoredValues {
    match (a, b) {
        (StoredValues::Log1pF32, _) | (_, StoredValues::Log1pF32) => StoredValues::Log1pF32,
        (StoredValues::CountsF32, _) | (_, StoredValues::CountsF32) => StoredValues::CountsF32,
        _ => StoredValues::CountsU16,
    }
}

impl Part<'_> {
    fn is_kept(&self, row: usize) -> bool {
        self.kept.get(row).is_none_or(|&kept| kept)
    }
}

impl Feed for PartFeed<'_> {
    fn n_inputs(&self) -> usize {
        self.parts.len()
    }

    fn n_cells(&self, input: usize) -> usize {
        self.parts[input].set.n_cells()
    }

    fn review(
        &mut self,
        input: usize,
        column: Option<&str>,
        keep: &mut dyn FnMut(CellPlace, Option<&str>) -> bool,
    ) -> Result<()> {
        let part = &mut self.parts[input];
        let columns: Vec<&str> = [column::SOURCE, column::SOURCE_ROW].into_iter().chain(column).collect();
        let mut row = 0;
        for file in 0..part.set.manifest().files.len() {
            let path = part.set.file_path(file);
            for batch in part.set.read_columns(file, &columns, LIGHT_CELLS)? {
                let batch = batch?;
                let places =
                    places(part.set, part.entry, &batch).map_err(|reason| bad_file(&path, reason))?;
                let labels = column.map(|column| Texts::of(&batch, column)).transpose();
                let labels = labels.map_err(|reason| bad_file(&path, reason))?;
                for (cell, &place) in places.iter().enumerate() {
                    if part.is_kept(row) && !keep(place, labels.as_ref().and_then(|labels| labels.get(cell)))
                    {
                        if part.kept.is_empty() {
                            part.kept = vec![true; part.set.n_cells()];
                        }
                        if let Some(kept) = part.kept.get_mut(row) {
                            *kept = false;
                        }
                    }
                    row += 1;
                }
            }
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
        let part = &self.parts[input];
        let columns: Vec<&str> =
            column::ALL.into_iter().chain(target.columns.iter().map(String::as_str)).collect();
        let mut row = 0;
        for &group in part.set.row_groups() {
            let path = part.set.file_path(group.file);
            let batches = part.set.open_row_group(group)?.batches(&columns, PIECE_CELLS)?;
            one_ahead(batches, |batch| {
                let batch = batch?;
                let cells = PartCells::of(part, &batch, target).map_err(|reason| bad_file(&path, reason))?;
                cells.spill(self.seed, row, part, target, categories, spill)?;
                row += batch.num_rows();
                observe(batch.num_rows());
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// Where the cells of a batch are in the whole set.
fn places(set: &ShardSet, entry: &PartEntry, batch: &RecordBatch) -> Result<Vec<CellPlace>, String> {
    let sources = source_indices(set, named(batch, column::SOURCE)?)?;
    let rows = named(batch, column::SOURCE_ROW)?;
    let rows = rows.as_primitive_opt::<UInt32Type>().ok_or("source_row is not UInt32")?;
    let place = |(&source, &row): (&u32, &u32)| CellPlace { source: entry.sources[source as usize], row };
    Ok(sources.iter().zip(rows.values()).map(place).collect())
}

/// A column of a batch that is a dictionary of texts.
struct Texts<'a> {
    keys: &'a arrow::array::PrimitiveArray<Int32Type>,
    texts: &'a arrow::array::StringArray,
}

impl<'a> Texts<'a> {
    fn of(batch: &'a RecordBatch, name: &str) -> Result<Self, String> {
        let column = named(batch, name)?.as_dictionary_opt::<Int32Type>();
        let column = column.ok_or_else(|| format!("{name} is not a dictionary"))?;
        let texts = column.values().as_string_opt::<i32>();
        Ok(Self {
            keys: column.keys(),
            texts: texts.ok_or_else(|| format!("{name} is not a dictionary of text"))?,
        })
    }

    fn key(&self, cell: usize) -> Option<usize> {
        let key = self.keys.is_valid(cell).then(|| self.keys.value(cell) as usize)?;
        (key < self.texts.len() && self.texts.is_valid(key)).then_some(key)
    }

    fn get(&self, cell: usize) -> Option<&'a str> {
        self.key(cell).map(|key| self.texts.value(key))
    }
}

/// Cells of a part in the types of their file.
struct PartCells<'a> {
    places: Vec<CellPlace>,
    totals: &'a [f64],
    names: &'a arrow::array::StringArray,
    offsets: &'a [i32],
    genes: &'a [u32],
    counts: Vec<f32>,
    labels: Vec<Texts<'a>>,
}

impl<'a> PartCells<'a> {
    fn of(part: &Part<'_>, batch: &'a RecordBatch, target: &SpillTarget<'_>) -> Result<Self, String> {
        let (offsets, genes) = list::<UInt32Type>(named(batch, column::GENES)?)?;
        let (count_offsets, counts) = counts(named(batch, column::COUNTS)?, part.set.manifest().values)?;
        let totals = named(batch, column::TOTAL_COUNTS)?;
        let names = named(batch, column::CELL_ID)?;
        if count_offsets != offsets {
            return Err("a cell has more genes than counts, or fewer".into());
        }
        Ok(Self {
            places: places(part.set, part.entry, batch)?,
            totals: totals.as_primitive_opt::<Float64Type>().ok_or("total_counts are not Float64")?.values(),
            names: names.as_string_opt::<i32>().ok_or("cell_id is not text")?,
            offsets,
            genes,
            counts,
            labels: target.columns.iter().map(|name| Texts::of(batch, name)).collect::<Result<_, _>>()?,
        })
    }

    /// - `first_row`: the part's row of the first cell
    fn spill(
        &self,
        seed: u64,
        first_row: usize,
        part: &Part<'_>,
        target: &SpillTarget<'_>,
        categories: &mut [Categories],
        spill: &mut dyn FnMut(&SpilledCell<'_>) -> Result<()>,
    ) -> Result<()> {
        let normalize_first =
            target.values == StoredValues::Log1pF32 && part.set.manifest().values != StoredValues::Log1pF32;
        let codes = self.labels.iter().zip(categories).map(|(texts, categories)| {
            let mut merged: Vec<Option<u32>> = vec![None; texts.texts.len()];
            let code = |cell| match texts.key(cell) {
                Some(key) => *merged[key].get_or_insert_with(|| categories.code(texts.texts.value(key))),
                None => NO_LABEL,
            };
            (0..self.places.len()).map(code).collect::<Vec<u32>>()
        });
        let codes: Vec<Vec<u32>> = codes.collect();
        let (mut labels, mut normalized) = (Vec::with_capacity(codes.len()), Vec::new());
        for (cell, place) in self.places.iter().enumerate() {
            if !part.is_kept(first_row + cell) {
                continue;
            }
            labels.clear();
            labels.extend(codes.iter().map(|codes| codes[cell]));
            let range = self.offsets[cell] as usize..self.offsets[cell + 1] as usize;
            let mut counts = &self.counts[range.clone()];
            if normalize_first {
                normalized.clear();
                normalize(counts, self.totals[cell] as f32, &mut normalized);
                counts = &normalized;
            }
            spill(&SpilledCell {
                key: place.key(seed),
                source: place.source,
                row: place.row,
                total_counts: self.totals[cell],
                cell_id: self.names.value(cell),
                labels: &labels,
                genes: &self.genes[range],
                counts,
            })?;
        }
        Ok(())
    }
}

fn counts(column: &ArrayRef, values: StoredValues) -> Result<(&[i32], Vec<f32>), String> {
    Ok(match values {
        StoredValues::CountsU16 => {
            let (offsets, counts) = list::<UInt16Type>(column)?;
            (offsets, counts.iter().map(|&count| f32::from(count)).collect())
        }
        StoredValues::CountsF32 | StoredValues::Log1pF32 => {
            let (offsets, counts) = list::<Float32Type>(column)?;
            (offsets, counts.to_vec())
        }
    })
}
