//! How strongly two cells at a distance on the map belong together.

/// Points the curve is fitted at, from 0 to three spreads.
const N_POINTS: usize = 300;
const MOST_STEPS: usize = 200;

/// `1 / (1 + a·d^2b)`, the smooth stand-in for "1 up to the smallest distance, then falling exponentially"
/// (McInnes et al. 2018, section 3.2 and appendix C).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Curve {
    pub(super) a: f64,
    pub(super) b: f64,
}

impl Curve {
    /// The curve of least squares, by Levenberg and Marquardt's method.
    pub(super) fn fit(min_distance: f64, spread: f64) -> Self {
        let points: Vec<(f64, f64)> = (0..N_POINTS)
            .map(|at| 3.0 * spread * at as f64 / (N_POINTS - 1) as f64)
            .map(|x| (x, if x < min_distance { 1.0 } else { (-(x - min_distance) / spread).exp() }))
            .collect();
        let mut curve = Self { a: 1.0, b: 1.0 };
        let mut damping = 1e-3;
        let mut error = curve.error(&points);
        for _ in 0..MOST_STEPS {
            let next = curve.stepped(&points, damping);
            let next_error = next.error(&points);
            if next.a > 0.0 && next.b > 0.0 && next_error <= error {
                let is_done = error - next_error <= 1e-15 * error;
                (curve, error, damping) = (next, next_error, damping * 0.3);
                if is_done {
                    break;
                }
            } else {
                damping *= 4.0;
            }
        }
        curve
    }

    fn at(self, x: f64) -> f64 {
        1.0 / (1.0 + self.a * x.powf(2.0 * self.b))
    }

    fn error(self, points: &[(f64, f64)]) -> f64 {
        points.iter().map(|&(x, y)| (self.at(x) - y).powi(2)).sum()
    }

    fn stepped(self, points: &[(f64, f64)], damping: f64) -> Self {
        let (mut aa, mut ab, mut bb, mut a_rest, mut b_rest) = (0.0, 0.0, 0.0, 0.0, 0.0);
        // The curve is 1 at 0 whatever a and b are.
        for &(x, y) in points.iter().filter(|(x, _)| *x > 0.0) {
            let (value, power) = (self.at(x), x.powf(2.0 * self.b));
            let by_a = -power * value * value;
            let by_b = by_a * self.a * 2.0 * x.ln();
            let rest = y - value;
            aa += by_a * by_a;
            ab += by_a * by_b;
            bb += by_b * by_b;
            a_rest += by_a * rest;
            b_rest += by_b * rest;
        }
        let (aa, bb) = (aa * (1.0 + damping), bb * (1.0 + damping));
        let determinant = aa * bb - ab * ab;
        Self {
            a: self.a + (bb * a_rest - ab * b_rest) / determinant,
            b: self.b + (aa * b_rest - ab * a_rest) / determinant,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_is_the_one_umap_learn_fits() {
        // umap-learn 0.5.12: find_ab_params(spread, min_dist).
        for (spread, min_distance, a, b) in [
            (1.0, 0.1, 1.576_943_460_3, 0.895_060_877_9),
            (1.0, 0.0, 1.932_808_397_3, 0.790_494_973_2),
            (1.0, 0.5, 0.583_030_020_3, 1.334_166_992_4),
            (1.5, 0.3, 0.559_549_347_2, 1.003_005_386_3),
            (1.0, 0.99, 0.119_305_299_9, 1.916_390_416_9),
            (3.0, 0.01, 0.335_616_818_6, 0.793_864_076_9),
        ] {
            let curve = Curve::fit(min_distance, spread);
            assert!((curve.a - a).abs() < 1e-5 && (curve.b - b).abs() < 1e-5, "{curve:?} is not {a}, {b}");
        }
    }
}
