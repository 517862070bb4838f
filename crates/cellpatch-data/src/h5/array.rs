//! One array of a file opened by the library: its rows, whoever decodes them.

use std::path::{Path, PathBuf};

use hdf5_pure::Dataset;

use super::Array;
use super::chunks::OwnChunks;
use super::element::{Element, Number};
use super::heap::Heap;
use super::pure::reason;
use super::source::FileSource;
use crate::error::{Error, Result};

/// Why an array does not open.
pub(super) enum ArrayError {
    /// The library's reason.
    Library(hdf5_pure::Error),
    /// Ours.
    Refused(Error),
}

impl From<hdf5_pure::Error> for ArrayError {
    fn from(error: hdf5_pure::Error) -> Self {
        Self::Library(error)
    }
}

/// How the values are stored, and so who reads them.
pub(super) enum Storage {
    /// In one piece.
    Whole,
    /// In chunks the library decodes, with its cache of (chunks, bytes).
    Chunked { rows: usize, cache: (usize, usize) },
    /// In chunks we decode.
    Own(OwnChunks),
}

/// An array opened by the library.
pub(super) struct PureArray {
    pub(super) path: PathBuf,
    pub(super) name: String,
    pub(super) dataset: Dataset,
    pub(super) shape: Vec<usize>,
    pub(super) element: Element,
    pub(super) storage: Storage,
    pub(super) source: FileSource,
    pub(super) heap: Heap,
}

impl PureArray {
    fn failed(&self, reason: String) -> Error {
        Error::Hdf5 { path: self.path.clone(), dataset: self.name.clone(), reason }
    }

    fn check_rows(&self, start: usize, count: usize) -> Result<()> {
        let n_rows = self.shape.first().copied().unwrap_or(1);
        if start.checked_add(count).is_none_or(|end| end > n_rows) {
            return Err(self.failed(format!("rows {start} to {start} + {count} of {n_rows} were asked for")));
        }
        Ok(())
    }

    fn read_numbers<T: Number>(&mut self, start: usize, numbers: &mut [T]) -> Result<()> {
        self.check_rows(start, numbers.len())?;
        if let (Storage::Own(own), &[_]) = (&mut self.storage, &self.shape[..]) {
            let read = own.read_numbers(&self.source, &self.element, start, numbers);
            return read.map_err(|reason| self.failed(reason));
        }
        let bytes = self.read_rows(start, numbers.len())?;
        T::decode(&self.element, &bytes, numbers).map_err(|reason| self.failed(reason))
    }
}

impl Array for PureArray {
    fn path(&self) -> &Path {
        &self.path
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn element(&self) -> &Element {
        &self.element
    }

    fn rows_per_chunk(&self) -> usize {
        match &self.storage {
            Storage::Whole => 1,
            Storage::Chunked { rows, .. } => *rows,
            Storage::Own(own) => own.chunk.first().copied().unwrap_or(1),
        }
    }

    fn read_rows(&mut self, start: usize, count: usize) -> Result<Vec<u8>> {
        self.check_rows(start, count)?;
        let expected = count * self.shape.iter().skip(1).product::<usize>() * self.element.size();
        if expected == 0 {
            return Ok(Vec::new());
        }
        let bytes = match &mut self.storage {
            Storage::Own(own) => own.read(&self.source, &self.shape, self.element.size(), start, count),
            _ => self.dataset.read_raw_rows(start as u64, count as u64).map_err(|error| reason(&error)),
        }
        .map_err(|reason| self.failed(reason))?;
        if bytes.len() != expected {
            return Err(self.failed(format!("{} bytes were read, expected {expected}", bytes.len())));
        }
        Ok(bytes)
    }

    fn read_positions(&mut self, start: usize, positions: &mut [u32]) -> Result<()> {
        self.read_numbers(start, positions)
    }

    fn read_values(&mut self, start: usize, values: &mut [f32]) -> Result<()> {
        self.read_numbers(start, values)
    }

    fn dereference(&mut self, references: &[u8]) -> Result<Vec<String>> {
        self.heap.texts(references).map_err(|reason| Error::Hdf5 {
            path: self.path.clone(),
            dataset: self.name.clone(),
            reason,
        })
    }
}
