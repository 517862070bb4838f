//! Two methods on the same slices.

use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

use super::interval::MeanInterval;
use crate::error::{Error, Result};

/// Up to so many differences, all signs they could have are gone through.
const MOST_EXACT: usize = 50;

/// Whether one method scores higher than another on the same slices, beyond what slices differ by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairedComparison {
    /// The mean of the first method's score less the second's, with its 95 % interval.
    pub difference: MeanInterval,
    /// The median of the same differences.
    pub median_difference: f64,
    /// Slices on which the first method scores higher.
    pub n_higher: usize,
    /// Slices on which it scores lower.
    pub n_lower: usize,
    /// Wilcoxon's signed-rank test.
    pub signed_rank: SignedRankTest,
    /// Student's paired t test; nothing with fewer than two slices or where all differ by the same.
    pub t_test: Option<PairedTTest>,
}

/// Wilcoxon's signed-rank test (1945), two-sided: are differences as often and as far below 0 as above?
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SignedRankTest {
    /// The ranks of the positive differences by magnitude, added up; equal ones share their mean rank.
    pub positive_ranks: f64,
    /// The same of the negative ones.
    pub negative_ranks: f64,
    /// How likely ranks at least as uneven are without any difference between the methods. 1 where nothing differs.
    pub p_value: f64,
    /// Whether the probability was counted, as up to 50 differences, rather than taken from the normal distribution.
    pub is_exact: bool,
}

/// Student's paired t test (1908), two-sided: is the mean difference 0?
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairedTTest {
    /// The mean difference over its standard error.
    pub t: f64,
    /// One less than the slices.
    pub degrees_of_freedom: usize,
    /// How likely a `t` as far from 0 is where the mean difference is 0 and differences are normal.
    pub p_value: f64,
}

impl PairedComparison {
    /// Compares scores of two methods, one of each a slice.
    ///
    /// Slices of one donor are less independent than those of several, which neither test knows.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`] where the two differ in length, [`Error::Nothing`] without slices,
    /// [`Error::NotFinite`] for a score that is NaN or infinite, given as the feature 0 or 1 of its slice.
    pub fn of(first: &[f64], second: &[f64]) -> Result<Self> {
        if first.len() != second.len() {
            let (n_found, n_expected) = (second.len(), first.len());
            return Err(Error::LengthMismatch { what: "scores", n_found, n_expected });
        }
        for (feature, scores) in [first, second].into_iter().enumerate() {
            if let Some(cell) = scores.iter().position(|score| !score.is_finite()) {
                return Err(Error::NotFinite { cell, feature, value: scores[cell] as f32 });
            }
        }
        let differences: Vec<f64> = first.iter().zip(second).map(|(a, b)| a - b).collect();
        let difference = MeanInterval::of(&differences).map_err(|_| Error::Nothing { what: "slices" })?;
        Ok(Self {
            difference,
            median_difference: median(&differences),
            n_higher: differences.iter().filter(|x| **x > 0.0).count(),
            n_lower: differences.iter().filter(|x| **x < 0.0).count(),
            signed_rank: SignedRankTest::of(&differences),
            t_test: PairedTTest::of(&differences, difference.mean),
        })
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2])
}

impl SignedRankTest {
    /// The test of some differences. Those that are 0 are left out, as Wilcoxon did.
    fn of(differences: &[f64]) -> Self {
        let mut sorted: Vec<f64> = differences.iter().copied().filter(|x| *x != 0.0).collect();
        sorted.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
        // Twice the ranks, which are whole numbers also where equal magnitudes share them.
        let mut ranks = Vec::with_capacity(sorted.len());
        let mut ties = Vec::new();
        for equal in sorted.chunk_by(|a, b| a.abs() == b.abs()) {
            let first = ranks.len() + 1;
            ranks.extend(std::iter::repeat_n(2 * first + equal.len() - 1, equal.len()));
            ties.push(equal.len() as f64);
        }
        let of_sign = |is_positive: bool| -> usize {
            let same = sorted.iter().zip(&ranks).filter(|(x, _)| (**x > 0.0) == is_positive);
            same.map(|(_, rank)| *rank).sum()
        };
        let (positive, negative) = (of_sign(true), of_sign(false));
        let is_exact = ranks.len() <= MOST_EXACT;
        let p_value = if is_exact {
            2.0 * exact_tail(&ranks, positive.min(negative))
        } else {
            normal_p_value(positive as f64 / 2.0, ranks.len() as f64, &ties)
        };
        Self {
            positive_ranks: positive as f64 / 2.0,
            negative_ranks: negative as f64 / 2.0,
            p_value: p_value.min(1.0),
            is_exact,
        }
    }
}

/// Of all ways to give signs to ranks, the share in which the positive ones add up to at most `sum`.
fn exact_tail(ranks: &[usize], sum: usize) -> f64 {
    // How many ways lead to each sum: below 2^50, so exact.
    let mut n_ways = vec![0.0_f64; sum + 1];
    n_ways[0] = 1.0;
    for &rank in ranks {
        for at in (rank..=sum).rev() {
            n_ways[at] += n_ways[at - rank];
        }
    }
    n_ways.iter().sum::<f64>() / 2.0_f64.powi(ranks.len() as i32)
}

/// The p-value of a sum of positive ranks from the normal distribution of the same mean and variance, which ties narrow.
fn normal_p_value(positive: f64, n: f64, ties: &[f64]) -> f64 {
    let mean = n * (n + 1.0) / 4.0;
    let shared: f64 = ties.iter().map(|t| t * (t * t - 1.0)).sum();
    let variance = (n * (n + 1.0) * (2.0 * n + 1.0) - shared / 2.0) / 24.0;
    2.0 * Normal::standard().cdf(-(positive - mean).abs() / variance.sqrt())
}

impl PairedTTest {
    fn of(differences: &[f64], mean: f64) -> Option<Self> {
        let degrees_of_freedom = differences.len().checked_sub(1)?;
        let n = differences.len() as f64;
        let squares: f64 = differences.iter().map(|x| (x - mean).powi(2)).sum();
        let error = (squares / degrees_of_freedom as f64 / n).sqrt();
        let distribution = StudentsT::new(0.0, 1.0, degrees_of_freedom as f64).ok()?;
        let t = mean / error;
        (t.is_finite() && error > 0.0).then(|| Self {
            t,
            degrees_of_freedom,
            p_value: 2.0 * distribution.cdf(-t.abs()),
        })
    }
}
