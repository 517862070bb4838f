//! Where a matrix is in the file, and the parts it is made of.

use std::fmt;
use std::path::Path;

use crate::error::{Error, Result};
use crate::h5::{Array, Attribute, Container, Element, ObjectKind};

/// Which matrix of an AnnData file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MatrixLocation {
    /// `X`.
    X,
    /// `raw/X`, with genes of its own in `raw/var`.
    RawX,
    /// A layer by name.
    Layer(String),
}

impl fmt::Display for MatrixLocation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::X => formatter.write_str("X"),
            Self::RawX => formatter.write_str("raw/X"),
            Self::Layer(name) => write!(formatter, "layers/{name}"),
        }
    }
}

/// How a matrix is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatrixStorage {
    /// Compressed sparse rows.
    Csr,
    /// Compressed sparse columns.
    Csc,
    /// Every value.
    Dense,
}

impl fmt::Display for MatrixStorage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Csr => "csr",
            Self::Csc => "csc",
            Self::Dense => "dense",
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
pub(super) struct Matrix {
    pub(super) location: MatrixLocation,
    pub(super) n_cells: usize,
    pub(super) n_genes: usize,
    pub(super) parts: Parts,
}

/// The datasets of a matrix.
pub(super) enum Parts {
    Dense(Box<dyn Array>),
    Rows(Sparse),
    Columns(Sparse),
}

/// The three datasets of a compressed matrix, their lengths agreeing with each other.
pub(super) struct Sparse {
    pub(super) indptr: Box<dyn Array>,
    pub(super) indices: Box<dyn Array>,
    pub(super) data: Box<dyn Array>,
}

/// The object a location names, or `None`; AnnData before 0.7 wrote `raw.X` beside `X`.
pub(super) fn find(
    container: &dyn Container,
    location: &MatrixLocation,
) -> Result<Option<(String, ObjectKind)>> {
    let names = match location {
        MatrixLocation::X => vec!["X".to_string()],
        MatrixLocation::RawX => vec!["raw/X".to_string(), "raw.X".to_string()],
        MatrixLocation::Layer(name) => vec![format!("layers/{name}")],
    };
    for name in names {
        if let Some(kind) = container.kind(&name)? {
            return Ok(Some((name, kind)));
        }
    }
    Ok(None)
}

/// The frame that names a matrix's columns.
pub(super) fn var_name(container: &dyn Container, location: &MatrixLocation) -> Result<String> {
    if *location != MatrixLocation::RawX {
        return Ok("var".into());
    }
    let modern = container.kind("raw/var")?.is_some();
    Ok(if modern { "raw/var" } else { "raw.var" }.into())
}

impl Matrix {
    /// Opens a matrix; `available` is what an error offers if it is missing.
    pub(super) fn open(
        container: &dyn Container,
        location: &MatrixLocation,
        available: &[String],
    ) -> Result<Self> {
        let Some((name, kind)) = find(container, location)? else {
            let (what, name) = match location {
                MatrixLocation::Layer(name) => ("layer", name.clone()),
                other => ("matrix", other.to_string()),
            };
            return Err(Error::Missing {
                path: container.path().to_path_buf(),
                what,
                name,
                available: available.to_vec(),
            });
        };
        match kind {
            ObjectKind::Array => Self::open_dense(container, location, &name),
            ObjectKind::Group => Self::open_sparse(container, location, &name),
        }
    }

    fn open_dense(container: &dyn Container, location: &MatrixLocation, name: &str) -> Result<Self> {
        let array = container.array(name)?;
        let &[n_cells, n_genes] = array.shape() else {
            return Err(array.invalid(format!("its shape is {:?}, expected cells x genes", array.shape())));
        };
        expect_numeric(array.as_ref())?;
        check_genes(container.path(), name, n_genes)?;
        Ok(Self { location: location.clone(), n_cells, n_genes, parts: Parts::Dense(array) })
    }

    fn open_sparse(container: &dyn Container, location: &MatrixLocation, name: &str) -> Result<Self> {
        let invalid = |reason: String| Error::Invalid {
            path: container.path().to_path_buf(),
            dataset: name.to_string(),
            reason,
        };
        let by_rows = match format(container, name)? {
            Some(format) if format.starts_with("csr") => true,
            Some(format) if format.starts_with("csc") => false,
            Some(other) => {
                return Err(invalid(format!("its encoding is {other:?}, expected csr_matrix or csc_matrix")));
            }
            None => return Err(invalid("it is a group without a sparse format".into())),
        };
        let (n_cells, n_genes) = match shape(container, name)?.as_deref() {
            Some(&[rows, columns]) => (rows, columns),
            Some(other) => return Err(invalid(format!("its shape is {other:?}"))),
            None => return Err(invalid("it is a sparse matrix without a shape".into())),
        };
        check_genes(container.path(), name, n_genes)?;
        let sparse = Sparse {
            indptr: container.array(&format!("{name}/indptr"))?,
            indices: container.array(&format!("{name}/indices"))?,
            data: container.array(&format!("{name}/data"))?,
        };
        sparse.check(if by_rows { n_cells } else { n_genes })?;
        let parts = if by_rows { Parts::Rows(sparse) } else { Parts::Columns(sparse) };
        Ok(Self { location: location.clone(), n_cells, n_genes, parts })
    }

    /// What is known of the matrix.
    pub(super) fn info(&self) -> MatrixInfo {
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
    pub(super) fn values(&self) -> &dyn Array {
        match &self.parts {
            Parts::Dense(array) => array.as_ref(),
            Parts::Rows(sparse) | Parts::Columns(sparse) => sparse.data.as_ref(),
        }
    }
}

impl Sparse {
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
