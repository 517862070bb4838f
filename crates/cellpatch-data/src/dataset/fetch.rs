//! The files of a data set, brought into a folder.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use serde::Serialize;

use super::{
    DatasetFile, DatasetManifest,
    download::{Download, Downloaded},
    record::{Record, RecordedFile, UnpackedFile},
};
use crate::error::{Error, Result};
use crate::shard::hash_file;
use crate::transfer_failure::TransferFailure;
use crate::unfinished_file::{Existing, UnfinishedFile};

pub(super) const MOST_PAUSE: Duration = Duration::from_secs(60);

/// How files are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchOptions {
    /// How often to try again, one failure after the other; bytes that came start the count anew.
    pub retries: u32,
    /// How long to wait before trying again; twice as long each time, at most a minute.
    pub pause: Duration,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self { retries: 5, pause: Duration::from_secs(1) }
    }
}

impl FetchOptions {
    /// How long to wait after this many failures in a row.
    pub(super) fn pause_before(&self, n_failed: u32) -> Duration {
        self.pause.saturating_mul(1 << n_failed.saturating_sub(1).min(16)).min(MOST_PAUSE)
    }
}

/// How far a fetch is.
#[derive(Debug, Clone, Copy)]
pub struct FetchProgress<'a> {
    /// The file.
    pub file: &'a str,
    /// Its place among the files, counted from 0.
    pub index: usize,
    /// Files in all.
    pub n_files: usize,
    /// Bytes of the file that are here.
    pub done: u64,
    /// Bytes it has, where that is known.
    pub total: Option<u64>,
}

/// A file that is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FetchedFile {
    /// Where it is.
    pub path: PathBuf,
    /// Where it came from.
    pub url: String,
    /// Its size; of the unpacked file, where it was unpacked.
    pub bytes: u64,
    /// SHA-256 in hex of what the server sent.
    pub sha256: String,
    /// Whether the manifest states that checksum. If not, nobody can say whether what came is what was meant; it is
    /// remembered, and the next fetch compares with it.
    pub verified: bool,
    /// Whether it came now.
    pub state: FetchState,
}

/// Whether a file came now or was here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FetchState {
    /// It was downloaded.
    Downloaded,
    /// It was here, and is what it was.
    Present,
}

/// Brings the files of a data set into `folder`, which is made if need be; what is there already stays.
///
/// An interrupted fetch goes on where it stopped, if the server still has the same file. `fetched.json` in the folder
/// remembers what came.
///
/// # Errors
/// [`Error::NothingToFetch`] if there are no files, [`Error::Transfer`] for whatever the network does,
/// [`Error::FetchedFileChanged`] and [`Error::FileExists`] for files in the folder that are not what they should be,
/// [`Error::FolderBusy`] if another process fetches the same file, [`Error::Io`] for the disk.
pub fn fetch(
    manifest: &DatasetManifest,
    folder: &Path,
    options: &FetchOptions,
    observe: &mut dyn FnMut(FetchProgress<'_>),
) -> Result<Vec<FetchedFile>> {
    if manifest.files.is_empty() {
        return Err(Error::NothingToFetch { name: manifest.name.clone() });
    }
    fs::create_dir_all(folder).map_err(|source| Error::io("create", folder, source))?;
    let mut record = Record::read(folder)?;
    let mut fetched = Vec::with_capacity(manifest.files.len());
    for (index, file) in manifest.files.iter().enumerate() {
        let n_files = manifest.files.len();
        let mut report =
            |done, total| observe(FetchProgress { file: &file.name, index, n_files, done, total });
        fetched.push(fetch_file(file, folder, options, &mut record, &mut report)?);
    }
    Ok(fetched)
}

fn fetch_file(
    file: &DatasetFile,
    folder: &Path,
    options: &FetchOptions,
    record: &mut Record,
    report: &mut dyn FnMut(u64, Option<u64>),
) -> Result<FetchedFile> {
    let name = file.final_name();
    let path = folder.join(name);
    let known = record.get(name).cloned();
    if fs::symlink_metadata(&path).is_ok() {
        let (known, adopted) = match known {
            Some(known) => (known, false),
            None => (adopt(file, &path)?, true),
        };
        compare(file, &path, &known)?;
        let fetched = described(file, path, &known, FetchState::Present);
        if adopted {
            record.add(name, known)?;
        }
        return Ok(fetched);
    }
    let target = folder.join(&file.name);
    let known = known.filter(|known| known.url == file.url);
    let expected = file.sha256.as_deref().or(known.as_ref().map(|known| known.sha256.as_str()));
    let download = Download { url: &file.url, target: &target, sha256: expected, bytes: file.bytes, options };
    // What is unpacked is removed then: that it is here means that an earlier fetch came as far as that.
    let downloaded = match hash_file(&target) {
        Ok((bytes, sha256)) if expected == Some(sha256.as_str()) => Downloaded { bytes, sha256 },
        _ => download.run(report)?,
    };
    let unpacked = match file.unpack {
        Some(_) => Some(gunzip(&file.url, &target, &path)?),
        None => None,
    };
    let known = RecordedFile {
        url: file.url.clone(),
        bytes: downloaded.bytes,
        sha256: downloaded.sha256,
        verified: file.sha256.is_some(),
        unpacked,
    };
    let fetched = described(file, path, &known, FetchState::Downloaded);
    record.add(name, known)?;
    Ok(fetched)
}

/// A file that nobody remembers, but that is what the manifest says.
fn adopt(file: &DatasetFile, path: &Path) -> Result<RecordedFile> {
    let (bytes, sha256) = hash_file(path)?;
    match &file.sha256 {
        Some(expected) if file.unpack.is_none() && expected.eq_ignore_ascii_case(&sha256) => {
            Ok(RecordedFile { url: file.url.clone(), bytes, sha256, verified: true, unpacked: None })
        }
        _ => Err(Error::FileExists { path: path.to_path_buf() }),
    }
}

/// Compares a file with what is known of it, and that with the manifest.
fn compare(file: &DatasetFile, path: &Path, known: &RecordedFile) -> Result<()> {
    let changed = |expected: &str, found: &str| Error::FetchedFileChanged {
        path: path.to_path_buf(),
        expected: expected.to_lowercase(),
        found: found.to_owned(),
    };
    if let Some(stated) = file.sha256.as_deref().filter(|sum| !sum.eq_ignore_ascii_case(&known.sha256)) {
        return Err(changed(stated, &known.sha256));
    }
    let (bytes, sha256) = hash_file(path)?;
    if (bytes, sha256.as_str()) == known.kept() { Ok(()) } else { Err(changed(known.kept().1, &sha256)) }
}

fn described(file: &DatasetFile, path: PathBuf, known: &RecordedFile, state: FetchState) -> FetchedFile {
    FetchedFile {
        path,
        url: file.url.clone(),
        bytes: known.kept().0,
        sha256: known.sha256.clone(),
        verified: file.sha256.is_some(),
        state,
    }
}

/// Unpacks `packed` to `path` and removes it.
fn gunzip(url: &str, packed: &Path, path: &Path) -> Result<UnpackedFile> {
    let source = fs::File::open(packed).map_err(|source| Error::io("read", packed, source))?;
    let mut source = MultiGzDecoder::new(source);
    let unfinished = UnfinishedFile::create(path, Existing::Keep)?;
    let mut target = unfinished.handle()?;
    let mut buffer = vec![0; 1 << 18];
    loop {
        let n_bytes = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(n_bytes) => n_bytes,
            Err(error) => {
                // Kept, it would be taken for whole the next time.
                fs::remove_file(packed).map_err(|source| Error::io("remove", packed, source))?;
                let failure =
                    TransferFailure::BadAnswer { reason: format!("it cannot be unpacked: {error}") };
                return Err(Error::Transfer { url: url.to_owned(), failure });
            }
        };
        target.write_all(&buffer[..n_bytes]).map_err(|source| Error::io("write", path, source))?;
    }
    unfinished.commit()?;
    let (bytes, sha256) = hash_file(path)?;
    fs::remove_file(packed).map_err(|source| Error::io("remove", packed, source))?;
    Ok(UnpackedFile { bytes, sha256 })
}
