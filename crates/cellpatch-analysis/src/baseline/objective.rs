//! The loss of a multinomial logistic regression on sparse cells.

use std::ops::AddAssign;

use rayon::prelude::*;

use super::logistic::Penalty;
use crate::error::{Error, Result};
use crate::parallel::sum_over_pieces;
use crate::sparse::{SparseCells, SparseFeatures, add};

/// Cells or features of one piece of work.
const PIECE: usize = 256;

/// What is minimised: the mean log-loss of the cells' labels plus a multiple of the penalty.
///
/// Parameters are `[n_features + 1, n_classes]`, row-major; the last row holds the intercepts. These are the logits of
/// the mean cell, not of an empty one: features that all cells have then do not pull the intercepts along, which takes
/// many steps off the way to the same minimum.
pub(super) struct Objective<'a> {
    cells: SparseCells<'a>,
    features: SparseFeatures,
    means: Vec<f64>,
    labels: &'a [usize],
    n_classes: usize,
    penalty: Penalty,
    /// What the penalty is multiplied by: `1 / (C·n_cells)`.
    strength: f64,
}

/// The objective at some parameters, and what its gradient is made from.
pub(super) struct Evaluation {
    /// Loss and penalty.
    pub(super) value: f64,
    /// Probabilities less the truth over the number of cells, `[n_cells, n_classes]`.
    residuals: Vec<f64>,
}

impl<'a> Objective<'a> {
    /// Labels are below `n_classes`, one for each cell, and there is a cell.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`], [`Error::Nothing`], [`Error::UnknownClass`].
    pub(super) fn new(
        cells: SparseCells<'a>,
        labels: &'a [usize],
        n_classes: usize,
        penalty: Penalty,
        c: f64,
    ) -> Result<Self> {
        check_labels(labels, cells.n_cells(), n_classes)?;
        let strength = 1.0 / (c * labels.len() as f64);
        Ok(Self::of(cells, labels, n_classes, penalty, strength))
    }

    fn of(
        cells: SparseCells<'a>,
        labels: &'a [usize],
        n_classes: usize,
        penalty: Penalty,
        strength: f64,
    ) -> Self {
        let features = cells.transposed();
        let sum = |feature| features.feature(feature).map(|(_, x)| f64::from(x)).sum::<f64>();
        let means =
            (0..features.n_features()).into_par_iter().map(|f| sum(f) / labels.len() as f64).collect();
        Self { cells, features, means, labels, n_classes, penalty, strength }
    }

    pub(super) fn cells(&self) -> SparseCells<'a> {
        self.cells
    }

    pub(super) fn n_classes(&self) -> usize {
        self.n_classes
    }

    /// The same objective for the same cells with other features.
    pub(super) fn with<'b>(&self, cells: SparseCells<'b>) -> Objective<'b>
    where
        'a: 'b,
    {
        Objective::of(cells, self.labels, self.n_classes, self.penalty, self.strength)
    }

    /// Changes how much the penalty counts.
    pub(super) fn set_c(&mut self, c: f64) {
        self.strength = 1.0 / (c * self.labels.len() as f64);
    }

    /// What the objective is multiplied by to be scikit-learn's: `C · sum of log-loss + penalty`.
    pub(super) fn scale(&self) -> f64 {
        1.0 / self.strength
    }

    pub(super) fn n_parameters(&self) -> usize {
        (self.features.n_features() + 1) * self.n_classes
    }

    /// How many of the parameters are penalised: all but the intercepts, which come last.
    pub(super) fn n_penalized(&self) -> usize {
        self.features.n_features() * self.n_classes
    }

    /// The slope of the penalty of absolute values, and that of half the squares at 1.
    pub(super) fn strength(&self) -> f64 {
        self.strength
    }

    /// The weight of the absolute values in the objective, 0 for a penalty that has none.
    pub(super) fn absolute_weight(&self) -> f64 {
        if self.penalty == Penalty::L1 { self.strength } else { 0.0 }
    }

    /// The logits of the mean cell without those of an empty one, `[n_classes]`.
    fn mean_logits(&self, weights: &[f64]) -> Vec<f64> {
        let n = self.n_classes;
        let sums = sum_over_pieces(self.means.len(), PIECE, |features| {
            let mut sums = Sums(vec![0.0; n]);
            for feature in features {
                add(&mut sums.0, self.means[feature], &weights[feature * n..][..n]);
            }
            sums
        });
        if sums.0.is_empty() { vec![0.0; n] } else { sums.0 }
    }

    /// Parameters with the intercepts of an empty cell, as a model has them.
    pub(super) fn uncentre(&self, parameters: &mut [f64]) {
        let (weights, intercepts) = parameters.split_at_mut(self.n_penalized());
        add(intercepts, -1.0, &self.mean_logits(weights));
    }

    /// The reverse of [`Objective::uncentre`].
    pub(super) fn centre(&self, parameters: &mut [f64]) {
        let (weights, intercepts) = parameters.split_at_mut(self.n_penalized());
        add(intercepts, 1.0, &self.mean_logits(weights));
    }

    pub(super) fn evaluate(&self, parameters: &[f64]) -> Evaluation {
        let n = self.n_classes;
        let (weights, intercepts) = parameters.split_at(self.n_penalized());
        let mut of_empty = intercepts.to_vec();
        add(&mut of_empty, -1.0, &self.mean_logits(weights));
        let mut residuals = vec![0.0; self.labels.len() * n];
        let n_cells = self.labels.len() as f64;
        // A penalty of absolute values leaves most features without any weight.
        let is_used: Vec<bool> = weights.par_chunks(n).map(|row| row.iter().any(|w| *w != 0.0)).collect();
        let losses: Vec<f64> = residuals
            .par_chunks_mut(n * PIECE)
            .enumerate()
            .map(|(piece, rows)| {
                let cells = rows.chunks_mut(n).enumerate().map(|(at, row)| (piece * PIECE + at, row));
                cells
                    .map(|(cell, row)| {
                        row.copy_from_slice(&of_empty);
                        for (feature, value) in self.cells.cell(cell).filter(|(feature, _)| is_used[*feature])
                        {
                            add(row, f64::from(value), &weights[feature * n..][..n]);
                        }
                        let loss = to_probabilities(row, self.labels[cell]);
                        row[self.labels[cell]] -= 1.0;
                        row.iter_mut().for_each(|x| *x /= n_cells);
                        loss
                    })
                    .sum()
            })
            .collect();
        let loss = losses.into_iter().sum::<f64>() / n_cells;
        let penalty = sum_over_pieces(weights.len(), 1 << 16, |range| {
            weights[range].iter().map(|&weight| self.penalty.of(weight)).sum::<f64>()
        });
        Evaluation { value: loss + self.strength * penalty, residuals }
    }

    /// The gradient by the parameters, without that of absolute values, which have none at 0.
    pub(super) fn gradient(&self, parameters: &[f64], evaluation: &Evaluation) -> Vec<f64> {
        let n = self.n_classes;
        let mut gradient = self.features.times(&evaluation.residuals, n);
        if self.penalty == Penalty::L2 {
            gradient
                .par_iter_mut()
                .zip(parameters)
                .for_each(|(slope, weight)| *slope += self.strength * weight);
        }
        let of_intercepts = sum_over_pieces(self.labels.len(), PIECE, |cells| {
            let mut sums = Sums(vec![0.0; n]);
            for row in evaluation.residuals[cells.start * n..cells.end * n].chunks(n) {
                add(&mut sums.0, 1.0, row);
            }
            sums
        });
        gradient.par_chunks_mut(n).zip(&self.means).for_each(|(row, mean)| add(row, -mean, &of_intercepts.0));
        gradient.extend(of_intercepts.0);
        gradient
    }
}

/// Sums side by side.
#[derive(Default)]
struct Sums(Vec<f64>);

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        self.0.resize(other.0.len(), 0.0);
        add(&mut self.0, 1.0, &other.0);
    }
}

/// Turns logits into probabilities and returns the negative logarithm of the label's.
pub(super) fn to_probabilities(logits: &mut [f64], label: usize) -> f64 {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let of_label = logits[label] - largest;
    let mut sum = 0.0;
    for logit in logits.iter_mut() {
        *logit = (*logit - largest).exp();
        sum += *logit;
    }
    logits.iter_mut().for_each(|weight| *weight /= sum);
    sum.ln() - of_label
}

/// One label below `n_classes` for each cell, and at least one.
pub(super) fn check_labels(labels: &[usize], n_cells: usize, n_classes: usize) -> Result<()> {
    if labels.len() != n_cells {
        return Err(Error::LengthMismatch { what: "labels", n_found: labels.len(), n_expected: n_cells });
    }
    if labels.is_empty() {
        return Err(Error::Nothing { what: "cells" });
    }
    match labels.iter().position(|&label| label >= n_classes) {
        Some(cell) => Err(Error::UnknownClass { what: "label", cell, class: labels[cell], n_classes }),
        None => Ok(()),
    }
}
