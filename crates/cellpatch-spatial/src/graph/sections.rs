//! Slices of one tissue whose spots are in one table, in any order.

use super::{BuiltGraph, Neighborhood, Position, SpatialGraph, stack};
use crate::error::{Error, Result};

/// The graph of a table of spots from several slices: [`stack`], with the spots numbered as they come.
///
/// - positions: of each spot, in a frame that all sections share
/// - section_of: each spot's section, numbered along z
/// - between: radius between adjacent sections, in the unit of the positions; `None` leaves them apart
///
/// # Errors
///
/// As [`build`](super::build), and [`Error::Disagreement`] if there are not as many sections as spots.
pub fn build_sections(
    positions: &[Position],
    section_of: &[u32],
    within: Neighborhood,
    between: Option<f64>,
) -> Result<BuiltGraph> {
    let n_spots = positions.len();
    if section_of.len() != n_spots {
        return Err(Error::Disagreement { what: "sections", found: section_of.len(), expected: n_spots });
    }
    let mut spots: Vec<u32> = (0..n_spots as u32).collect();
    spots.sort_by_key(|&spot| section_of[spot as usize]);
    let sorted: Vec<Position> = spots.iter().map(|&spot| positions[spot as usize]).collect();
    let (mut slices, mut rest) = (Vec::new(), sorted.as_slice());
    for section in spots.chunk_by(|&a, &b| section_of[a as usize] == section_of[b as usize]) {
        let (slice, others) = rest.split_at(section.len());
        slices.push(slice);
        rest = others;
    }
    let built = stack(&slices, within, between).map_err(|error| match error {
        Error::NonFinitePosition { spot, x, y } => {
            Error::NonFinitePosition { spot: spots[spot] as usize, x, y }
        }
        error => error,
    })?;
    let mut lists = vec![Vec::new(); n_spots];
    for (at, &spot) in spots.iter().enumerate() {
        let neighbors = built.graph.neighbors(at).iter();
        lists[spot as usize] = neighbors.map(|&neighbor| spots[neighbor as usize]).collect();
    }
    Ok(BuiltGraph { graph: SpatialGraph::from_lists(lists)?, warnings: built.warnings })
}
