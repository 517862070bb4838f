//! Exact nearest neighbours.

mod search;
#[cfg(test)]
mod tests;
mod tree;

use rayon::prelude::*;

use self::search::{Near, Search};
pub use self::tree::{KdTree, NearPlace};
use crate::cells::Cells;
use crate::error::{Error, Result};

/// Places in a leaf of the tree.
const LEAF: usize = 8;

/// How far apart two cells are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Metric {
    /// The length of the straight line between them.
    #[default]
    Euclidean,
    /// One less the cosine of the angle between them, 0 to 2. A cell of zeros only is 1 away from all others and
    /// 0 from its like.
    Cosine,
}

/// The nearest neighbours of each cell, nearest first.
///
/// They are the true ones: a first look in single precision, by blocks of a matrix product on all threads, keeps
/// every cell that its error bound cannot rule out, and distances in double precision decide among those. Equally
/// near cells come in the order of their numbers. So the result does not depend on threads or block sizes.
///
/// The cost is one multiplication for each pair of cells and feature; cells of two features, places in the plane, go
/// through a [`KdTree`] where distance is Euclidean.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbors {
    n_cells: usize,
    n_neighbors: usize,
    indices: Vec<u32>,
    distances: Vec<f32>,
}

impl Neighbors {
    /// The neighbours of each cell among the others, itself left out: at most `n_neighbors`, fewer where there are
    /// no more cells.
    ///
    /// # Errors
    /// [`Error::BadOption`] for no neighbours, or for more cells than can be numbered (4 billion).
    pub fn within(cells: Cells<'_>, n_neighbors: usize, metric: Metric) -> Result<Self> {
        let available = cells.n_cells().saturating_sub(1);
        Self::search(cells, cells, n_neighbors.min(available), n_neighbors, metric, true)
    }

    /// For each of `queries`, its neighbours among `references`: at most `n_neighbors`, fewer where there are no
    /// more references.
    ///
    /// # Errors
    /// [`Error::OtherFeatures`] where the two have different features, [`Error::BadOption`] as for
    /// [`Neighbors::within`].
    pub fn between(
        queries: Cells<'_>,
        references: Cells<'_>,
        n_neighbors: usize,
        metric: Metric,
    ) -> Result<Self> {
        if queries.n_features() != references.n_features() {
            let (expected, found) = (references.n_features(), queries.n_features());
            return Err(Error::OtherFeatures { expected, found });
        }
        let taken = n_neighbors.min(references.n_cells());
        Self::search(queries, references, taken, n_neighbors, metric, false)
    }

    fn search(
        queries: Cells<'_>,
        references: Cells<'_>,
        taken: usize,
        asked: usize,
        metric: Metric,
        leave_out_self: bool,
    ) -> Result<Self> {
        if asked == 0 {
            return Err(Error::bad_option("n_neighbors", asked, "at least 1"));
        }
        if u32::try_from(references.n_cells()).is_err() {
            return Err(Error::bad_option("n_cells", references.n_cells(), "less than 4,294,967,296"));
        }
        let n_cells = queries.n_cells();
        let found = match taken {
            0 => Vec::new(),
            _ if metric == Metric::Euclidean && queries.n_features() == 2 => {
                in_plane(queries, references, taken, leave_out_self)
            }
            _ => Search::new(queries, references, metric).nearest(taken, leave_out_self),
        };
        let (indices, distances) = found.into_iter().map(|near| (near.cell, near.distance as f32)).unzip();
        Ok(Self { n_cells, n_neighbors: taken, indices, distances })
    }

    /// Cells whose neighbours these are.
    pub fn n_cells(&self) -> usize {
        self.n_cells
    }

    /// Neighbours of each cell.
    pub fn n_neighbors(&self) -> usize {
        self.n_neighbors
    }

    /// The numbers of a cell's neighbours, `[n_neighbors]`, nearest first; none for a cell that is not there.
    pub fn of(&self, cell: usize) -> &[u32] {
        self.indices.get(self.row(cell)).unwrap_or_default()
    }

    /// The distances to a cell's neighbours, `[n_neighbors]`, ascending; none for a cell that is not there.
    pub fn distances(&self, cell: usize) -> &[f32] {
        self.distances.get(self.row(cell)).unwrap_or_default()
    }

    fn row(&self, cell: usize) -> std::ops::Range<usize> {
        cell * self.n_neighbors..(cell + 1) * self.n_neighbors
    }

    /// Share of each cell's neighbours that are its neighbours in `other` too, in the mean over cells: how much of
    /// the neighbourhoods a map of the same cells keeps. 0 without neighbours.
    pub fn shared_with(&self, other: &Self) -> f64 {
        let shared = |cell| self.of(cell).iter().filter(|near| other.of(cell).contains(near)).count();
        let n_shared: usize = (0..self.n_cells).into_par_iter().map(shared).sum();
        n_shared as f64 / self.indices.len().max(1) as f64
    }

    /// Share of each cell's neighbours that carry its label, in the mean over cells: 1 where labels lie apart.
    /// `labels` is `[n_cells]` of both the cells and, being the same, of their neighbours. 0 without neighbours.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`] where there is not one label for each cell.
    pub fn label_purity(&self, labels: &[usize]) -> Result<f64> {
        if labels.len() != self.n_cells {
            return Err(Error::LengthMismatch {
                what: "labels",
                n_found: labels.len(),
                n_expected: self.n_cells,
            });
        }
        let alike = |cell: usize| {
            let label = Some(&labels[cell]);
            self.of(cell).iter().filter(|near| labels.get(**near as usize) == label).count()
        };
        let n_alike: usize = (0..self.n_cells).map(alike).sum();
        Ok(n_alike as f64 / self.indices.len().max(1) as f64)
    }
}

/// As [`Search::nearest`], for Euclidean distances between cells of two features.
fn in_plane(queries: Cells<'_>, references: Cells<'_>, taken: usize, leave_out_self: bool) -> Vec<Near> {
    let place = |cell: &[f32]| [f64::from(cell[0]), f64::from(cell[1])];
    let places: Vec<[f64; 2]> = references.iter().map(place).collect();
    let tree = KdTree::new(&places, LEAF);
    let near = |near: NearPlace| Near { cell: near.place, distance: near.squared.sqrt() };
    (0..queries.n_cells())
        .into_par_iter()
        .flat_map_iter(|query| {
            let itself = leave_out_self.then_some(query as u32);
            tree.nearest(place(queries.cell(query)), taken, itself).into_iter().map(near)
        })
        .collect()
}
