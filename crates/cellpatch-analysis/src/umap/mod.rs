//! UMAP: cells in the plane with their neighbours beside them (McInnes, Healy and Melville 2018).

mod curve;
mod descent;
mod start;
#[cfg(test)]
mod tests;

use self::curve::Curve;
use crate::cells::Cells;
use crate::error::{Error, Result};
use crate::graph::NeighborGraph;
use crate::neighbors::{Metric, Neighbors};

/// Where the cells stand before they are moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// The leading eigenvectors of the graph of neighbours, each of its components for itself.
    #[default]
    Spectral,
    /// The first two principal components, which keeps more of how groups lie to each other.
    PrincipalComponents,
}

/// The settings of a map. The defaults are those of the authors' own program, umap-learn.
#[derive(Debug, Clone, PartialEq)]
pub struct UmapOptions {
    /// Cells that make up a neighbourhood, the one in its middle counted: at least 2. More show coarser structure.
    pub n_neighbors: usize,
    /// How close cells may lie on the map: 0 to three times `spread`.
    pub min_distance: f64,
    /// The scale of the map, above 0.
    pub spread: f64,
    /// How far apart cells are before they are mapped.
    pub metric: Metric,
    /// Rounds of moving the cells; by default 500 up to 10,000 cells and 200 beyond.
    pub n_epochs: Option<usize>,
    /// Random cells that each cell is pushed away from whenever it is pulled towards a neighbour.
    pub n_negatives: usize,
    /// Where the cells stand at first.
    pub start: Start,
    /// The seed of all random choices.
    pub seed: u64,
}

impl Default for UmapOptions {
    fn default() -> Self {
        Self {
            n_neighbors: 15,
            min_distance: 0.1,
            spread: 1.0,
            metric: Metric::default(),
            n_epochs: None,
            n_negatives: 5,
            start: Start::default(),
            seed: 0,
        }
    }
}

impl UmapOptions {
    fn check(&self) -> Result<()> {
        if self.n_neighbors < 2 {
            return Err(Error::bad_option("n_neighbors", self.n_neighbors, "at least 2"));
        }
        if !(self.spread.is_finite() && self.spread > 0.0) {
            return Err(Error::bad_option("spread", self.spread, "above 0"));
        }
        if !(0.0..=3.0 * self.spread).contains(&self.min_distance) {
            let allowed = "from 0 to three times the spread";
            return Err(Error::bad_option("min_distance", self.min_distance, allowed));
        }
        Ok(())
    }
}

/// A map of cells in the plane.
#[derive(Debug, Clone, PartialEq)]
pub struct Umap {
    coordinates: Vec<[f32; 2]>,
}

impl Umap {
    /// Maps cells so that those that are near stay near.
    ///
    /// The neighbours are exact and the cells are moved one after the other, so the map depends on the values and the
    /// seed alone, not on the number of threads. Any number of cells has a map, equal ones and unconnected groups
    /// too. What is far apart on it is not to be measured: only neighbourhoods are kept.
    ///
    /// # Errors
    /// [`Error::BadOption`] for a setting out of its range, [`Error::NoConvergence`].
    pub fn fit(cells: Cells<'_>, options: &UmapOptions) -> Result<Self> {
        options.check()?;
        if cells.n_cells() < 2 {
            return Ok(Self { coordinates: vec![[0.0; 2]; cells.n_cells()] });
        }
        let neighbors = Neighbors::within(cells, options.n_neighbors - 1, options.metric)?;
        Self::from_neighbors(cells, &neighbors, options)
    }

    /// [`Umap::fit`] with neighbours that were found before, by the metric of the options and one fewer than its
    /// `n_neighbors`, which do not count the cell itself.
    ///
    /// # Errors
    /// As [`Umap::fit`], and [`Error::LengthMismatch`] where the neighbours are not those of these cells.
    pub fn from_neighbors(cells: Cells<'_>, neighbors: &Neighbors, options: &UmapOptions) -> Result<Self> {
        options.check()?;
        let n_cells = cells.n_cells();
        if neighbors.n_cells() != n_cells {
            let n_found = neighbors.n_cells();
            return Err(Error::LengthMismatch { what: "neighbourhoods", n_found, n_expected: n_cells });
        }
        if n_cells < 2 {
            return Ok(Self { coordinates: vec![[0.0; 2]; n_cells] });
        }
        let graph = NeighborGraph::of(neighbors);
        let mut coordinates = start::place(cells, &graph, options)?;
        let curve = Curve::fit(options.min_distance, options.spread);
        let n_epochs = options.n_epochs.unwrap_or(if n_cells <= 10_000 { 500 } else { 200 });
        descent::run(&mut coordinates, &graph, curve, n_epochs, options);
        Ok(Self { coordinates })
    }

    /// Where each cell lies, `[n_cells]`, in no unit.
    pub fn coordinates(&self) -> &[[f32; 2]] {
        &self.coordinates
    }
}
