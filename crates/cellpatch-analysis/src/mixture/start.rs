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
    /// From an agglomeration.
    Hierarchical(Agglomeration),
    /// From k-means in these coordinates.
    KMeans { scaled: Vec<f64>, n_starts: usize, seed: u64 },
    /// From an agglomeration, and from k-means of the cells it is of.
    Likeliest { agglomeration: Agglomeration, n_starts: usize, seed: u64 },
}

/// Cells that were agglomerated: all or a sample.
pub(super) struct Agglomeration {
    hierarchy: Hierarchy,
    /// What they were agglomerated by, `[n_cells, n]`.
    scaled: Vec<f64>,
    n: usize,
    /// Of a sample: where its cells lie.
    coordinates: Option<Vec<f64>>,
}

impl Starts {
    pub(super) fn new(
        cells: Cells<'_>,
        space: &Space,
        coordinates: &[f64],
        most_components: usize,
        start: MixtureStart,
    ) -> Result<Self> {
        let n_cells = cells.n_cells();
        if u32::try_from(n_cells).is_err() {
            return Err(Error::bad_option("n_cells", n_cells, "less than 4,294,967,296"));
        }
        if most_components > n_cells {
            return Err(too_many(most_components, "at most the number of cells"));
        }
        match start {
            MixtureStart::KMeans { n_starts: 0, .. } => Err(Error::bad_option("n_starts", 0, "at least 1")),
            MixtureStart::KMeans { n_starts, seed } => {
                let scaled = scaled(coordinates, &space.agglomeration_scales(n_cells));
                Ok(Self::KMeans { scaled, n_starts, seed })
            }
            MixtureStart::Hierarchical { most_cells, seed } => {
                let of = (cells, space, coordinates);
                Ok(Self::Hierarchical(Agglomeration::new(of, most_components, most_cells, seed)?))
            }
            MixtureStart::Likeliest { most_cells, n_starts, seed } => {
                let of = (cells, space, coordinates);
                let agglomeration = Agglomeration::new(of, most_components, most_cells, seed)?;
                Ok(Self::Likeliest { agglomeration, n_starts, seed })
            }
        }
    }

    /// The cells among which the likeliest start is searched, where that is a sample.
    pub(super) fn searched(&self, n: usize) -> Option<Points<'_>> {
        match self {
            Self::Likeliest { agglomeration: Agglomeration { coordinates: Some(values), .. }, .. } => {
                Some(Points { values, n })
            }
            _ => None,
        }
    }

    /// The starts of a mixture of cells with these coordinates.
    pub(super) fn of<'a>(
        &'a self,
        points: Points<'a>,
        n_components: usize,
    ) -> Box<dyn Iterator<Item = Result<Components>> + 'a> {
        match self {
            Self::Hierarchical(agglomeration) => Box::new(agglomeration.starts(points, n_components)),
            Self::KMeans { scaled, n_starts, seed } => {
                let scaled = Points { values: scaled, n: points.n };
                Box::new(by_k_means(points, scaled, n_components, *n_starts, *seed))
            }
            Self::Likeliest { agglomeration, n_starts, seed } => {
                let by_agglomeration = agglomeration.starts(points, n_components);
                let scaled = Points { values: &agglomeration.scaled, n: agglomeration.n };
                let points = agglomeration.points(points);
                let by_k_means = by_k_means(points, scaled, n_components, *n_starts, *seed);
                Box::new(by_agglomeration.chain(by_k_means))
            }
        }
    }
}

impl Agglomeration {
    fn new(
        (cells, space, coordinates): (Cells<'_>, &Space, &[f64]),
        most_components: usize,
        most_cells: usize,
        seed: u64,
    ) -> Result<Self> {
        let (n_cells, n) = (cells.n_cells(), space.n_coordinates());
        if n_cells <= most_cells {
            let scaled = scaled(coordinates, &space.agglomeration_scales(n_cells));
            return Ok(Self { hierarchy: Hierarchy::of(&scaled, n_cells, n), scaled, n, coordinates: None });
        }
        if most_components > most_cells {
            return Err(too_many(most_components, "at most the number of cells that are agglomerated"));
        }
        let sample = sample(n_cells, most_cells, &mut Noise::new(seed));
        let features: Vec<f32> = sample.iter().flat_map(|&cell| cells.cell(cell)).copied().collect();
        let sampled = Cells::new(&features, most_cells, cells.n_features())?;
        // The sample's own spread decides what is near among it.
        let own = Space::of(sampled)?;
        let scaled = scaled(&own.coordinates(sampled), &own.agglomeration_scales(most_cells));
        let n = own.n_coordinates();
        let hierarchy = Hierarchy::of(&scaled, most_cells, n);
        Ok(Self { hierarchy, scaled, n, coordinates: Some(space.coordinates(sampled)) })
    }

    /// Where the agglomerated cells lie, of all cells or of the sample.
    fn points<'a>(&'a self, all: Points<'a>) -> Points<'a> {
        self.coordinates.as_deref().map_or(all, |values| Points { values, n: all.n })
    }

    fn starts<'a>(
        &'a self,
        all: Points<'a>,
        n_components: usize,
    ) -> impl Iterator<Item = Result<Components>> + 'a {
        let groups = move || self.hierarchy.cut(n_components);
        std::iter::once_with(move || of_groups(self.points(all), &groups(), n_components))
    }
}

/// Components of the groups that k-means finds in scaled coordinates, from other centres each time.
fn by_k_means<'a>(
    points: Points<'a>,
    scaled: Points<'a>,
    n_components: usize,
    n_starts: usize,
    seed: u64,
) -> impl Iterator<Item = Result<Components>> + 'a {
    let mut noise = Noise::new(seed);
    (0..n_starts).map(move |_| {
        of_groups(points, &k_means(scaled, n_components, MOST_ROUNDS, &mut noise), n_components)
    })
}

fn of_groups(points: Points<'_>, groups: &[usize], n_components: usize) -> Result<Components> {
    Components::maximise(points, &Memberships::of_groups(groups, n_components))
}

fn too_many(most_components: usize, allowed: &'static str) -> Error {
    Error::bad_option("n_components", most_components, allowed)
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
