//! Groups of cells by how they hang together (Traag, Waltman and van Eck 2019).

#[cfg(test)]
mod tests;

use single_clustering::community_search::leiden::{LeidenConfig, ObjectiveKind, leiden};
use single_clustering::network::CSRNetwork;

use crate::error::{Error, Result};
use crate::graph::NeighborGraph;

/// What makes groups good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Quality {
    /// More weight within groups than chance would put there between cells of as much weight (Newman and Girvan 2004, with
    /// the resolution of Reichardt and Bornholdt 2006): what scanpy's `tl.leiden` takes.
    #[default]
    Modularity,
    /// More weight within groups than the resolution times the pairs of cells in them (the constant Potts model of Traag,
    /// Van Dooren and Nesterov 2011), which does not depend on how large the graph is.
    ConstantPotts,
}

/// How groups are looked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeidenOptions {
    /// What makes groups good.
    pub quality: Quality,
    /// The higher, the more and smaller the groups; above 0. 1 is common for modularity.
    pub resolution: f64,
    /// Passes over the whole graph; it ends earlier when one changes nothing.
    pub most_passes: usize,
    /// The seed of all random choices.
    pub seed: u64,
}

impl Default for LeidenOptions {
    fn default() -> Self {
        Self { quality: Quality::default(), resolution: 1.0, most_passes: 100, seed: 0 }
    }
}

/// Groups of cells of a graph of neighbours.
#[derive(Debug, Clone, PartialEq)]
pub struct Leiden {
    labels: Vec<usize>,
    quality: f64,
}

impl Leiden {
    /// Groups cells so that a quality is high and every group hangs together, passing over the graph until nothing changes.
    ///
    /// One thread does it all: the groups depend on the graph and the seed alone.
    ///
    /// # Errors
    /// [`Error::BadOption`] for a resolution that is not above 0, no passes, or more cells than can be numbered;
    /// [`Error::UnusableGraph`] where a weight is no finite number.
    pub fn fit(graph: &NeighborGraph, options: &LeidenOptions) -> Result<Self> {
        let &LeidenOptions { quality, resolution, most_passes, seed } = options;
        if !(resolution.is_finite() && resolution > 0.0) {
            return Err(Error::bad_option("resolution", resolution, "above 0"));
        }
        if most_passes == 0 {
            return Err(Error::bad_option("most_passes", most_passes, "at least 1"));
        }
        let n_cells = graph.n_cells();
        if u32::try_from(n_cells).is_err() {
            return Err(Error::bad_option("n_cells", n_cells, "less than 4,294,967,296"));
        }
        let objective = match quality {
            Quality::Modularity => ObjectiveKind::Rb { resolution },
            Quality::ConstantPotts => ObjectiveKind::Cpm { resolution },
        };
        let config = LeidenConfig {
            objective,
            seed: Some(seed),
            n_iterations: most_passes,
            ..LeidenConfig::default()
        };
        let groups = network(graph).and_then(|network| leiden(&network, &config));
        let groups = groups.map_err(|error| Error::UnusableGraph { reason: error.to_string() })?;
        let labels = largest_first(groups.labels(), groups.n_clusters());
        let quality = Self::quality_of(graph, &labels, options)?;
        Ok(Self { labels, quality })
    }

    /// The group of each cell, `[n_cells]`, numbered from the largest down.
    pub fn labels(&self) -> &[usize] {
        &self.labels
    }

    /// How many groups there are.
    pub fn n_groups(&self) -> usize {
        self.labels.iter().max().map_or(0, |most| most + 1)
    }

    /// The quality of the groups, see [`Leiden::quality_of`].
    pub fn quality(&self) -> f64 {
        self.quality
    }

    /// The quality of any groups of a graph's cells, `[n_cells]` group numbers.
    ///
    /// - [`Quality::Modularity`]: `Σ_c (w_c - γ d_c² / w) / w`, where `w_c` is the weight within a group, each link counted
    ///   from both ends, `d_c` that of its cells and `w` that of the graph: at most 1. 0 without links.
    /// - [`Quality::ConstantPotts`]: `Σ_c (w_c / 2 - γ n_c (n_c - 1) / 2)` with `n_c` the cells of a group.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`] where there is not one group for each cell.
    pub fn quality_of(graph: &NeighborGraph, groups: &[usize], options: &LeidenOptions) -> Result<f64> {
        let n_cells = graph.n_cells();
        if groups.len() != n_cells {
            let (n_found, n_expected) = (groups.len(), n_cells);
            return Err(Error::LengthMismatch { what: "group numbers", n_found, n_expected });
        }
        let mut of_groups = std::collections::BTreeMap::<usize, (f64, f64, f64)>::new();
        for (cell, degree) in graph.degrees().into_iter().enumerate() {
            let inside = graph.of_cell(cell).filter(|(near, _)| groups[*near] == groups[cell]);
            let inside: f64 = inside.map(|(_, weight)| f64::from(weight)).sum();
            let (within, total, n) = of_groups.entry(groups[cell]).or_default();
            *within += inside;
            *total += degree;
            *n += 1.0;
        }
        let total: f64 = of_groups.values().map(|(_, total, _)| total).sum();
        let of_group = |&(within, of_cells, n): &(f64, f64, f64)| match options.quality {
            Quality::Modularity if total == 0.0 => 0.0,
            Quality::Modularity => (within - options.resolution * of_cells * of_cells / total) / total,
            Quality::ConstantPotts => within / 2.0 - options.resolution * n * (n - 1.0) / 2.0,
        };
        Ok(of_groups.values().map(of_group).sum())
    }
}

/// The links of a graph's cells, each cell counting for one.
fn network(graph: &NeighborGraph) -> single_clustering::Result<CSRNetwork> {
    let n_cells = graph.n_cells();
    let (mut starts, mut targets, mut weights) = (vec![0], Vec::new(), Vec::new());
    for cell in 0..n_cells {
        for (near, weight) in graph.of_cell(cell).filter(|(near, _)| *near != cell) {
            targets.push(near as u32);
            weights.push(weight);
        }
        starts.push(targets.len());
    }
    CSRNetwork::from_csr_parts(starts, targets, weights, None)
}

/// Groups numbered from the largest down, of equal ones the one of the first cell first; `groups` are below `n_groups`.
fn largest_first(groups: &[usize], n_groups: usize) -> Vec<usize> {
    let mut counts = vec![0_usize; n_groups];
    let mut first = vec![usize::MAX; n_groups];
    for (cell, &group) in groups.iter().enumerate() {
        counts[group] += 1;
        first[group] = first[group].min(cell);
    }
    let mut order: Vec<usize> = (0..n_groups).collect();
    order.sort_by_key(|&group| (std::cmp::Reverse(counts[group]), first[group]));
    let mut numbers = vec![0; n_groups];
    for (number, group) in order.into_iter().enumerate() {
        numbers[group] = number;
    }
    groups.iter().map(|&group| numbers[group]).collect()
}
