//! How continuous domains are in space.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::refine::check;
use crate::cells::Cells;
use crate::error::{Error, Result};
use crate::neighbors::{Metric, Neighbors};
use crate::parallel::sum_over;
use crate::sums::Sums;

/// Neighbours that a spot is held against.
const N_NEIGHBORS: usize = 10;
/// A domain of fewer spots adds nothing to the chaos.
const FEWEST: usize = 3;

/// The spatial chaos score, the lower the more continuous: the distance from each spot to the nearest of its domain, in the
/// mean over all spots, with each coordinate scaled to variance 1 (Shang and Zhou 2022, as Yuan et al. 2024, SDMBench,
/// compute it: domains of one or two spots add nothing to the sum and their spots count in the mean).
///
/// - `domains`: `[n_spots]` domain numbers
/// - `places`: `[n_spots, 2]` (or more dimensions), in any unit
///
/// # Errors
/// [`Error::LengthMismatch`] where there is not one place for each domain, [`Error::Nothing`] without spots.
pub fn chaos(domains: &[usize], places: Cells<'_>) -> Result<f64> {
    check(domains, places)?;
    if domains.is_empty() {
        return Err(Error::Nothing { what: "spots" });
    }
    let scaled = scaled(places);
    let n = places.n_features();
    let mut spots = BTreeMap::<usize, Vec<f32>>::new();
    for (&domain, place) in domains.iter().zip(scaled.chunks(n.max(1))) {
        spots.entry(domain).or_default().extend(place);
    }
    let mut sum = 0.0;
    for places in spots.values().filter(|places| places.len() >= FEWEST * n) {
        let cells = Cells::new(places, places.len() / n.max(1), n)?;
        let nearest = Neighbors::within(cells, 1, Metric::Euclidean)?;
        sum +=
            (0..cells.n_cells()).flat_map(|spot| nearest.distances(spot)).map(|&x| f64::from(x)).sum::<f64>();
    }
    Ok(sum / domains.len() as f64)
}

/// The share of spots of which more than half of the 10 nearest others are of another domain, from 0 for continuous domains
/// to 1 (PAS; Shang and Zhou 2022).
///
/// - `domains`: `[n_spots]` domain numbers
/// - `places`: `[n_spots, 2]` (or more dimensions), in any unit
///
/// # Errors
/// [`Error::LengthMismatch`] where there is not one place for each domain, [`Error::Nothing`] without spots.
pub fn percentage_of_abnormal_spots(domains: &[usize], places: Cells<'_>) -> Result<f64> {
    check(domains, places)?;
    if domains.is_empty() {
        return Err(Error::Nothing { what: "spots" });
    }
    let neighbors = Neighbors::within(places, N_NEIGHBORS, Metric::Euclidean)?;
    let is_abnormal = |&spot: &usize| {
        let others = neighbors.of(spot).iter().filter(|near| domains[**near as usize] != domains[spot]);
        2 * others.count() > N_NEIGHBORS
    };
    let n_abnormal = (0..domains.len()).into_par_iter().filter(is_abnormal).count();
    Ok(n_abnormal as f64 / domains.len() as f64)
}

/// Places with each coordinate's mean 0 and variance 1, or 0 throughout where it does not vary.
fn scaled(places: Cells<'_>) -> Vec<f32> {
    let (n_spots, n) = (places.n_cells(), places.n_features());
    let mean_of = |value: &(dyn Fn(usize, f64) -> f64 + Sync)| -> Vec<f64> {
        let sums = sum_over(n_spots, |spots| {
            let mut sums = Sums::of(n);
            for spot in spots {
                sums.add(places.cell(spot).iter().enumerate().map(|(at, &x)| value(at, f64::from(x))));
            }
            sums
        });
        sums.into_values(n).into_iter().map(|sum| sum / n_spots as f64).collect()
    };
    let means = mean_of(&|_, x| x);
    let variances = mean_of(&|at, x| (x - means[at]).powi(2));
    let place = |(at, &x): (usize, &f32)| {
        let (at, deviation) = (at % n, variances[at % n].sqrt());
        if deviation > 0.0 { ((f64::from(x) - means[at]) / deviation) as f32 } else { 0.0 }
    };
    places.values().iter().enumerate().map(place).collect()
}
