//! Local regression of one number on another (Cleveland and Devlin 1988; Cleveland and Grosse 1991).

/// Share of the points of a neighbourhood above which a stretch of the axis is cut in two.
const CELL: f64 = 0.2;
/// By how much the first and the last vertex lie beyond the points, relative to their range.
const MARGIN: f64 = 0.005;
/// A direction of a fit whose singular value is smaller than this share of the largest one is left out.
const SMALLEST: f64 = 100.0 * f64::EPSILON;
/// A local fit is a parabola.
pub(super) const N_TERMS: usize = 3;

/// A smooth curve through points, as the `loess` of Cleveland, Grosse and Shyu computes it with a parabola in each
/// neighbourhood: local fits at a few vertices and, between two of them, the cubic polynomial that takes over their
/// values and slopes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Loess {
    /// In ascending order.
    vertices: Vec<Vertex>,
}

/// A place where a parabola was fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Vertex {
    x: f64,
    value: f64,
    slope: f64,
}

impl Loess {
    /// Fits the curve to points with finite coordinates, of which there are at least [`N_TERMS`].
    ///
    /// - `span`: the share of points that take part in a local fit, 0 to 1, by the tricube weight of their distance.
    pub(super) fn fit(x: &[f64], y: &[f64], span: f64) -> Self {
        let n = x.len();
        let n_near = ((n as f64 * span + 1e-5).floor() as usize).clamp(N_TERMS.min(n), n);
        let mut sorted = x.to_vec();
        sorted.sort_by(f64::total_cmp);
        let most = (n as f64 * span * CELL).floor() as usize;
        let places = places(&sorted, most);
        if sorted.first() == sorted.last() {
            // One place has one value, and no fit tells it from a slope.
            let value = y.iter().sum::<f64>() / n.max(1) as f64;
            return Self { vertices: places.iter().map(|&x| Vertex { x, value, slope: 0.0 }).collect() };
        }
        let vertex = |&place: &f64| {
            let (value, slope) = local_fit(x, y, place, n_near);
            Vertex { x: place, value, slope }
        };
        Self { vertices: places.iter().map(vertex).collect() }
    }

    /// The curve's value, for `x` among the points.
    pub(super) fn at(&self, x: f64) -> f64 {
        let after = self.vertices.partition_point(|vertex| vertex.x < x).clamp(1, self.vertices.len() - 1);
        let (left, right) = (self.vertices[after - 1], self.vertices[after]);
        let width = right.x - left.x;
        let h = (x - left.x) / width;
        let (rest, bow) = (1.0 - h, h * (1.0 - h));
        left.value * rest * rest * (1.0 + 2.0 * h)
            + right.value * h * h * (3.0 - 2.0 * h)
            + width * bow * (left.slope * rest - right.slope * h)
    }
}

/// The vertices: both ends, and medians until no stretch between two has more than `most` points.
fn places(sorted: &[f64], most: usize) -> Vec<f64> {
    let (Some(&low), Some(&high)) = (sorted.first(), sorted.last()) else { return Vec::new() };
    let room = (high - low).max(low.abs().max(high.abs()) * 1e-10 + 1e-30) * MARGIN;
    let mut places = vec![low - room, high + room];
    let mut stretches = vec![(0, sorted.len())];
    while let Some((from, to)) = stretches.pop() {
        if to - from <= most.max(1) {
            continue;
        }
        if let Some(cut) = cut(&sorted[from..to]) {
            let at = from + cut;
            places.push(sorted[at - 1]);
            stretches.extend([(from, at), (at, to)]);
        }
    }
    places.sort_by(f64::total_cmp);
    places.dedup();
    places
}

/// Where points in ascending order are cut in two halves, as near to the middle as points that are equal allow.
fn cut(sorted: &[f64]) -> Option<usize> {
    let middle = sorted.len().div_ceil(2);
    let is_cut = |at: usize| at > 0 && at < sorted.len() && sorted[at - 1] != sorted[at];
    (0..sorted.len()).find_map(|step| {
        let above = middle + step;
        // Upwards before downwards.
        [Some(above), middle.checked_sub(step)].into_iter().flatten().find(|&at| is_cut(at))
    })
}

/// Value and slope at a place of the parabola that fits the `n_near` points around it best.
fn local_fit(x: &[f64], y: &[f64], place: f64, n_near: usize) -> (f64, f64) {
    let mut distances: Vec<f64> = x.iter().map(|x| (x - place).abs()).collect();
    let at = n_near.clamp(1, x.len()) - 1;
    let reach = *distances.select_nth_unstable_by(at, f64::total_cmp).1;
    // What lies at the end of the reach has no weight. Where that is all of the nearest, the next beyond must do.
    let reach = if distances.iter().any(|distance| *distance < reach) {
        reach
    } else {
        2.0 * distances.iter().copied().filter(|distance| *distance > reach).fold(f64::INFINITY, f64::min)
    };
    let mut rows: Vec<[f64; N_TERMS]> = Vec::new();
    let mut targets = Vec::new();
    for (x, y) in x.iter().zip(y) {
        let offset = x - place;
        let share = if reach.is_finite() { offset.abs() / reach } else { 0.0 };
        if share < 1.0 {
            let weight = (1.0 - share.powi(3)).powi(3).sqrt();
            rows.push([weight, weight * offset, weight * offset * offset]);
            targets.push(weight * y);
        }
    }
    let [value, slope, _] = least_squares(rows, &targets);
    (value, slope)
}

/// The shortest of the vectors that come closest to `rows · vector = targets`, its columns first scaled to length 1.
///
/// Columns are turned about each other in pairs until all are at right angles (Hestenes 1958): their lengths are the
/// singular values then.
fn least_squares(mut rows: Vec<[f64; N_TERMS]>, targets: &[f64]) -> [f64; N_TERMS] {
    let products =
        |rows: &[[f64; N_TERMS]], i: usize, j: usize| rows.iter().map(|row| row[i] * row[j]).sum::<f64>();
    let mut scales = [0.0; N_TERMS];
    for (at, scale) in scales.iter_mut().enumerate() {
        let length = products(&rows, at, at).sqrt();
        *scale = if length > 0.0 { length.recip() } else { 0.0 };
    }
    for row in &mut rows {
        for (x, scale) in row.iter_mut().zip(scales) {
            *x *= scale;
        }
    }
    let mut turns = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    for _ in 0..30 {
        let mut is_right = true;
        for (i, j) in [(0, 1), (0, 2), (1, 2)] {
            let [a, b, c] = [products(&rows, i, i), products(&rows, j, j), products(&rows, i, j)];
            if c.abs() <= f64::EPSILON * (a * b).sqrt() {
                continue;
            }
            is_right = false;
            let zeta = (b - a) / (2.0 * c);
            let tangent = zeta.signum() / (zeta.abs() + zeta.hypot(1.0));
            let cosine = tangent.hypot(1.0).recip();
            let sine = cosine * tangent;
            for row in rows.iter_mut().chain(&mut turns) {
                (row[i], row[j]) = (cosine * row[i] - sine * row[j], sine * row[i] + cosine * row[j]);
            }
        }
        if is_right {
            break;
        }
    }
    let mut solution = [0.0; N_TERMS];
    let squares = [0, 1, 2].map(|at| products(&rows, at, at));
    let largest = squares.into_iter().fold(0.0, f64::max);
    for (at, square) in squares.into_iter().enumerate() {
        if square.sqrt() > SMALLEST * largest.sqrt() {
            let along: f64 = rows.iter().zip(targets).map(|(row, target)| row[at] * target).sum();
            for (x, turn) in solution.iter_mut().zip(turns) {
                *x += turn[at] * along / square;
            }
        }
    }
    for (x, scale) in solution.iter_mut().zip(scales) {
        *x *= scale;
    }
    solution
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// What scikit-misc makes of some points: see `tests/expected/make_variable_genes.py`.
    #[derive(Deserialize)]
    struct Curve {
        name: String,
        span: f64,
        x: Vec<f64>,
        y: Vec<f64>,
        fitted: Vec<f64>,
    }

    #[test]
    fn curves_are_those_of_cleveland_grosse_and_shyu() {
        let curves: Vec<Curve> =
            serde_json::from_str(include_str!("../../tests/expected/loess.json")).unwrap();
        for Curve { name, span, x, y, fitted } in curves {
            let loess = Loess::fit(&x, &y, span);
            for (x, expected) in x.into_iter().zip(fitted) {
                let found = loess.at(x);
                assert!((found - expected).abs() < 1e-9, "{name} at {x}: {found} is not {expected}");
            }
        }
    }

    #[test]
    fn a_parabola_is_its_own_curve() {
        let x: Vec<f64> = (0..50).map(f64::from).collect();
        let y: Vec<f64> = x.iter().map(|x| 3.0 - 0.5 * x + 0.01 * x * x).collect();
        let loess = Loess::fit(&x, &y, 0.4);
        // Between vertices a cubic polynomial takes over values and slopes, so nothing is lost.
        assert!(x.iter().zip(&y).all(|(x, y)| (loess.at(*x) - y).abs() < 1e-9));
    }

    #[test]
    fn points_at_one_place_have_their_mean() {
        let loess = Loess::fit(&[2.0; 4], &[1.0, 2.0, 3.0, 6.0], 0.5);
        assert!((loess.at(2.0) - 3.0).abs() < 1e-9, "{loess:?}");
        // Most lie at one place, so that the nearest have no other beside them.
        let x = [vec![0.0; 20], vec![1.0, 2.0]].concat();
        let y = [vec![5.0; 20], vec![7.0, 9.0]].concat();
        let loess = Loess::fit(&x, &y, 0.3);
        assert!((loess.at(0.0) - 5.0).abs() < 1e-6 && loess.at(1.5).is_finite());
    }
}
