//! Where the cells stand before they are moved: the better the start, the less has to be untangled.

use super::{Start, UmapOptions};
use crate::cells::Cells;
use crate::eigen::{Effort, Leading};
use crate::error::Result;
use crate::graph::{NeighborGraph, Normalized};
use crate::noise::Noise;
use crate::pca::Pca;

/// Side of the square the start fills, and the noise that keeps equal cells from moving as one.
const SIDE: f64 = 10.0;
const JITTER: f64 = 1e-4;

/// A start is to be roughly right: the cells are moved anyway.
const EFFORT: Effort = Effort { tolerance: 1e-5, most_rounds: 40 };

/// A component of fewer cells has no shape to speak of.
const FEWEST_WITH_SHAPE: usize = 4;

/// First coordinates, `[n_cells]`, within a square of side 10.
pub(super) fn place(cells: Cells<'_>, graph: &NeighborGraph, options: &UmapOptions) -> Result<Vec<[f32; 2]>> {
    let mut noise = Noise::new(options.seed);
    let places = match options.start {
        Start::Spectral => by_component(cells, graph, &mut noise, options.seed)?,
        Start::PrincipalComponents => principal(cells)?,
    };
    let largest = largest_magnitude(&places);
    let scale = if largest > 0.0 { SIDE / largest } else { 1.0 };
    let jittered: Vec<[f64; 2]> =
        places.into_iter().map(|place| place.map(|x| x * scale + JITTER * noise.normal())).collect();
    let ends = [0, 1].map(|axis| {
        let values = || jittered.iter().map(|place| place[axis]);
        (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max))
    });
    let in_square = |place: &[f64; 2]| {
        [0, 1].map(|axis| {
            let (low, high) = ends[axis];
            (SIDE * (place[axis] - low) / (high - low).max(f64::MIN_POSITIVE)) as f32
        })
    };
    Ok(jittered.iter().map(in_square).collect())
}

/// Each component by its own eigenvectors, in a circle that touches that of its nearest neighbour; the circles' middles
/// lie as the components' means do.
fn by_component(
    cells: Cells<'_>,
    graph: &NeighborGraph,
    noise: &mut Noise,
    seed: u64,
) -> Result<Vec<[f64; 2]>> {
    let components = graph.components();
    if let [_] = components.as_slice() {
        return spectral(graph, noise, seed);
    }
    let middles = middles(cells, &components)?;
    let mut places = vec![[0.0; 2]; cells.n_cells()];
    for (at, component) in components.iter().enumerate() {
        let distance = |other: &[f64; 2]| (other[0] - middles[at][0]).hypot(other[1] - middles[at][1]);
        let nearest = middles.iter().map(distance).filter(|x| *x > 0.0).fold(f64::INFINITY, f64::min);
        let radius = if nearest.is_finite() { nearest / 2.0 } else { 1.0 };
        let shape = spectral(&graph.part(component), noise, seed)?;
        let scale = radius / largest_magnitude(&shape).max(f64::MIN_POSITIVE);
        for (&cell, place) in component.iter().zip(shape) {
            places[cell] = [0, 1].map(|axis| middles[at][axis] + scale * place[axis]);
        }
    }
    Ok(places)
}

/// The second and third eigenvector of a connected graph; the first is the same for every graph.
fn spectral(graph: &NeighborGraph, noise: &mut Noise, seed: u64) -> Result<Vec<[f64; 2]>> {
    if graph.n_cells() < FEWEST_WITH_SHAPE {
        return Ok((0..graph.n_cells()).map(|_| [noise.even() - 0.5, noise.even() - 0.5]).collect());
    }
    let leading = Leading::of(&Normalized::new(graph), 3, EFFORT, seed)?;
    Ok(leading.vectors.chunks(3).map(|row| [row[1], row[2]]).collect())
}

fn principal(cells: Cells<'_>) -> Result<Vec<[f64; 2]>> {
    let (n_cells, n_features) = (cells.n_cells(), cells.n_features());
    let n_components = n_cells.min(n_features).min(2);
    if n_cells < 2 || n_components == 0 {
        return Ok(vec![[0.0; 2]; n_cells]);
    }
    let pca = Pca::fit(cells.values(), n_cells, n_features, n_components)?;
    let place = |scores: &[f32]| [f64::from(scores[0]), scores.get(1).copied().map_or(0.0, f64::from)];
    Ok(pca.scores().chunks(n_components).map(place).collect())
}

/// The components' means in the plane of their principal components, or around a circle where they are all the same.
fn middles(cells: Cells<'_>, components: &[Vec<usize>]) -> Result<Vec<[f64; 2]>> {
    let n_features = cells.n_features();
    let mut means = Vec::with_capacity(components.len() * n_features);
    for component in components {
        let mut sums = vec![0.0_f64; n_features];
        for &cell in component {
            for (sum, &x) in sums.iter_mut().zip(cells.cell(cell)) {
                *sum += f64::from(x);
            }
        }
        means.extend(sums.into_iter().map(|sum| (sum / component.len() as f64) as f32));
    }
    let mut middles = principal(Cells::new(&means, components.len(), n_features)?)?;
    if largest_magnitude(&middles) == 0.0 {
        let turn = |at: usize| std::f64::consts::TAU * at as f64 / components.len() as f64;
        middles = (0..components.len()).map(|at| [turn(at).cos(), turn(at).sin()]).collect();
    }
    Ok(middles)
}

fn largest_magnitude(places: &[[f64; 2]]) -> f64 {
    places.iter().flatten().fold(0.0, |largest, x| x.abs().max(largest))
}
