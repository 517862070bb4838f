//! When a prediction is better left open.

use super::calibration::check_confidences;
use crate::error::{Error, Result};

/// The share of correctly labelled validation cells that a threshold keeps unless another is asked for.
pub const KEPT_SHARE: f64 = 0.95;

/// The confidence below which a cell is called unknown.
///
/// The rule: the largest threshold that keeps at least a given share ([`KEPT_SHARE`]) of the *correctly* labelled
/// validation cells. What the model would get right is mostly kept by construction, and what is rejected is
/// wrong or of a kind the model does not know, as far as its confidence can tell. A rule on accuracy instead
/// would reject nothing where validation cells are easy, and everything where a target is out of reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UnknownThreshold {
    /// Cells with a lower confidence are unknown.
    pub confidence: f64,
    /// Share of all validation cells that keep their label.
    pub coverage: f64,
    /// Accuracy among the validation cells that keep their label.
    pub kept_accuracy: f64,
    /// Share of the wrongly labelled validation cells that are rejected; 0 where none is wrong.
    pub rejected_errors: f64,
}

impl UnknownThreshold {
    /// Chooses the threshold on validation cells.
    ///
    /// - `confidences`: `[n_cells]`, the largest class probability of each cell
    /// - `correct`: `[n_cells]`, whether that class is the right one
    /// - `kept_share`: share of the correct cells to keep, above 0 and at most 1
    ///
    /// # Errors
    /// [`Error::LengthMismatch`], [`Error::BadConfidence`], [`Error::BadOption`] for the share, and
    /// [`Error::Nothing`] where no cell is correct.
    pub fn choose(confidences: &[f64], correct: &[bool], kept_share: f64) -> Result<Self> {
        check_confidences(confidences, correct)?;
        if !(kept_share > 0.0 && kept_share <= 1.0) {
            return Err(Error::bad_option("kept_share", kept_share, "above 0 and at most 1"));
        }
        let both = || confidences.iter().copied().zip(correct.iter().copied());
        let mut right: Vec<f64> = both().filter(|(_, correct)| *correct).map(|(value, _)| value).collect();
        right.sort_by(|a, b| b.total_cmp(a));
        // A hair of slack, so that 0.95 of 20 cells is 19 although the product is a little above.
        let n_kept = (kept_share * right.len() as f64 - 1e-9).ceil().max(1.0) as usize;
        let confidence = *right.get(n_kept - 1).ok_or(Error::Nothing { what: "correctly labelled cells" })?;
        let is_kept = |value: f64| value >= confidence;
        let n_kept = confidences.iter().filter(|value| is_kept(**value)).count();
        let n_wrong = both().filter(|(_, correct)| !correct).count();
        let n_kept_right = right.iter().filter(|value| is_kept(**value)).count();
        let n_kept_wrong = n_kept - n_kept_right;
        Ok(Self {
            confidence,
            coverage: n_kept as f64 / confidences.len() as f64,
            kept_accuracy: n_kept_right as f64 / n_kept as f64,
            rejected_errors: (n_wrong - n_kept_wrong) as f64 / n_wrong.max(1) as f64,
        })
    }

    /// Whether a cell of that confidence keeps its label.
    pub fn keeps(&self, confidence: f64) -> bool {
        confidence >= self.confidence
    }
}
