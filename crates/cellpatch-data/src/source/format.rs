//! What kind of input a path is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::h5::{self, Container};
use crate::tenx;

/// The kinds of input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CellFormat {
    /// An `.h5ad` file.
    AnnData,
    /// An `.h5` file of 10x Genomics' Cell Ranger or Space Ranger, of any version since 2.
    TenxFile,
    /// A Matrix Market file with tables of genes and barcodes beside it.
    TenxFolder,
}

impl fmt::Display for CellFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::AnnData => "AnnData",
            Self::TenxFile => "10x HDF5",
            Self::TenxFolder => "10x matrix folder",
        })
    }
}

/// An input whose kind is known.
pub(super) enum Opened {
    AnnData(Arc<dyn Container>),
    Tenx(Arc<dyn Container>),
    Market,
}

/// Tells the kind of an input by what is in it; a file's name matters only where Matrix Market files are compressed.
pub(super) fn open(path: &Path) -> Result<Opened> {
    if !path.exists() {
        return Err(Error::NotFound { path: path.to_path_buf() });
    }
    if path.is_dir() || is_market_name(path) {
        return Ok(Opened::Market);
    }
    let container = match h5::open(path) {
        Err(Error::NotHdf5 { looks_like: Some(h5::MATRIX_MARKET), .. }) => return Ok(Opened::Market),
        opened => opened?,
    };
    // What has no matrix of 10x is an AnnData file, or fails as one.
    let is_tenx = container.kind("obs")?.is_none() && !tenx::groups(container.as_ref())?.is_empty();
    Ok(if is_tenx { Opened::Tenx(container) } else { Opened::AnnData(container) })
}

fn is_market_name(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    name.strip_suffix(".gz").unwrap_or(&name).ends_with(".mtx")
}

/// The inputs a path stands for: itself, or what a folder of inputs has directly in it, by name: `.h5ad` and `.h5` files
/// and matrix folders. A matrix folder stands for itself, and so does a folder whose only content is one of those.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Io`], and [`Error::UnknownInput`] for a folder without any of these.
pub fn cell_inputs(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.exists() {
        return Err(Error::NotFound { path: path.to_path_buf() });
    }
    if !path.is_dir() || tenx::holds_matrix(path)? {
        return Ok(vec![path.to_path_buf()]);
    }
    let read = |error| Error::io("read", path, error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(read)? {
        let entry = entry.map_err(read)?.path();
        let extension = entry.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let is_input = if entry.is_dir() {
            tenx::holds_matrix(&entry)?
        } else {
            matches!(extension.as_str(), "h5ad" | "h5")
        };
        if is_input {
            found.push(entry);
        }
    }
    found.sort();
    if found.is_empty() {
        let found = "neither .h5ad nor .h5 files nor matrix folders".into();
        return Err(Error::UnknownInput { path: path.to_path_buf(), found });
    }
    Ok(found)
}
