//! Files that are either whole or not there.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// Attaches what was being done, and to which path, to an I/O error.
pub(crate) trait AtPath<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> AtPath<T> for std::io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io { action, path: path.to_path_buf(), source })
    }
}

/// Writes a file and waits until it is on the disk.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path).at("create", path)?;
    file.write_all(bytes).at("write", path)?;
    file.sync_all().at("write", path)
}

/// Replaces a file: a reader sees the old one or the new one, never a part. A failure leaves the old one, and no litter.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let sibling = sibling(path);
    write_synced(&sibling, bytes).and_then(|()| commit(&sibling, path)).inspect_err(|_| {
        let _ = fs::remove_file(&sibling);
    })
}

/// Replaces a file by a value's JSON.
///
/// # Errors
/// [`Error::Io`] when the disk is full or the folder cannot be written, [`Error::Format`] when the value has no JSON.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let json = serde_json::to_vec_pretty(value).map_err(|error| Error::Format {
        action: "written",
        path: path.to_path_buf(),
        reason: error.to_string(),
    })?;
    replace(path, &json)
}

/// Reads a value back.
///
/// - what: the value, for the error's text
///
/// # Errors
/// [`Error::Io`] when there is no file, [`Error::Format`] when it holds something else.
pub fn read_json<T: DeserializeOwned>(path: &Path, what: &str) -> Result<T> {
    let bytes = fs::read(path).at("read", path)?;
    serde_json::from_slice(&bytes).map_err(|error| Error::Format {
        action: "read",
        path: path.to_path_buf(),
        reason: format!("it is not {what}: {error}"),
    })
}

/// The name a file has until it is whole.
pub(crate) fn sibling(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".partial");
    path.with_file_name(name)
}

/// Gives a whole file its name, and makes the name last.
pub(crate) fn commit(sibling: &Path, path: &Path) -> Result<()> {
    fs::rename(sibling, path).at("rename", sibling)?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Waits until the names in a folder are on the disk.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    // Folders cannot be opened as files on Windows, where a rename is durable by itself.
    if cfg!(unix) {
        File::open(folder).and_then(|folder| folder.sync_all()).at("write", folder)?;
    }
    Ok(())
}
