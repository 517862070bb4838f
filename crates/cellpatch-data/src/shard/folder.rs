//! The folder of a shard set while it is written: one writer, leftovers cleaned, everything committed at once.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{MANIFEST_FILE, Manifest, SOURCES_FILE, VOCABULARY_FILE};
use crate::error::{Error, Result};
use crate::unfinished_file::sync_folder;

/// Everything is written here first. The name tells our leftovers from somebody else's files.
const WORK_FOLDER: &str = ".cellpatch-shards-unfinished";
const LOCK_FILE: &str = "lock";

/// A folder being filled. Dropped without [`commit`](Self::commit), its work is removed.
#[derive(Debug)]
pub(crate) struct UnfinishedFolder {
    target: PathBuf,
    work: PathBuf,
    _lock: File,
}

impl UnfinishedFolder {
    /// Takes an empty or new folder, or one that holds nothing but what an interrupted run left there.
    pub(crate) fn claim(target: &Path) -> Result<Self> {
        fs::create_dir_all(target).map_err(|source| Error::io("create", target, source))?;
        let work = target.join(WORK_FOLDER);
        let interrupted = work.exists();
        let foreign = |name: &str| name != WORK_FOLDER && !(interrupted && is_ours(name));
        let entries = fs::read_dir(target).map_err(|source| Error::io("read", target, source))?;
        for entry in entries {
            let entry = entry.map_err(|source| Error::io("read", target, source))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == MANIFEST_FILE || foreign(&name) {
                return Err(Error::FolderNotEmpty { path: target.to_path_buf(), found: name });
            }
        }
        fs::create_dir_all(&work).map_err(|source| Error::io("create", &work, source))?;
        let lock_path = work.join(LOCK_FILE);
        let lock = File::create(&lock_path).map_err(|source| Error::io("create", &lock_path, source))?;
        if let Err(error) = lock.try_lock() {
            return Err(match error {
                fs::TryLockError::WouldBlock => Error::FolderBusy { path: target.to_path_buf() },
                fs::TryLockError::Error(source) => Error::io("lock", &lock_path, source),
            });
        }
        let folder = Self { target: target.to_path_buf(), work, _lock: lock };
        folder.clean()?;
        Ok(folder)
    }

    /// Where to write: on the target's own disk, so that moving is renaming.
    pub(crate) fn work(&self) -> &Path {
        &self.work
    }

    /// Removes everything in the work folder but the lock, and moved files of an interrupted commit.
    fn clean(&self) -> Result<()> {
        for folder in [&self.work, &self.target] {
            for entry in fs::read_dir(folder).map_err(|source| Error::io("read", folder, source))? {
                let entry = entry.map_err(|source| Error::io("read", folder, source))?;
                let name = entry.file_name();
                if (folder == &self.target && !is_ours(&name.to_string_lossy())) || name == LOCK_FILE {
                    continue;
                }
                let path = entry.path();
                fs::remove_file(&path).map_err(|source| Error::io("remove", &path, source))?;
            }
        }
        Ok(())
    }

    /// Moves the manifest's files from the work folder to the target and then, last, writes the manifest.
    pub(crate) fn commit(self, manifest: &Manifest) -> Result<()> {
        let names = manifest.files.iter().map(|file| &file.name);
        for name in names.chain(manifest.side_files.iter().map(|file| &file.name)) {
            let (from, to) = (self.work.join(name), self.target.join(name));
            fs::rename(&from, &to).map_err(|source| Error::io("rename", &from, source))?;
        }
        sync_folder(&self.target)?;
        let sibling = self.work.join(MANIFEST_FILE);
        let mut text = serde_json::to_vec_pretty(manifest)
            .map_err(|source| Error::io("write", &sibling, std::io::Error::other(source)))?;
        text.push(b'\n');
        let written = File::create(&sibling).and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()
        });
        written.map_err(|source| Error::io("write", &sibling, source))?;
        let path = self.target.join(MANIFEST_FILE);
        fs::rename(&sibling, &path).map_err(|source| Error::io("rename", &sibling, source))?;
        sync_folder(&self.target)
    }
}

impl Drop for UnfinishedFolder {
    /// After a commit this removes an empty folder; after a failure, what had been written so far.
    fn drop(&mut self) {
        if !self.target.join(MANIFEST_FILE).exists() {
            let _ = self.clean();
        }
        let _ = fs::remove_dir_all(&self.work);
    }
}

fn is_ours(name: &str) -> bool {
    let is_cell_file = name
        .strip_prefix("cells-")
        .and_then(|rest| rest.strip_suffix(".parquet"))
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()));
    is_cell_file || name == VOCABULARY_FILE || name == SOURCES_FILE
}

/// Names the `index`th file of cells.
pub(crate) fn cell_file_name(index: usize) -> String {
    format!("cells-{index:05}.parquet")
}

/// Size and SHA-256, in hex, of a file.
pub(crate) fn hash_file(path: &Path) -> Result<(u64, String)> {
    File::open(path)
        .and_then(|mut file| hash(&mut file, u64::MAX))
        .map_err(|source| Error::io("read", path, source))
}

/// Length and SHA-256, in hex, of several files one after the other.
pub(crate) fn hash_files(paths: &[PathBuf]) -> Result<(u64, String)> {
    let mut source: Box<dyn Read> = Box::new(std::io::empty());
    for path in paths {
        let file = File::open(path).map_err(|source| Error::io("read", path, source))?;
        source = Box::new(source.chain(file));
    }
    let first = paths.first().map_or(Path::new(""), PathBuf::as_path);
    hash(&mut source, u64::MAX).map_err(|source| Error::io("read", first, source))
}

/// Length and SHA-256, in hex, of what `source` gives, at most `n_most` bytes.
pub(crate) fn hash(source: &mut impl Read, n_most: u64) -> std::io::Result<(u64, String)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 1 << 18];
    let mut source = source.take(n_most);
    let mut n_bytes = 0;
    loop {
        let n_read = source.read(&mut buffer)?;
        if n_read == 0 {
            return Ok((n_bytes, hex(&hasher.finalize())));
        }
        n_bytes += n_read as u64;
        hasher.update(&buffer[..n_read]);
    }
}

/// Bytes as lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
