//! The files of a shard set on a server.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use super::cache::{Cache, CacheOptions};
use super::store::Store;
use crate::error::{Error, Result};
use crate::shard::{DescribedFile, FileSource, hash, hex};
use crate::transfer_failure::TransferFailure;

/// A manifest is some megabytes at most; what is larger is none.
const MOST_MANIFEST_BYTES: usize = 1 << 30;
/// Most bytes that are brought before their turn: enough for any pause of a network, and no more than that.
const MOST_AHEAD: u64 = 4 << 30;
/// How often a file is asked for that comes cut or damaged, beside what the store itself does about failures.
const N_TRIES: usize = 3;

/// Brings files of a server into the cache as they are asked for.
#[derive(Debug)]
pub(crate) struct RemoteFiles {
    store: Store,
    cache: Cache,
    /// Checksums of files of the cache that this process has compared or written.
    right: Mutex<HashSet<String>>,
    /// Files that somebody is bringing: who comes second waits for the first.
    arriving: Mutex<HashMap<String, Arc<Mutex<()>>>>,
}

impl RemoteFiles {
    pub(crate) fn open(url: &str, options: CacheOptions) -> Result<Self> {
        let environment = std::env::vars_os();
        let environment =
            environment.filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
        Self::with(Store::open(url, environment)?, options)
    }

    pub(super) fn with(store: Store, options: CacheOptions) -> Result<Self> {
        let cache = Cache::open(options)?;
        Ok(Self { store, cache, right: Mutex::default(), arriving: Mutex::default() })
    }

    /// The address.
    pub(crate) fn url(&self) -> &str {
        self.store.url()
    }

    /// Reads a small file that nothing is known of; none if the server has none.
    pub(crate) fn read_small(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let mut text = Vec::new();
        let read = self.store.read(name, &mut |piece| {
            text.extend_from_slice(&piece);
            if text.len() <= MOST_MANIFEST_BYTES {
                return Ok(());
            }
            let failure =
                TransferFailure::BadAnswer { reason: "it is larger than such a file can be".into() };
            Err(Error::Transfer { url: format!("{}/{name}", self.url()), failure })
        });
        match read {
            Ok(()) => Ok(Some(text)),
            Err(Error::Transfer { failure: TransferFailure::NotFound, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A file of the cache, if it is there and right.
    fn find(&self, file: &DescribedFile) -> Result<Option<File>> {
        let Some(mut found) = self.cache.find(&file.sha256, file.bytes) else { return Ok(None) };
        if lock(&self.right).contains(&file.sha256) {
            return Ok(Some(found));
        }
        let path = self.cache.path(&file.sha256);
        let compared = hash(&mut found, u64::MAX).and_then(|(_, sum)| {
            found.seek(SeekFrom::Start(0))?;
            Ok(sum == file.sha256)
        });
        if compared.map_err(|source| Error::io("read", &path, source))? {
            lock(&self.right).insert(file.sha256.clone());
            return Ok(Some(found));
        }
        self.cache.remove(&file.sha256);
        Ok(None)
    }

    fn bring(&self, file: &DescribedFile) -> Result<File> {
        let mut arriving = self.cache.begin(&file.sha256, file.bytes)?;
        for n_tries in 1.. {
            match self.try_to_bring(file, arriving.file()) {
                Ok(()) => break,
                Err(Error::Transfer {
                    failure:
                        TransferFailure::Interrupted { .. }
                        | TransferFailure::WrongChecksum { .. }
                        | TransferFailure::WrongLength { .. },
                    ..
                }) if n_tries < N_TRIES => arriving.restart()?,
                Err(error) => return Err(error),
            }
        }
        let kept = arriving.keep()?;
        lock(&self.right).insert(file.sha256.clone());
        Ok(kept)
    }

    fn try_to_bring(&self, file: &DescribedFile, target: &mut File) -> Result<()> {
        let mut hasher = Sha256::new();
        let mut n_bytes = 0;
        let fail = |failure| Error::Transfer { url: format!("{}/{}", self.url(), file.name), failure };
        let wrong_length = |found| fail(TransferFailure::WrongLength { expected: file.bytes, found });
        self.store.read(&file.name, &mut |piece| {
            n_bytes += piece.len() as u64;
            if n_bytes > file.bytes {
                return Err(wrong_length(n_bytes));
            }
            hasher.update(&piece);
            let path = || self.cache.path(&file.sha256);
            target.write_all(&piece).map_err(|source| Error::io("write", path(), source))
        })?;
        if n_bytes != file.bytes {
            return Err(wrong_length(n_bytes));
        }
        let found = hex(&hasher.finalize());
        if found == file.sha256 {
            return Ok(());
        }
        Err(fail(TransferFailure::WrongChecksum { expected: file.sha256.clone(), found }))
    }
}

impl FileSource for RemoteFiles {
    fn open(&self, file: &DescribedFile) -> Result<(File, PathBuf)> {
        let turn = Arc::clone(lock(&self.arriving).entry(file.sha256.clone()).or_default());
        let waiting = lock(&turn);
        let opened = match self.find(file) {
            Ok(Some(found)) => Ok(found),
            Ok(None) => self.bring(file),
            Err(error) => Err(error),
        };
        drop(waiting);
        lock(&self.arriving).remove(&file.sha256);
        Ok((opened?, self.cache.path(&file.sha256)))
    }

    fn bytes_ahead(&self) -> u64 {
        // The other half is for what is read now and what was read.
        (self.cache.max_bytes() / 2).min(MOST_AHEAD)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
