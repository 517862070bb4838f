//! What synthetic cells should be like.

use std::fmt::Display;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::gene::curated_genes;
use crate::{Error, Result};

/// Size and statistics of a synthetic data set.
///
/// The defaults make 3,000 cells of 6 donors that look like a 10x experiment restricted to its 2,000 most
/// informative genes: about 500 genes seen in a cell, three quarters of the matrix zero.
/// [`SyntheticConfig::with_size`] keeps that look for other sizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SyntheticConfig {
    /// Number of cells.
    pub n_cells: usize,
    /// Number of genes: the curated human genes first, then background genes up to this number.
    pub n_genes: usize,
    /// Number of donors. Cells are spread evenly over them; every second pair of donors carries a viral infection.
    pub n_donors: usize,
    /// Number of batches, at most one a donor. Each donor's cells are all of one batch.
    pub n_batches: usize,
    /// Everything random follows from this number.
    pub seed: u64,
    /// Median over cells of the expected total count, before dropout: `exp` of the mean log library size.
    pub median_library_size: f64,
    /// Standard deviation of the natural logarithm of the library size within one cell type and assay.
    pub library_size_sd: f64,
    /// Standard deviation of the natural logarithm of background genes' mean expression.
    pub gene_mean_sd: f64,
    /// Overdispersion phi of the negative binomial: variance = mean + phi * mean^2. Each gene's own phi is
    /// log-normal around this.
    pub dispersion: f64,
    /// Expected count at which half of a gene's counts are lost, beyond what sampling loses; 0 for no dropout.
    pub dropout_midpoint: f64,
    /// Standard deviation of a gene's log fold change from batch to batch.
    pub batch_effect: f64,
    /// Standard deviation of a gene's log fold change from donor to donor.
    pub donor_effect: f64,
    /// Scales how much gene programmes vary between cells of one type; 0 leaves only cell types.
    pub program_strength: f64,
    /// Number of anonymous programmes of background genes, beside the named ones.
    pub n_latent_programs: usize,
}

impl Default for SyntheticConfig {
    fn default() -> Self {
        Self {
            n_cells: 3_000,
            n_genes: 2_000,
            n_donors: 6,
            n_batches: 2,
            seed: 0,
            median_library_size: 1_700.0,
            library_size_sd: 0.35,
            gene_mean_sd: 1.4,
            dispersion: 0.3,
            dropout_midpoint: 0.05,
            batch_effect: 0.15,
            donor_effect: 0.12,
            program_strength: 1.0,
            n_latent_programs: 12,
        }
    }
}

impl SyntheticConfig {
    /// The defaults for another number of cells and genes, with library size and gene means to match.
    ///
    /// The more genes are measured, the more of them are nearly silent: a whole transcriptome of 30,000 genes gets
    /// libraries of about 11,000 counts, and 3,000 to 4,000 genes seen in a cell.
    pub fn with_size(n_cells: usize, n_genes: usize) -> Self {
        let default = Self::default();
        let ratio = n_genes.max(1) as f64 / default.n_genes as f64;
        Self {
            n_cells,
            n_genes,
            median_library_size: default.median_library_size * ratio.powf(0.7),
            gene_mean_sd: (default.gene_mean_sd + 0.08 * ratio.ln()).clamp(0.8, 3.0),
            ..default
        }
    }

    /// Checks every option.
    ///
    /// # Errors
    /// [`Error::BadOption`] names the first option that is out of range.
    pub fn validate(&self) -> Result<()> {
        within("n_cells", self.n_cells, 1..=u32::MAX as usize)?;
        within("n_genes", self.n_genes, curated_genes().count()..=1_000_000)?;
        within("n_donors", self.n_donors, 1..=10_000)?;
        within("n_batches", self.n_batches, 1..=self.n_donors)?;
        within("median_library_size", self.median_library_size, 1.0..=1e7)?;
        within("library_size_sd", self.library_size_sd, 0.0..=3.0)?;
        within("gene_mean_sd", self.gene_mean_sd, 0.0..=5.0)?;
        within("dispersion", self.dispersion, 1e-3..=10.0)?;
        within("dropout_midpoint", self.dropout_midpoint, 0.0..=100.0)?;
        within("batch_effect", self.batch_effect, 0.0..=3.0)?;
        within("donor_effect", self.donor_effect, 0.0..=3.0)?;
        within("program_strength", self.program_strength, 0.0..=5.0)?;
        within("n_latent_programs", self.n_latent_programs, 0..=1_000)
    }
}

fn within<T: PartialOrd + Display>(option: &'static str, value: T, allowed: RangeInclusive<T>) -> Result<()> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let reason = format!("it must be between {} and {}", allowed.start(), allowed.end());
    Err(Error::BadOption { option, value: value.to_string(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_and_other_sizes_are_valid() {
        SyntheticConfig::default().validate().unwrap();
        SyntheticConfig::with_size(100, 500).validate().unwrap();
        SyntheticConfig::with_size(20_000, 60_000).validate().unwrap();
    }

    #[test]
    fn an_option_out_of_range_is_named() {
        let good = SyntheticConfig::default;
        let cases = [
            ("n_cells", SyntheticConfig { n_cells: 0, ..good() }),
            ("n_genes", SyntheticConfig { n_genes: 10, ..good() }),
            ("n_donors", SyntheticConfig { n_donors: 0, ..good() }),
            ("n_batches", SyntheticConfig { n_batches: 7, ..good() }),
            ("median_library_size", SyntheticConfig { median_library_size: f64::NAN, ..good() }),
            ("library_size_sd", SyntheticConfig { library_size_sd: -1.0, ..good() }),
            ("dispersion", SyntheticConfig { dispersion: 0.0, ..good() }),
            ("dropout_midpoint", SyntheticConfig { dropout_midpoint: f64::INFINITY, ..good() }),
            ("program_strength", SyntheticConfig { program_strength: -0.1, ..good() }),
        ];
        for (name, config) in cases {
            match config.validate() {
                Err(Error::BadOption { option, .. }) => assert_eq!(option, name),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}
