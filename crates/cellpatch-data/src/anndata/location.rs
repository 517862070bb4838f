//! Where the matrices of an AnnData file are.

use std::fmt;

use crate::error::{Error, Result};
use crate::h5::{Container, ObjectKind};
use crate::matrix::Matrix;

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

/// Opens a matrix; `available` is what an error offers if it is missing.
pub(super) fn open(
    container: &dyn Container,
    location: &MatrixLocation,
    available: &[String],
) -> Result<Matrix> {
    let Some((object, kind)) = find(container, location)? else {
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
    Matrix::open(container, &location.to_string(), &object, kind)
}
