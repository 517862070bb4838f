//! Eigenvectors of symmetric matrices: all of a small dense one, the leading ones of a large one that is only ever
//! multiplied with.

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef, Par};

use crate::error::{Error, Result};
use crate::noise::Noise;

/// One thread: a sum split over threads depends on how many there are.
pub(crate) const SEQUENTIAL: Par = Par::Seq;

/// Up to this order a matrix is written out and decomposed: it is exact and takes no time. So is one that two rounds
/// of filtering would have to be multiplied with more vectors for.
const DENSE_ORDER: usize = 300;

/// Highest degree of the filter: many products a round make it sharp.
const DEGREE: usize = 16;

/// How much more the filter may raise the largest eigenvalue than the last one wanted, as a natural logarithm: what
/// rounding leaves of the first vector in the last is raised as much, and must stay small.
const STEEPEST: f64 = 20.0;

/// Eigenvalues in ascending order and the eigenvectors as columns; only the lower triangle is read.
///
/// # Errors
/// [`Error::NoConvergence`].
pub(crate) fn decompose(symmetric: MatRef<'_, f64>) -> Result<(Vec<f64>, Mat<f64>)> {
    let order = symmetric.nrows();
    let mut eigenvalues = Diag::<f64>::zeros(order);
    let mut eigenvectors = Mat::<f64>::zeros(order, order);
    let scratch = self_adjoint_evd_scratch::<f64>(
        order,
        ComputeEigenvectors::Yes,
        SEQUENTIAL,
        faer::prelude::default(),
    );
    self_adjoint_evd(
        symmetric,
        eigenvalues.as_mut(),
        Some(eigenvectors.as_mut()),
        SEQUENTIAL,
        MemStack::new(&mut MemBuffer::new(scratch)),
        faer::prelude::default(),
    )
    .map_err(|_| Error::NoConvergence { order })?;
    Ok((eigenvalues.column_vector().iter().copied().collect(), eigenvectors))
}

/// A symmetric matrix known by what it does to vectors.
pub(crate) trait Symmetric {
    /// Rows and columns.
    fn order(&self) -> usize;

    /// No eigenvalue lies below this.
    fn floor(&self) -> f64;

    /// The matrix times `n` vectors, both sides `[order, n]`, row-major. Must not depend on the number of threads.
    fn times(&self, vectors: &[f64], n: usize) -> Vec<f64>;
}

/// How exactly eigenvectors are wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// A vector is good when what the matrix adds to it besides its multiple is shorter than this, relative to the
    /// range of the eigenvalues.
    pub(crate) tolerance: f64,
    /// After so many rounds the vectors are taken as they are.
    pub(crate) most_rounds: usize,
}

/// The eigenvectors of the largest eigenvalues.
#[derive(Debug, Clone)]
pub(crate) struct Leading {
    /// In descending order, `[n]`.
    pub(crate) values: Vec<f64>,
    /// Orthonormal, `[order, n]`, row-major.
    pub(crate) vectors: Vec<f64>,
}

impl Leading {
    /// Takes the `n` largest (at most all) eigenvalues with their vectors, by subspace iteration with a Chebyshev
    /// filter (Zhou, Saad, Tiago and Chelikowsky 2006) from a random start.
    ///
    /// # Errors
    /// [`Error::NoConvergence`] where a small dense decomposition fails, which finite values do not cause. Vectors
    /// that are not as good as wanted after the last round are no error.
    pub(crate) fn of(matrix: &impl Symmetric, n: usize, effort: Effort, seed: u64) -> Result<Self> {
        let order = matrix.order();
        let n = n.min(order);
        // Vectors beyond those wanted carry away what lies near them.
        let n_kept = n + (n / 3).max(6);
        if order <= DENSE_ORDER.max(2 * DEGREE * n_kept) {
            return Self::of_all(matrix, n);
        }
        let mut noise = Noise::new(seed);
        let random: Vec<f64> = (0..order * n_kept).map(|_| noise.normal()).collect();
        let mut block = Block { order, n: n_kept, values: random };
        block.make_orthonormal(&mut noise)?;
        let mut round = 0;
        loop {
            let image = Block { values: matrix.times(&block.values, n_kept), ..block };
            let (ascending, rotation) = decompose(block.products_with(&image).as_ref())?;
            let rotation = Mat::from_fn(n_kept, n_kept, |i, j| rotation[(i, n_kept - 1 - j)]);
            let values: Vec<f64> = ascending.into_iter().rev().collect();
            let (rotated, image) = (block.times(rotation.as_ref()), image.times(rotation.as_ref()));
            block = rotated;
            let range = (values[0] - matrix.floor()).max(f64::MIN_POSITIVE);
            let worst = block.worst_residual(&image, &values[..n]);
            if worst <= effort.tolerance * range || round >= effort.most_rounds {
                return Ok(Self { vectors: block.first_columns(n), values: values[..n].to_vec() });
            }
            block = filtered(matrix, &block, image, &values, n);
            block.make_orthonormal(&mut noise)?;
            round += 1;
        }
    }

    fn of_all(matrix: &impl Symmetric, n: usize) -> Result<Self> {
        let order = matrix.order();
        let unit: Vec<f64> = (0..order * order).map(|at| f64::from(at % (order + 1) == 0)).collect();
        let image = matrix.times(&unit, order);
        let (ascending, vectors) = decompose(MatRef::from_row_major_slice(&image, order, order))?;
        Ok(Self {
            values: ascending.into_iter().rev().take(n).collect(),
            vectors: (0..order * n).map(|at| vectors[(at / n, order - 1 - at % n)]).collect(),
        })
    }
}

/// The block after a polynomial of the matrix that is small on all eigenvalues from the floor to the last of `values`,
/// the block's own in descending order, and grows fast beyond. `image` is the matrix times the block, of which the first
/// `n` vectors are wanted.
fn filtered(matrix: &impl Symmetric, block: &Block, image: Block, values: &[f64], n: usize) -> Block {
    let (floor, largest, cut) = (matrix.floor(), values[0], values[values.len() - 1]);
    let half = ((cut - floor) / 2.0).max((largest - floor) * 1e-6).max(f64::MIN_POSITIVE);
    let centre = floor + half;
    let growth = |value: f64| ((value - centre) / half).max(1.0).acosh();
    let steepness = growth(largest) - growth(values[n - 1]);
    let degree = ((STEEPEST / steepness.max(1e-3)) as usize).clamp(2, DEGREE);
    // Scaled so that the value at the largest eigenvalue stays 1.
    let first = half / (largest - centre);
    let mut scale = first;
    let step = |image: &Block, block: &Block, factor: f64, before: Option<(&Block, f64)>| {
        let mut values: Vec<f64> =
            image.values.iter().zip(&block.values).map(|(y, x)| (y - centre * x) * factor).collect();
        if let Some((before, share)) = before {
            for (value, x) in values.iter_mut().zip(&before.values) {
                *value -= share * x;
            }
        }
        Block { values, ..*block }
    };
    let (mut before, mut now) = (block.clone(), step(&image, block, scale / half, None));
    for _ in 1..degree {
        let next_scale = 1.0 / (2.0 / first - scale);
        let image = Block { values: matrix.times(&now.values, now.n), ..now };
        let next = step(&image, &now, 2.0 * next_scale / half, Some((&before, scale * next_scale)));
        (before, now, scale) = (now, next, next_scale);
    }
    now
}

/// Vectors side by side: `[order, n]`, row-major.
#[derive(Debug, Clone)]
struct Block {
    order: usize,
    n: usize,
    values: Vec<f64>,
}

impl Block {
    fn view(&self) -> MatRef<'_, f64> {
        MatRef::from_row_major_slice(&self.values, self.order, self.n)
    }

    /// Inner products of all vectors with all of another block, `[n, n]`.
    fn products_with(&self, other: &Self) -> Mat<f64> {
        let mut products = Mat::zeros(self.n, self.n);
        matmul(products.as_mut(), Accum::Replace, self.view().transpose(), other.view(), 1.0, SEQUENTIAL);
        products
    }

    fn times(&self, right: MatRef<'_, f64>) -> Self {
        let mut values = vec![0.0; self.values.len()];
        let target = MatMut::from_row_major_slice_mut(&mut values, self.order, self.n);
        matmul(target, Accum::Replace, self.view(), right, 1.0, SEQUENTIAL);
        Self { values, ..*self }
    }

    /// Makes the vectors orthonormal by the decomposition of their products (Stathopoulos and Wu 2002), three times for
    /// the sake of vectors that are nearly alike; those that are lost in the others are drawn anew.
    fn make_orthonormal(&mut self, noise: &mut Noise) -> Result<()> {
        for _ in 0..3 {
            let products = self.products_with(self);
            let lengths: Vec<f64> = (0..self.n).map(|at| products[(at, at)].max(0.0).sqrt()).collect();
            for (at, value) in self.values.iter_mut().enumerate() {
                let length = lengths[at % self.n];
                *value = if length > 0.0 { *value / length } else { noise.normal() };
            }
            let (values, vectors) = decompose(self.products_with(self).as_ref())?;
            let lowest = values.last().copied().unwrap_or(0.0) * f64::EPSILON * self.n as f64;
            let scaled = Mat::from_fn(self.n, self.n, |i, j| {
                if values[j] > lowest { vectors[(i, j)] / values[j].sqrt() } else { 0.0 }
            });
            *self = self.times(scaled.as_ref());
        }
        Ok(())
    }

    /// The longest of what each image differs by from the multiple of its vector.
    fn worst_residual(&self, image: &Self, values: &[f64]) -> f64 {
        let mut squares = vec![0.0; values.len()];
        for (row, image) in self.values.chunks(self.n).zip(image.values.chunks(self.n)) {
            for (square, ((x, y), value)) in squares.iter_mut().zip(row.iter().zip(image).zip(values)) {
                *square += (y - value * x).powi(2);
            }
        }
        squares.into_iter().fold(0.0, f64::max).sqrt()
    }

    fn first_columns(&self, n: usize) -> Vec<f64> {
        self.values.chunks(self.n).flat_map(|row| &row[..n]).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A diagonal matrix turned by a reflection, so that its eigenvectors are known and full.
    struct Reflected {
        diagonal: Vec<f64>,
        mirror: Vec<f64>,
    }

    impl Reflected {
        fn new(diagonal: Vec<f64>) -> Self {
            let mut noise = Noise::new(11);
            let mirror: Vec<f64> = diagonal.iter().map(|_| noise.normal()).collect();
            let length = mirror.iter().map(|x| x * x).sum::<f64>().sqrt();
            Self { diagonal, mirror: mirror.into_iter().map(|x| x / length).collect() }
        }

        fn reflect(&self, vector: &mut [f64]) {
            let product: f64 = vector.iter().zip(&self.mirror).map(|(x, y)| x * y).sum();
            for (x, y) in vector.iter_mut().zip(&self.mirror) {
                *x -= 2.0 * product * y;
            }
        }
    }

    impl Symmetric for Reflected {
        fn order(&self) -> usize {
            self.diagonal.len()
        }

        fn floor(&self) -> f64 {
            -1.0
        }

        fn times(&self, vectors: &[f64], n: usize) -> Vec<f64> {
            let mut result = vec![0.0; vectors.len()];
            for column in 0..n {
                let mut vector: Vec<f64> = vectors.iter().skip(column).step_by(n).copied().collect();
                self.reflect(&mut vector);
                for (x, value) in vector.iter_mut().zip(&self.diagonal) {
                    *x *= value;
                }
                self.reflect(&mut vector);
                for (at, x) in vector.into_iter().enumerate() {
                    result[at * n + column] = x;
                }
            }
            result
        }
    }

    fn check(diagonal: Vec<f64>, n: usize, tolerance: f64) {
        let matrix = Reflected::new(diagonal);
        let effort = Effort { tolerance, most_rounds: 100 };
        let leading = Leading::of(&matrix, n, effort, 1).unwrap();
        let mut sorted = matrix.diagonal.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        for (at, (found, expected)) in leading.values.iter().zip(&sorted).enumerate() {
            // A value is no further off than what is left over of its vector.
            let allowed = 1e-10_f64.max(tolerance * sorted[0]);
            assert!((found - expected).abs() < allowed, "value {at}: {found} is not {expected}");
            let vector: Vec<f64> = leading.vectors.iter().skip(at).step_by(n).copied().collect();
            let image = matrix.times(&vector, 1);
            let rest: f64 = image.iter().zip(&vector).map(|(y, x)| (y - found * x).powi(2)).sum();
            assert!(rest.sqrt() < 2.0 * tolerance * (sorted[0] + 1.0), "vector {at}: {rest}");
            assert!((vector.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-10);
        }
    }

    #[test]
    fn the_leading_eigenvectors_of_a_known_matrix_are_found() {
        check((0..900).map(|at| 1.0 - 2.0 * f64::from(at) / 900.0).collect(), 5, 1e-9);
        // Small, by the dense way.
        check((0..40).map(|at| 1.0 - f64::from(at) / 40.0).collect(), 40, 1e-9);
    }

    #[test]
    fn eigenvalues_that_are_equal_or_nearly_so_are_all_found() {
        let mut diagonal: Vec<f64> = (0..800).map(|at| 0.9 - f64::from(at) / 500.0).collect();
        diagonal.extend([1.0, 1.0, 1.0 - 1e-7, 0.99]);
        check(diagonal, 4, 1e-9);
    }

    #[test]
    fn a_few_large_eigenvalues_do_not_drown_a_flat_tail() {
        let mut diagonal: Vec<f64> = (0..1_500).map(|at| 3.6 * (1.0 - f64::from(at) / 1_500.0)).collect();
        diagonal.extend([112.0, 48.0, 20.0, 3.8, 3.7]);
        check(diagonal, 30, 1e-4);
    }

    #[test]
    fn a_matrix_of_zeros_has_eigenvalues_of_zero() {
        let leading =
            Leading::of(&Reflected::new(vec![0.0; 500]), 3, Effort { tolerance: 1e-6, most_rounds: 20 }, 0);
        assert!(leading.unwrap().values.iter().all(|value| value.abs() < 1e-12));
    }
}
