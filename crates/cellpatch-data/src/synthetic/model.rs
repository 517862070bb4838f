//! Expected expression of every gene in every kind of cell, and the draw of one cell from it.

use crate::random::RandomStream;
use rand::{Rng, RngExt};
use rand_distr::{Distribution, Gamma, Poisson, StandardNormal};

use super::cell_type::{CELL_TYPES, cell_type_roles};
use super::config::SyntheticConfig;
use super::donor::{Batch, Donor};
use super::gene::SyntheticGene;
use super::program::{CELL_CYCLE, INTERFERON, NAMED_PROGRAMS, Program, RIBOSOMAL, STRESS};
use super::stream::{Part, stream};

/// Expression of all background genes together, in counts per 10,000.
const BACKGROUND_TOTAL: f64 = 7_000.0;
/// Standard deviation of curated genes' log level around their role's level.
const CURATED_SD: f64 = 0.6;
/// Share of the background genes that one cell type or lineage changes, and by how much (log fold change).
const ROLE_SHARE: f64 = 0.12;
const ROLE_EFFECT: f64 = 1.1;
/// Activity of the cell cycle programme in a dividing cell, in natural log units.
const DIVIDING: f64 = 3.0;
/// Natural logarithm of 500 counts per 10,000, which no gene exceeds by much: even insulin stays near a tenth of a
/// cell's transcripts, and no cell is left with one gene.
const LOG_CEILING: f32 = 6.2146;
/// Expected counts above which a draw goes through its gamma and Poisson parts instead of inversion.
const INVERSION_LIMIT: f64 = 30.0;

/// One synthetic cell's truth, without its counts.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct SyntheticCell {
    /// Index into [`CELL_TYPES`].
    pub cell_type: usize,
    /// Index of the donor.
    pub donor: usize,
    /// Index of the batch.
    pub batch: usize,
    /// Expected total count, before dropout.
    pub library_size: f32,
    /// Activity of the cell cycle programme, in natural log units: 0 at rest.
    pub cell_cycle: f32,
    /// Activity of the interferon response, in natural log units.
    pub interferon: f32,
    /// Activity of the stress response, in natural log units.
    pub stress: f32,
}

/// Everything that is the same for all cells: levels, effects, programmes, donors and batches.
#[derive(Debug)]
pub(super) struct ExpressionModel {
    config: SyntheticConfig,
    pub(super) genes: Vec<SyntheticGene>,
    pub(super) donors: Vec<Donor>,
    pub(super) batches: Vec<Batch>,
    programs: Vec<Program>,
    /// Log expression of each gene in each cell type.
    log_levels: Vec<Vec<f32>>,
    /// Mean activity of each latent programme in each cell type.
    latent_means: Vec<Vec<f64>>,
    /// 1 / phi of each gene's negative binomial.
    sizes: Vec<f64>,
}

/// Buffers that one thread uses again for every cell it draws.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    weights: Vec<f32>,
    activities: Vec<f64>,
}

impl ExpressionModel {
    pub(super) fn new(config: &SyntheticConfig) -> Self {
        let genes = SyntheticGene::catalogue(config.n_genes);
        let batches: Vec<Batch> = (0..config.n_batches).map(|index| Batch::draw(config, index)).collect();
        let donors = (0..config.n_donors).map(|index| Donor::draw(config, &genes, &batches, index)).collect();
        let mut random = stream(config.seed, Part::Genes, 0);
        let offsets = gene_offsets(config, &genes, &mut random);
        let sizes = genes.iter().map(|_| 1.0 / (config.dispersion * (0.3 * normal(&mut random)).exp()));
        let sizes = sizes.collect();
        let latent_means = (0..CELL_TYPES.len()).map(|index| {
            let mut random = stream(config.seed, Part::CellType, index);
            (0..config.n_latent_programs).map(|_| 0.7 * normal(&mut random)).collect()
        });
        Self {
            config: config.clone(),
            latent_means: latent_means.collect(),
            programs: Program::draw_all(config, &genes),
            log_levels: log_levels(config, &genes, &offsets),
            genes,
            donors,
            batches,
            sizes,
        }
    }

    /// Draws one cell: its truth, and its non-zero counts appended to `columns` and `values`.
    pub(super) fn draw_cell(
        &self,
        index: usize,
        scratch: &mut Scratch,
        columns: &mut Vec<u32>,
        values: &mut Vec<f32>,
    ) -> SyntheticCell {
        let random = &mut stream(self.config.seed, Part::Cell, index);
        let donor_index = index % self.donors.len();
        let donor = &self.donors[donor_index];
        let cell_type_index = donor.draw_cell_type(random);
        let cell_type = &CELL_TYPES[cell_type_index];
        let batch = &self.batches[donor.batch];
        let library_size = self.config.median_library_size
            * cell_type.size
            * batch.depth
            * donor.depth
            * (self.config.library_size_sd * normal(random)).exp();
        self.draw_activities(cell_type_index, donor, random, &mut scratch.activities);
        self.expected_shares(cell_type_index, donor, scratch);
        for (column, (&share, &size)) in scratch.weights.iter().zip(&self.sizes).enumerate() {
            let mean = f64::from(share) * library_size;
            let count = draw_count(mean, size, self.config.dropout_midpoint, random);
            if count > 0.0 {
                columns.push(column as u32);
                values.push(count as f32);
            }
        }
        SyntheticCell {
            cell_type: cell_type_index,
            donor: donor_index,
            batch: donor.batch,
            library_size: library_size as f32,
            cell_cycle: scratch.activities[CELL_CYCLE] as f32,
            interferon: scratch.activities[INTERFERON] as f32,
            stress: scratch.activities[STRESS] as f32,
        }
    }

    /// Activity of every programme in one cell: what its type, donor and batch give it, and its own part.
    fn draw_activities(
        &self,
        cell_type: usize,
        donor: &Donor,
        random: &mut RandomStream,
        activities: &mut Vec<f64>,
    ) {
        let strength = self.config.program_strength;
        activities.clear();
        activities
            .extend(NAMED_PROGRAMS.iter().map(|program| strength * program.activity_sd * normal(random)));
        let dividing = random.random::<f64>() < CELL_TYPES[cell_type].cycling;
        let phase = 0.5 * normal(random);
        activities[CELL_CYCLE] = if dividing { strength * (DIVIDING + phase) } else { 0.0 };
        activities[INTERFERON] += donor.interferon;
        activities[STRESS] += self.batches[donor.batch].stress;
        activities[RIBOSOMAL] += CELL_TYPES[cell_type].translation;
        activities.extend(self.latent_means[cell_type].iter().map(|mean| mean + strength * normal(random)));
    }

    /// Fills `scratch.weights` with each gene's share of the cell's counts; the shares sum to 1.
    fn expected_shares(&self, cell_type: usize, donor: &Donor, scratch: &mut Scratch) {
        let weights = &mut scratch.weights;
        weights.clear();
        weights.extend(
            self.log_levels[cell_type].iter().zip(&donor.log_effects).map(|(level, effect)| level + effect),
        );
        for (program, &activity) in self.programs.iter().zip(&scratch.activities) {
            for &(gene, loading) in &program.loadings {
                weights[gene as usize] += activity as f32 * loading;
            }
        }
        weights.iter_mut().for_each(|weight| *weight = weight.min(LOG_CEILING).exp());
        let total: f64 = weights.iter().copied().map(f64::from).sum();
        let scale = (1.0 / total) as f32;
        weights.iter_mut().for_each(|weight| *weight *= scale);
    }
}

/// Each gene's own log deviation: of a curated gene from its role's level, of a background gene the whole log level.
fn gene_offsets(config: &SyntheticConfig, genes: &[SyntheticGene], random: &mut impl Rng) -> Vec<f64> {
    let deviations = genes.iter().map(|gene| {
        let sd = if gene.is_background() { config.gene_mean_sd } else { CURATED_SD };
        sd * normal(random)
    });
    let mut offsets: Vec<f64> = deviations.collect();
    let background = || genes.iter().map(SyntheticGene::is_background);
    let total: f64 =
        offsets.iter().zip(background()).filter(|(_, yes)| *yes).map(|(offset, _)| offset.exp()).sum();
    if total > 0.0 {
        let shift = (BACKGROUND_TOTAL / total).ln();
        offsets.iter_mut().zip(background()).filter(|(_, yes)| *yes).for_each(|(offset, _)| *offset += shift);
    }
    offsets
}

/// Log expression of each gene in each cell type: curated genes by their roles, background genes by sparse
/// differences that lineages hand down to their types.
fn log_levels(config: &SyntheticConfig, genes: &[SyntheticGene], offsets: &[f64]) -> Vec<Vec<f32>> {
    let roles = cell_type_roles();
    let differences: Vec<Vec<f64>> = (0..roles.len())
        .map(|role| {
            let mut random = stream(config.seed, Part::Role, role);
            let difference = |_| {
                let (chosen, fold) = (random.random::<f64>() < ROLE_SHARE, ROLE_EFFECT * normal(&mut random));
                if chosen { fold } else { 0.0 }
            };
            genes.iter().map(difference).collect()
        })
        .collect();
    CELL_TYPES
        .iter()
        .map(|cell_type| {
            let of_type = roles.iter().zip(&differences).filter(|(role, _)| cell_type.roles.contains(role));
            let of_type: Vec<&Vec<f64>> = of_type.map(|(_, difference)| difference).collect();
            let level = |(index, gene): (usize, &SyntheticGene)| {
                let level = if gene.is_background() {
                    of_type.iter().map(|difference| difference[index]).sum()
                } else {
                    gene.level(cell_type).ln()
                };
                (offsets[index] + level) as f32
            };
            genes.iter().enumerate().map(level).collect()
        })
        .collect()
}

/// A standard normal number.
pub(super) fn normal(random: &mut impl Rng) -> f64 {
    StandardNormal.sample(random)
}

/// One count: a negative binomial of the given mean and size (1 / phi), lost altogether with the Michaelis-Menten
/// dropout probability `midpoint / (midpoint + mean)` (Andrews and Hemberg, Bioinformatics 2019).
///
/// A negative binomial is a Poisson count whose rate is gamma distributed. Small means are drawn by inverting its
/// distribution function with one uniform number, large ones by drawing the gamma rate and then the count.
fn draw_count(mean: f64, size: f64, midpoint: f64, random: &mut impl Rng) -> f64 {
    let uniform: f64 = random.random();
    let lost = if midpoint > 0.0 { midpoint / (midpoint + mean) } else { 0.0 };
    if uniform < lost || mean <= 0.0 {
        return 0.0;
    }
    if mean > INVERSION_LIMIT {
        let rate = Gamma::new(size, mean / size).map_or(mean, |gamma| gamma.sample(random));
        return Poisson::new(rate).map_or(rate.round(), |poisson| poisson.sample(random));
    }
    let mut left = (uniform - lost) / (1.0 - lost);
    let mut probability = (-size * (mean / size).ln_1p()).exp();
    let ratio = mean / (mean + size);
    let mut count = 0.0;
    while left >= probability && probability > f64::MIN_POSITIVE {
        left -= probability;
        count += 1.0;
        probability *= ratio * (count - 1.0 + size) / count;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and variance of 40,000 draws.
    fn moments(mean: f64, size: f64, midpoint: f64) -> (f64, f64) {
        let mut random = stream(1, Part::Cell, 0);
        let draws: Vec<f64> = (0..40_000).map(|_| draw_count(mean, size, midpoint, &mut random)).collect();
        let average = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|draw| (draw - average).powi(2)).sum::<f64>() / draws.len() as f64;
        (average, variance)
    }

    #[test]
    fn counts_have_the_mean_and_variance_of_a_negative_binomial_however_they_are_drawn() {
        for mean in [0.1, 2.0, 25.0, 35.0, 400.0] {
            let phi = 0.3;
            let (average, variance) = moments(mean, 1.0 / phi, 0.0);
            let expected = mean + phi * mean * mean;
            // Standard error of the mean, times 5; the variance of heavy tails converges slowly.
            assert!((average - mean).abs() < 5.0 * (expected / 40_000.0).sqrt(), "{mean}: {average}");
            assert!((variance / expected - 1.0).abs() < 0.08, "{mean}: {variance} for {expected}");
        }
    }

    #[test]
    fn dropout_takes_half_at_the_midpoint_and_little_from_high_expression() {
        let (at_midpoint, _) = moments(0.5, 3.0, 0.5);
        let (high, _) = moments(50.0, 3.0, 0.5);
        assert!((at_midpoint / 0.25 - 1.0).abs() < 0.05, "{at_midpoint}");
        assert!((high / 49.5 - 1.0).abs() < 0.02, "{high}");
    }
}
