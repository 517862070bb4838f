//! Files of servers, kept on this machine under their checksums.
//!
//! A file is called after its SHA-256, so that sets that have files in common keep them once, and a file that changed on a
//! server is another file here. Files appear by a rename, complete. Whoever reads one holds a shared lock on it; what is
//! removed to make room is not locked by anybody, in this process or another.

use std::fs::{self, File, TryLockError};
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tempfile::NamedTempFile;

use crate::error::{Error, Result};

const ENDING: &str = ".parquet";
const UNFINISHED: &str = ".unfinished-";
/// What a process left that was killed is removed when it is older than this.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// Where files of servers are kept, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheOptions {
    /// The folder.
    pub folder: PathBuf,
    /// Most bytes of files in it. Files in use are never removed, so it can be exceeded by what is read at one time.
    pub max_bytes: u64,
}

impl CacheOptions {
    /// How much is kept where nothing else is said: 20 GiB.
    pub const MAX_BYTES: u64 = 20 << 30;

    /// The user's cache folder and 20 GiB.
    ///
    /// The folder is `cellpatch/shards` in `XDG_CACHE_HOME` or `~/.cache`; on macOS in `~/Library/Caches`, on Windows in
    /// `LOCALAPPDATA`.
    ///
    /// # Errors
    /// [`Error::BadOption`] if the environment does not say where that is.
    pub fn usual() -> Result<Self> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = if cfg!(windows) {
            variable("LOCALAPPDATA")
        } else if cfg!(target_os = "macos") {
            variable("HOME").map(|home| home.join("Library/Caches"))
        } else {
            let xdg = variable("XDG_CACHE_HOME").filter(|path| path.is_absolute());
            xdg.or_else(|| variable("HOME").map(|home| home.join(".cache")))
        };
        let root = root.ok_or_else(|| Error::BadOption {
            option: "cache",
            value: "not given".into(),
            reason: "the environment does not say where your home folder is: name a folder".into(),
        })?;
        Ok(Self { folder: root.join("cellpatch").join("shards"), max_bytes: Self::MAX_BYTES })
    }
}

/// The folder with the files.
#[derive(Debug)]
pub(super) struct Cache {
    options: CacheOptions,
    /// Bytes that this process is bringing.
    arriving: Arc<AtomicU64>,
}

/// A file on its way into the cache. Dropped without [`keep`](Self::keep), it is removed.
pub(super) struct Arriving {
    file: NamedTempFile,
    target: PathBuf,
    _room: Room,
}

/// Room for a file that is arriving, until it is here or given up.
struct Room {
    bytes: u64,
    arriving: Arc<AtomicU64>,
}

impl Room {
    fn take(bytes: u64, arriving: &Arc<AtomicU64>) -> Self {
        arriving.fetch_add(bytes, Ordering::Relaxed);
        Self { bytes, arriving: Arc::clone(arriving) }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.arriving.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Cache {
    pub(super) fn open(options: CacheOptions) -> Result<Self> {
        let folder = &options.folder;
        fs::create_dir_all(folder).map_err(|source| Error::io("create", folder, source))?;
        Ok(Self { options, arriving: Arc::default() })
    }

    pub(super) fn max_bytes(&self) -> u64 {
        self.options.max_bytes
    }

    pub(super) fn path(&self, sha256: &str) -> PathBuf {
        self.options.folder.join(format!("{sha256}{ENDING}"))
    }

    /// Opens a file that is here and has this size, and marks it as used now. It is not removed while it is open.
    pub(super) fn find(&self, sha256: &str, bytes: u64) -> Option<File> {
        let file = File::open(self.path(sha256)).ok()?;
        // Some file systems know no locks. On Unix, a file that is removed can still be read by who has it open.
        let _ = file.lock_shared();
        let _ = file.set_modified(SystemTime::now());
        file.metadata().is_ok_and(|metadata| metadata.len() == bytes).then_some(file)
    }

    /// Removes a file that is not what it should be.
    pub(super) fn remove(&self, sha256: &str) {
        // If that fails, the new one takes its place by a rename.
        let _ = fs::remove_file(self.path(sha256));
    }

    /// Makes room for a file, and an empty one to write it to.
    pub(super) fn begin(&self, sha256: &str, bytes: u64) -> Result<Arriving> {
        let room = Room::take(bytes, &self.arriving);
        self.make_room()?;
        let folder = &self.options.folder;
        let file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(folder)
            .map_err(|source| Error::io("create", folder, source))?;
        Ok(Arriving { file, target: self.path(sha256), _room: room })
    }

    /// Removes files, those first that were not used for longest, until those that are arriving are within the limit too, or
    /// all that is left is in use.
    fn make_room(&self) -> Result<()> {
        let folder = &self.options.folder;
        let mut files = Vec::new();
        let mut total = self.arriving.load(Ordering::Relaxed);
        for entry in fs::read_dir(folder).map_err(|source| Error::io("read", folder, source))?.flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            // Another process may have removed it meanwhile.
            let Ok(metadata) = entry.metadata() else { continue };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            if name.starts_with(UNFINISHED) {
                if used.elapsed().is_ok_and(|age| age > ABANDONED) {
                    let _ = fs::remove_file(path);
                }
            } else if is_ours(&name) {
                total += metadata.len();
                files.push((used, metadata.len(), path));
            }
        }
        files.sort();
        for (_, bytes, path) in files {
            if total <= self.options.max_bytes {
                break;
            }
            if remove_unless_used(&path) {
                total -= bytes;
            }
        }
        Ok(())
    }
}

/// A folder that somebody named may hold other things.
fn is_ours(name: &str) -> bool {
    name.strip_suffix(ENDING)
        .is_some_and(|sum| sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn remove_unless_used(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return !path.exists() };
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => false,
        Ok(()) | Err(TryLockError::Error(_)) => fs::remove_file(path).is_ok(),
    }
}

impl Arriving {
    /// The file, for writing.
    pub(super) fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// Forgets what was written.
    pub(super) fn restart(&mut self) -> Result<()> {
        let file = self.file.as_file_mut();
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .map_err(|source| Error::io("write", &self.target, source))?;
        Ok(())
    }

    /// Gives the file its name, and opens it for reading.
    pub(super) fn keep(self) -> Result<File> {
        let Self { file, target, _room } = self;
        file.as_file().sync_all().map_err(|source| Error::io("write", &target, source))?;
        // From before it has a name that others can find.
        let _ = file.as_file().lock_shared();
        let mut file = file.persist(&target).map_err(|error| Error::io("rename", &target, error.error))?;
        file.seek(SeekFrom::Start(0)).map_err(|source| Error::io("read", &target, source))?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn name(number: usize) -> String {
        format!("{number:064x}")
    }

    fn add(cache: &Cache, number: usize, bytes: usize) -> File {
        let mut arriving = cache.begin(&name(number), bytes as u64).unwrap();
        arriving.file().write_all(&vec![number as u8; bytes]).unwrap();
        let file = arriving.keep().unwrap();
        // Clocks of file systems may be coarse.
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(number as u64)).unwrap();
        file
    }

    fn here(cache: &Cache) -> Vec<usize> {
        (0..20).filter(|&number| cache.path(&name(number)).exists()).collect()
    }

    fn cache(folder: &Path) -> Cache {
        Cache::open(CacheOptions { folder: folder.join("cache"), max_bytes: 35 }).unwrap()
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        (1..=3).for_each(|number| drop(add(&cache, number, 10)));
        assert!(cache.find(&name(1), 10).is_some());
        drop(add(&cache, 4, 10));
        assert_eq!(here(&cache), [1, 3, 4], "the first was used after the second");
        drop(add(&cache, 5, 30));
        assert_eq!(here(&cache), [5]);
    }

    #[test]
    fn a_file_in_use_is_not_removed_however_full_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let mut used = add(&cache, 1, 10);
        drop(add(&cache, 2, 10));
        drop(add(&cache, 3, 40));
        assert_eq!(here(&cache), [1, 3]);
        let mut bytes = Vec::new();
        used.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [1; 10]);
        drop(used);
        drop(add(&cache, 4, 35));
        assert_eq!(here(&cache), [4]);
    }

    #[test]
    fn what_is_not_complete_is_not_there_and_what_is_not_ours_stays() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let mine = folder.path().join("cache/thesis.parquet");
        fs::write(&mine, [0; 100]).unwrap();
        let mut arriving = cache.begin(&name(1), 10).unwrap();
        arriving.file().write_all(b"half").unwrap();
        assert!(cache.find(&name(1), 10).is_none());
        drop(arriving);
        drop(add(&cache, 2, 10));
        assert!(cache.find(&name(2), 11).is_none(), "its size is another");
        assert!(mine.exists());
        let names: Vec<_> = fs::read_dir(folder.path().join("cache")).unwrap().collect();
        assert_eq!(names.len(), 2);
    }
}
