//! What a partition does to the classes.

use std::fmt;

use super::{Part, Partition};
use crate::anndata::Labels;
use crate::error::{Error, Result};

/// Cells of one class in each part.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ClassCounts {
    /// The class.
    pub name: String,
    /// Cells to train on.
    pub train: usize,
    /// Cells to validate on.
    pub validation: usize,
    /// Cells to test on.
    pub test: usize,
}

impl ClassCounts {
    fn of(name: String, counts: [usize; 3]) -> Self {
        let [train, validation, test] = counts;
        Self { name, train, validation, test }
    }

    /// Cells in all parts.
    pub fn total(&self) -> usize {
        self.train + self.validation + self.test
    }
}

/// See [`Partition::report`]. `Display` is a table for people.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct PartitionReport {
    /// Classes with cells in a part, the most frequent first.
    pub classes: Vec<ClassCounts>,
    /// All labelled cells in a part.
    pub total: ClassCounts,
    /// Classes with one or two cells: too few for three parts.
    pub rare: Vec<String>,
    /// Classes to validate or test on that are not trained on, and so cannot be predicted.
    pub missing_from_training: Vec<String>,
    /// Cells without a label.
    pub n_unlabelled: usize,
    /// Labelled cells that are for nothing: without a group, or not in the file.
    pub n_left_out: usize,
}

impl Partition {
    /// Counts the cells of every class in every part.
    ///
    /// # Errors
    /// [`Error::WrongLength`] if there is not one label per cell of the partition.
    pub fn report(&self, labels: &Labels) -> Result<PartitionReport> {
        let (found, expected) = (labels.codes.len(), self.parts().len());
        if found != expected {
            return Err(Error::WrongLength {
                what: "the column of labels".into(),
                of: "cells",
                found,
                expected,
            });
        }
        let mut counts = vec![[0; 3]; labels.categories.len()];
        let mut n_of_class = vec![0usize; labels.categories.len()];
        let (mut n_unlabelled, mut n_left_out) = (0, 0);
        for (part, label) in self.parts().iter().zip(&labels.codes) {
            let Some(label) = label else {
                n_unlabelled += 1;
                continue;
            };
            n_of_class[*label as usize] += 1;
            match part {
                Some(part) => counts[*label as usize][part.index()] += 1,
                None => n_left_out += 1,
            }
        }
        let total =
            counts.iter().fold([0; 3], |sum, counts| std::array::from_fn(|part| sum[part] + counts[part]));
        let named = |class: &usize| labels.categories[*class].clone();
        let rare = (0..counts.len()).filter(|&class| (1..3).contains(&n_of_class[class]));
        let mut classes: Vec<ClassCounts> =
            (0..counts.len()).map(|class| ClassCounts::of(named(&class), counts[class])).collect();
        classes.retain(|class| class.total() > 0);
        classes.sort_by_key(|class| std::cmp::Reverse(class.total()));
        let unlearnt =
            classes.iter().filter(|class| class.train == 0).map(|class| class.name.clone()).collect();
        Ok(PartitionReport {
            total: ClassCounts::of("all".into(), total),
            rare: rare.map(|class| named(&class)).collect(),
            missing_from_training: unlearnt,
            classes,
            n_unlabelled,
            n_left_out,
        })
    }
}

impl fmt::Display for PartitionReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = || self.classes.iter().chain([&self.total]);
        let width = rows().map(|row| row.name.chars().count()).max().unwrap_or(0).max("class".len());
        write!(formatter, "{:width$}", "class")?;
        Part::ALL.iter().try_for_each(|part| write!(formatter, " {:>10}", part.name()))?;
        for row in rows() {
            write!(formatter, "\n{:width$}", row.name)?;
            [row.train, row.validation, row.test]
                .iter()
                .try_for_each(|count| write!(formatter, " {count:>10}"))?;
        }
        if !self.rare.is_empty() {
            write!(formatter, "\nfewer than 3 cells: {}", self.rare.join(", "))?;
        }
        if !self.missing_from_training.is_empty() {
            write!(formatter, "\nnot trained on: {}", self.missing_from_training.join(", "))?;
        }
        if self.n_unlabelled > 0 {
            write!(formatter, "\ncells without a label: {}", self.n_unlabelled)?;
        }
        if self.n_left_out > 0 {
            write!(formatter, "\nlabelled cells in no part: {}", self.n_left_out)?;
        }
        Ok(())
    }
}
