//! Many sums at once, to be added up over pieces of cells.

use std::ops::AddAssign;

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef};

use crate::eigen::SEQUENTIAL;

/// Sums side by side. None at all stand for zeros.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sums(Vec<f64>);

impl Sums {
    /// So many sums, all 0.
    pub(crate) fn of(n: usize) -> Self {
        Self(vec![0.0; n])
    }

    /// Adds one term to each sum.
    pub(crate) fn add(&mut self, terms: impl IntoIterator<Item = f64>) {
        for (sum, term) in self.0.iter_mut().zip(terms) {
            *sum += term;
        }
    }

    /// Adds the products of all columns with all: of rows `[n, width]`, row-major, to sums `[width, width]`.
    pub(crate) fn add_products(&mut self, rows: &[f64], width: usize) {
        if width == 0 {
            return;
        }
        let rows = MatRef::from_row_major_slice(rows, rows.len() / width, width);
        let target = MatMut::from_row_major_slice_mut(&mut self.0, width, width);
        matmul(target, Accum::Add, rows.transpose(), rows, 1.0, SEQUENTIAL);
    }

    /// The sums, to be changed in place.
    pub(crate) fn values_mut(&mut self) -> &mut [f64] {
        &mut self.0
    }

    /// The sums, of which there are `n`.
    pub(crate) fn into_values(self, n: usize) -> Vec<f64> {
        if self.0.is_empty() { vec![0.0; n] } else { self.0 }
    }
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        if self.0.is_empty() {
            *self = other;
        } else {
            self.add(other.0);
        }
    }
}
