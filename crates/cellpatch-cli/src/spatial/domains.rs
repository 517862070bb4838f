//! From an embedding to domains, and how good they are.

use cellpatch_analysis::metrics::LabelAgreement;
use cellpatch_analysis::spatial::{chaos, percentage_of_abnormal_spots, refined_domains};
use cellpatch_analysis::{Cells, GaussianMixture, Leiden, LeidenOptions, Metric, NeighborGraph, Neighbors};

use super::options::SpatialOptions;
use super::slice::LoadedSlice;
use crate::annotate::usage;
use crate::failure::Failure;

/// Neighbours of a spot in the graph that Leiden divides, as in scanpy.
const LEIDEN_NEIGHBORS: usize = 14;

/// Domains of a slice's spots.
#[derive(Debug, Clone)]
pub(super) struct Domains {
    /// As they come from the embedding, or most of several.
    pub of_embedding: Vec<usize>,
    /// After spots took the domain of most of their neighbours, where that was asked for.
    pub refined: Option<Vec<usize>>,
    /// How the final ones agree with the labels.
    pub agreement: Option<LabelAgreement>,
    pub chaos: f64,
    pub pas: f64,
}

impl Domains {
    /// Domains as they come from an embedding.
    ///
    /// - embedding: [spots, latent_dim]
    pub(super) fn of_embedding(
        options: &SpatialOptions,
        slice: &LoadedSlice,
        embedding: &[f32],
    ) -> Result<Vec<usize>, Failure> {
        let n_spots = slice.n_spots();
        let width = embedding.len() / n_spots.max(1);
        let mut smoothed = embedding.to_vec();
        for _ in 0..options.smooth() {
            smoothed = slice.data.slice().graph().neighborhood_means(&smoothed, width)?;
        }
        let cells = Cells::new(&smoothed, n_spots, width)?;
        match options.leiden {
            Some(resolution) => {
                let neighbors = Neighbors::within(cells, LEIDEN_NEIGHBORS, Metric::Euclidean)?;
                let options = LeidenOptions { resolution, ..LeidenOptions::default() };
                Ok(Leiden::fit(&NeighborGraph::of(&neighbors), &options)?.labels().to_vec())
            }
            None => {
                let n_domains = n_domains(options, slice)?;
                let mixture = GaussianMixture::fit(cells, n_domains, &options.mixture());
                let mixture = mixture.map_err(|error| {
                    Failure::from(error)
                        .with_help("ask for fewer domains, or find their number by --leiden 1")
                })?;
                Ok(mixture.labels().to_vec())
            }
        }
    }

    /// Refines and scores domains, where that was asked for.
    pub(super) fn finish(
        options: &SpatialOptions,
        slice: &LoadedSlice,
        of_embedding: Vec<usize>,
    ) -> Result<Self, Failure> {
        let refined = options.refine.map(|n| refine(slice, &of_embedding, n)).transpose()?;
        let last = refined.as_ref().unwrap_or(&of_embedding);
        let agreement = slice.label_codes().map(|labels| LabelAgreement::of(last, &labels)).transpose()?;
        let (chaos, pas) = continuity(slice, last)?;
        Ok(Self { of_embedding, refined, agreement, chaos, pas })
    }

    /// The domains to use.
    pub(super) fn last(&self) -> &[usize] {
        self.refined.as_ref().unwrap_or(&self.of_embedding)
    }

    /// How many there are.
    pub(super) fn n_domains(&self) -> usize {
        self.last().iter().collect::<std::collections::BTreeSet<_>>().len()
    }
}

/// Finds out whether a slice can have the domains that were asked for, before anything is trained.
pub(super) fn check(options: &SpatialOptions, slice: &LoadedSlice) -> Result<(), Failure> {
    if options.leiden.is_none() {
        n_domains(options, slice)?;
    }
    Ok(())
}

fn n_domains(options: &SpatialOptions, slice: &LoadedSlice) -> Result<usize, Failure> {
    let n_domains = match (options.domains, &slice.labels) {
        (Some(n), _) => n,
        (None, Some(labels)) => labels.categories.len(),
        (None, None) => return Err(usage("it is not said how many domains there are".into())),
    };
    if n_domains > slice.n_spots() {
        return Err(usage(format!(
            "{n_domains} domains were asked for, and {} has {} spots",
            slice.name,
            slice.n_spots()
        ))
        .with_help("ask for fewer by --domains"));
    }
    Ok(n_domains)
}

/// Domains and places of a section's spots.
fn of_section(slice: &LoadedSlice, spots: &[usize], domains: &[usize]) -> (Vec<usize>, Vec<f32>) {
    let positions: Vec<[f64; 2]> = spots.iter().map(|&spot| slice.positions[spot]).collect();
    (spots.iter().map(|&spot| domains[spot]).collect(), centred(&positions))
}

/// Each spot gets the domain of most of its nearest spots on its section.
fn refine(slice: &LoadedSlice, domains: &[usize], n_voters: usize) -> Result<Vec<usize>, Failure> {
    let mut refined = domains.to_vec();
    for spots in slice.spots_by_section() {
        let (domains, places) = of_section(slice, &spots, domains);
        let found = refined_domains(&domains, Cells::new(&places, spots.len(), 2)?, n_voters)?;
        spots.iter().zip(found).for_each(|(&spot, domain)| refined[spot] = domain);
    }
    Ok(refined)
}

/// CHAOS and PAS, in the mean over the spots of all sections.
fn continuity(slice: &LoadedSlice, domains: &[usize]) -> Result<(f64, f64), Failure> {
    let (mut chaos_sum, mut pas_sum) = (0.0, 0.0);
    for spots in slice.spots_by_section() {
        let (domains, places) = of_section(slice, &spots, domains);
        let (places, n) = (Cells::new(&places, spots.len(), 2)?, spots.len() as f64);
        chaos_sum += n * chaos(&domains, places)?;
        pas_sum += n * percentage_of_abnormal_spots(&domains, places)?;
    }
    let n_spots = slice.n_spots() as f64;
    Ok((chaos_sum / n_spots, pas_sum / n_spots))
}

/// Positions from their middle, so that single precision is precise enough whatever the origin.
fn centred(positions: &[[f64; 2]]) -> Vec<f32> {
    let n = positions.len().max(1) as f64;
    let middle = |axis: usize| positions.iter().map(|position| position[axis]).sum::<f64>() / n;
    let middle = [middle(0), middle(1)];
    positions.iter().flat_map(|[x, y]| [(x - middle[0]) as f32, (y - middle[1]) as f32]).collect()
}

/// Names of domains: 1, 2, 3, ...
pub(super) fn names(domains: &[usize]) -> Vec<Option<String>> {
    domains.iter().map(|domain| Some((domain + 1).to_string())).collect()
}
