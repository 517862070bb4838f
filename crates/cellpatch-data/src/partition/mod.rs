//! Cells for training, validation and test, when every cell has a label to learn.
//!
//! [`Split`](crate::Split) divides a shard set in two for pretraining; a [`Partition`] divides labelled cells in three,
//! knows classes and groups, and can be written to a file and taken up again.

mod assign;
mod file;
mod report;

use crate::anndata::Labels;
use crate::error::{Error, Result};
use crate::{RowSelection, Split};

pub use file::PartitionMatch;
pub use report::{ClassCounts, PartitionReport};

/// What a cell is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// To learn from.
    Train,
    /// To choose by: epochs, settings.
    Validation,
    /// To judge by, once.
    Test,
}

impl Part {
    /// All three, in their order.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// As files name it: `train`, `validation`, `test`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }

    /// The part of a name in any case, or of the other names in use: `training`; `val`, `valid`, `dev`; `testing`, `holdout`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.trim().to_lowercase().as_str() {
            "train" | "training" => Some(Self::Train),
            "validation" | "valid" | "val" | "dev" => Some(Self::Validation),
            "test" | "testing" | "holdout" => Some(Self::Test),
            _ => None,
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// Shares of the parts. They add up to 1.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Fractions {
    /// Share to train on, above 0.
    pub train: f64,
    /// Share to validate on.
    pub validation: f64,
    /// Share to test on.
    pub test: f64,
}

impl Default for Fractions {
    fn default() -> Self {
        Self { train: 0.8, validation: 0.1, test: 0.1 }
    }
}

impl Fractions {
    fn check(&self) -> Result<[f64; 3]> {
        let parts = [self.train, self.validation, self.test];
        let sane = parts.iter().all(|part| (0.0..=1.0).contains(part)) && self.train > 0.0;
        if sane && (parts.iter().sum::<f64>() - 1.0).abs() < 1e-6 {
            return Ok(parts);
        }
        let value = format!("{}/{}/{}", self.train, self.validation, self.test);
        let reason = "three shares from 0 to 1 that add up to 1 are needed, the first above 0";
        Err(Error::BadOption { option: "fractions", value, reason: reason.into() })
    }
}

/// Which cell is for what. A cell may be for nothing: it has no label, no group, or no line in the file.
///
/// The same labels, fractions and seed give the same partition on any machine and with any number of threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    parts: Vec<Option<Part>>,
}

impl Partition {
    /// The part of each cell, as given.
    pub fn from_parts(parts: Vec<Option<Part>>) -> Self {
        Self { parts }
    }

    /// Every labelled cell at random, whatever its class: rare classes may be missing from a part.
    ///
    /// # Errors
    /// [`Error::BadOption`] for fractions that do not add up to 1; [`Error::CannotSplit`] if there are fewer labelled cells
    /// than parts.
    pub fn random(labels: &Labels, fractions: Fractions, seed: u64) -> Result<Self> {
        assign::random(labels, fractions.check()?, seed)
    }

    /// Each class at random by itself, so that all parts have it.
    ///
    /// A class with at least as many cells as there are parts (three, unless a fraction is 0) is in every part. All cells
    /// of a rarer class are trained on: one cell cannot be learnt and tested, and the [report](Self::report) names it.
    ///
    /// # Errors
    /// As [`Self::random`].
    pub fn stratified(labels: &Labels, fractions: Fractions, seed: u64) -> Result<Self> {
        assign::stratified(labels, fractions.check()?, seed)
    }

    /// Whole groups, such as donors: no group is in two parts.
    ///
    /// Groups go, the largest first and those of the same size in random order, where they bring the number of cells of
    /// each class closest to its share; a part that remains empty gets the smallest group of the part with most groups.
    /// Cells without a group are for nothing: they could be of any.
    ///
    /// # Errors
    /// As [`Self::random`]; [`Error::WrongLength`] if there is not one group per label; [`Error::CannotSplit`] if there
    /// are fewer groups than parts.
    pub fn by_group(labels: &Labels, groups: &Labels, fractions: Fractions, seed: u64) -> Result<Self> {
        assign::by_group(labels, groups, fractions.check()?, seed)
    }

    /// The part of every cell.
    pub fn parts(&self) -> &[Option<Part>] {
        &self.parts
    }

    /// The cells of a part, as rows.
    pub fn rows(&self, part: Part) -> RowSelection {
        let rows = (0u64..).zip(&self.parts).filter(|&(_, &of)| of == Some(part)).map(|(row, _)| row);
        RowSelection::from_rows(self.parts.len() as u64, rows)
    }

    /// Training and validation cells for a [`Loader`](crate::Loader).
    pub fn split(&self) -> Split {
        Split { train: self.rows(Part::Train), validation: self.rows(Part::Validation) }
    }
}

/// Something about the cells is in the way; which file they are from the caller knows.
fn cannot(reason: String) -> Error {
    Error::CannotPartition { reason }
}
