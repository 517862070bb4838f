//! Realistic synthetic cells, written as a true `.h5ad`.
//!
//! For trying things without data, for tests and for benchmarks: a file made here goes through exactly the readers a
//! user's file goes through, and the truth behind every cell is in its `obs`.
//!
//! # The model
//!
//! A cell has a type (one of [`CELL_TYPES`]), a donor, a batch, a log-normal library size and an activity for every
//! gene programme. The log expression of a gene is the sum of
//!
//! - its level: background genes are log-normal around one mean; curated human genes are as high as their role says
//!   (markers in the cell types and lineages they mark, ribosomal, mitochondrial and housekeeping genes everywhere);
//! - sparse differences that each lineage passes on to its cell types;
//! - its loading in each programme (cell cycle, interferon, stress, hypoxia, translation, mitochondria, cytotoxicity,
//!   antigen presentation, and anonymous ones) times the cell's activity, so that genes covary within a type too;
//! - the effects of donor and batch, and of the donor's sex.
//!
//! Shares of a cell's counts are these levels, exponentiated and scaled to sum to 1. Counts are negative binomial
//! (gamma-Poisson) around share times library size, and then lost with a probability that falls with the expected
//! count. The parts are those of established simulators (Splatter: Zappia et al., Genome Biology 2017) with a
//! lineage and programmes added.
//!
//! The same configuration gives the same cells on any number of threads.
//!
//! ```
//! use cellpatch_data::synthetic::{SyntheticConfig, write_h5ad};
//!
//! let folder = tempfile::tempdir()?;
//! let config = SyntheticConfig { n_cells: 200, n_genes: 800, ..SyntheticConfig::default() };
//! let summary = write_h5ad(&config, folder.path().join("cells.h5ad"))?;
//! assert_eq!(summary.n_cells, 200);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cell_type;
mod cells;
mod config;
mod donor;
mod gene;
mod h5ad;
mod model;
mod program;
mod stream;

#[cfg(test)]
mod tests;

pub use cell_type::{CELL_TYPES, CellType};
pub use cells::{SyntheticBlock, SyntheticCells};
pub use config::SyntheticConfig;
pub use gene::{GeneRole, SyntheticGene};
pub use h5ad::{SyntheticSummary, write_h5ad};
pub use model::SyntheticCell;
