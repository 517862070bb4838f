//! `fetched.json`: what was fetched into a folder, so that the next time it can be told whether it is still the same.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::unfinished_file::{Existing, UnfinishedFile};

const NAME: &str = "fetched.json";
const FORMAT: &str = "cellpatch-fetched";
const VERSION: u32 = 1;

/// What is known of the files of a folder, by their final names.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    format: String,
    version: u32,
    files: BTreeMap<String, RecordedFile>,
    #[serde(skip)]
    path: PathBuf,
}

/// One file as it was when it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RecordedFile {
    pub(super) url: String,
    /// Of what the server sent.
    pub(super) bytes: u64,
    pub(super) sha256: String,
    /// Whether somebody else had stated that checksum.
    pub(super) verified: bool,
    /// Of what became of it, where it was unpacked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unpacked: Option<UnpackedFile>,
}

/// An unpacked file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UnpackedFile {
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

impl RecordedFile {
    /// Size and checksum of the file that is in the folder.
    pub(super) fn kept(&self) -> (u64, &str) {
        match &self.unpacked {
            Some(unpacked) => (unpacked.bytes, &unpacked.sha256),
            None => (self.bytes, &self.sha256),
        }
    }
}

impl Record {
    /// Reads the record of a folder; an empty one where there is none.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(NAME);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                let files = BTreeMap::new();
                return Ok(Self { format: FORMAT.to_owned(), version: VERSION, files, path });
            }
            Err(source) => return Err(Error::io("read", &path, source)),
        };
        let invalid =
            |reason: String| Error::Invalid { path: path.clone(), dataset: "the record".into(), reason };
        let record: Self = serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
        if record.format != FORMAT || record.version != VERSION {
            return Err(invalid(format!("it is {} version {}", record.format, record.version)));
        }
        Ok(Self { path, ..record })
    }

    pub(super) fn get(&self, name: &str) -> Option<&RecordedFile> {
        self.files.get(name)
    }

    /// Adds a file and writes the record.
    pub(super) fn add(&mut self, name: &str, file: RecordedFile) -> Result<()> {
        self.files.insert(name.to_owned(), file);
        let mut text = serde_json::to_vec_pretty(self)
            .map_err(|source| Error::io("write", &self.path, std::io::Error::other(source)))?;
        text.push(b'\n');
        let unfinished = UnfinishedFile::create(&self.path, Existing::Replace)?;
        unfinished.handle()?.write_all(&text).map_err(|source| Error::io("write", &self.path, source))?;
        unfinished.commit()
    }
}
