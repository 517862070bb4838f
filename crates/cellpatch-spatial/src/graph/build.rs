//! From positions to neighbours.

use std::collections::HashSet;
use std::fmt;

use cellpatch_analysis::KdTree;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{NeighborStatistics, Position, SpatialGraph};
use crate::error::{Error, Result};

/// Positions in a leaf of the search tree.
const LEAF: usize = 16;
/// A mean of more neighbours than this is taken as a mistake in the radius.
const MOST_NEIGHBORS: usize = 64;
/// Spots that are looked at before a radius is taken as meant.
const SAMPLE: usize = 512;
/// Neighbours that a suggested radius gives: those of a hexagonal grid.
const SUGGESTED_NEIGHBORS: usize = 6;
/// By how much a suggested radius exceeds the distance, because grids are never exact.
const SUGGESTED_MARGIN: f64 = 1.1;

/// Who is a spot's neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Neighborhood {
    /// Every spot not further away, in the unit of the positions.
    Radius(f64),
    /// So many nearest ones; of equally far ones those of lower number. Not symmetric: the spot reads its nearest.
    Nearest(usize),
}

/// A graph and what is odd about it.
#[derive(Debug, Clone)]
pub struct BuiltGraph {
    /// The graph.
    pub graph: SpatialGraph,
    /// Nothing here keeps a model from training; each may be a mistake.
    pub warnings: Vec<GraphWarning>,
}

/// What is odd about a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GraphWarning {
    /// Some spots have no neighbour: their domain is told by their own expression only.
    IsolatedSpots {
        /// How many.
        n_spots: usize,
    },
    /// The graph falls into parts.
    Disconnected {
        /// How many, isolated spots among them.
        n_components: usize,
        /// Spots of the largest.
        largest: usize,
    },
    /// Some spots lie exactly where another lies; they are neighbours like others.
    DuplicatePositions {
        /// How many, the first at each place not counted.
        n_spots: usize,
    },
}

impl fmt::Display for GraphWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IsolatedSpots { n_spots } => write!(f, "{n_spots} spots have no neighbour"),
            Self::Disconnected { n_components, largest } => {
                write!(f, "the graph falls into {n_components} parts, the largest of {largest} spots")
            }
            Self::DuplicatePositions { n_spots } => {
                write!(f, "{n_spots} spots lie exactly where another lies")
            }
        }
    }
}

/// The graph of one slice.
///
/// # Errors
///
/// [`Error::NonFinitePosition`], [`Error::TooFewSpots`] for fewer than two spots or not more than the nearest asked for,
/// [`Error::BadNeighborhood`], [`Error::NoNeighbors`], and [`Error::TooManyNeighbors`] where a radius gives more than 64
/// neighbours on average.
pub fn build(positions: &[Position], neighborhood: Neighborhood) -> Result<BuiltGraph> {
    stack(&[positions], neighborhood, None)
}

/// The graph of slices of one tissue, in their order along z, their positions in one frame (STAGATE's three-dimensional
/// mode): neighbours on a slice, and spots of adjacent slices not further apart than a radius, both looked at along z.
/// Spots are numbered slice by slice.
///
/// - between: radius between adjacent slices, in the unit of the positions; `None` leaves them apart
///
/// # Errors
///
/// As [`build`].
pub fn stack(slices: &[&[Position]], within: Neighborhood, between: Option<f64>) -> Result<BuiltGraph> {
    check(slices, within, between)?;
    let trees: Vec<KdTree<'_>> = slices.iter().map(|positions| KdTree::new(positions, LEAF)).collect();
    let firsts: Vec<usize> = slices
        .iter()
        .scan(0, |next, positions| {
            let first = *next;
            *next += positions.len();
            Some(first)
        })
        .collect();
    let suggested = || suggested_radius(&trees, slices);
    if let Neighborhood::Radius(radius) = within {
        refuse_a_crowd(slices.iter().copied().zip(&trees), radius, suggested)?;
    }
    if let Some(radius) = between {
        refuse_a_crowd(slices.iter().copied().zip(trees.iter().skip(1)), radius, suggested)?;
    }
    let mut lists = Vec::with_capacity(slices.iter().map(|positions| positions.len()).sum());
    for (slice, positions) in slices.iter().enumerate() {
        let neighbors_of = |spot: usize| {
            let mut list = Vec::new();
            match within {
                Neighborhood::Radius(radius) => {
                    trees[slice].within(positions[spot], radius * radius, &mut |near| {
                        list.push((firsts[slice] + near.place as usize) as u32);
                    })
                }
                Neighborhood::Nearest(k) => list.extend(
                    trees[slice]
                        .nearest(positions[spot], k, Some(spot as u32))
                        .iter()
                        .map(|near| (firsts[slice] + near.place as usize) as u32),
                ),
            }
            if let Some(radius) = between {
                let adjacent = [slice.checked_sub(1), Some(slice + 1).filter(|&next| next < slices.len())];
                for other in adjacent.into_iter().flatten() {
                    trees[other].within(positions[spot], radius * radius, &mut |near| {
                        list.push((firsts[other] + near.place as usize) as u32);
                    });
                }
            }
            list
        };
        lists.par_extend((0..positions.len()).into_par_iter().map(neighbors_of));
    }
    let graph = SpatialGraph::from_lists(lists)?;
    if let Neighborhood::Radius(radius) = within
        && graph.n_edges() == graph.n_spots()
    {
        return Err(Error::NoNeighbors { radius, suggested_radius: suggested() });
    }
    let warnings = warnings(&graph, slices);
    Ok(BuiltGraph { graph, warnings })
}

fn check(slices: &[&[Position]], within: Neighborhood, between: Option<f64>) -> Result<()> {
    let positive = |radius: f64| match radius.is_finite() && radius > 0.0 {
        true => Ok(()),
        false => Err(Error::BadNeighborhood { what: "a radius of", value: radius }),
    };
    between.map_or(Ok(()), positive)?;
    let needed = match within {
        Neighborhood::Radius(radius) => positive(radius).map(|()| 1)?,
        Neighborhood::Nearest(0) => {
            return Err(Error::BadNeighborhood { what: "a number of nearest spots of", value: 0.0 });
        }
        Neighborhood::Nearest(k) => k + 1,
    };
    let n_spots: usize = slices.iter().map(|positions| positions.len()).sum();
    if n_spots < 2 {
        return Err(Error::TooFewSpots { n_spots, needed: needed.max(2) });
    }
    let mut spot = 0;
    for positions in slices {
        if positions.len() < needed {
            return Err(Error::TooFewSpots { n_spots: positions.len(), needed });
        }
        for &[x, y] in *positions {
            if !(x.is_finite() && y.is_finite()) {
                return Err(Error::NonFinitePosition { spot, x, y });
            }
            spot += 1;
        }
    }
    Ok(())
}

/// Evenly spread spots of a slice.
fn sample(n_spots: usize) -> impl ParallelIterator<Item = usize> {
    let n = n_spots.min(SAMPLE);
    (0..n).into_par_iter().map(move |index| index * n_spots / n)
}

/// Refuses a radius that gives a sample of spots too many neighbours: before all their lists are made.
///
/// - pairs: positions that read, and the tree of those that are read
fn refuse_a_crowd<'a>(
    pairs: impl Iterator<Item = (&'a [Position], &'a KdTree<'a>)>,
    radius: f64,
    suggested_radius: impl FnOnce() -> f64,
) -> Result<()> {
    let mut counts = Vec::new();
    for (positions, tree) in pairs {
        counts.par_extend(sample(positions.len()).map(|spot| {
            let mut n = 0_usize;
            tree.within(positions[spot], radius * radius, &mut |_| n += 1);
            n.saturating_sub(1)
        }));
    }
    let statistics = NeighborStatistics::of(counts);
    if statistics.mean <= MOST_NEIGHBORS as f64 {
        return Ok(());
    }
    Err(Error::TooManyNeighbors {
        radius,
        limit: MOST_NEIGHBORS,
        statistics: Box::new(statistics),
        suggested_radius: suggested_radius(),
    })
}

/// A little more than the distance of the sixth nearest spot from the median spot.
fn suggested_radius(trees: &[KdTree<'_>], slices: &[&[Position]]) -> f64 {
    let mut distances = Vec::new();
    for (positions, tree) in slices.iter().zip(trees) {
        distances.par_extend(sample(positions.len()).filter_map(|spot| {
            tree.nearest(positions[spot], SUGGESTED_NEIGHBORS, Some(spot as u32))
                .last()
                .map(|near| near.squared.sqrt())
        }));
    }
    distances.sort_unstable_by(f64::total_cmp);
    distances.get(distances.len() / 2).map_or(0.0, |median| median * SUGGESTED_MARGIN)
}

fn warnings(graph: &SpatialGraph, slices: &[&[Position]]) -> Vec<GraphWarning> {
    let mut warnings = Vec::new();
    let n_isolated = graph.statistics().n_isolated;
    if n_isolated > 0 {
        warnings.push(GraphWarning::IsolatedSpots { n_spots: n_isolated });
    }
    let sizes = graph.components().sizes;
    if sizes.len() > 1 {
        let largest = sizes.iter().copied().max().unwrap_or(0);
        warnings.push(GraphWarning::Disconnected { n_components: sizes.len(), largest });
    }
    let mut places = HashSet::new();
    let mut n_duplicates = 0;
    for positions in slices {
        places.clear();
        // Adding 0 makes -0 and 0 one place.
        n_duplicates +=
            positions.iter().filter(|position| !places.insert(position.map(|x| (x + 0.0).to_bits()))).count();
    }
    if n_duplicates > 0 {
        warnings.push(GraphWarning::DuplicatePositions { n_spots: n_duplicates });
    }
    warnings
}
