//! One file from a server to the disk: goes on where it stopped, as long as the server still has the same file.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::fetch::{FetchOptions, MOST_PAUSE};
use crate::error::{Error, Result};
use crate::remote::{Answer, Refusal, Wanted, get, local_path};
use crate::shard::hex;
use crate::transfer_failure::TransferFailure;
use crate::unfinished_file::{Existing, UnfinishedFile, folder_of, sync_folder};

/// A file to have.
#[derive(Debug)]
pub(super) struct Download<'a> {
    pub(super) url: &'a str,
    /// Where it goes. Until it is whole, what came of it is beside it, under the same name with `.part`.
    pub(super) target: &'a Path,
    /// What is expected.
    pub(super) sha256: Option<&'a str>,
    pub(super) bytes: Option<u64>,
    pub(super) options: &'a FetchOptions,
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Downloaded {
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

/// How one request ended.
enum Ending {
    Complete,
    /// It is worth trying again.
    Broken {
        failure: TransferFailure,
        pause: Option<Duration>,
    },
}

/// What the bytes so far are of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Origin {
    url: String,
    version: String,
    total: Option<u64>,
}

impl Download<'_> {
    /// Brings the file here.
    ///
    /// - `observe`: is told how many bytes are here, of how many
    ///
    /// # Errors
    /// [`Error::Transfer`], [`Error::Io`], and [`Error::FolderBusy`] if another process is bringing it.
    pub(super) fn run(&self, observe: &mut dyn FnMut(u64, Option<u64>)) -> Result<Downloaded> {
        if let Some(path) = local_path(self.url)? {
            return self.copy(&path);
        }
        let mut part = Part::open(self.target, self.url)?;
        let (mut most, mut n_failed) = (part.n_bytes, 0);
        while let Ending::Broken { failure, pause } = self.request(&mut part, observe)? {
            if part.n_bytes > most {
                (most, n_failed) = (part.n_bytes, 0);
            }
            n_failed += 1;
            if n_failed > self.options.retries {
                return Err(self.failed(failure));
            }
            let pause = pause.unwrap_or(self.options.pause_before(n_failed));
            std::thread::sleep(pause.min(MOST_PAUSE));
        }
        let downloaded = Downloaded { bytes: part.n_bytes, sha256: part.sha256() };
        if let Err(error) = self.check(&downloaded) {
            part.remove()?;
            return Err(error);
        }
        part.commit(self.target)?;
        Ok(downloaded)
    }

    /// One request: what is missing, or everything.
    fn request(&self, part: &mut Part, observe: &mut dyn FnMut(u64, Option<u64>)) -> Result<Ending> {
        let rest = part.origin.as_ref().filter(|_| part.n_bytes > 0);
        let wanted =
            Wanted { url: self.url, rest: rest.map(|origin| (part.n_bytes, origin.version.as_str())) };
        let mut answer = match get(wanted) {
            Ok(answer) => answer,
            Err(Error::Transfer { failure: failure @ TransferFailure::Unreachable { .. }, .. }) => {
                return Ok(Ending::Broken { failure, pause: None });
            }
            Err(error) => return Err(error),
        };
        match answer.refusal() {
            Some(Refusal::ForNow(failure)) => {
                return Ok(Ending::Broken { failure, pause: answer.retry_after });
            }
            Some(Refusal::ForGood(failure)) => return Err(self.failed(failure)),
            None => {}
        }
        if answer.status == 200 {
            part.restart(self.url, Some(&answer))?;
        } else if answer.status == 416 && part.is_complete() {
            return Ok(Ending::Complete);
        } else if answer.status == 416 || !part.continues_with(&answer) {
            // Whatever the server's reason, the next request is for everything.
            let reason = "what the server has is not what the first bytes are of".to_owned();
            let failure = self.interrupted(part, answer.total, reason);
            part.restart(self.url, None)?;
            return Ok(Ending::Broken { failure, pause: Some(Duration::ZERO) });
        }
        let total = part.origin.as_ref().and_then(|origin| origin.total).or(answer.total);
        self.check_length(total)?;
        let mut buffer = vec![0; 1 << 18];
        loop {
            match answer.read(&mut buffer) {
                Ok(0) => break,
                Ok(n_bytes) => part.append(&buffer[..n_bytes])?,
                Err(error) => {
                    let failure = self.interrupted(part, total, error.to_string());
                    return Ok(Ending::Broken { failure, pause: None });
                }
            }
            observe(part.n_bytes, total.or(self.bytes));
        }
        match total {
            Some(total) if part.n_bytes != total => {
                let failure =
                    self.interrupted(part, Some(total), "the answer has another length than it said".into());
                if part.n_bytes > total {
                    part.restart(self.url, None)?;
                }
                Ok(Ending::Broken { failure, pause: None })
            }
            _ => Ok(Ending::Complete),
        }
    }

    fn copy(&self, path: &Path) -> Result<Downloaded> {
        let mut source = File::open(path).map_err(|source| Error::io("read", path, source))?;
        let unfinished = UnfinishedFile::create(self.target, Existing::Replace)?;
        let mut target = unfinished.handle()?;
        let mut hasher = Sha256::new();
        let mut bytes = 0;
        let mut buffer = vec![0; 1 << 18];
        loop {
            let n_bytes = source.read(&mut buffer).map_err(|source| Error::io("read", path, source))?;
            if n_bytes == 0 {
                break;
            }
            hasher.update(&buffer[..n_bytes]);
            target.write_all(&buffer[..n_bytes]).map_err(|source| Error::io("write", self.target, source))?;
            bytes += n_bytes as u64;
        }
        let downloaded = Downloaded { bytes, sha256: hex(&hasher.finalize()) };
        self.check(&downloaded)?;
        unfinished.commit()?;
        Ok(downloaded)
    }

    fn check(&self, downloaded: &Downloaded) -> Result<()> {
        self.check_length(Some(downloaded.bytes))?;
        match self.sha256 {
            Some(expected) if !expected.eq_ignore_ascii_case(&downloaded.sha256) => {
                let (expected, found) = (expected.to_lowercase(), downloaded.sha256.clone());
                Err(self.failed(TransferFailure::WrongChecksum { expected, found }))
            }
            _ => Ok(()),
        }
    }

    fn check_length(&self, found: Option<u64>) -> Result<()> {
        match (self.bytes, found) {
            (Some(expected), Some(found)) if expected != found => {
                Err(self.failed(TransferFailure::WrongLength { expected, found }))
            }
            _ => Ok(()),
        }
    }

    fn interrupted(&self, part: &Part, total: Option<u64>, reason: String) -> TransferFailure {
        TransferFailure::Interrupted { received: part.n_bytes, expected: total.or(self.bytes), reason }
    }

    fn failed(&self, failure: TransferFailure) -> Error {
        Error::Transfer { url: self.url.to_owned(), failure }
    }
}

/// What has come so far, and a note of what it is of. No other process can have it at the same time.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    note: PathBuf,
    file: File,
    hasher: Sha256,
    n_bytes: u64,
    origin: Option<Origin>,
}

impl Part {
    /// Takes up what an earlier download left, if it is of the same address.
    fn open(target: &Path, url: &str) -> Result<Self> {
        let path = with_ending(target, ".part");
        let note = with_ending(target, ".part.json");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = file.map_err(|source| Error::io("create", &path, source))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(Error::FolderBusy { path }),
            Err(fs::TryLockError::Error(source)) => return Err(Error::io("lock", &path, source)),
        }
        let origin = fs::read(&note).ok().and_then(|text| serde_json::from_slice::<Origin>(&text).ok());
        let origin = origin.filter(|origin| origin.url == url);
        let mut hasher = Sha256::new();
        let mut n_bytes = 0;
        if let Some(origin) = &origin {
            let mut buffer = vec![0; 1 << 18];
            loop {
                let n_read = file.read(&mut buffer).map_err(|source| Error::io("read", &path, source))?;
                if n_read == 0 {
                    break;
                }
                hasher.update(&buffer[..n_read]);
                n_bytes += n_read as u64;
            }
            if origin.total.is_none_or(|total| n_bytes <= total) {
                return Ok(Self { path, note, file, hasher, n_bytes, origin: Some(origin.clone()) });
            }
        }
        let mut part = Self { path, note, file, hasher, n_bytes, origin: None };
        part.restart(url, None)?;
        Ok(part)
    }

    /// Forgets what is here; what comes next is of the version that `answer` names.
    fn restart(&mut self, url: &str, answer: Option<&Answer>) -> Result<()> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(|source| Error::io("write", &self.path, source))?;
        self.hasher = Sha256::new();
        self.n_bytes = 0;
        self.origin = answer.and_then(|answer| {
            let version = answer.version.clone()?;
            Some(Origin { url: url.to_owned(), version, total: answer.total })
        });
        match &self.origin {
            Some(origin) => {
                let text = serde_json::to_vec(origin)
                    .map_err(|source| Error::io("write", &self.note, std::io::Error::other(source)))?;
                fs::write(&self.note, text).map_err(|source| Error::io("write", &self.note, source))
            }
            None => remove_if_there(&self.note),
        }
    }

    /// Whether the answer begins where this ends, and is of the same file.
    fn continues_with(&self, answer: &Answer) -> bool {
        let Some(origin) = &self.origin else { return false };
        let same_version = answer.version.as_ref().is_none_or(|version| *version == origin.version);
        let same_total = match (answer.total, origin.total) {
            (Some(now), Some(then)) => now == then,
            _ => true,
        };
        answer.start == self.n_bytes && same_version && same_total
    }

    fn is_complete(&self) -> bool {
        self.origin.as_ref().and_then(|origin| origin.total) == Some(self.n_bytes)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|source| Error::io("write", &self.path, source))?;
        self.hasher.update(bytes);
        self.n_bytes += bytes.len() as u64;
        Ok(())
    }

    fn sha256(&self) -> String {
        hex(&self.hasher.clone().finalize())
    }

    fn remove(self) -> Result<()> {
        remove_if_there(&self.note)?;
        remove_if_there(&self.path)
    }

    fn commit(self, target: &Path) -> Result<()> {
        self.file.sync_all().map_err(|source| Error::io("write", &self.path, source))?;
        fs::rename(&self.path, target).map_err(|source| Error::io("rename", &self.path, source))?;
        remove_if_there(&self.note)?;
        sync_folder(folder_of(target))
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path, source))
        }
        _ => Ok(()),
    }
}
