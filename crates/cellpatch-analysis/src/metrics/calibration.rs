//! Whether a confidence of 80 % is right four times in five.

use crate::error::{Error, Result};

/// How many bins there are: as in Guo et al. 2017, who named the error.
const N_BINS: usize = 15;

/// The cells whose confidence lies in one interval.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ReliabilityBin {
    /// Lower end of the interval, not part of it but for 0.
    pub low: f64,
    /// Upper end of the interval, part of it.
    pub high: f64,
    /// Cells in it.
    pub n_cells: u64,
    /// Their mean confidence, 0 where there are none.
    pub mean_confidence: f64,
    /// Share of them that were labelled correctly, 0 where there are none.
    pub accuracy: f64,
}

/// Confidence against accuracy in 15 intervals of equal width.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Calibration {
    /// The intervals in ascending order, empty ones included.
    pub bins: Vec<ReliabilityBin>,
}

impl Calibration {
    /// Sorts cells by the confidence of their prediction.
    ///
    /// - `confidences`: `[n_cells]`, the largest class probability of each cell
    /// - `correct`: `[n_cells]`, whether that class is the right one
    ///
    /// # Errors
    /// [`Error::LengthMismatch`] where the two differ in length, [`Error::BadConfidence`] for a value that is not
    /// from 0 to 1.
    pub fn new(confidences: &[f64], correct: &[bool]) -> Result<Self> {
        check_confidences(confidences, correct)?;
        let mut sums = [(0_u64, 0.0, 0_u64); N_BINS];
        for (&confidence, &is_correct) in confidences.iter().zip(correct) {
            let bin = ((confidence * N_BINS as f64).ceil() as usize).clamp(1, N_BINS) - 1;
            let (n_cells, confidence_sum, n_correct) = &mut sums[bin];
            *n_cells += 1;
            *confidence_sum += confidence;
            *n_correct += u64::from(is_correct);
        }
        let bins = sums.into_iter().enumerate().map(|(at, (n_cells, confidence_sum, n_correct))| {
            let n = n_cells.max(1) as f64;
            ReliabilityBin {
                low: at as f64 / N_BINS as f64,
                high: (at + 1) as f64 / N_BINS as f64,
                n_cells,
                mean_confidence: confidence_sum / n,
                accuracy: n_correct as f64 / n,
            }
        });
        Ok(Self { bins: bins.collect() })
    }

    /// How many cells there are in all bins.
    pub fn n_cells(&self) -> u64 {
        self.bins.iter().map(|bin| bin.n_cells).sum()
    }

    /// The expected calibration error: how far confidence and accuracy lie apart, in the mean over cells
    /// (Guo et al. 2017, equation 3). 0 to 1, 0 without cells.
    pub fn expected_error(&self) -> f64 {
        let gap = |bin: &ReliabilityBin| bin.n_cells as f64 * (bin.accuracy - bin.mean_confidence).abs();
        self.bins.iter().map(gap).sum::<f64>() / self.n_cells().max(1) as f64
    }
}

/// One confidence for each cell, and a probability each.
pub(super) fn check_confidences(confidences: &[f64], correct: &[bool]) -> Result<()> {
    if confidences.len() != correct.len() {
        return Err(Error::LengthMismatch {
            what: "confidences",
            n_found: confidences.len(),
            n_expected: correct.len(),
        });
    }
    match confidences.iter().position(|confidence| !(0.0..=1.0).contains(confidence)) {
        Some(cell) => Err(Error::BadConfidence { cell, value: confidences[cell] }),
        None => Ok(()),
    }
}
