//! Multinomial logistic regression on the expression of genes.

use rayon::prelude::*;

use super::descent::{self, Minimum};
use super::objective::{Objective, check_labels, to_probabilities};
use super::working_set;
use crate::error::{Error, Result};
use crate::sparse::SparseCells;

/// What keeps the weights small. Intercepts are free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Penalty {
    /// The sum of absolute values, which leaves most genes without any weight.
    #[default]
    L1,
    /// Half the sum of squares.
    L2,
}

impl Penalty {
    pub(super) fn of(self, weight: f64) -> f64 {
        match self {
            Self::L1 => weight.abs(),
            Self::L2 => 0.5 * weight * weight,
        }
    }
}

/// How a logistic regression is fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogisticOptions {
    /// What keeps the weights small.
    pub penalty: Penalty,
    /// How much the loss counts against the penalty: `C · sum of log-loss + penalty` is minimised, as by scikit-learn.
    pub c: f64,
    /// The steepest slope that counts as none, relative to that of the penalty (of L2, at a weight of 1).
    pub tolerance: f64,
    /// Steps after which the fit is taken as it is.
    pub most_iterations: usize,
}

impl Default for LogisticOptions {
    fn default() -> Self {
        Self { penalty: Penalty::default(), c: 1.0, tolerance: 1e-3, most_iterations: 2_000 }
    }
}

impl LogisticOptions {
    pub(super) fn check(&self) -> Result<()> {
        if !(self.c.is_finite() && self.c > 0.0) {
            return Err(Error::bad_option("C", self.c, "above 0"));
        }
        if self.tolerance.is_nan() || self.tolerance < 0.0 {
            return Err(Error::bad_option("tolerance", self.tolerance, "at least 0"));
        }
        Ok(())
    }
}

/// A linear classifier of cells.
///
/// With two classes both have weights, as in the general case: an L2 penalty then counts half as much as in
/// scikit-learn's two-class form, whose optimum at `2C` is the one here at `C`. L1 is the same in both.
#[derive(Debug, Clone, PartialEq)]
pub struct LogisticRegression {
    n_features: usize,
    n_classes: usize,
    /// The classes that had cells to learn from, ascending.
    present: Vec<usize>,
    /// `[n_features + 1, present]`, row-major, the intercepts last.
    parameters: Vec<f64>,
    objective: f64,
    n_iterations: usize,
    has_converged: bool,
}

impl LogisticRegression {
    /// Fits the weights. The result is the same on any number of threads.
    ///
    /// - `cells`: `[n_cells, n_features]`, such as log1p-normalised expression
    /// - `labels`: `[n_cells]`, each below `n_classes`; classes without cells are never predicted
    ///
    /// # Errors
    /// [`Error::BadOption`], [`Error::LengthMismatch`], [`Error::Nothing`] without cells, [`Error::UnknownClass`].
    /// A fit that ran out of steps is no error: see [`LogisticRegression::has_converged`].
    pub fn fit(
        cells: SparseCells<'_>,
        labels: &[usize],
        n_classes: usize,
        options: &LogisticOptions,
    ) -> Result<Self> {
        options.check()?;
        let problem = Problem::new(cells, labels, n_classes)?;
        let mut objective = problem.objective(cells, options)?;
        Ok(problem.solve(&mut objective, options, None))
    }

    /// How many features a cell has.
    pub fn n_features(&self) -> usize {
        self.n_features
    }

    /// How many classes there are, those without cells to learn from included.
    pub fn n_classes(&self) -> usize {
        self.n_classes
    }

    /// `C · sum of log-loss + penalty` at the fitted weights.
    pub fn objective(&self) -> f64 {
        self.objective
    }

    /// Steps taken.
    pub fn n_iterations(&self) -> usize {
        self.n_iterations
    }

    /// Whether the optimum was reached within the tolerance.
    pub fn has_converged(&self) -> bool {
        self.has_converged
    }

    /// The weight of a feature for a class; 0 for classes without cells to learn from and features that are not there.
    pub fn weight(&self, feature: usize, class: usize) -> f64 {
        match self.present.binary_search(&class) {
            Ok(at) if feature < self.n_features => self.parameters[feature * self.present.len() + at],
            _ => 0.0,
        }
    }

    /// Features with a weight for any class.
    pub fn n_used_features(&self) -> usize {
        let weights = &self.parameters[..self.n_features * self.present.len()];
        weights.chunks(self.present.len()).filter(|row| row.iter().any(|weight| *weight != 0.0)).count()
    }

    /// The probability of each class for each cell, `[n_cells, n_classes]`, row-major; 0 for classes without cells to
    /// learn from.
    ///
    /// # Errors
    /// [`Error::OtherFeatures`].
    pub fn probabilities(&self, cells: SparseCells<'_>) -> Result<Vec<f64>> {
        if cells.n_features() != self.n_features {
            let (expected, found) = (self.n_features, cells.n_features());
            return Err(Error::OtherFeatures { expected, found });
        }
        let n = self.present.len();
        let (weights, intercepts) = self.parameters.split_at(self.n_features * n);
        let mut of_present = cells.times(weights, n);
        let mut probabilities = vec![0.0; cells.n_cells() * self.n_classes];
        probabilities.par_chunks_mut(self.n_classes).zip(of_present.par_chunks_mut(n)).for_each(
            |(row, logits)| {
                logits.iter_mut().zip(intercepts).for_each(|(logit, intercept)| *logit += intercept);
                to_probabilities(logits, 0);
                for (&class, probability) in self.present.iter().zip(logits) {
                    row[class] = *probability;
                }
            },
        );
        Ok(probabilities)
    }

    /// The most probable class of each cell, `[n_cells]`; of equally probable ones the first.
    ///
    /// # Errors
    /// [`Error::OtherFeatures`].
    pub fn predict(&self, cells: SparseCells<'_>) -> Result<Vec<usize>> {
        let probabilities = self.probabilities(cells)?;
        let first_largest = |row: &[f64]| {
            let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            row.iter().position(|probability| *probability == largest).unwrap_or(0)
        };
        Ok(probabilities.chunks(self.n_classes).map(first_largest).collect())
    }
}

/// A fit with the classes that do not occur left out: their intercepts would fall without end.
pub(super) struct Problem {
    n_features: usize,
    n_classes: usize,
    present: Vec<usize>,
    /// Labels as positions in `present`.
    labels: Vec<usize>,
}

impl Problem {
    pub(super) fn new(cells: SparseCells<'_>, labels: &[usize], n_classes: usize) -> Result<Self> {
        check_labels(labels, cells.n_cells(), n_classes)?;
        let mut present = labels.to_vec();
        present.sort_unstable();
        present.dedup();
        // Every label is present.
        let labels = labels.iter().map(|label| present.partition_point(|class| class < label)).collect();
        Ok(Self { n_features: cells.n_features(), n_classes, present, labels })
    }

    pub(super) fn objective<'a>(
        &'a self,
        cells: SparseCells<'a>,
        options: &LogisticOptions,
    ) -> Result<Objective<'a>> {
        Objective::new(cells, &self.labels, self.present.len(), options.penalty, options.c)
    }

    /// Fits from the weights of a fit that was alike, or from none.
    pub(super) fn solve(
        &self,
        objective: &mut Objective<'_>,
        options: &LogisticOptions,
        start: Option<&LogisticRegression>,
    ) -> LogisticRegression {
        objective.set_c(options.c);
        let mut start = start.map_or_else(|| self.shares(objective), |start| start.parameters.clone());
        objective.centre(&mut start);
        let go_down = match options.penalty {
            Penalty::L1 => working_set::run,
            Penalty::L2 => descent::run,
        };
        let Minimum { mut parameters, value, n_iterations, has_converged } =
            go_down(objective, start, options.tolerance * objective.strength(), options.most_iterations);
        objective.uncentre(&mut parameters);
        LogisticRegression {
            n_features: self.n_features,
            n_classes: self.n_classes,
            present: self.present.clone(),
            parameters,
            objective: value * objective.scale(),
            n_iterations,
            has_converged,
        }
    }

    /// No weights, and intercepts that predict each class as often as it occurs.
    fn shares(&self, objective: &Objective<'_>) -> Vec<f64> {
        let mut parameters = vec![0.0; objective.n_parameters()];
        let intercepts = objective.n_penalized();
        for &label in &self.labels {
            parameters[intercepts + label] += 1.0;
        }
        let logarithms: Vec<f64> = parameters[intercepts..].iter().map(|n: &f64| n.ln()).collect();
        let mean = logarithms.iter().sum::<f64>() / logarithms.len() as f64;
        for (intercept, logarithm) in parameters[intercepts..].iter_mut().zip(logarithms) {
            *intercept = logarithm - mean;
        }
        parameters
    }
}
