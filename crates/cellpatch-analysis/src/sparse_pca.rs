//! Principal components of sparse cells, which are never written out in full.

use rayon::prelude::*;

use crate::eigen::{Effort, Leading, Symmetric};
use crate::error::{Error, Result};
use crate::pca::orient;
use crate::sparse::{SparseCells, SparseFeatures};

/// Components are to be right as far as neighbours depend on them, not to the last digit.
const EFFORT: Effort = Effort { tolerance: 1e-4, most_rounds: 20 };

/// The directions in which sparse cells differ most, to be looked at or to find neighbours along. Like
/// [`Pca`](crate::Pca), features are centred and not scaled, and other cells can be placed along the same directions.
#[derive(Debug, Clone, PartialEq)]
pub struct SparsePca {
    n_features: usize,
    /// `[n_features, n_components]`, row-major, of length 1 each.
    directions: Vec<f64>,
    /// Where the mean of the cells lies along each direction.
    offsets: Vec<f64>,
    explained_variance: Vec<f64>,
}

impl SparsePca {
    /// Takes the first `n_components` principal components, from 1 to the smaller of cells and features.
    ///
    /// They are the leading eigenvectors of the cells' products, found by subspace iteration from the seed; the result
    /// is the same on any number of threads. A component's sign makes its largest score among these cells positive.
    /// Directions along which nothing varies are zero.
    ///
    /// # Errors
    /// [`Error::TooFewCells`] below two cells, [`Error::BadComponentCount`], [`Error::NoConvergence`].
    pub fn fit(cells: SparseCells<'_>, n_components: usize, seed: u64) -> Result<Self> {
        let (n_cells, n_features) = (cells.n_cells(), cells.n_features());
        if n_cells < 2 {
            return Err(Error::TooFewCells { n_cells });
        }
        let available = n_cells.min(n_features);
        if n_components == 0 || n_components > available {
            return Err(Error::BadComponentCount { requested: n_components, available });
        }
        let features = cells.transposed();
        let mean =
            |feature| features.feature(feature).map(|(_, x)| f64::from(x)).sum::<f64>() / n_cells as f64;
        let means: Vec<f64> = (0..n_features).into_par_iter().map(mean).collect();
        let products = Products { cells, features, means };
        let leading = Leading::of(&products, n_components, EFFORT, seed)?;
        let floor = leading.values[0].max(0.0) * f64::EPSILON * n_cells as f64;
        // What varies along a direction, and how to get from the cells' side to the features'.
        let lengths: Vec<f64> = leading.values.iter().map(|value| value.max(0.0).sqrt()).collect();
        let mut on_cells = leading.vectors;
        for component in 0..n_components {
            let mut scores: Vec<f64> =
                on_cells.iter().skip(component).step_by(n_components).copied().collect();
            orient(&mut scores);
            let is_real = leading.values[component] > floor;
            let factor = if is_real { 1.0 / lengths[component] } else { 0.0 };
            for (cell, score) in scores.into_iter().enumerate() {
                on_cells[cell * n_components + component] = score * factor;
            }
        }
        let directions = products.on_features(&on_cells, n_components);
        let mut offsets = vec![0.0; n_components];
        for (mean, row) in products.means.iter().zip(directions.chunks(n_components)) {
            crate::sparse::add(&mut offsets, *mean, row);
        }
        let variance = |value: &f64| if *value > floor { value / (n_cells - 1) as f64 } else { 0.0 };
        let explained_variance = leading.values.iter().map(variance).collect();
        Ok(Self { n_features, directions, offsets, explained_variance })
    }

    /// How many components were taken.
    pub fn n_components(&self) -> usize {
        self.offsets.len()
    }

    /// Variance along each component (divisor `n_cells - 1`), `[n_components]`, largest first.
    pub fn explained_variance(&self) -> &[f64] {
        &self.explained_variance
    }

    /// Coordinates of cells, those it was fitted to or others: `[n_cells, n_components]`, row-major.
    ///
    /// # Errors
    /// [`Error::OtherFeatures`].
    pub fn project(&self, cells: SparseCells<'_>) -> Result<Vec<f32>> {
        if cells.n_features() != self.n_features {
            let (expected, found) = (self.n_features, cells.n_features());
            return Err(Error::OtherFeatures { expected, found });
        }
        let n = self.n_components();
        let scores = cells.times(&self.directions, n);
        Ok(scores.iter().enumerate().map(|(at, score)| (score - self.offsets[at % n]) as f32).collect())
    }
}

/// The products of all centred cells with all, `[n_cells, n_cells]`.
struct Products<'a> {
    cells: SparseCells<'a>,
    features: SparseFeatures,
    means: Vec<f64>,
}

impl Products<'_> {
    /// The centred features times columns: `[n_features, n]` of `[n_cells, n]`.
    fn on_features(&self, vectors: &[f64], n: usize) -> Vec<f64> {
        let mut sums = vec![0.0; n];
        for row in vectors.chunks(n) {
            crate::sparse::add(&mut sums, 1.0, row);
        }
        let mut product = self.features.times(vectors, n);
        product.par_chunks_mut(n).zip(&self.means).for_each(|(row, mean)| {
            crate::sparse::add(row, -mean, &sums);
        });
        product
    }
}

impl Symmetric for Products<'_> {
    fn order(&self) -> usize {
        self.cells.n_cells()
    }

    fn floor(&self) -> f64 {
        0.0
    }

    fn times(&self, vectors: &[f64], n: usize) -> Vec<f64> {
        let on_features = self.on_features(vectors, n);
        let mut offsets = vec![0.0; n];
        for (mean, row) in self.means.iter().zip(on_features.chunks(n)) {
            crate::sparse::add(&mut offsets, *mean, row);
        }
        let mut product = self.cells.times(&on_features, n);
        product.par_chunks_mut(n).for_each(|row| crate::sparse::add(row, -1.0, &offsets));
        product
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Noise;
    use crate::pca::Pca;

    #[test]
    fn components_are_those_of_the_same_cells_written_out() {
        let mut noise = Noise::new(9);
        for (n_cells, n_features) in [(40, 90), (450, 200)] {
            let (mut pointers, mut features, mut values) = (vec![0], Vec::new(), Vec::new());
            let mut full = vec![0.0_f32; n_cells * n_features];
            for cell in 0..n_cells {
                for feature in 0..n_features {
                    if noise.even() < 0.2 {
                        let value =
                            (1.0 + noise.even() * if (cell + feature) % 5 == 0 { 4.0 } else { 1.0 }) as f32;
                        features.push(feature as u32);
                        values.push(value);
                        full[cell * n_features + feature] = value;
                    }
                }
                pointers.push(values.len());
            }
            let cells = SparseCells::new(&pointers, &features, &values, n_features).unwrap();
            let (sparse, exact) =
                (SparsePca::fit(cells, 4, 1).unwrap(), Pca::fit(&full, n_cells, n_features, 4).unwrap());
            for (found, expected) in sparse.explained_variance().iter().zip(exact.explained_variance()) {
                assert!((found / expected - 1.0).abs() < 1e-4, "{found} is not {expected}");
            }
            for (found, expected) in sparse.project(cells).unwrap().iter().zip(exact.scores()) {
                assert!((found - expected).abs() < 0.02, "{found} is not {expected}");
            }
        }
    }

    #[test]
    fn equal_cells_have_components_of_zero() {
        let cells = SparseCells::new(&[0, 1, 2, 3], &[1, 1, 1], &[2.0; 3], 3).unwrap();
        let pca = SparsePca::fit(cells, 2, 0).unwrap();
        assert_eq!(pca.explained_variance(), [0.0; 2]);
        assert_eq!(pca.project(cells).unwrap(), [0.0; 6]);
        assert!(matches!(SparsePca::fit(cells, 4, 0), Err(Error::BadComponentCount { available: 3, .. })));
    }
}
