//! Matrices of cells and genes in HDF5 files: the parts they are made of, and their rows as blocks of cells.

mod blocks;
mod check;
mod kind;
mod regroup;

use std::fmt;
use std::path::Path;

pub use blocks::CountBlocks;
pub(crate) use blocks::ENTRY_BYTES;
pub(crate) use check::BlockCheck;
pub(crate) use kind::{Sample, detect};
pub use kind::{ValueKind, ValuePolicy};
pub(crate) use regroup::{Entries, Entry, Regrouped};

use crate::error::{Error, Result};
use crate::h5::{Array, Attribute, Container, Element, ObjectKind};

/// How a matrix is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatrixStorage {
    /// Compressed sparse rows.
    Csr,
    /// Compressed sparse columns.
    Csc,
    /// Every value.
    Dense,
    /// One entry after the other, each with its row and column.
    Coordinate,
}

impl fmt::Display for MatrixStorage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Csr => "csr",
            Self::Csc => "csc",
            Self::Dense => "dense",
            Self::Coordinate => "coordinate",
        })
    }
}

/// What a matrix is, before any value is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatrixInfo {
    /// Rows.
    pub n_cells: usize,
    /// Columns.
    pub n_genes: usize,
    /// How it is stored.
    pub storage: MatrixStorage,
    /// The type of its values as numpy names it: `float32`, `uint16`, ...
    pub dtype: String,
    /// Stored values: the entries of a sparse matrix, explicit zeros included, or all of a dense one.
    pub n_stored: usize,
}

/// An open matrix.
pub(crate) struct Matrix {
    /// What it is called in messages: `X`, `raw/X`, `layers/counts`, `matrix`.
    pub(crate) name: String,
    pub(crate) n_cells: usize,
    pub(crate) n_genes: usize,
    pub(crate) parts: Parts,
}

/// The datasets of a matrix.
pub(crate) enum Parts {
    Dense(Box<dyn Array>),
    Rows(Sparse),
    Columns(Sparse),
}

/// The three datasets of a compressed matrix, their lengths agreeing with each other.
pub(crate) struct Sparse {
    pub(crate) indptr: Box<dyn Array>,
    pub(crate) indices: Box<dyn Array>,
    pub(crate) data: Box<dyn Array>,
}

impl Matrix {
    /// Opens the array or group `object`, which messages call `name`.
    pub(crate) fn open(
        container: &dyn Container,
        name: &str,
        object: &str,
        kind: ObjectKind,
    ) -> Result<Self> {
        match kind {
            ObjectKind::Array => Self::open_dense(container, name, object),
            ObjectKind::Group => Self::open_sparse(container, name, object),
        }
    }

    /// Opens the matrix of 10x Genomics in the group `name`: genes x cells by columns, which is cells x genes by rows.
    pub(crate) fn open_tenx(container: &dyn Container, name: &str) -> Result<Self> {
        let mut shape = container.array(&format!("{name}/shape"))?;
        shape.expect_len(2)?;
        let lengths = shape.read_integers(0, 2)?;
        let &[Ok(n_genes), Ok(n_cells)] = &[usize::try_from(lengths[0]), usize::try_from(lengths[1])] else {
            return Err(shape.invalid(format!("it is {lengths:?}")));
        };
        check_genes(container.path(), name, n_genes)?;
        let sparse = Sparse::open(container, name, n_cells)?;
        Ok(Self { name: name.to_string(), n_cells, n_genes, parts: Parts::Rows(sparse) })
    }

    fn open_dense(container: &dyn Container, name: &str, object: &str) -> Result<Self> {
        let array = container.array(object)?;
        let &[n_cells, n_genes] = array.shape() else {
            return Err(array.invalid(format!("its shape is {:?}, expected cells x genes", array.shape())));
        };
        expect_numeric(array.as_ref())?;
        check_genes(container.path(), object, n_genes)?;
        Ok(Self { name: name.to_string(), n_cells, n_genes, parts: Parts::Dense(array) })
    }

    fn open_sparse(container: &dyn Container, name: &str, object: &str) -> Result<Self> {
        let invalid = |reason: String| Error::Invalid {
            path: container.path().to_path_buf(),
            dataset: object.to_string(),
            reason,
        };
        let by_rows = match format(container, object)? {
            Some(format) if format.starts_with("csr") => true,
            Some(format) if format.starts_with("csc") => false,
            Some(other) => {
                return Err(invalid(format!("its encoding is {other:?}, expected csr_matrix or csc_matrix")));
            }
            None => return Err(invalid("it is a group without a sparse format".into())),
        };
        let (n_cells, n_genes) = match shape(container, object)?.as_deref() {
            Some(&[rows, columns]) => (rows, columns),
            Some(other) => return Err(invalid(format!("its shape is {other:?}"))),
            None => return Err(invalid("it is a sparse matrix without a shape".into())),
        };
        check_genes(container.path(), object, n_genes)?;
        let sparse = Sparse::open(container, object, if by_rows { n_cells } else { n_genes })?;
        let parts = if by_rows { Parts::Rows(sparse) } else { Parts::Columns(sparse) };
        Ok(Self { name: name.to_string(), n_cells, n_genes, parts })
    }

    /// What is known of the matrix.
    pub(crate) fn info(&self) -> MatrixInfo {
        let (storage, values, n_stored) = match &self.parts {
            Parts::Dense(array) => (MatrixStorage::Dense, array, self.n_cells.saturating_mul(self.n_genes)),
            Parts::Rows(sparse) => (MatrixStorage::Csr, &sparse.data, sparse.data.n_rows()),
            Parts::Columns(sparse) => (MatrixStorage::Csc, &sparse.data, sparse.data.n_rows()),
        };
        MatrixInfo {
            n_cells: self.n_cells,
            n_genes: self.n_genes,
            storage,
            dtype: values.element().describe(),
            n_stored,
        }
    }

    /// The dataset that holds the values.
    pub(crate) fn values(&self) -> &dyn Array {
        match &self.parts {
            Parts::Dense(array) => array.as_ref(),
            Parts::Rows(sparse) | Parts::Columns(sparse) => sparse.data.as_ref(),
        }
    }
}

impl Sparse {
    /// Opens the parts of a matrix of `n_lines` compressed rows or columns and checks their lengths.
    fn open(container: &dyn Container, object: &str, n_lines: usize) -> Result<Self> {
        let sparse = Self {
            indptr: container.array(&format!("{object}/indptr"))?,
            indices: container.array(&format!("{object}/indices"))?,
            data: container.array(&format!("{object}/data"))?,
        };
        sparse.check(n_lines)?;
        Ok(sparse)
    }

    /// Checks the lengths of the parts for `n_lines` compressed rows or columns.
    fn check(&self, n_lines: usize) -> Result<()> {
        expect_numeric(self.data.as_ref())?;
        for index in [&self.indptr, &self.indices] {
            if !matches!(index.element(), Element::Integer { .. }) {
                return Err(index.invalid(format!("it holds {}, not integers", index.element().describe())));
            }
        }
        self.indptr.expect_len(n_lines.saturating_add(1))?;
        let &[n_stored] = self.data.shape() else {
            return Err(self
                .data
                .invalid(format!("its shape is {:?}, expected one dimension", self.data.shape())));
        };
        self.indices.expect_len(n_stored)
    }
}

fn expect_numeric(array: &dyn Array) -> Result<()> {
    if array.element().is_numeric() {
        return Ok(());
    }
    Err(array.invalid(format!("it holds {}, not numbers", array.element().describe())))
}

/// Column numbers are 32-bit in a block.
fn check_genes(path: &Path, name: &str, n_genes: usize) -> Result<()> {
    if u32::try_from(n_genes).is_ok() {
        return Ok(());
    }
    Err(Error::Invalid {
        path: path.to_path_buf(),
        dataset: name.to_string(),
        reason: format!("{n_genes} columns are too many"),
    })
}

/// `csr_matrix`, `csc_matrix`, or `csr`/`csc` from before AnnData 0.7.
fn format(container: &dyn Container, name: &str) -> Result<Option<String>> {
    for attribute in ["encoding-type", "h5sparse_format"] {
        if let Some(Attribute::Text(format)) = container.attribute(name, attribute)? {
            return Ok(Some(format));
        }
    }
    Ok(None)
}

fn shape(container: &dyn Container, name: &str) -> Result<Option<Vec<usize>>> {
    for attribute in ["shape", "h5sparse_shape"] {
        if let Some(Attribute::Integers(shape)) = container.attribute(name, attribute)? {
            return Ok(shape.into_iter().map(|length| usize::try_from(length).ok()).collect());
        }
    }
    Ok(None)
}
