//! Gene programmes: sets of genes that rise and fall together from cell to cell.

use rand::{Rng, RngExt};
use rand_distr::{Distribution, StandardNormal};

use super::config::SyntheticConfig;
use super::gene::SyntheticGene;
use super::stream::{Part, stream};

/// Share of the background genes that belong to one programme.
const BACKGROUND_SHARE: f64 = 0.06;
/// Standard deviation of a background gene's log response to one unit of activity.
const BACKGROUND_LOADING: f64 = 0.5;

/// A programme whose genes are known.
#[derive(Debug)]
pub(super) struct NamedProgram {
    /// The role of its genes in the table of genes.
    pub(super) role: &'static str,
    /// Standard deviation of its activity between cells alike in type, donor and batch, in natural log units.
    pub(super) activity_sd: f64,
}

/// The known programmes, in the order of a cell's activities.
pub(super) const NAMED_PROGRAMS: [NamedProgram; 8] = [
    NamedProgram { role: "cell_cycle", activity_sd: 0.0 },
    NamedProgram { role: "interferon", activity_sd: 0.5 },
    NamedProgram { role: "stress", activity_sd: 0.8 },
    NamedProgram { role: "hypoxia", activity_sd: 0.6 },
    NamedProgram { role: "ribosomal", activity_sd: 0.35 },
    NamedProgram { role: "mitochondrial", activity_sd: 0.4 },
    NamedProgram { role: "cytotoxic", activity_sd: 0.8 },
    NamedProgram { role: "antigen_presenting", activity_sd: 0.5 },
];
/// Index of the programme of dividing cells.
pub(super) const CELL_CYCLE: usize = 0;
/// Index of the response to interferon.
pub(super) const INTERFERON: usize = 1;
/// Index of the immediate early and heat shock response.
pub(super) const STRESS: usize = 2;
/// Index of the translation machinery.
pub(super) const RIBOSOMAL: usize = 4;

/// How genes respond to one programme.
#[derive(Debug)]
pub(super) struct Program {
    /// Gene index and log fold change at one unit of activity, by ascending gene.
    pub(super) loadings: Vec<(u32, f32)>,
}

impl Program {
    /// The named programmes, then `config.n_latent_programs` programmes of background genes alone.
    pub(super) fn draw_all(config: &SyntheticConfig, genes: &[SyntheticGene]) -> Vec<Self> {
        (0..NAMED_PROGRAMS.len() + config.n_latent_programs)
            .map(|index| {
                let role = NAMED_PROGRAMS.get(index).map(|program| program.role);
                Self::draw(genes, role, &mut stream(config.seed, Part::Program, index))
            })
            .collect()
    }

    fn draw(genes: &[SyntheticGene], role: Option<&str>, random: &mut impl Rng) -> Self {
        let mut loadings = Vec::new();
        for (gene, index) in genes.iter().zip(0u32..) {
            // Both numbers are always drawn, so one gene's roles do not shift another's loading.
            let chosen = random.random::<f64>() < BACKGROUND_SHARE;
            let normal: f64 = StandardNormal.sample(random);
            if role.is_some_and(|role| gene.has_role(role)) {
                loadings.push((index, (1.0 + 0.2 * normal) as f32));
            } else if gene.is_background() && chosen {
                loadings.push((index, (BACKGROUND_LOADING * normal.clamp(-2.0, 2.0)) as f32));
            }
        }
        Self { loadings }
    }
}
