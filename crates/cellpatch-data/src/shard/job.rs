//! What a run is asked to do: whether a folder holds the same, finished or begun.

use std::{
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    MANIFEST_FILE, Manifest, ShardSet,
    folder::{hex, remove_leftovers},
    manifest::PartEntry,
    options::ShardOptions,
};
use crate::error::{Error, Result};

/// One run: what decides the contents of its set, and what decides everything it writes on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    /// SHA-256 of what decides the contents, but for sampling; the same for all parts of a set.
    pub(super) hash: String,
    /// Text that is the same for two runs only if one can go on where the other stopped.
    pub(super) text: String,
}

/// An input as the file system sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct InputFile {
    path: PathBuf,
    name: String,
    /// Its size; of a folder, that of all files in it.
    pub(super) bytes: u64,
    /// Nanoseconds since 1970, of the file in it that changed last.
    modified: u128,
}

#[derive(Serialize)]
struct Contents<'a> {
    program: &'static str,
    inputs: Vec<(&'a str, u64)>,
    seed: u64,
    min_genes: usize,
    min_cells: usize,
    matrix: String,
    obs_columns: Vec<String>,
    row_group_cells: usize,
    vocabulary: Option<String>,
    extend_vocabulary: bool,
    capacity: usize,
    mouse: String,
    min_match: f64,
    keep_secondary: bool,
}

#[derive(Serialize)]
struct Steps<'a, I> {
    hash: &'a str,
    inputs: I,
    part: Option<String>,
    max_memory: usize,
    max_cells: Option<usize>,
    stratify: Option<&'a str>,
}

impl Job {
    /// - `inputs`: all inputs of the set, those of other parts too
    pub(super) fn of_files(inputs: &[InputFile], options: &ShardOptions) -> Self {
        let contents = Contents {
            program: env!("CARGO_PKG_VERSION"),
            inputs: inputs.iter().map(|input| (input.name.as_str(), input.bytes)).collect(),
            seed: options.seed,
            min_genes: options.quality.min_genes,
            min_cells: options.quality.min_cells,
            matrix: format!("{:?}", options.choice),
            obs_columns: options.columns(),
            row_group_cells: options.row_group_cells,
            vocabulary: options.vocabulary.as_ref().map(crate::GeneVocabulary::hash),
            extend_vocabulary: options.extend_vocabulary,
            capacity: options.capacity,
            mouse: format!("{:?}", options.mouse),
            min_match: options.min_match,
            keep_secondary: options.keep_secondary,
        };
        Self::new(hex(&Sha256::digest(json(&contents))), inputs, options)
    }

    /// - `hash`: of the contents
    /// - `inputs`: what must not change between two runs for the second to go on
    pub(super) fn new(hash: String, inputs: impl Serialize, options: &ShardOptions) -> Self {
        let steps = Steps {
            hash: &hash,
            inputs,
            part: options.part.map(|part| part.to_string()),
            max_memory: options.max_memory,
            max_cells: options.max_cells,
            stratify: options.stratify.as_deref(),
        };
        Self { text: json(&steps), hash }
    }

    /// The set of this very job, if `out` holds it complete.
    ///
    /// - `has_sources`: whether the sources of a manifest are the inputs as they are now
    pub(super) fn finished(
        &self,
        out: &Path,
        part: Option<&PartEntry>,
        options: &ShardOptions,
        has_sources: impl FnOnce(&Manifest) -> Result<bool>,
    ) -> Result<Option<ShardSet>> {
        if !out.join(MANIFEST_FILE).is_file() {
            return Ok(None);
        }
        // Whatever else is there is somebody's: `claim` says so.
        let Ok(manifest) = Manifest::read(out) else { return Ok(None) };
        let same = manifest.job == self.hash
            && manifest.part.as_ref() == part
            && manifest.quality.max_cells == options.max_cells.map(|n_cells| n_cells as u64)
            && manifest.quality.stratify == options.stratify;
        if !same || !has_sources(&manifest)? {
            return Ok(None);
        }
        remove_leftovers(out)?;
        ShardSet::open(out).map(Some)
    }
}

impl InputFile {
    pub(super) fn of(path: &Path) -> Result<Self> {
        let fail = |source| Error::io("read", path, source);
        let mut input = Self {
            path: path.to_path_buf(),
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            bytes: 0,
            modified: 0,
        };
        let mut add = |metadata: std::fs::Metadata| {
            let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            input.bytes += metadata.len();
            input.modified = input.modified.max(modified.unwrap_or_default().as_nanos());
        };
        let metadata = std::fs::metadata(path).map_err(fail)?;
        if !metadata.is_dir() {
            add(metadata);
            return Ok(input);
        }
        for entry in std::fs::read_dir(path).map_err(fail)? {
            let metadata = entry.and_then(|entry| std::fs::metadata(entry.path())).map_err(fail)?;
            if metadata.is_file() {
                add(metadata);
            }
        }
        Ok(input)
    }
}

/// Texts and numbers always serialise.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
