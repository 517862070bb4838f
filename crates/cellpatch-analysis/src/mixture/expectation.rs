//! Expectation and maximisation of a mixture whose components share a covariance.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef};
use rayon::prelude::*;

use crate::distance::squared_distance;
use crate::eigen::SEQUENTIAL;
use crate::error::{Error, Result};
use crate::parallel::sum_over_pieces;
use crate::sums::Sums;

/// Cells of one piece of work: fixed, so that sums do not depend on threads.
const PIECE: usize = 1024;
/// Logarithm of a full turn, of which a normal density has half a one in each direction.
const LOG_TURN: f64 = 1.837_877_066_409_345_3;

/// Where cells lie: `[n_cells, n]`, row-major, of about unit spread in every direction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Points<'a> {
    pub(super) values: &'a [f64],
    pub(super) n: usize,
}

impl Points<'_> {
    pub(super) fn n_cells(&self) -> usize {
        self.values.len() / self.n
    }

    fn rows(&self, cells: &std::ops::Range<usize>) -> MatRef<'_, f64> {
        let rows = &self.values[cells.start * self.n..cells.end * self.n];
        MatRef::from_row_major_slice(rows, cells.len(), self.n)
    }
}

/// The share of each component in each cell: `[n_cells, n_components]`, row-major, adding up to 1 in each.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Memberships {
    pub(super) values: Vec<f64>,
    pub(super) n_components: usize,
}

impl Memberships {
    /// Each cell wholly in its group.
    pub(super) fn of_groups(groups: &[usize], n_components: usize) -> Self {
        let mut values = vec![0.0; groups.len() * n_components];
        for (row, &group) in values.chunks_mut(n_components).zip(groups) {
            row[group] = 1.0;
        }
        Self { values, n_components }
    }

    fn rows(&self, cells: &std::ops::Range<usize>) -> MatRef<'_, f64> {
        let rows = &self.values[cells.start * self.n_components..cells.end * self.n_components];
        MatRef::from_row_major_slice(rows, cells.len(), self.n_components)
    }
}

/// The components.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Components {
    /// `[n_components]`, adding up to 1.
    pub(super) weights: Vec<f64>,
    /// `[n_components, n]`, row-major.
    pub(super) means: Vec<f64>,
    /// `[n, n]`
    pub(super) covariance: Mat<f64>,
    /// `[n, n]`, upper triangular: rows times this have the unit covariance within components.
    whitening: Mat<f64>,
    log_determinant: f64,
}

impl Components {
    /// The components that make what was assigned to them most likely (Fraley and Raftery 2002, section 2.2, the model
    /// of equal volume, shape and orientation).
    ///
    /// The scatter within components is added up from the differences between each cell and what its memberships expect
    /// of it and the differences between the components it is shared by, none of which cancel each other, rather than
    /// as a difference of two large sums.
    ///
    /// # Errors
    /// [`Error::SingularMixture`] where cells do not differ within components in some direction.
    pub(super) fn maximise(points: Points<'_>, memberships: &Memberships) -> Result<Self> {
        let (n_cells, n, k) = (points.n_cells(), points.n, memberships.n_components);
        let sums = sum_over_pieces(n_cells, PIECE, |cells| {
            let mut sums = Sums::of(k + k * n);
            let (sizes, totals) = sums.values_mut().split_at_mut(k);
            let shares = memberships.rows(&cells);
            for row in memberships.values[cells.start * k..cells.end * k].chunks(k) {
                crate::sparse::add(sizes, 1.0, row);
            }
            let totals = MatMut::from_row_major_slice_mut(totals, k, n);
            matmul(totals, Accum::Add, shares.transpose(), points.rows(&cells), 1.0, SEQUENTIAL);
            sums
        });
        let mut sizes = sums.into_values(k + k * n);
        let mut means = sizes.split_off(k);
        for (mean, size) in means.chunks_mut(n).zip(&sizes) {
            // A component that lost all its cells stays where it harms nobody.
            let factor = if *size > f64::MIN_POSITIVE { size.recip() } else { 0.0 };
            mean.iter_mut().for_each(|x| *x *= factor);
        }
        let covariance = covariance_within(points, memberships, &means);
        let (whitening, log_determinant) =
            whitening(covariance.as_ref()).ok_or(Error::SingularMixture { n_components: k })?;
        let weights = sizes.iter().map(|size| size / n_cells as f64).collect();
        Ok(Self { weights, means, covariance, whitening, log_determinant })
    }

    /// How much each component has of each cell, and the logarithm of the likelihood of all cells.
    pub(super) fn expect(&self, points: Points<'_>) -> (Memberships, f64) {
        let (n_cells, n, k) = (points.n_cells(), points.n, self.weights.len());
        let mut memberships = Memberships { values: vec![0.0; n_cells * k], n_components: k };
        let means = self.whitened(MatRef::from_row_major_slice(&self.means, k, n));
        let constant = -0.5 * (n as f64 * LOG_TURN + self.log_determinant);
        let log_weights: Vec<f64> = self.weights.iter().map(|weight| weight.ln() + constant).collect();
        let parts: Vec<f64> = memberships
            .values
            .par_chunks_mut(PIECE * k)
            .enumerate()
            .map(|(piece, shares)| {
                let cells = piece * PIECE..piece * PIECE + shares.len() / k;
                let rows = self.whitened(points.rows(&cells));
                let mut likelihood = 0.0;
                for (row, shares) in rows.chunks(n).zip(shares.chunks_mut(k)) {
                    for ((share, mean), log_weight) in
                        shares.iter_mut().zip(means.chunks(n)).zip(&log_weights)
                    {
                        *share = log_weight - 0.5 * squared_distance(row, mean);
                    }
                    likelihood += into_shares(shares);
                }
                likelihood
            })
            .collect();
        (memberships, parts.into_iter().sum())
    }

    /// The components from the one of the highest weight down.
    pub(super) fn by_weight(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.weights.len()).collect();
        order.sort_by(|&a, &b| self.weights[b].total_cmp(&self.weights[a]));
        order
    }

    /// The same components in another order.
    pub(super) fn reordered(self, order: &[usize]) -> Self {
        let n = self.covariance.nrows();
        let weights = order.iter().map(|&component| self.weights[component]).collect();
        let means = order.iter().flat_map(|&component| &self.means[component * n..][..n]).copied().collect();
        Self { weights, means, ..self }
    }

    /// Rows, `[n_rows, n]`, in coordinates of unit covariance within components, row-major.
    fn whitened(&self, rows: MatRef<'_, f64>) -> Vec<f64> {
        let mut values = vec![0.0; rows.nrows() * rows.ncols()];
        let target = MatMut::from_row_major_slice_mut(&mut values, rows.nrows(), rows.ncols());
        matmul(target, Accum::Replace, rows, self.whitening.as_ref(), 1.0, SEQUENTIAL);
        values
    }
}

/// Turns logarithms into shares that add up to 1 and returns the logarithm of what they added up to.
fn into_shares(logs: &mut [f64]) -> f64 {
    let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for log in logs.iter_mut() {
        *log = (*log - largest).exp();
        sum += *log;
    }
    logs.iter_mut().for_each(|share| *share /= sum);
    largest + sum.ln()
}

fn covariance_within(points: Points<'_>, memberships: &Memberships, means: &[f64]) -> Mat<f64> {
    let (n_cells, n, k) = (points.n_cells(), points.n, memberships.n_components);
    let means = MatRef::from_row_major_slice(means, k, n);
    let sums = sum_over_pieces(n_cells, PIECE, |cells| {
        let mut sums = Sums::of(n * n + k * k);
        let mut rest = points.rows(&cells).to_owned();
        let shares = memberships.rows(&cells);
        matmul(rest.as_mut(), Accum::Add, shares, means, -1.0, SEQUENTIAL);
        let (within, shared) = sums.values_mut().split_at_mut(n * n);
        let within = MatMut::from_row_major_slice_mut(within, n, n);
        matmul(within, Accum::Add, rest.transpose(), rest.as_ref(), 1.0, SEQUENTIAL);
        let shared = MatMut::from_row_major_slice_mut(shared, k, k);
        matmul(shared, Accum::Add, shares.transpose(), shares, 1.0, SEQUENTIAL);
        sums
    });
    let mut within = sums.into_values(n * n + k * k);
    let shared = within.split_off(n * n);
    for a in 0..k {
        for b in 0..a {
            let amount = shared[a * k + b];
            let difference: Vec<f64> = (0..n).map(|at| means[(a, at)] - means[(b, at)]).collect();
            for (row, x) in within.chunks_mut(n).zip(&difference) {
                crate::sparse::add(row, amount * x, &difference);
            }
        }
    }
    // Both halves, which rounding may have made differ.
    Mat::from_fn(n, n, |i, j| f64::midpoint(within[i * n + j], within[j * n + i]) / n_cells as f64)
}

/// The inverse of the upper Cholesky factor of a covariance, and the logarithm of its determinant; nothing where
/// hardly anything of a direction's variance, which is 1 over all cells, is left.
fn whitening(covariance: MatRef<'_, f64>) -> Option<(Mat<f64>, f64)> {
    let n = covariance.nrows();
    let mut lower = Mat::<f64>::zeros(n, n);
    let mut log_determinant = 0.0;
    for row in 0..n {
        for column in 0..=row {
            let known: f64 = (0..column).map(|at| lower[(row, at)] * lower[(column, at)]).sum();
            let rest = covariance[(row, column)] - known;
            if row != column {
                lower[(row, column)] = rest / lower[(column, column)];
            } else if rest > f64::EPSILON && rest.is_finite() {
                lower[(row, row)] = rest.sqrt();
                log_determinant += rest.ln();
            } else {
                return None;
            }
        }
    }
    // Forward substitution of unit columns gives the inverse, whose transpose is wanted.
    let mut inverse = Mat::<f64>::zeros(n, n);
    for column in 0..n {
        for row in column..n {
            let known: f64 = (column..row).map(|at| lower[(row, at)] * inverse[(column, at)]).sum();
            inverse[(column, row)] = (f64::from(row == column) - known) / lower[(row, row)];
        }
    }
    Some((inverse, log_determinant))
}

/// When expectation and maximisation end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) tolerance: f64,
    pub(super) most_iterations: usize,
    /// What a log-likelihood in the unit of the features has beyond one in the unit of the points.
    pub(super) offset: f64,
}

/// What expectation and maximisation led to.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub(super) components: Components,
    pub(super) memberships: Memberships,
    pub(super) log_likelihood: f64,
    pub(super) n_iterations: usize,
    pub(super) has_converged: bool,
}

/// Repeats expectation and maximisation from given components until the log-likelihood rises by no more than the
/// tolerance times one more than its magnitude, which is taken in the unit of the features, as mclust does.
pub(super) fn run(points: Points<'_>, start: Components, patience: Patience) -> Result<Outcome> {
    let mut components = start;
    let (mut memberships, mut log_likelihood) = components.expect(points);
    let mut n_iterations = 1;
    let mut has_converged = false;
    while !has_converged && n_iterations < patience.most_iterations {
        components = Components::maximise(points, &memberships)?;
        let (next, likelihood) = components.expect(points);
        let magnitude = 1.0 + (likelihood + patience.offset).abs();
        has_converged = (likelihood - log_likelihood).abs() <= patience.tolerance * magnitude;
        (memberships, log_likelihood) = (next, likelihood);
        n_iterations += 1;
    }
    Ok(Outcome { components, memberships, log_likelihood, n_iterations, has_converged })
}
