//! Which labelled cell is for what.

use std::path::PathBuf;

use cellpatch_data::{Fractions, Labels, MissingNames, Part, Partition, ShardSet};

use super::options::{TrainOptions, usage};
use crate::failure::Failure;
use crate::inputs::{self, Input};
use crate::terminal::Terminal;

/// The files of a training, and what each is for where the user said so.
#[derive(Debug)]
pub(super) struct Files {
    /// All of them, in the order they are sharded.
    pub paths: Vec<PathBuf>,
    /// The part of each; nothing where cells of all files are split.
    parts: Option<Vec<Part>>,
}

impl Files {
    /// Finds the files behind the options.
    ///
    /// # Errors
    /// Neither `--data` nor `--train`, paths that do not exist, a shard set.
    pub(super) fn find(options: &TrainOptions) -> Result<Self, Failure> {
        let files = |paths: &[PathBuf]| match inputs::find(paths)? {
            Input::Files(files) => Ok(files),
            Input::Shards(path) => Err(usage(format!("{} is a shard set", path.display()))
                .with_help("annotate from the .h5ad files it was made from")),
        };
        if let Some(data) = &options.data {
            return Ok(Self { paths: files(data)?, parts: None });
        }
        let Some(train) = &options.train else {
            return Err(usage("no cells were given".into())
                .with_help("name labelled cells by --data FILE, or by --train FILE and --test FILE"));
        };
        let (mut paths, mut parts) = (Vec::new(), Vec::new());
        let given = [Some(train), options.validation.as_ref(), options.test.as_ref()];
        for (part, given) in Part::ALL.into_iter().zip(given) {
            let found = given.map(|paths| files(paths)).transpose()?.unwrap_or_default();
            parts.extend(std::iter::repeat_n(part, found.len()));
            paths.extend(found);
        }
        Ok(Self { paths, parts: Some(parts) })
    }
}

/// The labels of all rows, those that mean none taken away.
pub(super) fn labels(options: &TrainOptions, shards: &ShardSet) -> Result<Labels, Failure> {
    let missing = MissingNames::default().and(options.missing_labels.iter().flatten());
    Ok(shards.labels(options.label())?.known(&missing))
}

/// A partition and how it came about, in words.
pub(super) fn partition(
    terminal: &Terminal,
    options: &TrainOptions,
    files: &Files,
    shards: &ShardSet,
    labels: &Labels,
    seed: u64,
) -> Result<(Partition, String), Failure> {
    if let Some(path) = &options.split_file {
        let found = Partition::from_table(path, &shards.cell_ids()?)?;
        if found.n_unknown > 0 {
            terminal.warn(&format!("{} cells of {} are not in the data", found.n_unknown, path.display()));
        }
        return Ok((found.partition, format!("as {} says", path.display())));
    }
    if let Some(parts) = &files.parts {
        return by_file(options, parts, shards, labels, seed);
    }
    let fractions = options.fractions()?;
    if let Some(column) = &options.split_by {
        let groups = shards.labels(column)?.known(&MissingNames::default());
        let partition = Partition::by_group(labels, &groups, fractions, seed)?;
        return Ok((partition, format!("whole groups of {column}, seed {seed}")));
    }
    match options.split.as_deref() {
        Some("random") => {
            Ok((Partition::random(labels, fractions, seed)?, format!("random cells, seed {seed}")))
        }
        _ => Ok((
            Partition::stratified(labels, fractions, seed)?,
            format!("random cells of each class, seed {seed}"),
        )),
    }
}

/// Cells by the file they are from; without validation files, a tenth of the training cells validates.
fn by_file(
    options: &TrainOptions,
    parts: &[Part],
    shards: &ShardSet,
    labels: &Labels,
    seed: u64,
) -> Result<(Partition, String), Failure> {
    let part_of = |source: &u32| parts.get(*source as usize).copied();
    let of_file: Vec<Option<Part>> = shards.rows()?.sources.iter().map(part_of).collect();
    if options.validation.is_some() {
        return Ok((Partition::from_parts(of_file), "by file".into()));
    }
    let is_train = |part: &Option<Part>| *part == Some(Part::Train);
    let codes = labels.codes.iter().zip(&of_file).map(|(code, part)| code.filter(|_| is_train(part)));
    let training = Labels { categories: labels.categories.clone(), codes: codes.collect() };
    let tenth = Fractions { train: 0.9, validation: 0.1, test: 0.0 };
    let divided = Partition::stratified(&training, tenth, seed)?;
    let pairs = of_file.iter().zip(divided.parts());
    let both = pairs.map(|(file, divided)| if is_train(file) { *divided } else { *file });
    Ok((
        Partition::from_parts(both.collect()),
        format!("by file; a tenth of the training cells of each class validates, seed {seed}"),
    ))
}
