//! A run directory and what lies in it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use crate::files::AtPath as _;
use crate::{Error, Result};

/// A folder that holds one run: configuration, vocabulary, metrics, checkpoints, model, summary and report.
///
/// One process at a time works in it; the lock is the operating system's and ends with the process.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
    _lock: File,
}

impl RunDirectory {
    /// The file with the resolved configuration, in a run's folder.
    pub const CONFIG: &str = "config.toml";
    /// The folder with shards made for a run, in the run's folder.
    pub const SHARDS: &str = "shards";

    /// Makes a new run directory.
    ///
    /// # Errors
    /// [`Error::RunExists`] when the folder holds a run, [`Error::NotARun`] when it holds anything else,
    /// [`Error::Io`] when it cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        if path.exists() && !path.is_dir() {
            return Err(Error::NotARun { path: path.to_path_buf() });
        }
        fs::create_dir_all(path).at("create", path)?;
        let run = Self::lock(path)?;
        if run.config().exists() {
            return Err(Error::RunExists { path: path.to_path_buf() });
        }
        let lock = run.lock_path();
        for entry in fs::read_dir(path).at("read", path)? {
            let found = entry.at("read", path)?.path();
            // A run that was killed before its configuration was written leaves only what it can make again.
            if found != lock && found != run.shards() {
                return Err(Error::NotARun { path: path.to_path_buf() });
            }
        }
        Ok(run)
    }

    /// Opens the directory of a run that has begun.
    ///
    /// # Errors
    /// [`Error::NotARun`] when there is none, [`Error::RunLocked`] when another process works in it.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.join(Self::CONFIG).is_file() {
            return Err(Error::NotARun { path: path.to_path_buf() });
        }
        Self::lock(path)
    }

    fn lock(path: &Path) -> Result<Self> {
        let lock = path.join(".lock");
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).open(&lock).at("create", &lock)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path: path.to_path_buf(), _lock: file }),
            Err(TryLockError::WouldBlock) => Err(Error::RunLocked { path: path.to_path_buf() }),
            Err(TryLockError::Error(source)) => Err(source).at("lock", &lock),
        }
    }

    /// Takes back a run that could not begin: its configuration goes, and the folder with it if nothing else is in it.
    /// Finished shards stay. Does nothing once there is a checkpoint.
    pub fn discard(&self) {
        if self.checkpoints().exists() {
            return;
        }
        // Nothing depends on these going: a failure here leaves a folder that can be used or removed.
        for file in [self.config(), self.vocabulary(), self.lock_path()] {
            let _ = fs::remove_file(file);
        }
        let _ = fs::remove_dir(&self.path);
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn lock_path(&self) -> PathBuf {
        self.path.join(".lock")
    }

    /// The resolved configuration; its presence makes the folder a run.
    pub fn config(&self) -> PathBuf {
        self.path.join(Self::CONFIG)
    }

    /// Shards made for this run, when the data was not a shard set already.
    pub fn shards(&self) -> PathBuf {
        self.path.join(Self::SHARDS)
    }

    /// The gene vocabulary.
    pub fn vocabulary(&self) -> PathBuf {
        self.path.join("vocabulary.parquet")
    }

    /// One JSON object a step and epoch.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// The checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// The weights of the epoch with the best validation loss.
    pub fn model(&self) -> PathBuf {
        self.path.join("model.safetensors")
    }

    /// What the weights are: configuration, vocabulary, losses.
    pub fn model_card(&self) -> PathBuf {
        self.path.join("model.json")
    }

    /// The machine-readable result.
    pub fn summary(&self) -> PathBuf {
        self.path.join("summary.json")
    }

    /// The page for people.
    pub fn report(&self) -> PathBuf {
        self.path.join("report.html")
    }

    /// Replaces a file of the run as a whole.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk is full or the folder cannot be written.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        crate::files::replace(path, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let run = RunDirectory::create(&path).unwrap();
        run.write(&run.config(), b"seed = 1\n").unwrap();
        drop(run);
        assert!(matches!(RunDirectory::create(&path), Err(Error::RunExists { .. })));
        assert!(RunDirectory::open(&path).is_ok());
    }

    #[test]
    fn a_folder_with_other_things_in_it_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.doc"), b"").unwrap();
        assert!(matches!(RunDirectory::create(folder.path()), Err(Error::NotARun { .. })));
        assert!(matches!(RunDirectory::open(folder.path()), Err(Error::NotARun { .. })));
    }

    #[test]
    fn a_run_that_could_not_begin_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        let run = RunDirectory::create(&path).unwrap();
        run.write(&run.config(), b"seed = 1\n").unwrap();
        run.discard();
        assert!(!path.exists());

        let run = RunDirectory::create(&path).unwrap();
        fs::create_dir(run.checkpoints()).unwrap();
        run.discard();
        assert!(path.exists(), "a run that has begun stays");
    }

    #[test]
    fn two_processes_do_not_share_a_run() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(folder.path()).unwrap();
        assert!(matches!(RunDirectory::create(folder.path()), Err(Error::RunLocked { .. })));
        drop(run);
        assert!(RunDirectory::create(folder.path()).is_ok());
    }
}
