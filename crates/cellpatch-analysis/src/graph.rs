//! The fuzzy graph of neighbours.

use rayon::prelude::*;

use crate::eigen::Symmetric;
use crate::neighbors::Neighbors;

/// No bandwidth is narrower than this share of the mean distance: equal cells would otherwise know only each other.
const NARROWEST: f64 = 1e-3;
/// Halvings of the bandwidth's bracket; 64 leave nothing of a double's digits.
const HALVINGS: usize = 64;

/// How strongly cells belong together, as rows of neighbours. Symmetric, each weight above 0 and at most 1.
///
/// It is the graph that maps are drawn by and groups taken from: the `connectivities` of scanpy's `pp.neighbors`, whose
/// `n_neighbors` counts the cell itself and is one more than that of [`Neighbors`].
#[derive(Debug, Clone, PartialEq)]
pub struct NeighborGraph {
    starts: Vec<usize>,
    neighbors: Vec<u32>,
    weights: Vec<f32>,
}

impl NeighborGraph {
    /// The fuzzy union of each cell's view of its neighbours (McInnes et al. 2018, algorithms 1 to 3).
    pub fn of(neighbors: &Neighbors) -> Self {
        let n_cells = neighbors.n_cells();
        let all = (0..n_cells).flat_map(|cell| neighbors.distances(cell));
        let n_distances = n_cells * neighbors.n_neighbors();
        let mean = all.map(|&distance| f64::from(distance)).sum::<f64>() / n_distances.max(1) as f64;
        let views: Vec<Vec<f32>> =
            (0..n_cells).into_par_iter().map(|cell| view(neighbors.distances(cell), mean)).collect();
        // Who sees a cell, beside whom the cell sees; both in ascending order of the other's number.
        let mut seen_by = vec![Vec::new(); n_cells];
        for (cell, view) in views.iter().enumerate() {
            for (&near, &weight) in neighbors.of(cell).iter().zip(view) {
                seen_by[near as usize].push((cell as u32, weight));
            }
        }
        let rows: Vec<Vec<(u32, f32)>> = (0..n_cells)
            .into_par_iter()
            .map(|cell| {
                let mut sees: Vec<_> =
                    neighbors.of(cell).iter().copied().zip(views[cell].iter().copied()).collect();
                sees.sort_unstable_by_key(|(near, _)| *near);
                united(&sees, &seen_by[cell])
            })
            .collect();
        let mut graph = Self { starts: vec![0], neighbors: Vec::new(), weights: Vec::new() };
        for row in rows {
            for (near, weight) in row {
                graph.neighbors.push(near);
                graph.weights.push(weight);
            }
            graph.starts.push(graph.neighbors.len());
        }
        graph
    }

    /// How many cells there are.
    pub fn n_cells(&self) -> usize {
        self.starts.len() - 1
    }

    /// A cell's neighbours in ascending order, each with its weight; none for a cell that is not there.
    pub fn of_cell(&self, cell: usize) -> impl Iterator<Item = (usize, f32)> {
        let row = self.starts.get(cell..cell + 2).map_or(0..0, |ends| ends[0]..ends[1]);
        self.neighbors[row.clone()].iter().map(|near| *near as usize).zip(self.weights[row].iter().copied())
    }

    /// The largest weight, 0 without edges.
    pub(crate) fn largest_weight(&self) -> f32 {
        self.weights.iter().copied().fold(0.0, f32::max)
    }

    /// Cells that hang together, each group in ascending order, the groups by their first cell.
    pub(crate) fn components(&self) -> Vec<Vec<usize>> {
        let mut is_found = vec![false; self.n_cells()];
        let mut components = Vec::new();
        for first in 0..self.n_cells() {
            if is_found[first] {
                continue;
            }
            is_found[first] = true;
            let mut component = vec![first];
            let mut at = 0;
            while at < component.len() {
                for (near, _) in self.of_cell(component[at]) {
                    if !is_found[near] {
                        is_found[near] = true;
                        component.push(near);
                    }
                }
                at += 1;
            }
            component.sort_unstable();
            components.push(component);
        }
        components
    }

    /// The part of the graph that a component makes up, its cells numbered anew in their order.
    pub(crate) fn part(&self, component: &[usize]) -> Self {
        let mut numbers = vec![u32::MAX; self.n_cells()];
        for (number, &cell) in component.iter().enumerate() {
            numbers[cell] = number as u32;
        }
        let mut part = Self { starts: vec![0], neighbors: Vec::new(), weights: Vec::new() };
        for &cell in component {
            for (near, weight) in self.of_cell(cell).filter(|(near, _)| numbers[*near] != u32::MAX) {
                part.neighbors.push(numbers[near]);
                part.weights.push(weight);
            }
            part.starts.push(part.neighbors.len());
        }
        part
    }

    /// What each cell's weights add up to.
    pub(crate) fn degrees(&self) -> Vec<f64> {
        (0..self.n_cells())
            .map(|cell| self.of_cell(cell).map(|(_, weight)| f64::from(weight)).sum())
            .collect()
    }
}

/// How strongly a cell belongs to each of its neighbours: 1 up to the nearest that is not its equal, then falling with
/// a bandwidth at which all of them together, itself counted, amount to the logarithm of their number to base 2.
fn view(distances: &[f32], mean_of_all: f64) -> Vec<f32> {
    let nearest = distances.iter().copied().find(|distance| *distance > 0.0).map_or(0.0, f64::from);
    let beyond = |distance: f32| (f64::from(distance) - nearest).max(0.0);
    let target = ((distances.len() + 1) as f64).log2();
    let amount =
        |width: f64| distances.iter().map(|&distance| (-beyond(distance) / width).exp()).sum::<f64>();
    let (mut low, mut high, mut width) = (0.0, f64::INFINITY, 1.0);
    for _ in 0..HALVINGS {
        let difference = amount(width) - target;
        if difference.abs() < 1e-5 {
            break;
        }
        if difference > 0.0 {
            high = width;
            width = f64::midpoint(low, high);
        } else {
            low = width;
            width = if high.is_finite() { f64::midpoint(low, high) } else { 2.0 * width };
        }
    }
    let mean =
        distances.iter().map(|&distance| f64::from(distance)).sum::<f64>() / distances.len().max(1) as f64;
    let width = width.max(NARROWEST * if nearest > 0.0 { mean } else { mean_of_all });
    let weight = |&distance: &f32| {
        let beyond = beyond(distance);
        if beyond == 0.0 || width == 0.0 { 1.0 } else { (-beyond / width).exp() as f32 }
    };
    distances.iter().map(weight).collect()
}

/// The fuzzy union `p + q - pq` of two lists in ascending order.
fn united(sees: &[(u32, f32)], seen_by: &[(u32, f32)]) -> Vec<(u32, f32)> {
    let mut both = Vec::with_capacity(sees.len() + seen_by.len());
    let (mut left, mut right) = (sees.iter().peekable(), seen_by.iter().peekable());
    loop {
        let (near, p, q) = match (left.peek(), right.peek()) {
            (None, None) => break,
            (Some(&&(a, p)), Some(&&(b, q))) if a == b => (a, p, q),
            (Some(&&(a, p)), Some(&&(b, _))) if a < b => (a, p, 0.0),
            (Some(&&(a, p)), None) => (a, p, 0.0),
            (_, Some(&&(b, q))) => (b, 0.0, q),
        };
        left.next_if(|(cell, _)| *cell == near);
        right.next_if(|(cell, _)| *cell == near);
        let weight = p + q - p * q;
        if weight > 0.0 {
            both.push((near, weight));
        }
    }
    both
}

/// The graph's weights over the roots of both cells' degrees, whose leading eigenvectors are the lowest of the
/// normalised Laplacian. Its eigenvalues lie from -1 to 1.
pub(crate) struct Normalized<'a> {
    graph: &'a NeighborGraph,
    inverse_roots: Vec<f64>,
}

impl<'a> Normalized<'a> {
    pub(crate) fn new(graph: &'a NeighborGraph) -> Self {
        let inverse_root = |degree: f64| if degree > 0.0 { degree.sqrt().recip() } else { 0.0 };
        Self { graph, inverse_roots: graph.degrees().into_iter().map(inverse_root).collect() }
    }
}

impl Symmetric for Normalized<'_> {
    fn order(&self) -> usize {
        self.graph.n_cells()
    }

    fn floor(&self) -> f64 {
        -1.0
    }

    fn times(&self, vectors: &[f64], n: usize) -> Vec<f64> {
        let mut result = vec![0.0; vectors.len()];
        result.par_chunks_mut(n).enumerate().for_each(|(cell, row)| {
            for (near, weight) in self.graph.of_cell(cell) {
                let weight = f64::from(weight) * self.inverse_roots[cell] * self.inverse_roots[near];
                for (sum, x) in row.iter_mut().zip(&vectors[near * n..]) {
                    *sum += weight * x;
                }
            }
        });
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cells::Cells;
    use crate::neighbors::Metric;

    fn graph(values: &[f32], n_neighbors: usize) -> NeighborGraph {
        let cells = Cells::new(values, values.len(), 1).unwrap();
        NeighborGraph::of(&Neighbors::within(cells, n_neighbors, Metric::Euclidean).unwrap())
    }

    #[test]
    fn a_view_amounts_to_the_logarithm_of_its_size() {
        let distances = [0.3, 0.5, 0.9, 1.4, 1.5, 2.2, 2.9];
        let view = view(&distances, 1.0);
        assert_eq!(view[0], 1.0);
        assert!((view.iter().sum::<f32>() - 8.0_f32.log2()).abs() < 1e-4, "{view:?}");
        assert!(view.is_sorted_by(|a, b| a >= b));
    }

    #[test]
    fn equal_cells_belong_together_wholly_and_do_not_narrow_the_view() {
        let view = view(&[0.0, 0.0, 1.0, 2.0], 1.0);
        assert_eq!(view[..3], [1.0, 1.0, 1.0]);
        assert!(view[3] < 1.0);
        assert_eq!(super::view(&[0.0; 3], 0.0), [1.0; 3]);
    }

    #[test]
    fn weights_are_the_same_from_both_sides() {
        let graph = graph(&[0.0, 1.0, 1.5, 4.0, 4.1, 9.0], 2);
        for cell in 0..6 {
            for (near, weight) in graph.of_cell(cell) {
                assert!(weight > 0.0 && weight <= 1.0 && near != cell);
                let back = graph.of_cell(near).find(|(back, _)| *back == cell).map(|(_, weight)| weight);
                assert_eq!(back, Some(weight));
            }
        }
    }

    #[test]
    fn groups_without_common_neighbours_are_components() {
        let graph = graph(&[0.0, 100.0, 1.0, 101.0, 2.0, 102.0], 2);
        assert_eq!(graph.components(), [vec![0, 2, 4], vec![1, 3, 5]]);
        let part = graph.part(&[1, 3, 5]);
        assert_eq!(part.n_cells(), 3);
        assert_eq!(part.of_cell(0).map(|(near, _)| near).collect::<Vec<_>>(), [1, 2]);
    }
}
