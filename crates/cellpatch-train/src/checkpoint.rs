//! Checkpoints: one folder each, whole or not there.
//!
//! ```text
//! checkpoints/step-00000120/
//!     model.mpk       weights and parameter ids (Burn record, full precision)
//!     optimizer.mpk   Adam's moments
//!     state.json      where the run stands
//!     manifest.json   sizes and sha256 of the three; its rename commits the checkpoint
//! ```
//!
//! A folder without a manifest is the leftover of a killed process and is never read. Everything random in a training
//! is a function of the seed and a counter, so weights, moments and the position are the whole state.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::files::{self, AtPath as _};
use crate::metrics::ClassificationScores;
use crate::{Error, Result};

const FORMAT: u32 = 1;
const MODEL: &str = "model.mpk";
const OPTIMIZER: &str = "optimizer.mpk";
const STATE: &str = "state.json";
const MANIFEST: &str = "manifest.json";

/// Where a run stands between two optimizer steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingState {
    /// The epoch under way, from 1.
    pub epoch: usize,
    /// Batches of it that are done.
    pub batch: usize,
    /// Optimizer steps taken.
    pub step: u64,
    /// Cells seen, over all epochs.
    pub cells: u64,
    /// Seconds of training and validation.
    pub seconds: f64,
    /// Seconds of those in which the next training batch was not there yet.
    #[serde(default)]
    pub seconds_waited: f64,
    /// Sum of the losses of the epoch so far.
    #[serde(alias = "epoch_squared_error")]
    pub epoch_loss_sum: f64,
    /// What it is divided by.
    #[serde(alias = "epoch_targets")]
    pub epoch_weight: f64,
    /// The best validation so far.
    pub best: Option<BestEpoch>,
    /// Epochs since then.
    pub epochs_without_improvement: usize,
    /// The newest finished epoch's losses.
    pub last: Option<EpochLosses>,
    /// Bytes of `metrics.jsonl` that belong to the steps taken.
    pub metrics_bytes: u64,
    /// Whether the run is over, and why.
    pub finished: Option<Finish>,
}

/// Losses of a finished epoch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EpochLosses {
    /// Over the epoch's training cells.
    pub train: f64,
    /// Over the validation cells; none where nothing is validated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<f64>,
    /// How the validation cells were classified, in an annotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scores: Option<ClassificationScores>,
}

/// The epoch with the best validation results: the highest macro-F1 of an annotation, else the lowest loss. Where nothing is
/// validated, the newest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BestEpoch {
    /// The epoch, from 1.
    pub epoch: usize,
    /// Its losses.
    pub losses: EpochLosses,
}

/// Why a run is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finish {
    /// All epochs are done.
    Completed,
    /// The validation loss stopped falling.
    StoppedEarly,
}

impl EpochLosses {
    /// Whether an epoch is worth keeping over another: by macro-F1 where cells are classified (by loss where that is the
    /// same, as it often is with few cells), else by loss; what was not validated always is.
    pub fn are_better_than(&self, other: &Self) -> bool {
        match (self.scores, other.scores) {
            (Some(new), Some(old)) if new.macro_f1 != old.macro_f1 => new.macro_f1 > old.macro_f1,
            _ => match (self.validation, other.validation) {
                (Some(new), Some(old)) => new < old,
                _ => true,
            },
        }
    }
}

impl TrainingState {
    /// The state before the first step.
    pub fn start() -> Self {
        Self {
            epoch: 1,
            batch: 0,
            step: 0,
            cells: 0,
            seconds: 0.0,
            seconds_waited: 0.0,
            epoch_loss_sum: 0.0,
            epoch_weight: 0.0,
            best: None,
            epochs_without_improvement: 0,
            last: None,
            metrics_bytes: 0,
            finished: None,
        }
    }
}

/// What a run was started with; a resume must match it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// sha256 of the configuration without the number of epochs.
    pub config: String,
    /// sha256 of what identifies the data.
    pub data: String,
    /// The backend's name: exact resume is a promise per backend.
    pub backend: String,
}

impl Fingerprint {
    /// Of a run on a backend.
    ///
    /// - config: all that decides what is computed, except what may change when a run goes on
    /// - data: what identifies the cells, such as a shard set's manifest
    ///
    /// # Errors
    /// [`Error::BadOption`] when one of them cannot be written as JSON.
    pub fn new<B: Backend>(
        device: &B::Device,
        config: &impl Serialize,
        data: &impl Serialize,
    ) -> Result<Self> {
        Ok(Self { config: hash_of(config)?, data: hash_of(data)?, backend: B::name(device) })
    }

    /// The first part in which another differs: what it is, this one's value, and the other's.
    pub(crate) fn first_difference<'a>(
        &'a self,
        other: &'a Self,
    ) -> Option<(&'static str, &'a str, &'a str)> {
        let parts = [
            ("the data", &self.data, &other.data),
            ("the configuration", &self.config, &other.config),
            ("the backend", &self.backend, &other.backend),
        ];
        let differing = parts.into_iter().find(|(_, this, other)| this != other);
        differing.map(|(what, this, other)| (what, this.as_str(), other.as_str()))
    }

    /// Checks that a run goes on with what it was started with.
    ///
    /// # Errors
    /// [`Error::CheckpointMismatch`] with the first part that differs, and the checkpoint's folder.
    pub(crate) fn check(&self, now: &Self, folder: &Path) -> Result<()> {
        match self.first_difference(now) {
            Some((what, then, now)) => Err(Error::CheckpointMismatch {
                path: folder.to_path_buf(),
                what,
                then: then.into(),
                now: now.into(),
            }),
            None => Ok(()),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    step: u64,
    fingerprint: Fingerprint,
    files: Vec<FileEntry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct FileEntry {
    name: String,
    bytes: u64,
    sha256: String,
}

/// A checkpoint as it lies on the disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Its folder.
    pub folder: PathBuf,
    /// What the run was started with.
    pub fingerprint: Fingerprint,
    /// Where the run stood.
    pub state: TrainingState,
    /// The model's record.
    pub model: Vec<u8>,
    /// The optimizer's record.
    pub optimizer: Vec<u8>,
}

/// Writes a checkpoint below `checkpoints` and returns its folder.
///
/// # Errors
/// [`Error::Io`] when the disk is full or the folder cannot be written. The previous checkpoint stays whole.
pub(crate) fn write(
    checkpoints: &Path,
    fingerprint: &Fingerprint,
    state: &TrainingState,
    model: &[u8],
    optimizer: &[u8],
) -> Result<PathBuf> {
    let folder = checkpoints.join(format!("step-{:08}", state.step));
    remove(&folder)?;
    fs::create_dir_all(&folder).at("create", &folder)?;
    let state = to_json(&folder.join(STATE), state)?;
    let mut entries = Vec::new();
    for (name, bytes) in [(MODEL, model), (OPTIMIZER, optimizer), (STATE, state.as_slice())] {
        files::write_synced(&folder.join(name), bytes)?;
        entries.push(FileEntry { name: name.into(), bytes: bytes.len() as u64, sha256: sha256(bytes) });
    }
    let step = step_of(&folder).unwrap_or_default();
    let manifest = Manifest { format: FORMAT, step, fingerprint: fingerprint.clone(), files: entries };
    let path = folder.join(MANIFEST);
    files::replace(&path, &to_json(&path, &manifest)?)?;
    files::sync_folder(checkpoints)?;
    Ok(folder)
}

/// Removes all but the newest `keep` checkpoints, and the leftovers of killed processes.
pub(crate) fn prune(checkpoints: &Path, keep: usize) -> Result<()> {
    let newest: Vec<PathBuf> =
        list(checkpoints)?.into_iter().filter(|folder| folder.join(MANIFEST).is_file()).take(keep).collect();
    for folder in list(checkpoints)? {
        if !newest.contains(&folder) {
            remove(&folder)?;
        }
    }
    Ok(())
}

/// Reads the newest whole checkpoint; a damaged one is passed over for the one before it.
///
/// Returns the checkpoint and what was wrong with newer ones.
///
/// # Errors
/// [`Error::NoCheckpoint`] when there is none that can be read.
pub fn newest(checkpoints: &Path) -> Result<(Checkpoint, Vec<String>)> {
    let mut damaged = Vec::new();
    for folder in list(checkpoints)? {
        if !folder.join(MANIFEST).is_file() {
            continue;
        }
        match read(&folder) {
            Ok(checkpoint) => return Ok((checkpoint, damaged)),
            Err(error) => damaged.push(error.to_string()),
        }
    }
    let path = checkpoints.parent().unwrap_or(checkpoints).to_path_buf();
    Err(Error::NoCheckpoint { path, damaged: damaged.into_iter().next() })
}

/// Reads one checkpoint and checks every byte of it.
///
/// # Errors
/// [`Error::Io`] or [`Error::Format`] when a file is missing, cut short, changed or of a later format.
pub fn read(folder: &Path) -> Result<Checkpoint> {
    let path = folder.join(MANIFEST);
    let manifest: Manifest = from_json(&path, &fs::read(&path).at("read", &path)?)?;
    if manifest.format != FORMAT {
        return Err(damaged(&path, format!("format {} is not format {FORMAT}", manifest.format)));
    }
    let load = |name: &str| {
        let path = folder.join(name);
        let bytes = fs::read(&path).at("read", &path)?;
        let entry = manifest.files.iter().find(|entry| entry.name == name);
        match entry {
            Some(entry) if entry.bytes == bytes.len() as u64 && entry.sha256 == sha256(&bytes) => Ok(bytes),
            Some(_) => Err(damaged(&path, "its checksum is not the manifest's".into())),
            None => Err(damaged(&path, "the manifest does not name it".into())),
        }
    };
    let state = from_json(&folder.join(STATE), &load(STATE)?)?;
    Ok(Checkpoint {
        folder: folder.to_path_buf(),
        state,
        model: load(MODEL)?,
        optimizer: load(OPTIMIZER)?,
        fingerprint: manifest.fingerprint,
    })
}

/// All checkpoint folders, whole or not, the newest first.
fn list(checkpoints: &Path) -> Result<Vec<PathBuf>> {
    if !checkpoints.is_dir() {
        return Ok(Vec::new());
    }
    let mut folders = Vec::new();
    for entry in fs::read_dir(checkpoints).at("read", checkpoints)? {
        let path = entry.at("read", checkpoints)?.path();
        if let Some(step) = step_of(&path) {
            folders.push((step, path));
        }
    }
    folders.sort();
    Ok(folders.into_iter().rev().map(|(_, path)| path).collect())
}

fn step_of(folder: &Path) -> Option<u64> {
    folder.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()
}

/// Removes a checkpoint folder, its manifest first, so that half of it is never taken for a whole one.
fn remove(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let manifest = folder.join(MANIFEST);
    if manifest.exists() {
        fs::remove_file(&manifest).at("remove", &manifest)?;
        files::sync_folder(folder)?;
    }
    fs::remove_dir_all(folder).at("remove", folder)
}

fn damaged(path: &Path, reason: String) -> Error {
    Error::Format { action: "read", path: path.to_path_buf(), reason }
}

fn to_json(path: &Path, value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(|error| Error::Format {
        action: "written",
        path: path.to_path_buf(),
        reason: error.to_string(),
    })
}

fn from_json<T: for<'a> Deserialize<'a>>(path: &Path, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| damaged(path, error.to_string()))
}

/// sha256 of a value's JSON, in hexadecimal.
fn hash_of(value: &impl Serialize) -> Result<String> {
    let json = serde_json::to_vec(value).map_err(|error| Error::BadOption {
        option: "config",
        value: String::new(),
        reason: error.to_string(),
    })?;
    Ok(sha256(&json))
}

/// sha256 in hexadecimal.
fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint() -> Fingerprint {
        Fingerprint { config: "c".into(), data: "d".into(), backend: "b".into() }
    }

    fn state(step: u64) -> TrainingState {
        TrainingState { step, seconds: 0.1 + 0.2, epoch_loss_sum: 1.0 / 3.0, ..TrainingState::start() }
    }

    #[test]
    fn a_checkpoint_comes_back_to_the_last_bit() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &fingerprint(), &state(12), b"weights", b"moments").unwrap();
        let (found, damaged) = newest(folder.path()).unwrap();
        assert_eq!((found.state, damaged.len()), (state(12), 0));
        assert_eq!((found.model.as_slice(), found.optimizer.as_slice()), (&b"weights"[..], &b"moments"[..]));
    }

    #[test]
    fn a_kill_before_the_commit_leaves_the_checkpoint_before() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &fingerprint(), &state(1), b"old", b"").unwrap();
        let cut = write(folder.path(), &fingerprint(), &state(2), b"new", b"").unwrap();
        fs::rename(cut.join(MANIFEST), files::sibling(&cut.join(MANIFEST))).unwrap();
        assert_eq!(newest(folder.path()).unwrap().0.model, b"old");
        prune(folder.path(), 2).unwrap();
        assert!(!cut.exists(), "the leftover is cleared away");
    }

    #[test]
    fn a_damaged_checkpoint_is_passed_over_and_reported() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &fingerprint(), &state(1), b"old", b"").unwrap();
        let new = write(folder.path(), &fingerprint(), &state(2), b"new", b"").unwrap();
        fs::write(new.join(MODEL), b"nfw").unwrap();
        let (found, damaged) = newest(folder.path()).unwrap();
        assert_eq!(found.model, b"old");
        assert!(damaged[0].contains("checksum"), "{damaged:?}");
        fs::remove_dir_all(folder.path().join("step-00000001")).unwrap();
        assert!(matches!(newest(folder.path()), Err(Error::NoCheckpoint { damaged: Some(_), .. })));
    }

    #[test]
    fn only_the_newest_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        for step in [9, 10, 100] {
            write(folder.path(), &fingerprint(), &state(step), b"", b"").unwrap();
        }
        prune(folder.path(), 2).unwrap();
        let steps: Vec<_> = list(folder.path()).unwrap().iter().filter_map(|path| step_of(path)).collect();
        assert_eq!(steps, [100, 10]);
    }
}
