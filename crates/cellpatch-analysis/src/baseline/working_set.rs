//! Going down along the few features that matter.

use super::descent::{self, Minimum, slope, steepest};
use super::objective::Objective;

/// Each round goes down until its slopes are this share of what they were, unless less is asked for.
const ROUND: f64 = 0.1;
/// Features that a round may take in, or as many as have weights already where that is more.
const FEWEST_NEW: usize = 256;

/// [`descent::run`] for a penalty of absolute values, which leaves most features without weight: rounds among the
/// features that have weights or would get some, each on a matrix of those alone, until a look at all features finds no
/// slope steeper than `tolerance`. The minimum is the same, and all features are looked at a few times instead of at
/// every step.
pub(super) fn run(
    objective: &Objective<'_>,
    start: Vec<f64>,
    tolerance: f64,
    most_iterations: usize,
) -> Minimum {
    let n = objective.n_classes();
    let n_features = objective.n_penalized() / n;
    let mut parameters = start;
    let mut n_iterations = 0;
    loop {
        let evaluation = objective.evaluate(&parameters);
        let slope = slope(objective, &parameters, &objective.gradient(&parameters, &evaluation));
        let left = steepest(&slope);
        let has_converged = left <= tolerance;
        let end = |parameters, n_iterations, has_converged| Minimum {
            parameters,
            value: evaluation.value,
            n_iterations,
            has_converged,
        };
        if has_converged || n_iterations >= most_iterations {
            return end(parameters, n_iterations, has_converged);
        }
        let features = worth_moving(&parameters[..n_features * n], &slope, n, tolerance);
        let kept = objective.cells().keeping(&features);
        let rows = || features.iter().copied().chain([n_features]);
        let small = rows().flat_map(|row| parameters[row * n..][..n].iter().copied()).collect();
        // A hair below what is asked for, so that rounding in the large matrix does not call for a round more.
        let goal = (ROUND * left).max(0.9 * tolerance);
        let minimum =
            descent::run(&objective.with(kept.cells()), small, goal, most_iterations - n_iterations);
        if minimum.n_iterations == 0 {
            return end(parameters, n_iterations, has_converged);
        }
        n_iterations += minimum.n_iterations;
        for (row, weights) in rows().zip(minimum.parameters.chunks(n)) {
            parameters[row * n..][..n].copy_from_slice(weights);
        }
    }
}

/// The features with a weight, and of those that slopes call for the ones they call for most, in ascending order.
fn worth_moving(weights: &[f64], slope: &[f64], n: usize, tolerance: f64) -> Vec<usize> {
    let (mut with_weight, mut called_for) = (Vec::new(), Vec::new());
    for (feature, (weights, slope)) in weights.chunks(n).zip(slope.chunks(n)).enumerate() {
        let steepness = steepest(slope);
        if weights.iter().any(|weight| *weight != 0.0) {
            with_weight.push(feature);
        } else if steepness > tolerance {
            called_for.push((feature, steepness));
        }
    }
    called_for.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    called_for.truncate(FEWEST_NEW.max(with_weight.len()));
    with_weight.extend(called_for.into_iter().map(|(feature, _)| feature));
    with_weight.sort_unstable();
    with_weight
}
