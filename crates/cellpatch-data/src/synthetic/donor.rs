//! Donors and batches, and what they do to every gene.

use rand::{Rng, RngExt};

use super::cell_type::CELL_TYPES;
use super::config::SyntheticConfig;
use super::gene::SyntheticGene;
use super::model::normal;
use super::stream::{Part, stream};

/// Log fold change that silences the genes of the other sex.
const OTHER_SEX: f32 = -8.0;

/// One sequencing batch.
#[derive(Debug)]
pub(super) struct Batch {
    /// Name of the library chemistry, as CELLxGENE spells it.
    pub(super) assay: &'static str,
    /// Library size relative to the average batch.
    pub(super) depth: f64,
    /// Mean activity of the stress programme: how roughly the tissue was dissociated.
    pub(super) stress: f64,
    /// Log fold change of each gene.
    log_effects: Vec<f64>,
}

impl Batch {
    pub(super) fn draw(config: &SyntheticConfig, index: usize) -> Self {
        let random = &mut stream(config.seed, Part::Batch, index);
        let newer = index.is_multiple_of(2);
        Self {
            assay: if newer { "10x 3' v3" } else { "10x 3' v2" },
            depth: if newer { 1.1 } else { 0.85 },
            stress: 2.0 * config.batch_effect * normal(random),
            log_effects: (0..config.n_genes).map(|_| config.batch_effect * normal(random)).collect(),
        }
    }
}

/// One person who gave cells.
#[derive(Debug)]
pub(super) struct Donor {
    /// The batch of all the donor's cells.
    pub(super) batch: usize,
    /// Whether the donor has a viral infection.
    pub(super) infected: bool,
    /// Whether the donor's sex is female.
    pub(super) female: bool,
    /// Library size relative to the average donor.
    pub(super) depth: f64,
    /// Mean activity of the interferon response.
    pub(super) interferon: f64,
    /// Log fold change of each gene, the batch's included.
    pub(super) log_effects: Vec<f32>,
    /// Cumulative proportions of the cell types.
    cumulative: Vec<f64>,
}

impl Donor {
    /// The donor at an index. Batch, infection and sex alternate at different paces, so none stands for another.
    pub(super) fn draw(
        config: &SyntheticConfig,
        genes: &[SyntheticGene],
        batches: &[Batch],
        index: usize,
    ) -> Self {
        let random = &mut stream(config.seed, Part::Donor, index);
        let batch = index % batches.len();
        let infected = (index / 2) % 2 == 1;
        let female = index.div_ceil(2).is_multiple_of(2);
        let depth = (config.donor_effect * normal(random)).exp();
        let interferon = if infected { 1.3 } else { 0.0 } + 0.2 * normal(random);
        let proportions =
            CELL_TYPES.iter().map(|cell_type| cell_type.proportion * (0.3 * normal(random)).exp());
        let cumulative = proportions.scan(0.0, |sum, proportion| {
            *sum += proportion;
            Some(*sum)
        });
        let cumulative = cumulative.collect();
        let other_sex = if female { "male" } else { "female" };
        let log_effect = |(gene, batch_effect): (&SyntheticGene, &f64)| {
            let effect = (batch_effect + config.donor_effect * normal(random)) as f32;
            if gene.has_role(other_sex) { effect + OTHER_SEX } else { effect }
        };
        let log_effects = genes.iter().zip(&batches[batch].log_effects).map(log_effect).collect();
        Self { batch, infected, female, depth, interferon, log_effects, cumulative }
    }

    /// Index into [`CELL_TYPES`] of one of the donor's cells.
    pub(super) fn draw_cell_type(&self, random: &mut impl Rng) -> usize {
        let total = self.cumulative.last().copied().unwrap_or_default();
        let point = total * random.random::<f64>();
        self.cumulative.partition_point(|&sum| sum <= point).min(CELL_TYPES.len() - 1)
    }

    /// The donor's disease, as CELLxGENE spells it.
    pub(super) fn disease(&self) -> &'static str {
        if self.infected { "influenza" } else { "normal" }
    }

    /// The donor's sex, as CELLxGENE spells it.
    pub(super) fn sex(&self) -> &'static str {
        if self.female { "female" } else { "male" }
    }
}
