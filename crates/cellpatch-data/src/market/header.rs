//! What the first lines of a Matrix Market file say.

use std::fmt;
use std::path::{Path, PathBuf};

use super::reader::Lines;
use super::unpacked;
use crate::error::{Error, Result};

/// What the values are written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    /// Whole numbers.
    Integer,
    /// Numbers with a point.
    Real,
    /// No values: every entry is 1.
    Pattern,
}

impl fmt::Display for Field {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Integer => "integer",
            Self::Real => "real",
            Self::Pattern => "pattern",
        })
    }
}

/// A Matrix Market file of which the header was read.
#[derive(Debug, Clone)]
pub(crate) struct MarketFile {
    path: PathBuf,
    field: Field,
    n_rows: usize,
    n_columns: usize,
    n_entries: u64,
}

impl MarketFile {
    /// Reads the header.
    ///
    /// # Errors
    /// [`Error::NotFound`], and [`Error::BadLine`] for a file that is no general coordinate matrix.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Ok(Self::begin(path)?.0)
    }

    /// Reads the header and gives the lines that follow it.
    pub(super) fn begin(path: &Path) -> Result<(Self, Lines)> {
        let mut lines = Lines::new(path, unpacked(path)?);
        let first = lines.next_line()?.map(String::from_utf8_lossy).unwrap_or_default().to_lowercase();
        let words: Vec<&str> = first.split_whitespace().collect();
        let bad = |line: u64, reason: String| Error::BadLine { path: path.to_path_buf(), line, reason };
        let &["%%matrixmarket", "matrix", layout, field, symmetry] = words.as_slice() else {
            return Err(bad(1, "it does not begin with %%MatrixMarket matrix".into()));
        };
        if (layout, symmetry) != ("coordinate", "general") {
            return Err(bad(
                1,
                format!("a matrix in {layout} {symmetry} form is not supported, only coordinate general"),
            ));
        }
        let field = match field {
            "integer" => Field::Integer,
            "real" | "double" => Field::Real,
            "pattern" => Field::Pattern,
            other => return Err(bad(1, format!("values of type {other} are not supported"))),
        };
        let sizes = loop {
            match lines.next_line()?.map(String::from_utf8_lossy) {
                None => return Err(bad(lines.number(), "the file ends before its size line".into())),
                Some(line) if line.starts_with('%') || line.trim().is_empty() => {}
                Some(line) => break line.into_owned(),
            }
        };
        let numbers: Vec<Option<u64>> = sizes.split_whitespace().map(|word| word.parse().ok()).collect();
        let &[Some(n_rows), Some(n_columns), Some(n_entries)] = numbers.as_slice() else {
            return Err(bad(
                lines.number(),
                format!("{:?} is no size line: rows, columns, entries", cut(&sizes)),
            ));
        };
        let (Ok(rows), Ok(columns)) = (u32::try_from(n_rows), u32::try_from(n_columns)) else {
            return Err(bad(lines.number(), format!("{n_rows} x {n_columns} is too large")));
        };
        let (n_rows, n_columns) = (rows as usize, columns as usize);
        Ok((Self { path: path.to_path_buf(), field, n_rows, n_columns, n_entries }, lines))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn field(&self) -> Field {
        self.field
    }

    pub(crate) fn n_rows(&self) -> usize {
        self.n_rows
    }

    pub(crate) fn n_columns(&self) -> usize {
        self.n_columns
    }

    pub(crate) fn n_entries(&self) -> u64 {
        self.n_entries
    }
}

/// The beginning of a line, for a message.
fn cut(line: &str) -> String {
    line.chars().take(60).collect()
}
