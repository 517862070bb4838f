//! The file's bytes, read at any offset.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use hdf5_pure::{FormatError, Source};

use crate::error::{Error, Result};

/// A file shared by the HDF5 library and our own readers of heaps and chunks.
#[derive(Clone)]
pub(crate) struct FileSource {
    file: Arc<Mutex<File>>,
    len: u64,
    /// Bytes that are seen in place of the file's own.
    patches: Arc<Vec<(u64, Vec<u8>)>>,
}

impl FileSource {
    /// Opens a file and notes its length.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(|error| Error::io("read", path, error))?;
        let is_folder = file.metadata().map_err(|error| Error::io("read", path, error))?.is_dir();
        if is_folder {
            return Err(Error::io("read", path, std::io::ErrorKind::IsADirectory.into()));
        }
        let len = file.seek(SeekFrom::End(0)).map_err(|error| Error::io("read", path, error))?;
        Ok(Self { file: Arc::new(Mutex::new(file)), len, patches: Arc::default() })
    }

    /// The same file with other bytes at some places.
    pub(crate) fn patched(&self, patches: Vec<(u64, Vec<u8>)>) -> Self {
        Self { patches: Arc::new(patches), ..self.clone() }
    }

    /// Puts the other bytes over those that were read at `offset`.
    fn patch(&self, offset: u64, buffer: &mut [u8]) {
        for (start, bytes) in self.patches.iter() {
            let end =
                start.saturating_add(bytes.len() as u64).min(offset.saturating_add(buffer.len() as u64));
            let first = offset.max(*start);
            if first < end {
                let length = (end - first) as usize;
                let (to, from) = ((first - offset) as usize, (first - start) as usize);
                buffer[to..to + length].copy_from_slice(&bytes[from..from + length]);
            }
        }
    }

    /// The first bytes of the file, fewer if it is shorter.
    pub(crate) fn head(&self, count: usize) -> Vec<u8> {
        let mut head = vec![0; count.min(usize::try_from(self.len).unwrap_or(usize::MAX))];
        if self.read_at(0, &mut head).is_err() {
            head.clear();
        }
        head
    }
}

impl Source for FileSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::result::Result<(), FormatError> {
        let length = buffer.len() as u64;
        let end = offset.checked_add(length).ok_or(FormatError::OffsetOverflow { offset, length })?;
        if end > self.len {
            return Err(FormatError::UnexpectedEof {
                expected: usize::try_from(end).unwrap_or(usize::MAX),
                available: usize::try_from(self.len).unwrap_or(usize::MAX),
            });
        }
        // A reader that panicked leaves no state behind: every read seeks first.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(buffer))
            .map_err(|error| FormatError::Source(error.to_string()))?;
        drop(file);
        self.patch(offset, buffer);
        Ok(())
    }
}
