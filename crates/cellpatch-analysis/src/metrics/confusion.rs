//! The confusion matrix and what is read off it.

use crate::error::{Error, Result};

/// How often cells of each class were given each class.
///
/// A prediction of "unknown" is a class like any other: give it a name of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfusionMatrix {
    class_names: Vec<String>,
    /// `[n_classes, n_classes]`, row-major, truth down and prediction across.
    counts: Vec<u64>,
}

/// How well one class is recognised. Each score is 0 to 1, and 0 where it would divide by zero.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassScores {
    /// The class's name.
    pub name: String,
    /// Cells that are of the class.
    pub support: u64,
    /// Cells that were given the class.
    pub n_predicted: u64,
    /// Share of the cells given the class that are of it.
    pub precision: f64,
    /// Share of the cells of the class that were given it.
    pub recall: f64,
    /// Harmonic mean of precision and recall.
    pub f1: f64,
}

impl ConfusionMatrix {
    /// Counts `truth` against `predicted`, both `[n_cells]` and indices into `class_names`.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`] where the two differ in length, [`Error::UnknownClass`] for an index beyond the
    /// names. No cells at all are no error: every score is 0.
    pub fn new(class_names: &[String], truth: &[usize], predicted: &[usize]) -> Result<Self> {
        if predicted.len() != truth.len() {
            return Err(Error::LengthMismatch {
                what: "predictions",
                n_found: predicted.len(),
                n_expected: truth.len(),
            });
        }
        let n_classes = class_names.len();
        let mut counts = vec![0; n_classes * n_classes];
        for (cell, (&truth, &predicted)) in truth.iter().zip(predicted).enumerate() {
            for (what, class) in [("label", truth), ("prediction", predicted)] {
                if class >= n_classes {
                    return Err(Error::UnknownClass { what, cell, class, n_classes });
                }
            }
            counts[truth * n_classes + predicted] += 1;
        }
        Ok(Self { class_names: class_names.to_vec(), counts })
    }

    /// The names of the classes, `[n_classes]`.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// How many classes there are, whether or not they occur.
    pub fn n_classes(&self) -> usize {
        self.class_names.len()
    }

    /// Cells of class `truth` that were given class `predicted`; 0 where there is no such class.
    pub fn count(&self, truth: usize, predicted: usize) -> u64 {
        let is_class = truth < self.n_classes() && predicted < self.n_classes();
        if is_class { self.counts[truth * self.n_classes() + predicted] } else { 0 }
    }

    /// The counts, `[n_classes, n_classes]`, row-major, truth down and prediction across.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// How many cells were counted.
    pub fn n_cells(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Each true class as shares of its cells, `[n_classes, n_classes]`, row-major; a class without cells is
    /// NaN throughout, which figures leave blank.
    pub fn row_shares(&self) -> Vec<f64> {
        let rows = self.counts.chunks(self.n_classes().max(1));
        rows.flat_map(|row| {
            let support = row.iter().sum::<u64>() as f64;
            row.iter().map(move |&count| count as f64 / support)
        })
        .collect()
    }

    /// Share of the cells that were given their own class.
    pub fn accuracy(&self) -> f64 {
        ratio((0..self.n_classes()).map(|class| self.count(class, class)).sum(), self.n_cells())
    }

    /// The scores of every class, `[n_classes]`, those that do not occur included.
    pub fn classes(&self) -> Vec<ClassScores> {
        let of_class = |(class, name): (usize, &String)| {
            let hits = self.count(class, class);
            let support = (0..self.n_classes()).map(|predicted| self.count(class, predicted)).sum();
            let n_predicted = (0..self.n_classes()).map(|truth| self.count(truth, class)).sum();
            ClassScores {
                name: name.clone(),
                support,
                n_predicted,
                precision: ratio(hits, n_predicted),
                recall: ratio(hits, support),
                f1: ratio(2 * hits, support + n_predicted),
            }
        };
        self.class_names.iter().enumerate().map(of_class).collect()
    }

    /// The mean F1 over the classes that occur as truth or as prediction, all counted alike: scikit-learn's
    /// `f1_score(average="macro", zero_division=0)`.
    pub fn macro_f1(&self) -> f64 {
        let classes = self.classes();
        mean(classes.iter().filter(|class| class.support + class.n_predicted > 0).map(|class| class.f1))
    }

    /// The mean F1 over classes weighted by their cells: scikit-learn's `f1_score(average="weighted")`.
    pub fn weighted_f1(&self) -> f64 {
        let sum: f64 = self.classes().iter().map(|class| class.f1 * class.support as f64).sum();
        if self.n_cells() == 0 { 0.0 } else { sum / self.n_cells() as f64 }
    }

    /// The mean recall over the classes that have cells.
    pub fn balanced_accuracy(&self) -> f64 {
        let classes = self.classes();
        mean(classes.iter().filter(|class| class.support > 0).map(|class| class.recall))
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The mean, 0 of nothing.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0_u64), |(sum, n), value| (sum + value, n + 1));
    if n == 0 { 0.0 } else { sum / n as f64 }
}
