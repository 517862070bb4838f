//! Coordinates in which all directions are alike.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef};
use rayon::prelude::*;

use crate::cells::Cells;
use crate::eigen::{SEQUENTIAL, decompose};
use crate::error::{Error, Result};
use crate::parallel::sum_over;
use crate::sums::Sums;

/// A direction with a smaller share of the widest one's variance is what rounding left of a feature that others give.
const NARROWEST: f64 = 1e-12;
/// Cells transformed at a time.
const PIECE: usize = 1024;

/// From features to coordinates of mean 0, variance 1 and no correlation over the cells it was fitted to.
///
/// A mixture whose components share a covariance is the same in any coordinates, but for a constant of its
/// likelihood. In these, units of the features no longer matter, nor how far from 0 they lie, and features that are
/// constant or follow from others, of which no covariance has an inverse, are gone.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Space {
    means: Vec<f64>,
    /// `[n_features, n_coordinates]`, row-major: centred features times this are the coordinates.
    forwards: Vec<f64>,
    /// `[n_coordinates, n_features]`, row-major: coordinates times this are the centred features.
    backwards: Vec<f64>,
    /// Eigenvalues of the correlation, one a coordinate, largest first.
    spreads: Vec<f64>,
    /// Logarithm of the volume of features that a unit of volume in these coordinates takes up.
    log_volume: f64,
}

impl Space {
    /// The space of some cells.
    ///
    /// # Errors
    /// [`Error::TooFewCells`] below two cells, [`Error::NoVariance`] for cells that are all the same,
    /// [`Error::NoConvergence`].
    pub(super) fn of(cells: Cells<'_>) -> Result<Self> {
        let (n_cells, n_features) = (cells.n_cells(), cells.n_features());
        if n_cells < 2 {
            return Err(Error::TooFewCells { n_cells });
        }
        let n = n_cells as f64;
        let means = sum_over(n_cells, |piece| {
            let mut sums = Sums::of(n_features);
            for cell in piece {
                sums.add(cells.cell(cell).iter().map(|&x| f64::from(x)));
            }
            sums
        });
        let means: Vec<f64> = means.into_values(n_features).into_iter().map(|sum| sum / n).collect();
        let products = sum_over(n_cells, |piece| {
            let rows: Vec<f64> = piece
                .clone()
                .flat_map(|cell| cells.cell(cell).iter().zip(&means).map(|(&x, mean)| f64::from(x) - mean))
                .collect();
            let mut sums = Sums::of(n_features * n_features);
            sums.add_products(&rows, n_features);
            sums
        });
        let products = products.into_values(n_features * n_features);
        let deviations: Vec<f64> =
            (0..n_features).map(|at| (products[at * n_features + at] / n).sqrt()).collect();
        // A constant feature differs from its own mean by rounding.
        let is_real = |at: usize| deviations[at] > means[at].abs() * 1e-12 && deviations[at].is_normal();
        let kept: Vec<usize> = (0..n_features).filter(|&at| is_real(at)).collect();
        if kept.is_empty() {
            return Err(Error::NoVariance { n_cells });
        }
        let correlation = Mat::from_fn(kept.len(), kept.len(), |i, j| {
            let (i, j) = (kept[i], kept[j]);
            products[i * n_features + j] / n / (deviations[i] * deviations[j])
        });
        let (ascending, vectors) = decompose(correlation.as_ref())?;
        let floor = ascending.last().copied().unwrap_or(0.0) * NARROWEST;
        let columns: Vec<usize> = (0..kept.len()).rev().filter(|&at| ascending[at] > floor).collect();
        let spreads: Vec<f64> = columns.iter().map(|&at| ascending[at]).collect();
        let n_coordinates = columns.len();
        let (mut forwards, mut backwards) =
            (vec![0.0; n_features * n_coordinates], vec![0.0; n_features * n_coordinates]);
        for (row, &feature) in kept.iter().enumerate() {
            for (to, &column) in columns.iter().enumerate() {
                let (direction, root) = (vectors[(row, column)], spreads[to].sqrt());
                forwards[feature * n_coordinates + to] = direction / (root * deviations[feature]);
                backwards[to * n_features + feature] = direction * root * deviations[feature];
            }
        }
        let log_volume = kept.iter().map(|&at| deviations[at].ln()).sum::<f64>()
            + spreads.iter().map(|spread| spread.ln() / 2.0).sum::<f64>();
        Ok(Self { means, forwards, backwards, spreads, log_volume })
    }

    pub(super) fn n_coordinates(&self) -> usize {
        self.spreads.len()
    }

    pub(super) fn n_features(&self) -> usize {
        self.means.len()
    }

    pub(super) fn log_volume(&self) -> f64 {
        self.log_volume
    }

    /// Where cells lie, `[n_cells, n_coordinates]`, row-major.
    pub(super) fn coordinates(&self, cells: Cells<'_>) -> Vec<f64> {
        let (n, n_features) = (self.n_coordinates(), self.n_features());
        let mut coordinates = vec![0.0; cells.n_cells() * n];
        let forwards = MatRef::from_row_major_slice(&self.forwards, n_features, n);
        coordinates.par_chunks_mut(PIECE * n).enumerate().for_each(|(piece, part)| {
            let rows: Vec<f64> = (piece * PIECE..piece * PIECE + part.len() / n)
                .flat_map(|cell| {
                    cells.cell(cell).iter().zip(&self.means).map(|(&x, mean)| f64::from(x) - mean)
                })
                .collect();
            let n_rows = part.len() / n;
            let rows = MatRef::from_row_major_slice(&rows, n_rows, n_features);
            let target = MatMut::from_row_major_slice_mut(part, n_rows, n);
            matmul(target, Accum::Replace, rows, forwards, 1.0, SEQUENTIAL);
        });
        coordinates
    }

    /// What each coordinate is multiplied by for the scaled singular value decomposition of Scrucca and Raftery (2015,
    /// section 3.1): of the standardised features `UDVᵀ`, the columns of `U` times the roots of `D`, so that wide
    /// directions stay wider than narrow ones, but less so.
    pub(super) fn agglomeration_scales(&self, n_cells: usize) -> Vec<f64> {
        let n = n_cells as f64;
        self.spreads.iter().map(|spread| (spread * (n - 1.0)).powf(0.25) / n.sqrt()).collect()
    }

    /// A point's features, `[n_features]`.
    pub(super) fn point(&self, coordinates: &[f64]) -> Vec<f64> {
        let mut features = self.means.clone();
        for (row, x) in self.backwards.chunks(self.n_features()).zip(coordinates) {
            crate::sparse::add(&mut features, *x, row);
        }
        features
    }

    /// A covariance of the features, `[n_features, n_features]`, from one of the coordinates.
    pub(super) fn covariance(&self, of_coordinates: MatRef<'_, f64>) -> Vec<f64> {
        let (n, n_features) = (self.n_coordinates(), self.n_features());
        let backwards = MatRef::from_row_major_slice(&self.backwards, n, n_features);
        let covariance = backwards.transpose() * of_coordinates * backwards;
        (0..n_features * n_features).map(|at| covariance[(at / n_features, at % n_features)]).collect()
    }
}
