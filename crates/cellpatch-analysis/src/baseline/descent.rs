//! Finding the minimum: limited-memory quasi-Newton steps, for penalties with a kink too.

use std::collections::VecDeque;

use rayon::prelude::*;

use super::objective::Objective;
use crate::parallel::sum_over_pieces;

/// Steps remembered to guess the curvature from.
const MEMORY: usize = 12;
/// Share of the decrease promised by the slope that a step must keep.
const SUFFICIENT: f64 = 1e-4;
const MOST_HALVINGS: usize = 40;
/// Numbers of one piece of a sum.
const PIECE: usize = 1 << 16;

/// Where a descent ended.
pub(super) struct Minimum {
    pub(super) parameters: Vec<f64>,
    pub(super) value: f64,
    pub(super) n_iterations: usize,
    /// Whether the slope became as small as asked.
    pub(super) has_converged: bool,
}

/// Goes down from a start until no slope is steeper than `tolerance`, or for `most_iterations`.
///
/// This is L-BFGS (Nocedal and Wright 2006, algorithm 7.4) with a backtracking line search, and with a penalty of
/// absolute values its orthant-wise form (Andrew and Gao 2007): within a step no parameter crosses zero, and one at
/// zero leaves it only where the slope outweighs the penalty.
pub(super) fn run(
    objective: &Objective<'_>,
    start: Vec<f64>,
    tolerance: f64,
    most_iterations: usize,
) -> Minimum {
    let kink = Kink { weight: objective.absolute_weight(), n: objective.n_penalized() };
    let mut parameters = start;
    let mut evaluation = objective.evaluate(&parameters);
    let mut gradient = objective.gradient(&parameters, &evaluation);
    let mut steps: VecDeque<Step> = VecDeque::new();
    let mut n_iterations = 0;
    loop {
        let slope = kink.slope(&parameters, &gradient);
        let has_converged = steepest(&slope) <= tolerance;
        if has_converged || n_iterations >= most_iterations {
            return Minimum { parameters, value: evaluation.value, n_iterations, has_converged };
        }
        let mut direction = quasi_newton(&slope, &steps);
        kink.align(&mut direction, &slope);
        if dot(&direction, &slope) >= 0.0 {
            steps.clear();
            direction = slope.iter().map(|x| -x).collect();
        }
        // Without a memory of steps their length is anyone's guess: not longer than the parameters may like.
        let mut length = if steps.is_empty() { (1.0 / dot(&slope, &slope).sqrt()).min(1.0) } else { 1.0 };
        let mut found = None;
        for _ in 0..MOST_HALVINGS {
            let next = kink.stepped(&parameters, &direction, length, &slope);
            let next_evaluation = objective.evaluate(&next);
            let moved: Vec<f64> = next.iter().zip(&parameters).map(|(new, old)| new - old).collect();
            if next_evaluation.value <= evaluation.value + SUFFICIENT * dot(&moved, &slope) {
                found = Some((next, next_evaluation, moved));
                break;
            }
            length /= 2.0;
        }
        let Some((next, next_evaluation, moved)) = found else {
            // Not even the smallest step along the slope itself helps: this is as low as rounding lets it be.
            if steps.is_empty() {
                return Minimum { parameters, value: evaluation.value, n_iterations, has_converged };
            }
            steps.clear();
            continue;
        };
        let next_gradient = objective.gradient(&next, &next_evaluation);
        let turned: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(new, old)| new - old).collect();
        let curvature = dot(&moved, &turned);
        if curvature > f64::EPSILON * dot(&turned, &turned) {
            if steps.len() == MEMORY {
                steps.pop_front();
            }
            steps.push_back(Step { moved, turned, curvature });
        }
        (parameters, evaluation, gradient) = (next, next_evaluation, next_gradient);
        n_iterations += 1;
    }
}

/// The gradient of the objective with that of absolute values: at zero, of the two one-sided slopes the one that leads
/// down, or none.
pub(super) fn slope(objective: &Objective<'_>, parameters: &[f64], gradient: &[f64]) -> Vec<f64> {
    Kink { weight: objective.absolute_weight(), n: objective.n_penalized() }.slope(parameters, gradient)
}

/// The steepest of some slopes.
pub(super) fn steepest(slope: &[f64]) -> f64 {
    slope.iter().fold(0.0, |steepest, x| x.abs().max(steepest))
}

/// A step taken, and how the gradient changed over it.
struct Step {
    moved: Vec<f64>,
    turned: Vec<f64>,
    curvature: f64,
}

/// The penalty's kink at zero: the first `n` parameters pay `weight` times their absolute value.
struct Kink {
    weight: f64,
    n: usize,
}

impl Kink {
    /// The gradient with the penalty's: at zero, of the two one-sided slopes the one that leads down, or none.
    fn slope(&self, parameters: &[f64], gradient: &[f64]) -> Vec<f64> {
        let mut slope = gradient.to_vec();
        if self.weight > 0.0 {
            slope[..self.n].par_iter_mut().zip(parameters).for_each(|(slope, &x)| {
                *slope = if x != 0.0 {
                    *slope + self.weight * x.signum()
                } else {
                    slope.signum() * (slope.abs() - self.weight).max(0.0)
                };
            });
        }
        slope
    }

    /// Takes out of a direction what does not lead down.
    fn align(&self, direction: &mut [f64], slope: &[f64]) {
        if self.weight > 0.0 {
            direction[..self.n].par_iter_mut().zip(slope).for_each(|(step, slope)| {
                if *step * slope >= 0.0 {
                    *step = 0.0;
                }
            });
        }
    }

    /// The parameters after a step; those that would cross zero stop there.
    fn stepped(&self, parameters: &[f64], direction: &[f64], length: f64, slope: &[f64]) -> Vec<f64> {
        let mut next: Vec<f64> =
            parameters.par_iter().zip(direction).map(|(x, step)| x + length * step).collect();
        if self.weight > 0.0 {
            next[..self.n].par_iter_mut().zip(parameters).zip(slope).for_each(|((next, &old), slope)| {
                let side = if old != 0.0 { old } else { -slope };
                if *next * side <= 0.0 {
                    *next = 0.0;
                }
            });
        }
        next
    }
}

/// The slope times the guessed inverse curvature, downwards.
fn quasi_newton(slope: &[f64], steps: &VecDeque<Step>) -> Vec<f64> {
    let mut direction: Vec<f64> = slope.iter().map(|x| -x).collect();
    let mut shares = Vec::with_capacity(steps.len());
    for step in steps.iter().rev() {
        let share = dot(&step.moved, &direction) / step.curvature;
        add_multiple(&mut direction, -share, &step.turned);
        shares.push(share);
    }
    if let Some(last) = steps.back() {
        let scale = last.curvature / dot(&last.turned, &last.turned);
        direction.par_iter_mut().for_each(|x| *x *= scale);
    }
    for (step, share) in steps.iter().zip(shares.into_iter().rev()) {
        let back = dot(&step.turned, &direction) / step.curvature;
        add_multiple(&mut direction, share - back, &step.moved);
    }
    direction
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    sum_over_pieces(a.len(), PIECE, |range| {
        a[range.clone()].iter().zip(&b[range]).map(|(a, b)| a * b).sum::<f64>()
    })
}

fn add_multiple(sum: &mut [f64], factor: f64, other: &[f64]) {
    sum.par_iter_mut().with_min_len(PIECE).zip(other).for_each(|(sum, x)| *sum += factor * x);
}
