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
    /// Groups need cells that differ.
    #[error(
        "{n_cells} cells are all the same, or their features are: there is nothing to tell them apart by"
    )]
    NoVariance {
        /// How many cells there are.
        n_cells: usize,
    },
    /// Cells are equal within all components of a mixture, so its covariance has no inverse.
    #[error(
        "there is no mixture of {n_components} components: within them, cells do not differ in some direction"
    )]
    SingularMixture {
        /// How many components were asked for.
        n_components: usize,
    },
    /// Two lists that go together, one entry a cell, differ in length.
    #[error("{n_found} {what} do not go with {n_expected} cells: there must be one for each")]
    LengthMismatch {
        /// What the list holds: "labels", "confidences".
        what: &'static str,
        /// Its length.
        n_found: usize,
        /// How many cells there are.
        n_expected: usize,
    },
    /// A class index beyond the names of the classes.
    #[error("the {what} of cell {cell} is class {class}, but there are {n_classes} classes, counted from 0")]
    UnknownClass {
        /// What the class was given as: "label", "prediction".
        what: &'static str,
        /// The cell, counted from 0.
        cell: usize,
        /// The class.
        class: usize,
        /// How many classes there are.
        n_classes: usize,
    },
    /// Nothing to measure.
    #[error("no {what}: at least one is needed")]
    Nothing {
        /// What is missing: "cells", "correctly labelled cells", "repeats".
        what: &'static str,
    },
    /// A confidence that is no probability.
    #[error("the confidence of cell {cell} is {value}, not a number from 0 to 1")]
    BadConfidence {
        /// The cell, counted from 0.
        cell: usize,
        /// The value.
        value: f64,
    },
    /// A setting outside the values that make sense.
    #[error("{option} = {value} cannot be used: it must be {allowed}")]
    BadOption {
        /// The setting's name.
        option: &'static str,
        /// Its value.
        value: String,
        /// What it may be: "at least 2".
        allowed: &'static str,
    },
    /// The row pointers of a sparse matrix do not cut its values into rows.
    #[error(
        "the row pointers of the sparse matrix do not cut {n_values} values into rows: at row {row} \
         they go from {from} to {to}"
    )]
    BadRowPointers {
        /// Row, counted from 0.
        row: usize,
        /// Where it starts.
        from: usize,
        /// Where it ends.
        to: usize,
        /// How many values there are.
        n_values: usize,
    },
    /// A sparse row names a feature that is not there, or one twice, or not in ascending order.
    #[error("cell {cell} names feature {feature}: features of a cell must ascend and lie below {n_features}")]
    BadFeature {
        /// The cell, counted from 0.
        cell: usize,
        /// The feature.
        feature: usize,
        /// How many features there are.
        n_features: usize,
    },
    /// A model was asked about cells with other features than those it was fitted to.
    #[error("the model was fitted to {expected} features, these cells have {found}")]
    OtherFeatures {
        /// Features of the cells it was fitted to.
        expected: usize,
        /// Features of these cells.
        found: usize,
    },
    /// A graph that cannot be divided into groups: weights that are no numbers, say.
    #[error("this graph of neighbours cannot be divided into groups: {reason}")]
    UnusableGraph {
        /// What is wrong with it.
        reason: String,
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
    pub(crate) fn bad_option(option: &'static str, value: impl ToString, allowed: &'static str) -> Self {
        Self::BadOption { option, value: value.to_string(), allowed }
    }

    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { action, path: path.to_path_buf(), source }
    }
}
