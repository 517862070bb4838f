//! Components to start from.

use super::MixtureStart;
use super::expectation::{Components, Memberships, Points};
use super::hierarchy::Hierarchy;
use super::k_means::k_means;
use super::space::Space;
use crate::cells::Cells;
use crate::error::{Error, Result};
use crate::noise::Noise;

/// Rounds of k-means, which only has to bring the mixture near.
const MOST_ROUNDS: usize = 100;

/// Starts of mixtures of any number of components.
pub(super) enum Starts {
    /// From an agglomeration of the cells with these coordinates.
    Hierarchical { hierarchy: Hierarchy, coordinates: Option<Vec<f64>> },
    /// From k-means in these coordinates.
    KMeans { scaled: Vec<f64>, n_starts: usize, seed: u64 },
}

impl Starts {
    pub(super) fn new(
        cells: Cells<'_>,
        space: &Space,
        coordinates: &[f64],
        most_components: usize,
        start: MixtureStart,
    ) -> Result<Self> {
        let (n_cells, n) = (cells.n_cells(), space.n_coordinates());
        if u32::try_from(n_cells).is_err() {
            return Err(Error::bad_option("n_cells", n_cells, "less than 4,294,967,296"));
        }
        let too_many = |allowed| Err(Error::bad_option("n_components", most_components, allowed));
        if most_components > n_cells {
            return too_many("at most the number of cells");
        }
        match start {
            MixtureStart::Hierarchical { most_cells, .. } if n_cells <= most_cells => {
                let scaled = scaled(coordinates, &space.agglomeration_scales(n_cells));
                Ok(Self::Hierarchical { hierarchy: Hierarchy::of(&scaled, n_cells, n), coordinates: None })
            }
            MixtureStart::Hierarchical { most_cells, .. } if most_components > most_cells => {
                too_many("at most the number of cells that are agglomerated")
            }
            MixtureStart::Hierarchical { most_cells, seed } => {
                let sample = sample(n_cells, most_cells, &mut Noise::new(seed));
                let features: Vec<f32> = sample.iter().flat_map(|&cell| cells.cell(cell)).copied().collect();
                let sampled = Cells::new(&features, most_cells, cells.n_features())?;
                // The sample's own spread decides what is near among it.
                let own = Space::of(sampled)?;
                let scaled = scaled(&own.coordinates(sampled), &own.agglomeration_scales(most_cells));
                let hierarchy = Hierarchy::of(&scaled, most_cells, own.n_coordinates());
                Ok(Self::Hierarchical { hierarchy, coordinates: Some(space.coordinates(sampled)) })
            }
            MixtureStart::KMeans { n_starts: 0, .. } => Err(Error::bad_option("n_starts", 0, "at least 1")),
            MixtureStart::KMeans { n_starts, seed } => {
                let scaled = scaled(coordinates, &space.agglomeration_scales(n_cells));
                Ok(Self::KMeans { scaled, n_starts, seed })
            }
        }
    }

    /// The starts of a mixture of cells with these coordinates.
    pub(super) fn of<'a>(
        &'a self,
        points: Points<'a>,
        n_components: usize,
    ) -> Box<dyn Iterator<Item = Result<Components>> + 'a> {
        let components = move |points, groups: &[usize]| {
            Components::maximise(points, &Memberships::of_groups(groups, n_components))
        };
        match self {
            Self::Hierarchical { hierarchy, coordinates } => {
                let agglomerated =
                    coordinates.as_deref().map_or(points, |values| Points { values, n: points.n });
                Box::new(std::iter::once(components(agglomerated, &hierarchy.cut(n_components))))
            }
            Self::KMeans { scaled, n_starts, seed } => {
                let mut noise = Noise::new(*seed);
                Box::new((0..*n_starts).map(move |_| {
                    let scaled = Points { values: scaled, n: points.n };
                    components(points, &k_means(scaled, n_components, MOST_ROUNDS, &mut noise))
                }))
            }
        }
    }
}

fn scaled(coordinates: &[f64], scales: &[f64]) -> Vec<f64> {
    coordinates.iter().zip(scales.iter().cycle()).map(|(x, scale)| x * scale).collect()
}

/// `n` of the cells, each set of them as likely as any other, in ascending order.
fn sample(n_cells: usize, n: usize, noise: &mut Noise) -> Vec<usize> {
    let mut cells: Vec<usize> = (0..n_cells).collect();
    for at in 0..n {
        cells.swap(at, at + noise.below((n_cells - at) as u32) as usize);
    }
    cells.truncate(n);
    cells.sort_unstable();
    cells
}
