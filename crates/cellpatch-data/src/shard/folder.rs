//! The folder of a shard set while it is written: one writer, what an interrupted run did is taken up or removed,
//! everything is committed at once.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use super::{MANIFEST_FILE, Manifest, SOURCES_FILE, VOCABULARY_FILE};
use crate::error::{Error, Result};
use crate::unfinished_file::{Existing, UnfinishedFile, sync_folder};

/// Everything is written here first. The name tells our leftovers from somebody else's files.
const WORK_FOLDER: &str = ".cellpatch-shards-unfinished";
const LOCK_FILE: &str = "lock";
/// What the work in the folder is for.
const JOB_FILE: &str = "job.json";

/// A folder being filled. Dropped without [`commit`](Self::commit), its work is removed.
#[derive(Debug)]
pub(crate) struct UnfinishedFolder {
    target: PathBuf,
    work: PathBuf,
    _lock: File,
}

impl UnfinishedFolder {
    /// Takes an empty or new folder, or one that holds nothing but what an interrupted run left there.
    ///
    /// - `job`: what is going to be done; what an interrupted run left of the same job stays
    pub(crate) fn claim(target: &Path, job: &str) -> Result<Self> {
        fs::create_dir_all(target).map_err(|source| Error::io("create", target, source))?;
        let work = target.join(WORK_FOLDER);
        let interrupted = work.exists();
        let foreign = |name: &str| name != WORK_FOLDER && !(interrupted && is_ours(name));
        for name in names(target)? {
            if name == MANIFEST_FILE || foreign(&name) {
                return Err(Error::FolderNotEmpty { path: target.to_path_buf(), found: name });
            }
        }
        fs::create_dir_all(&work).map_err(|source| Error::io("create", &work, source))?;
        let lock = lock(target)?;
        let folder = Self { target: target.to_path_buf(), work, _lock: lock };
        if folder.load::<String>(JOB_FILE).is_some_and(|begun| begun == job) {
            folder.take_back()?;
        } else {
            folder.clean()?;
            folder.save(JOB_FILE, &job)?;
        }
        Ok(folder)
    }

    /// Where to write: on the target's own disk, so that moving is renaming.
    pub(crate) fn work(&self) -> &Path {
        &self.work
    }

    /// Notes a result in the work folder, for the run that goes on if this one is interrupted.
    pub(crate) fn save(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let path = self.work.join(name);
        let text = serde_json::to_vec(value)
            .map_err(|source| Error::io("write", &path, std::io::Error::other(source)))?;
        let file = UnfinishedFile::create(&path, Existing::Replace)?;
        file.handle()?.write_all(&text).map_err(|source| Error::io("write", &path, source))?;
        file.commit_unsynced()
    }

    /// What an interrupted run noted; nothing if it did not get there, or what it wrote is damaged.
    pub(crate) fn load<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_slice(&fs::read(self.work.join(name)).ok()?).ok()
    }

    /// Moves the files of an interrupted commit back, and removes notes that were not finished.
    fn take_back(&self) -> Result<()> {
        for name in names(&self.target)?.into_iter().filter(|name| is_ours(name)) {
            let (from, to) = (self.target.join(&name), self.work.join(&name));
            fs::rename(&from, &to).map_err(|source| Error::io("rename", &from, source))?;
        }
        for name in names(&self.work)?.into_iter().filter(|name| name.starts_with('.')) {
            let path = self.work.join(name);
            fs::remove_file(&path).map_err(|source| Error::io("remove", &path, source))?;
        }
        Ok(())
    }

    /// Removes everything in the work folder but the lock, and moved files of an interrupted commit.
    fn clean(&self) -> Result<()> {
        for folder in [&self.work, &self.target] {
            for name in names(folder)? {
                if (folder == &self.target && !is_ours(&name)) || name == LOCK_FILE {
                    continue;
                }
                let path = folder.join(name);
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

/// Removes the work folder of a run that was killed after its last step, if no other is writing.
pub(crate) fn remove_leftovers(target: &Path) -> Result<()> {
    let work = target.join(WORK_FOLDER);
    if !work.exists() {
        return Ok(());
    }
    let _lock = lock(target)?;
    fs::remove_dir_all(&work).map_err(|source| Error::io("remove", &work, source))
}

/// Keeps other writers away as long as it lives; the system lets go of it when the process ends.
fn lock(target: &Path) -> Result<File> {
    let path = target.join(WORK_FOLDER).join(LOCK_FILE);
    let lock = File::create(&path).map_err(|source| Error::io("create", &path, source))?;
    lock.try_lock().map_err(|error| match error {
        fs::TryLockError::WouldBlock => Error::FolderBusy { path: target.to_path_buf() },
        fs::TryLockError::Error(source) => Error::io("lock", &path, source),
    })?;
    Ok(lock)
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let fail = |source| Error::io("read", folder, source);
    let entries = fs::read_dir(folder).map_err(fail)?;
    entries.map(|entry| Ok(entry.map_err(fail)?.file_name().to_string_lossy().into_owned())).collect()
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
