//! The crate's one error type.

use std::path::{Path, PathBuf};

/// What went wrong while analysing a run or writing its report.
///
/// Figures and the report's text cannot fail: their inputs are typed so that nothing can disagree, and values
/// that cannot be drawn (NaN, infinities) are left out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The values do not fill the shape they are said to have.
    #[error("{n_values} values do not fill a matrix of {n_cells} cells x {n_features} features")]
    ShapeMismatch {
        /// How many values there are.
        n_values: usize,
        /// Rows the matrix is said to have.
        n_cells: usize,
        /// Columns the matrix is said to have.
        n_features: usize,
    },
    /// A principal component needs cells that can differ.
    #[error("{n_cells} cells are too few for a principal component analysis, which needs at least 2")]
    TooFewCells {
        /// How many cells there are.
        n_cells: usize,
    },
    /// More components were asked for than the matrix has, or none.
    #[error("{requested} principal components cannot be taken: this matrix has 1 to {available}")]
    BadComponentCount {
        /// How many were asked for.
        requested: usize,
        /// The smaller of cells and features.
        available: usize,
    },
    /// A feature is NaN or infinite.
    #[error("feature {feature} of cell {cell} is {value}")]
    NotFinite {
        /// Row, counted from 0.
        cell: usize,
        /// Column, counted from 0.
        feature: usize,
        /// The value.
        value: f32,
    },
    /// The eigendecomposition did not converge, which finite values of sane size do not cause.
    #[error("the eigendecomposition of a matrix of order {order} did not converge")]
    NoConvergence {
        /// Rows and columns of the matrix.
        order: usize,
    },
    /// A file could not be written.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was being done: "write", "rename".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
}

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { action, path: path.to_path_buf(), source }
    }
}
