//! NumPy's `.npy` (format 1.0): a header of fixed length, then the values.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use super::file::TableSummary;
use crate::error::{Error, Result};
use crate::unfinished_file::{Existing, UnfinishedFile};

/// Bytes of the header: a multiple of 64, with room for any shape.
const HEADER: usize = 128;

/// Writes a float32 matrix in C order, row by row; how many rows is known at the end.
#[derive(Debug)]
pub struct NpyMatrix {
    file: UnfinishedFile,
    writer: BufWriter<File>,
    width: usize,
    n_rows: usize,
}

impl NpyMatrix {
    /// Begins a matrix of `width` columns.
    ///
    /// # Errors
    /// [`Error::BadOption`] if the width is 0; [`Error::FileExists`]; [`Error::Io`].
    pub fn create(path: &Path, existing: Existing, width: usize) -> Result<Self> {
        if width == 0 {
            let reason = "it must be at least 1".into();
            return Err(Error::BadOption { option: "embedding width", value: "0".into(), reason });
        }
        let file = UnfinishedFile::create(path, existing)?;
        let writer = BufWriter::with_capacity(1 << 18, file.handle()?);
        let mut matrix = Self { file, writer, width, n_rows: 0 };
        matrix.write(&header(0, width))?;
        Ok(matrix)
    }

    /// Adds rows.
    ///
    /// - `values`: whole rows, one after another
    ///
    /// # Errors
    /// [`Error::WrongLength`] if these are not whole rows; [`Error::Io`].
    pub fn push_rows(&mut self, values: &[f32]) -> Result<()> {
        let n_rows = values.len() / self.width;
        if !values.len().is_multiple_of(self.width) {
            let (what, expected) = (self.file.target().display().to_string(), n_rows * self.width);
            return Err(Error::WrongLength { what, of: "values", found: values.len(), expected });
        }
        for value in values {
            self.write(&value.to_le_bytes())?;
        }
        self.n_rows += n_rows;
        Ok(())
    }

    /// Writes the number of rows into the header, and gives the file its name.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::FileExists`] if a file of this name has appeared meanwhile and may not be replaced.
    pub fn finish(mut self) -> Result<TableSummary> {
        self.writer
            .seek(SeekFrom::Start(0))
            .map_err(|source| Error::io("write", self.file.target(), source))?;
        self.write(&header(self.n_rows, self.width))?;
        self.writer.flush().map_err(|source| Error::io("write", self.file.target(), source))?;
        let Self { file, writer, n_rows, .. } = self;
        drop(writer);
        TableSummary::commit(file, n_rows)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).map_err(|source| Error::io("write", self.file.target(), source))
    }
}

fn header(n_rows: usize, width: usize) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&((HEADER - 10) as u16).to_le_bytes());
    let shape = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({n_rows}, {width}), }}");
    bytes.extend_from_slice(shape.as_bytes());
    bytes.resize(HEADER - 1, b' ');
    bytes.push(b'\n');
    bytes
}
