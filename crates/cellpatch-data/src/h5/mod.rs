//! HDF5 behind two small traits, so that the readers above know no HDF5 library.
//!
//! Everything a file declares is checked before it is believed: shapes multiply without overflow, contiguous data lie
//! inside the file, chunks are of a sane size, storage outside the file is refused. A read returns exactly the rows
//! asked for or an error, never fewer.

mod array;
mod attribute;
mod chunks;
mod datatype;
pub(crate) mod edit;
mod element;
mod filters;
mod heap;
mod pure;
mod signature;
mod source;

use std::path::Path;
use std::sync::Arc;

pub(crate) use attribute::Attribute;
pub(crate) use element::{Element, Member, to_f64, to_integer, to_strings};

use crate::error::{Error, Result};

/// What [`Error::NotHdf5`] says of a Matrix Market file.
pub(crate) const MATRIX_MARKET: &str = "a Matrix Market file";

/// What a name in the file refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ObjectKind {
    Group,
    Array,
}

/// An open HDF5 file.
pub(crate) trait Container: Send + Sync {
    /// The file.
    fn path(&self) -> &Path;
    /// What `name` is, or `None` if there is no such object.
    fn kind(&self, name: &str) -> Result<Option<ObjectKind>>;
    /// Names directly inside a group, groups and arrays together, in the file's order.
    fn members(&self, group: &str) -> Result<Vec<String>>;
    /// One attribute of a group or array.
    fn attribute(&self, object: &str, name: &str) -> Result<Option<Attribute>>;
    /// Opens an array and checks what it declares.
    fn array(&self, name: &str) -> Result<Box<dyn Array>>;
}

/// One dataset of the file. Rows are slices along the first dimension; a scalar is one row.
pub(crate) trait Array: Send {
    /// The file.
    fn path(&self) -> &Path;
    /// The dataset's full name.
    fn name(&self) -> &str;
    /// Dimensions; empty for a scalar.
    fn shape(&self) -> &[usize];
    /// What one element is.
    fn element(&self) -> &Element;
    /// Rows that share a stored chunk, so that reads can begin on a boundary; 1 if not chunked.
    fn rows_per_chunk(&self) -> usize;
    /// The raw little- or big-endian bytes of `count` rows from `start`: exactly those or an error.
    fn read_rows(&mut self, start: usize, count: usize) -> Result<Vec<u8>>;
    /// Positions from row `start` on, as many as there is room for; only of arrays of one dimension.
    fn read_positions(&mut self, start: usize, positions: &mut [u32]) -> Result<()>;
    /// Values from row `start` on, as many as there is room for; only of arrays of one dimension.
    fn read_values(&mut self, start: usize, values: &mut [f32]) -> Result<()>;
    /// The texts that variable-length references point at.
    fn dereference(&mut self, references: &[u8]) -> Result<Vec<String>>;
}

impl dyn Array + '_ {
    /// How many rows there are.
    pub(crate) fn n_rows(&self) -> usize {
        self.shape().first().copied().unwrap_or(1)
    }

    /// Elements of one row.
    pub(crate) fn row_len(&self) -> usize {
        self.shape().iter().skip(1).product()
    }

    /// An error about the dataset's content.
    pub(crate) fn invalid(&self, reason: impl Into<String>) -> Error {
        Error::Invalid {
            path: self.path().to_path_buf(),
            dataset: self.name().to_string(),
            reason: reason.into(),
        }
    }

    /// An error unless the array has one dimension of `expected` elements.
    pub(crate) fn expect_len(&self, expected: usize) -> Result<()> {
        if self.shape() == [expected] {
            return Ok(());
        }
        Err(self.invalid(format!("its shape is {:?}, expected [{expected}]", self.shape())))
    }

    /// Integers of a row range, whatever their width.
    ///
    /// Fails if the array holds something else.
    pub(crate) fn read_integers(&mut self, start: usize, count: usize) -> Result<Vec<i64>> {
        let bytes = self.read_rows(start, count)?;
        to_integer(self.element(), &bytes).map_err(|reason| self.invalid(reason))
    }

    /// Numbers of a row range as doubles, whatever their type.
    pub(crate) fn read_numbers(&mut self, start: usize, count: usize) -> Result<Vec<f64>> {
        let bytes = self.read_rows(start, count)?;
        to_f64(self.element(), &bytes).map_err(|reason| self.invalid(reason))
    }

    /// Every text of the array, of fixed or variable length.
    pub(crate) fn read_texts(&mut self) -> Result<Vec<String>> {
        const ROWS: usize = 1 << 16;
        let n_rows = self.n_rows();
        let mut texts = Vec::new();
        let mut start = 0;
        while start < n_rows {
            let count = ROWS.min(n_rows - start);
            texts.append(&mut self.read_texts_of(start, count)?);
            start += count;
        }
        Ok(texts)
    }

    /// Texts of a row range, of fixed or variable length.
    pub(crate) fn read_texts_of(&mut self, start: usize, count: usize) -> Result<Vec<String>> {
        let bytes = self.read_rows(start, count)?;
        match *self.element() == Element::VariableText {
            true => self.dereference(&bytes),
            false => to_strings(self.element(), &bytes).map_err(|reason| self.invalid(reason)),
        }
    }
}

/// Opens an HDF5 file for reading; nothing but its header is read.
///
/// Fails if the file is missing, is not HDF5, or is cut short.
pub(crate) fn open(path: &Path) -> Result<Arc<dyn Container>> {
    Ok(Arc::new(pure::PureFile::open(path)?))
}
