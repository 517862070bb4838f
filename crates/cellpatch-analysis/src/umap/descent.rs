//! Moving the cells: neighbours pull, others push (McInnes et al. 2018, algorithm 5).

use super::UmapOptions;
use super::curve::Curve;
use crate::graph::NeighborGraph;
use crate::noise::Noise;

/// No coordinate moves further than this at once, times the learning rate.
const LARGEST_STEP: f32 = 4.0;
/// Keeps the push between cells at one place finite.
const SOFTENING: f32 = 1e-3;

/// Two cells that pull each other now and then.
struct Edge {
    head: u32,
    tail: u32,
    /// Epochs from one pull to the next: 1 for the strongest edges.
    period: f32,
    next: f32,
    /// When the next push is due.
    next_push: f32,
}

/// Moves the cells for that many epochs. They move one after the other, each seeing where the others went: the result
/// depends on the seed and the order of the cells, not on threads.
pub(super) fn run(
    coordinates: &mut [[f32; 2]],
    graph: &NeighborGraph,
    curve: Curve,
    n_epochs: usize,
    options: &UmapOptions,
) {
    let mut edges = edges(graph, n_epochs, options.n_negatives);
    let mut noise = Noise::new(!options.seed);
    let (a, b) = (curve.a as f32, curve.b as f32);
    let pull = |squared: f32| {
        let power = squared.powf(b - 1.0);
        -2.0 * a * b * power / (a * power * squared + 1.0)
    };
    let push = |squared: f32| 2.0 * b / ((SOFTENING + squared) * (a * squared.powf(b) + 1.0));
    let n_cells = coordinates.len() as u32;
    for epoch in 0..n_epochs {
        let rate = 1.0 - epoch as f32 / n_epochs as f32;
        let now = epoch as f32;
        for edge in edges.iter_mut().filter(|edge| edge.next <= now) {
            let (head, tail) = (edge.head as usize, edge.tail as usize);
            let mut place = coordinates[head];
            let other = &mut coordinates[tail];
            let difference = [place[0] - other[0], place[1] - other[1]];
            let squared = difference[0] * difference[0] + difference[1] * difference[1];
            if squared > 0.0 {
                let strength = pull(squared);
                for axis in 0..2 {
                    let step = limited(strength * difference[axis]) * rate;
                    place[axis] += step;
                    other[axis] -= step;
                }
            }
            edge.next += edge.period;
            let push_period = edge.period / options.n_negatives as f32;
            let n_pushes = ((now - edge.next_push) / push_period).max(0.0) as usize;
            for _ in 0..n_pushes {
                let other = noise.below(n_cells);
                if other == edge.head {
                    continue;
                }
                let other = coordinates[other as usize];
                let difference = [place[0] - other[0], place[1] - other[1]];
                let squared = difference[0] * difference[0] + difference[1] * difference[1];
                if squared > 0.0 {
                    let strength = push(squared);
                    for axis in 0..2 {
                        place[axis] += limited(strength * difference[axis]) * rate;
                    }
                }
            }
            edge.next_push += n_pushes as f32 * push_period;
            coordinates[head] = place;
        }
    }
}

/// Both directions of every edge that is due at least once.
fn edges(graph: &NeighborGraph, n_epochs: usize, n_negatives: usize) -> Vec<Edge> {
    let largest = graph.largest_weight();
    let mut edges = Vec::new();
    for head in 0..graph.n_cells() {
        for (tail, weight) in graph.of_cell(head) {
            let period = largest / weight;
            if period > n_epochs as f32 && n_epochs > 10 {
                continue;
            }
            let next_push = period / n_negatives as f32;
            edges.push(Edge { head: head as u32, tail: tail as u32, period, next: period, next_push });
        }
    }
    edges
}

fn limited(step: f32) -> f32 {
    step.clamp(-LARGEST_STEP, LARGEST_STEP)
}
