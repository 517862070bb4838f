//! Temperature scaling: one number that makes confidences honest and changes no label.

use std::ops::AddAssign;

use crate::error::{Error, Result};
use crate::parallel::sum_over;

/// The temperatures looked at. Where every label is right the best one is 0, where labels are random it is infinite;
/// within these ends either is as good as reached.
const LOWEST: f64 = 0.01;
const HIGHEST: f64 = 100.0;

/// Newton steps and halvings together find the root to the last digits long before this.
const MOST_STEPS: usize = 200;

/// What logits are divided by before the softmax (Guo et al. 2017, section 4.2).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Temperature {
    /// The temperature: above 1 where the model was too sure, below 1 where it was not sure enough.
    pub value: f64,
    /// Mean negative log-likelihood of the cells' labels at temperature 1, in nats.
    pub loss_before: f64,
    /// The same at this temperature; never higher.
    pub loss_after: f64,
}

impl Temperature {
    /// Fits the temperature that makes the labels of validation cells most likely.
    ///
    /// - `logits`: `[n_cells, n_classes]`, row-major
    /// - `labels`: `[n_cells]`, the class of each cell
    ///
    /// The loss is convex in the inverse of the temperature, so its one minimum between 0.01 and 100 is found, by
    /// Newton's method within a bracket. The result is the same on any number of threads.
    ///
    /// # Errors
    /// [`Error::Nothing`] without cells or classes, [`Error::ShapeMismatch`], [`Error::UnknownClass`], and
    /// [`Error::NotFinite`] for a logit that is not.
    pub fn fit(logits: &[f32], n_classes: usize, labels: &[usize]) -> Result<Self> {
        check(logits, n_classes, labels)?;
        let loss = |inverse: f64| {
            let mut loss = sum_over(labels.len(), |cells| {
                let mut sum = Loss::default();
                for cell in cells {
                    sum += Loss::of_cell(&logits[cell * n_classes..][..n_classes], labels[cell], inverse);
                }
                sum
            });
            for part in [&mut loss.value, &mut loss.slope, &mut loss.curvature] {
                *part /= labels.len() as f64;
            }
            loss
        };
        let before = loss(1.0);
        let inverse = root_of_slope(loss);
        let after = loss(inverse);
        // At an end of the range, or where all temperatures are alike, staying at 1 may be as good.
        if after.value >= before.value {
            return Ok(Self { value: 1.0, loss_before: before.value, loss_after: before.value });
        }
        Ok(Self { value: 1.0 / inverse, loss_before: before.value, loss_after: after.value })
    }

    /// Class probabilities at this temperature: `[n_classes]` for logits `[n_classes]`.
    pub fn probabilities(&self, logits: &[f32]) -> Vec<f64> {
        softmax(logits, 1.0 / self.value)
    }
}

/// The softmax of logits times `inverse`, written so that it neither overflows nor divides by zero.
fn softmax(logits: &[f32], inverse: f64) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: f32| ((f64::from(logit) - f64::from(largest)) * inverse).exp();
    let sum: f64 = logits.iter().map(|&logit| weight(logit)).sum();
    logits.iter().map(|&logit| weight(logit) / sum).collect()
}

/// The negative log-likelihood and its first two derivatives by the inverse temperature.
#[derive(Debug, Clone, Copy, Default)]
struct Loss {
    value: f64,
    slope: f64,
    curvature: f64,
}

impl AddAssign for Loss {
    fn add_assign(&mut self, other: Self) {
        self.value += other.value;
        self.slope += other.slope;
        self.curvature += other.curvature;
    }
}

impl Loss {
    fn of_cell(logits: &[f32], label: usize, inverse: f64) -> Self {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let (mut sum, mut first, mut second) = (0.0, 0.0, 0.0);
        for &logit in logits {
            let gap = f64::from(logit) - f64::from(largest);
            let weight = (gap * inverse).exp();
            sum += weight;
            first += weight * gap;
            second += weight * gap * gap;
        }
        let (mean, label_gap) = (first / sum, f64::from(logits[label]) - f64::from(largest));
        Self {
            value: sum.ln() - label_gap * inverse,
            slope: mean - label_gap,
            curvature: (second / sum - mean * mean).max(0.0),
        }
    }
}

/// Where the slope, which only rises, is zero; an end of the range where it is zero nowhere in it.
fn root_of_slope(loss: impl Fn(f64) -> Loss) -> f64 {
    let (mut low, mut high) = (1.0 / HIGHEST, 1.0 / LOWEST);
    if loss(low).slope >= 0.0 {
        return low;
    }
    if loss(high).slope <= 0.0 {
        return high;
    }
    let mut at = 1.0;
    for _ in 0..MOST_STEPS {
        let Loss { slope, curvature, .. } = loss(at);
        if slope > 0.0 {
            high = at;
        } else {
            low = at;
        }
        let newton = at - slope / curvature;
        // A step out of the bracket, which a flat curve causes, is replaced by halving the bracket's ratio.
        let next = if newton > low && newton < high { newton } else { (low * high).sqrt() };
        if (next - at).abs() <= 1e-12 * at {
            return next;
        }
        at = next;
    }
    at
}

fn check(logits: &[f32], n_classes: usize, labels: &[usize]) -> Result<()> {
    if labels.is_empty() || n_classes == 0 {
        return Err(Error::Nothing { what: if labels.is_empty() { "cells" } else { "classes" } });
    }
    if labels.len().checked_mul(n_classes) != Some(logits.len()) {
        let (n_values, n_cells) = (logits.len(), labels.len());
        return Err(Error::ShapeMismatch { n_values, n_cells, n_features: n_classes });
    }
    if let Some(cell) = labels.iter().position(|&label| label >= n_classes) {
        return Err(Error::UnknownClass { what: "label", cell, class: labels[cell], n_classes });
    }
    match logits.iter().position(|logit| !logit.is_finite()) {
        Some(at) => {
            Err(Error::NotFinite { cell: at / n_classes, feature: at % n_classes, value: logits[at] })
        }
        None => Ok(()),
    }
}
