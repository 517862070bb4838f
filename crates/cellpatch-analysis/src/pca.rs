//! Principal component analysis: exact, and the same bits on every run.

use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, Mat, MatRef};

use crate::eigen::{SEQUENTIAL, decompose};
use crate::error::{Error, Result};

/// Two magnitudes closer than this (relative) count as equal when a component's sign is chosen, so that
/// rounding does not decide between the two ends of a symmetric cloud.
const SIGN_TIE: f64 = 1e-6;

/// The principal components of a set of cells.
///
/// The features are centred, not scaled: patch features and embeddings share one unit, and scaling would
/// raise the ones that hardly vary.
#[derive(Debug, Clone, PartialEq)]
pub struct Pca {
    scores: Vec<f32>,
    n_components: usize,
    explained_variance: Vec<f64>,
    explained_variance_ratio: Vec<f64>,
}

impl Pca {
    /// Takes the first `n_components` principal components of `values`.
    ///
    /// - `values`: `[n_cells, n_features]`, row-major
    /// - `n_components`: 1 to the smaller of `n_cells` and `n_features`
    ///
    /// Whichever is smaller of the covariance `XᵀX` and the Gram matrix `XXᵀ` of the centred values is
    /// decomposed in double precision, so the cost is `O(n_cells · n_features · m + m³)` with `m` the smaller
    /// side: about two seconds for 5,000 cells of 2,048 features on one core of a recent machine.
    ///
    /// The sign of a component, which the mathematics leaves open, is the one that makes the largest score in
    /// magnitude positive (of several equal ones, that of the first cell).
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] when `values` does not fill the shape, [`Error::TooFewCells`] below two cells,
    /// [`Error::BadComponentCount`], [`Error::NotFinite`] for NaN and infinities, and [`Error::NoConvergence`].
    pub fn fit(values: &[f32], n_cells: usize, n_features: usize, n_components: usize) -> Result<Self> {
        if n_cells.checked_mul(n_features) != Some(values.len()) {
            return Err(Error::ShapeMismatch { n_values: values.len(), n_cells, n_features });
        }
        if n_cells < 2 {
            return Err(Error::TooFewCells { n_cells });
        }
        let available = n_cells.min(n_features);
        if n_components == 0 || n_components > available {
            return Err(Error::BadComponentCount { requested: n_components, available });
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let (cell, feature) = (at / n_features, at % n_features);
            return Err(Error::NotFinite { cell, feature, value: values[at] });
        }

        let centred = centred(values, n_cells, n_features);
        let total: f64 = centred.col_iter().map(|column| column.squared_norm_l2()).sum();
        let by_feature = n_features <= n_cells;
        let products = if by_feature {
            gram(centred.transpose(), centred.as_ref())
        } else {
            gram(centred.as_ref(), centred.transpose())
        };
        let (eigenvalues, eigenvectors) = decompose(products.as_ref())?;

        // What is left of a direction without variance is rounding; drawn, it would look like structure.
        let floor = total * f64::EPSILON * available as f64;
        let mut pca = Self {
            scores: vec![0.0; n_cells * n_components],
            n_components,
            explained_variance: vec![0.0; n_components],
            explained_variance_ratio: vec![0.0; n_components],
        };
        for component in 0..n_components {
            // The eigenvalues come in ascending order.
            let at = available - 1 - component;
            let sum_of_squares = eigenvalues[at];
            if sum_of_squares <= floor {
                break;
            }
            let direction = eigenvectors.col(at);
            let mut scores: Vec<f64> = if by_feature {
                (&centred * direction).iter().copied().collect()
            } else {
                direction.iter().map(|value| value * sum_of_squares.sqrt()).collect()
            };
            orient(&mut scores);
            for (cell, score) in scores.into_iter().enumerate() {
                pca.scores[cell * n_components + component] = score as f32;
            }
            pca.explained_variance[component] = sum_of_squares / (n_cells - 1) as f64;
            pca.explained_variance_ratio[component] = sum_of_squares / total;
        }
        Ok(pca)
    }

    /// Coordinates of the cells: `[n_cells, n_components]`, row-major, in the unit of the features.
    pub fn scores(&self) -> &[f32] {
        &self.scores
    }

    /// How many components were taken.
    pub fn n_components(&self) -> usize {
        self.n_components
    }

    /// How many cells there are.
    pub fn n_cells(&self) -> usize {
        self.scores.len() / self.n_components
    }

    /// One cell's coordinates, `[n_components]`, or nothing where there is no such cell.
    pub fn cell(&self, cell: usize) -> Option<&[f32]> {
        self.scores.chunks_exact(self.n_components).nth(cell)
    }

    /// Variance along each component (divisor `n_cells - 1`), `[n_components]`, largest first.
    pub fn explained_variance(&self) -> &[f64] {
        &self.explained_variance
    }

    /// Share of the total variance along each component, `[n_components]`, each 0 to 1.
    /// All zero when the cells do not differ at all.
    pub fn explained_variance_ratio(&self) -> &[f64] {
        &self.explained_variance_ratio
    }
}

/// The values as `[n_cells, n_features]` in double precision, each feature's mean taken out.
fn centred(values: &[f32], n_cells: usize, n_features: usize) -> Mat<f64> {
    let mut means = vec![0.0_f64; n_features];
    for row in values.chunks_exact(n_features) {
        for (mean, &value) in means.iter_mut().zip(row) {
            *mean += f64::from(value);
        }
    }
    for mean in &mut means {
        *mean /= n_cells as f64;
    }
    Mat::from_fn(n_cells, n_features, |cell, feature| {
        f64::from(values[cell * n_features + feature]) - means[feature]
    })
}

/// The lower triangle of `left · right`, where `right` is the transpose of `left`.
fn gram(left: MatRef<'_, f64>, right: MatRef<'_, f64>) -> Mat<f64> {
    let order = left.nrows();
    let mut product = Mat::zeros(order, order);
    triangular::matmul(
        product.as_mut(),
        BlockStructure::TriangularLower,
        Accum::Replace,
        left,
        BlockStructure::Rectangular,
        right,
        BlockStructure::Rectangular,
        1.0,
        SEQUENTIAL,
    );
    product
}

/// Turns the scores so that the first of the largest in magnitude is positive.
pub(crate) fn orient(scores: &mut [f64]) {
    let largest = scores.iter().fold(0.0_f64, |largest, score| largest.max(score.abs()));
    let decisive = scores.iter().find(|score| score.abs() >= largest * (1.0 - SIGN_TIE));
    if decisive.is_some_and(|&score| score < 0.0) {
        for score in scores {
            *score = -*score;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pseudo-random values in -1..1 from a linear congruential generator.
    fn noise(n: usize) -> Vec<f32> {
        let mut state = 0x2545_F491_u64;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                ((state >> 40) as f32) / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    fn column(pca: &Pca, component: usize) -> Vec<f64> {
        pca.scores().iter().skip(component).step_by(pca.n_components()).map(|&x| f64::from(x)).collect()
    }

    fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() <= tolerance, "{found} is not {expected}");
        }
    }

    #[test]
    fn cells_on_a_line_have_one_component_along_it() {
        // (3, 4)·t for t = -2, 0, 2, moved off the origin: the unit direction is (0.6, 0.8), so scores are 5t.
        let pca = Pca::fit(&[10.0 - 6.0, 1.0 - 8.0, 10.0, 1.0, 10.0 + 6.0, 1.0 + 8.0], 3, 2, 2).unwrap();
        assert_close(&column(&pca, 0), &[10.0, 0.0, -10.0], 1e-5);
        assert_close(&column(&pca, 1), &[0.0, 0.0, 0.0], 0.0);
        assert_close(pca.explained_variance(), &[100.0, 0.0], 1e-9);
        assert_close(pca.explained_variance_ratio(), &[1.0, 0.0], 1e-12);
    }

    #[test]
    fn an_axis_aligned_cross_splits_its_variance_as_computed_by_hand() {
        // Sums of squares 2·9 and 2·1 along the axes, so shares 0.9 and 0.1, variances 18/3 and 2/3.
        let pca = Pca::fit(&[3.0, 0.0, -3.0, 0.0, 0.0, 1.0, 0.0, -1.0], 4, 2, 2).unwrap();
        assert_close(&column(&pca, 0), &[3.0, -3.0, 0.0, 0.0], 1e-6);
        assert_close(&column(&pca, 1), &[0.0, 0.0, 1.0, -1.0], 1e-6);
        assert_close(pca.explained_variance(), &[6.0, 2.0 / 3.0], 1e-12);
        assert_close(pca.explained_variance_ratio(), &[0.9, 0.1], 1e-12);
    }

    #[test]
    fn a_correlated_pair_of_features_has_the_known_eigenvalues() {
        // Covariance [[2, 1], [1, 2]] times 4 cells has the eigenvalues 3 and 1 (times 4).
        let (a, b) = (1.5_f32.sqrt(), 0.5_f32.sqrt());
        let cells = [[a, a], [-a, -a], [b, -b], [-b, b]]
            .concat()
            .iter()
            .map(|x| x * 2.0_f32.sqrt())
            .collect::<Vec<_>>();
        let pca = Pca::fit(&cells, 4, 2, 2).unwrap();
        assert_close(pca.explained_variance(), &[12.0 / 3.0, 4.0 / 3.0], 1e-5);
        assert_close(pca.explained_variance_ratio(), &[0.75, 0.25], 1e-6);
    }

    #[test]
    fn the_gram_matrix_and_the_covariance_give_the_same_components() {
        // Features that are all zero change nothing but push the decomposition from one side to the other.
        let (n_cells, n_features, padded) = (30, 20, 50);
        let values = noise(n_cells * n_features);
        let mut wide = Vec::new();
        for row in values.chunks_exact(n_features) {
            wide.extend_from_slice(row);
            wide.resize(wide.len() + padded - n_features, 0.0);
        }
        let by_feature = Pca::fit(&values, n_cells, n_features, 10).unwrap();
        let by_cell = Pca::fit(&wide, n_cells, padded, 10).unwrap();
        for component in 0..10 {
            assert_close(&column(&by_cell, component), &column(&by_feature, component), 1e-5);
        }
        assert_close(by_cell.explained_variance_ratio(), by_feature.explained_variance_ratio(), 1e-12);
    }

    #[test]
    fn scores_are_centred_uncorrelated_and_carry_the_stated_variance() {
        let pca = Pca::fit(&noise(60 * 12), 60, 12, 12).unwrap();
        for i in 0..12 {
            let scores = column(&pca, i);
            assert!(scores.iter().sum::<f64>().abs() < 1e-4);
            for j in 0..12 {
                let product: f64 = scores.iter().zip(column(&pca, j)).map(|(a, b)| a * b).sum();
                let expected = if i == j { pca.explained_variance()[i] } else { 0.0 };
                assert!((product / 59.0 - expected).abs() < 1e-5, "components {i} and {j}: {product}");
            }
        }
        assert!((pca.explained_variance_ratio().iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(pca.explained_variance().is_sorted_by(|a, b| a >= b));
    }

    #[test]
    fn distances_between_cells_survive_when_all_components_are_kept() {
        let (n_cells, n_features) = (12, 40);
        let values = noise(n_cells * n_features);
        let pca = Pca::fit(&values, n_cells, n_features, n_cells).unwrap();
        let squared =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
        for i in 0..n_cells {
            for j in 0..i {
                let before =
                    squared(&values[i * n_features..][..n_features], &values[j * n_features..][..n_features]);
                let after = squared(pca.cell(i).unwrap(), pca.cell(j).unwrap());
                assert!((before - after).abs() < 1e-4, "cells {i} and {j}: {before} became {after}");
            }
        }
    }

    #[test]
    fn turning_the_cells_around_does_not_turn_the_picture() {
        let values = noise(50 * 8);
        let turned: Vec<f32> = values.iter().map(|value| -value).collect();
        let pca = Pca::fit(&values, 50, 8, 3).unwrap();
        assert_eq!(pca, Pca::fit(&turned, 50, 8, 3).unwrap());
        assert_eq!(pca, Pca::fit(&values, 50, 8, 3).unwrap());
    }

    #[test]
    fn equal_cells_and_a_single_feature_are_no_special_case() {
        let equal = Pca::fit(&[0.1; 12], 4, 3, 2).unwrap();
        assert_eq!(equal.scores(), [0.0; 8]);
        assert_eq!(equal.explained_variance_ratio(), [0.0; 2]);
        let single = Pca::fit(&[1.0, 2.0, 6.0], 3, 1, 1).unwrap();
        assert_close(&column(&single, 0), &[-2.0, -1.0, 3.0], 1e-6);
    }

    #[test]
    fn bad_matrices_are_refused_with_the_place() {
        assert!(matches!(
            Pca::fit(&[1.0; 5], 2, 3, 1),
            Err(Error::ShapeMismatch { n_values: 5, n_cells: 2, n_features: 3 })
        ));
        assert!(matches!(Pca::fit(&[], usize::MAX, 2, 1), Err(Error::ShapeMismatch { .. })));
        assert!(matches!(Pca::fit(&[1.0; 3], 1, 3, 1), Err(Error::TooFewCells { n_cells: 1 })));
        assert!(matches!(Pca::fit(&[], 0, 3, 1), Err(Error::TooFewCells { n_cells: 0 })));
        assert!(matches!(
            Pca::fit(&[], 4, 0, 1),
            Err(Error::BadComponentCount { requested: 1, available: 0 })
        ));
        for requested in [0, 3] {
            assert!(matches!(
                Pca::fit(&[1.0; 6], 3, 2, requested),
                Err(Error::BadComponentCount { available: 2, .. })
            ));
        }
        for value in [f32::NAN, f32::INFINITY] {
            let found = Pca::fit(&[1.0, 2.0, 3.0, 4.0, 5.0, value], 3, 2, 1);
            assert!(matches!(found, Err(Error::NotFinite { cell: 2, feature: 1, .. })), "{found:?}");
        }
    }
}
