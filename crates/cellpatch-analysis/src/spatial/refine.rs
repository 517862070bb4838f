//! Domains by majority.

use rayon::prelude::*;

use crate::cells::Cells;
use crate::error::{Error, Result};
use crate::neighbors::{Metric, Neighbors};

/// The domain of most of each spot's nearest spots, itself not counted, as STAGATE refines domains (Dong and Zhang 2022,
/// with 50 spots). Of several that are as frequent, the one that is met first going away from the spot.
///
/// - `domains`: `[n_spots]` domain numbers
/// - `places`: `[n_spots, 2]` (or more dimensions), in any unit
/// - `n_neighbors`: nearest spots that vote, all others where there are fewer
///
/// A spot without neighbours keeps its domain. Neighbours are exact; equally near ones count in the order of their numbers.
///
/// # Errors
/// [`Error::LengthMismatch`] where there is not one place for each domain, [`Error::BadOption`] for no neighbours.
pub fn refined_domains(domains: &[usize], places: Cells<'_>, n_neighbors: usize) -> Result<Vec<usize>> {
    check(domains, places)?;
    let neighbors = Neighbors::within(places, n_neighbors, Metric::Euclidean)?;
    let majority = |spot: usize| {
        let near = neighbors.of(spot).iter().map(|near| domains[*near as usize]);
        let mut counts: Vec<(usize, usize)> = Vec::new();
        for domain in near {
            match counts.iter_mut().find(|(known, _)| *known == domain) {
                Some((_, count)) => *count += 1,
                None => counts.push((domain, 1)),
            }
        }
        let most = counts.iter().map(|(_, count)| *count).max();
        counts.iter().find(|(_, count)| Some(*count) == most).map_or(domains[spot], |(domain, _)| *domain)
    };
    Ok((0..domains.len()).into_par_iter().map(majority).collect())
}

/// That every spot has a place.
pub(super) fn check(domains: &[usize], places: Cells<'_>) -> Result<()> {
    if domains.len() == places.n_cells() {
        return Ok(());
    }
    Err(Error::LengthMismatch { what: "places", n_found: places.n_cells(), n_expected: domains.len() })
}
