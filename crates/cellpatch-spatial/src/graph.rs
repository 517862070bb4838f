//! Who is whose neighbour on a slice.
//!
//! A [`SpatialGraph`] holds each spot's list of the spots it reads, itself among them. [`Neighborhood`] says who is a
//! neighbour; [`build`] finds them exactly, and says what is odd about them; [`stack`] does so for slices
//! along z, as in STAGATE's three-dimensional mode, and [`build_sections`] where the spots of all slices are in one table.

mod build;
mod sections;
mod statistics;

use std::sync::Arc;

use cellpatch_kernels::graph::Adjacency;

pub use self::build::{BuiltGraph, GraphWarning, Neighborhood, build, stack};
pub use self::sections::build_sections;
pub use self::statistics::{Components, NeighborStatistics};
use crate::error::{Error, Result};
use crate::resident::Resident;

/// A place on a slice, in any unit: pixels, micrometres.
pub type Position = [f64; 2];

/// Neighbour lists of spots, self loops included. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpatialGraph {
    adjacency: Arc<Resident<Adjacency>>,
}

impl SpatialGraph {
    /// A graph of lists; every spot is put on its own list.
    ///
    /// - neighbors: for each spot, the spots it reads, in any order
    ///
    /// # Errors
    ///
    /// [`Error::BadGraph`] if a list names a spot that is not there.
    pub fn from_lists(neighbors: Vec<Vec<u32>>) -> Result<Self> {
        let n_spots = neighbors.len();
        let mut starts = Vec::with_capacity(n_spots + 1);
        let mut sources = Vec::with_capacity(neighbors.iter().map(Vec::len).sum::<usize>() + n_spots);
        starts.push(0);
        for (spot, mut list) in neighbors.into_iter().enumerate() {
            list.push(spot as u32);
            list.sort_unstable();
            list.dedup();
            sources.extend(list);
            starts.push(sources.len());
        }
        Self::from_sorted(starts, sources)
    }

    /// A graph of pairs in any order; every spot gets a self loop.
    ///
    /// - edges: the spot that is read and the spot that reads (source and target)
    ///
    /// # Errors
    ///
    /// [`Error::BadGraph`] if an edge names a spot that is not there.
    pub fn from_edges(n_spots: usize, edges: impl IntoIterator<Item = (u32, u32)>) -> Result<Self> {
        let mut lists = vec![Vec::new(); n_spots];
        for (source, target) in edges {
            let list = lists.get_mut(target as usize).ok_or(Error::BadGraph { n_spots })?;
            list.push(source);
        }
        Self::from_lists(lists)
    }

    fn from_sorted(starts: Vec<usize>, sources: Vec<u32>) -> Result<Self> {
        let n_spots = starts.len() - 1;
        let adjacency = Adjacency::new(starts, sources).ok_or(Error::BadGraph { n_spots })?;
        Ok(Self { adjacency: Arc::new(Resident::new(adjacency)) })
    }

    /// Spots.
    pub fn n_spots(&self) -> usize {
        self.adjacency.n_spots()
    }

    /// Edges, self loops included.
    pub fn n_edges(&self) -> usize {
        self.adjacency.n_edges()
    }

    /// The spots that a spot reads, ascending, itself among them.
    pub fn neighbors(&self, spot: usize) -> &[u32] {
        &self.adjacency.sources()[self.adjacency.edges(spot)]
    }

    /// Of each edge, in the order of weights, the spot that is read and the spot that reads.
    pub fn edges(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        (0..self.n_spots())
            .flat_map(|spot| self.neighbors(spot).iter().map(move |&source| (source, spot as u32)))
    }

    /// The most spots that one spot reads, itself included.
    pub fn longest_list(&self) -> usize {
        (0..self.n_spots()).map(|spot| self.neighbors(spot).len()).max().unwrap_or(0)
    }

    /// Edges between spots of equal label, and self loops: the pruned graph of cell-type-aware STAGATE, as a choice among
    /// this graph's edges.
    ///
    /// - labels: of each spot, such as the clusters of a first pass
    ///
    /// # Errors
    ///
    /// [`Error::Disagreement`] if there are not as many labels as spots.
    pub fn edges_within(&self, labels: &[u32]) -> Result<Arc<[bool]>> {
        if labels.len() != self.n_spots() {
            let (found, expected) = (labels.len(), self.n_spots());
            return Err(Error::Disagreement { what: "labels of spots", found, expected });
        }
        Ok(self.edges().map(|(source, target)| labels[source as usize] == labels[target as usize]).collect())
    }

    /// The mean of each spot's own values and those of the spots it reads, all alike.
    ///
    /// - values: [n_spots, width], row-major
    /// - output: [n_spots, width]
    ///
    /// # Errors
    ///
    /// [`Error::Disagreement`] if there are not `width` values for each spot.
    pub fn neighborhood_means(&self, values: &[f32], width: usize) -> Result<Vec<f32>> {
        let (found, expected) = (values.len(), self.n_spots() * width);
        if found != expected {
            return Err(Error::Disagreement { what: "values of spots", found, expected });
        }
        let mut means = Vec::with_capacity(values.len());
        let mut sums = vec![0.0_f64; width];
        for spot in 0..self.n_spots() {
            let neighbors = self.neighbors(spot);
            sums.fill(0.0);
            for &neighbor in neighbors {
                let row = &values[neighbor as usize * width..][..width];
                sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
            }
            means.extend(sums.iter().map(|sum| (sum / neighbors.len() as f64) as f32));
        }
        Ok(means)
    }

    /// The lists as the kernels take them.
    pub fn adjacency(&self) -> &Arc<Resident<Adjacency>> {
        &self.adjacency
    }
}
