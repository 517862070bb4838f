//! What several runs of one experiment say together.

use crate::error::{Error, Result};
use crate::number::decimal;

/// The 97.5 % points of Student's t for 1 to 30 degrees of freedom.
const T_975: [f64; 30] = [
    12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157, 2.228139,
    2.200985, 2.178813, 2.160369, 2.144787, 2.131450, 2.119905, 2.109816, 2.100922, 2.093024, 2.085963,
    2.079614, 2.073873, 2.068658, 2.063899, 2.059539, 2.055529, 2.051831, 2.048407, 2.045230, 2.042272,
];

/// The 97.5 % point of the normal distribution.
const Z_975: f64 = 1.959_963_984_540_054;

/// A mean over repeats with its 95 % confidence interval (Student's t).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanInterval {
    /// The mean.
    pub mean: f64,
    /// Half the width of the interval, in the unit of the values; nothing for a single repeat.
    pub half_width: Option<f64>,
    /// How many repeats there are.
    pub n_repeats: usize,
}

impl MeanInterval {
    /// The mean and interval of one value a repeat.
    ///
    /// The interval is about the mean of further repeats of the same kind. Repeats that share test cells, as other
    /// seeds on one split do, vary less than new data would.
    ///
    /// # Errors
    /// [`Error::Nothing`] without values.
    pub fn of(values: &[f64]) -> Result<Self> {
        let n = values.len();
        if n == 0 {
            return Err(Error::Nothing { what: "repeats" });
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let half_width = (n > 1).then(|| {
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
            t_975(n - 1) * (variance / n as f64).sqrt()
        });
        Ok(Self { mean, half_width, n_repeats: n })
    }

    /// What one run says: its value, without an interval.
    pub fn single(value: f64) -> Self {
        Self { mean: value, half_width: None, n_repeats: 1 }
    }

    /// `0.912 ± 0.008`, or the mean alone where there was one repeat.
    pub fn to_text(&self, decimals: usize) -> String {
        let mean = decimal(self.mean, decimals);
        match self.half_width {
            Some(half_width) => format!("{mean} ± {}", decimal(half_width, decimals)),
            None => mean,
        }
    }
}

/// The 97.5 % point of Student's t: from the table, beyond it by Hill's expansion in 1/n (Abramowitz and Stegun
/// 26.7.5), which is right to six digits there.
fn t_975(degrees_of_freedom: usize) -> f64 {
    if let Some(t) = degrees_of_freedom.checked_sub(1).and_then(|at| T_975.get(at)) {
        return *t;
    }
    let (z, n) = (Z_975, degrees_of_freedom as f64);
    let terms = [
        (z.powi(3) + z) / 4.0,
        (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0,
        (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0,
    ];
    terms.iter().rev().fold(0.0, |sum, term| (sum + term) / n) + z
}
