//! Model-based agglomeration: cells become groups, groups become larger ones.

use rayon::prelude::*;

use crate::distance::squared_distance;

/// A determinant below this share of what it is added to is lost in rounding.
const LOST: f64 = 1e-17;

/// In which order groups of cells were united.
///
/// At each step those two are united whose union raises `Σ nₖ ln(|Wₖ/nₖ| + (tr Wₖ + α)/nₖ)` least, where `nₖ` is the size
/// of a group, `Wₖ` its scatter about its mean, and `α` the trace of all cells' scatter over cells and coordinates. It is
/// the classification likelihood of normal distributions with a covariance of their own (Banfield and Raftery 1993), with
/// the terms that Fraley (1998, section 2.4) adds so that it exists for groups of few cells.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Hierarchy {
    n_cells: usize,
    /// Each union, the first first: the lowest cells of both groups, the lower one first.
    unions: Vec<(u32, u32)>,
}

impl Hierarchy {
    /// Agglomerates cells, `[n_cells, n_coordinates]`, row-major; `n_cells` fits in 32 bits.
    ///
    /// The cost is in the order of `n_cells² · n_coordinates`. Of unions that cost the same the one of the lowest cells
    /// comes first, so the result does not depend on threads.
    pub(super) fn of(values: &[f64], n_cells: usize, n_coordinates: usize) -> Self {
        let mut groups = Groups::new(values, n_cells, n_coordinates);
        let mut best: Vec<Union> = groups.best_of_all();
        let mut unions = Vec::with_capacity(n_cells.saturating_sub(1));
        while groups.alive.len() > 1 {
            let cheapest = |least: u32, &group: &u32| {
                if best[group as usize].cost < best[least as usize].cost { group } else { least }
            };
            let into = groups.alive.iter().fold(groups.alive[0], cheapest);
            let from = best[into as usize].partner;
            unions.push((into, from));
            groups.unite(into, from);
            for (group, union) in groups.changes(&best, into, from) {
                best[group as usize] = union;
            }
        }
        Self { n_cells, unions }
    }

    /// The group of each cell when `n_groups` are left, numbered by their first cell.
    pub(super) fn cut(&self, n_groups: usize) -> Vec<usize> {
        let mut parents: Vec<u32> = (0..self.n_cells as u32).collect();
        let n_unions = self.n_cells.saturating_sub(n_groups.max(1));
        for &(into, from) in self.unions.iter().take(n_unions) {
            parents[from as usize] = into;
        }
        let mut labels = Vec::with_capacity(self.n_cells);
        let mut n_found = 0;
        for (cell, parent) in parents.into_iter().enumerate() {
            // A group is called by its lowest cell, which has its label already.
            let parent = parent as usize;
            let label = if parent == cell { n_found } else { labels[parent] };
            n_found = n_found.max(label + 1);
            labels.push(label);
        }
        labels
    }
}

/// The cheapest union of a group with one of a higher number.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Union {
    cost: f64,
    partner: u32,
}

const NONE: Union = Union { cost: f64::INFINITY, partner: u32::MAX };

/// The groups there are, each at the place of its lowest cell.
#[derive(Debug)]
struct Groups {
    n_coordinates: usize,
    alpha: f64,
    sizes: Vec<f64>,
    /// `[n_cells, n_coordinates]`
    means: Vec<f64>,
    traces: Vec<f64>,
    /// What each group adds to the criterion.
    terms: Vec<f64>,
    /// Scatter about the mean, `[n_coordinates, n_coordinates]`, of groups of more than one cell.
    scatters: Vec<Vec<f64>>,
    /// Numbers of the groups that are left, ascending.
    alive: Vec<u32>,
}

impl Groups {
    fn new(values: &[f64], n_cells: usize, n_coordinates: usize) -> Self {
        let mut means = vec![0.0; n_coordinates];
        for row in values.chunks(n_coordinates.max(1)) {
            crate::sparse::add(&mut means, 1.0 / n_cells as f64, row);
        }
        let trace: f64 = values.chunks(n_coordinates.max(1)).map(|row| squared_distance(row, &means)).sum();
        let alpha = trace / (n_cells * n_coordinates).max(1) as f64;
        Self {
            n_coordinates,
            alpha,
            sizes: vec![1.0; n_cells],
            means: values.to_vec(),
            traces: vec![0.0; n_cells],
            terms: vec![alpha.ln(); n_cells],
            scatters: vec![Vec::new(); n_cells],
            alive: (0..n_cells as u32).collect(),
        }
    }

    fn mean(&self, group: usize) -> &[f64] {
        &self.means[group * self.n_coordinates..(group + 1) * self.n_coordinates]
    }

    fn best_of_all(&self) -> Vec<Union> {
        (0..self.alive.len()).into_par_iter().with_min_len(8).map(|at| self.best_after(at)).collect()
    }

    /// The cheapest union of the group at a place of `alive` with those after it.
    fn best_after(&self, at: usize) -> Union {
        let group = self.alive[at];
        self.alive[at + 1..].iter().fold(NONE, |best, &partner| {
            let cost = self.cost(group, partner);
            if cost < best.cost { Union { cost, partner } } else { best }
        })
    }

    /// What uniting two groups adds to the criterion.
    fn cost(&self, a: u32, b: u32) -> f64 {
        let (a, b) = (a as usize, b as usize);
        self.term_of_union(a, b) - self.terms[a] - self.terms[b]
    }

    fn term_of_union(&self, a: usize, b: usize) -> f64 {
        let size = self.sizes[a] + self.sizes[b];
        let share = self.sizes[a] * self.sizes[b] / size;
        let trace = self.traces[a] + self.traces[b] + share * squared_distance(self.mean(a), self.mean(b));
        let spread = (trace + self.alpha) / size;
        // No determinant exceeds that of a round scatter of the same trace.
        let order = self.n_coordinates as i32;
        let most = (trace / (size * f64::from(order))).powi(order);
        let determinant = if size <= f64::from(order) || most < LOST * spread {
            0.0
        } else {
            determinant(&mut self.scatter_of_union(a, b), self.n_coordinates, size)
        };
        size * (spread + determinant).ln()
    }

    fn scatter_of_union(&self, a: usize, b: usize) -> Vec<f64> {
        let n = self.n_coordinates;
        let share = self.sizes[a] * self.sizes[b] / (self.sizes[a] + self.sizes[b]);
        let between: Vec<f64> = self.mean(a).iter().zip(self.mean(b)).map(|(x, y)| x - y).collect();
        let mut scatter: Vec<f64> = (0..n * n).map(|at| share * between[at / n] * between[at % n]).collect();
        for part in [&self.scatters[a], &self.scatters[b]] {
            for (sum, x) in scatter.iter_mut().zip(part) {
                *sum += x;
            }
        }
        scatter
    }

    fn unite(&mut self, into: u32, from: u32) {
        let (a, b) = (into as usize, from as usize);
        let term = self.term_of_union(a, b);
        let size = self.sizes[a] + self.sizes[b];
        let (from_a, from_b) = (self.sizes[a] / size, self.sizes[b] / size);
        let distance = squared_distance(self.mean(a), self.mean(b));
        self.traces[a] += self.traces[b] + self.sizes[a] * from_b * distance;
        self.scatters[a] = self.scatter_of_union(a, b);
        self.scatters[b] = Vec::new();
        for at in 0..self.n_coordinates {
            let (x, y) = (self.means[a * self.n_coordinates + at], self.means[b * self.n_coordinates + at]);
            self.means[a * self.n_coordinates + at] = from_a * x + from_b * y;
        }
        (self.sizes[a], self.terms[a]) = (size, term);
        if let Ok(at) = self.alive.binary_search(&from) {
            self.alive.remove(at);
        }
    }

    /// The groups whose cheapest union is another one since `from` was united with `into`.
    fn changes(&self, best: &[Union], into: u32, from: u32) -> Vec<(u32, Union)> {
        let n_affected = self.alive.partition_point(|&group| group < from);
        let change = |at: usize| {
            let group = self.alive[at];
            let before = best[group as usize];
            let is_gone = before.partner == into || before.partner == from;
            if group >= into {
                return (group == into || is_gone).then(|| (group, self.best_after(at)));
            }
            let cost = self.cost(group, into);
            let is_cheaper = cost < before.cost || cost == before.cost && into <= before.partner;
            if is_cheaper {
                Some((group, Union { cost, partner: into }))
            } else {
                is_gone.then(|| (group, self.best_after(at)))
            }
        };
        (0..n_affected).into_par_iter().with_min_len(64).filter_map(change).collect()
    }
}

/// The determinant of a scatter over the size of its group, by Cholesky's decomposition in place; 0 where it has none.
fn determinant(scatter: &mut [f64], n: usize, size: f64) -> f64 {
    let mut product = 1.0;
    for column in 0..n {
        let mut pivot = scatter[column * n + column];
        for at in 0..column {
            pivot -= scatter[column * n + at] * scatter[column * n + at];
        }
        if pivot.is_nan() || pivot <= 0.0 {
            return 0.0;
        }
        product *= pivot / size;
        let root = pivot.sqrt();
        for row in column + 1..n {
            let mut value = scatter[row * n + column];
            for at in 0..column {
                value -= scatter[row * n + at] * scatter[column * n + at];
            }
            scatter[row * n + column] = value / root;
        }
    }
    product
}
