//! How much the penalty should count, by what works on validation cells.

use super::logistic::{LogisticOptions, LogisticRegression, Problem};
use super::objective::check_labels;
use crate::error::{Error, Result};
use crate::metrics::ConfusionMatrix;
use crate::sparse::SparseCells;

/// The values of C tried unless others are asked for.
pub const C_GRID: [f64; 4] = [0.1, 1.0, 10.0, 100.0];

/// What one value of C led to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TriedC {
    /// The value.
    pub c: f64,
    /// Accuracy on the validation cells.
    pub accuracy: f64,
    /// Macro-F1 on the validation cells.
    pub macro_f1: f64,
    /// Features with a weight for any class.
    pub n_used_features: usize,
    /// Whether the fit reached its optimum.
    pub has_converged: bool,
}

/// The fit whose C did best on validation cells.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// The fit.
    pub model: LogisticRegression,
    /// Its C.
    pub c: f64,
    /// All values tried, ascending.
    pub tried: Vec<TriedC>,
}

impl Selection {
    /// Fits with each value of C on `training` and keeps the fit with the best macro-F1 on `validation`; of equal ones
    /// the more accurate, of those the one with the smallest C. Each fit starts from the one before, in ascending C.
    ///
    /// Each side is cells `[n_cells, n_features]` with their labels `[n_cells]`, below `n_classes`; `grid` is in any
    /// order, and `options` with its C replaced says how to fit.
    ///
    /// # Errors
    /// As [`LogisticRegression::fit`] and [`LogisticRegression::probabilities`]; [`Error::Nothing`] for an empty grid.
    pub fn by_validation(
        training: (SparseCells<'_>, &[usize]),
        validation: (SparseCells<'_>, &[usize]),
        n_classes: usize,
        grid: &[f64],
        options: &LogisticOptions,
    ) -> Result<Self> {
        check_labels(validation.1, validation.0.n_cells(), n_classes)?;
        let mut grid = grid.to_vec();
        grid.sort_by(f64::total_cmp);
        let problem = Problem::new(training.0, training.1, n_classes)?;
        let mut objective = problem.objective(training.0, options)?;
        let class_names: Vec<String> = (0..n_classes).map(|class| class.to_string()).collect();
        let mut tried = Vec::new();
        let mut best: Option<(LogisticRegression, TriedC)> = None;
        let mut last: Option<LogisticRegression> = None;
        for c in grid {
            let options = LogisticOptions { c, ..*options };
            options.check()?;
            let model = problem.solve(&mut objective, &options, last.as_ref());
            let scores = ConfusionMatrix::new(&class_names, validation.1, &model.predict(validation.0)?)?;
            let result = TriedC {
                c,
                accuracy: scores.accuracy(),
                macro_f1: scores.macro_f1(),
                n_used_features: model.n_used_features(),
                has_converged: model.has_converged(),
            };
            tried.push(result);
            let is_better = best
                .as_ref()
                .is_none_or(|(_, best)| (result.macro_f1, result.accuracy) > (best.macro_f1, best.accuracy));
            if is_better {
                best = Some((model.clone(), result));
            }
            last = Some(model);
        }
        let (model, TriedC { c, .. }) = best.ok_or(Error::Nothing { what: "values of C" })?;
        Ok(Self { model, c, tried })
    }
}
