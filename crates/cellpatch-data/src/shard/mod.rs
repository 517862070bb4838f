//! Shard sets: cells of many sources, permuted once and for all, in Parquet files any tool can read.
//!
//! A shard set is a folder:
//!
//! | file | holds |
//! |---|---|
//! | `cells-00000.parquet`, ... | one row a cell, in global random order; row groups of a few thousand cells |
//! | `vocabulary.parquet` | the gene of every token |
//! | `sources.parquet` | one row a source: its name and the tokens it measured |
//! | `manifest.json` | sizes, checksums, seed, quality control; written last |
//!
//! A *global row* counts cells over all files in manifest order. A folder without a manifest is not a shard set, so
//! an interrupted run leaves nothing that looks whole; writing to the same folder again starts over.

mod decode;
mod encode;
#[cfg(test)]
pub(crate) mod fixture;
mod folder;
mod manifest;
mod options;
mod reader;
mod rows;
mod spill;
mod survey;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use decode::{CellCounts, StoredCells};
pub(crate) use encode::{element, properties, write_error};
pub use manifest::{CellFile, Manifest, QualityCounts, RowGroupEntry, SideFile, SourceEntry, StoredValues};
pub use options::{ShardOptions, ShardProgress, ShardStage};
pub(crate) use reader::RowGroup;
pub use reader::ShardSet;
pub use rows::RowTable;
pub use writer::write_shards;

/// Names of the columns every cell file has; `obs` columns follow.
pub(crate) mod column {
    pub(crate) const GENES: &str = "genes";
    pub(crate) const COUNTS: &str = "counts";
    pub(crate) const TOTAL_COUNTS: &str = "total_counts";
    pub(crate) const N_GENES: &str = "n_genes";
    pub(crate) const CELL_ID: &str = "cell_id";
    pub(crate) const SOURCE: &str = "source";
    /// All of them: no `obs` column may have one of these names.
    pub(crate) const ALL: [&str; 6] = [GENES, COUNTS, TOTAL_COUNTS, N_GENES, CELL_ID, SOURCE];
}

/// File names inside the folder.
pub(crate) const MANIFEST_FILE: &str = "manifest.json";
pub(crate) const VOCABULARY_FILE: &str = "vocabulary.parquet";
pub(crate) const SOURCES_FILE: &str = "sources.parquet";
