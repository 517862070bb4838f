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
//! an interrupted run leaves nothing that looks whole; the same call on the same folder goes on where it stopped.
//!
//! Cells come from a `Feed`: input files ([`write_shards`]) or the parts of a set ([`merge_shards`]). From there on all is
//! one way (`assembly`): sample, throw the cells into buckets on disk, make each bucket a file, describe everything.

mod assembler;
mod assembly;
mod balance;
mod decode;
mod encode;
mod feed;
mod file_source;
#[cfg(test)]
pub(crate) mod fixture;
mod folder;
mod in_order;
mod job;
mod kept;
mod lists;
mod manifest;
mod merge;
mod narrow;
mod options;
mod pages;
mod part;
mod piece;
mod reader;
mod rows;
mod sample;
mod shared_cells;
mod spill;
mod survey;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use decode::{CellCounts, StoredCells};
pub(crate) use encode::{element, properties, write_error};
#[cfg(feature = "remote")]
pub(crate) use file_source::{DescribedFile, FileSource};
#[cfg(feature = "remote")]
pub(crate) use folder::{hash, hash_file, hex};
pub use manifest::{
    CellFile, Manifest, PartEntry, QualityCounts, RowGroupEntry, SideFile, SourceEntry, StoredValues,
};
pub use merge::{MergeOptions, merge_shards};
pub use options::{ShardOptions, ShardProgress, ShardStage};
pub use part::ShardPart;
pub(crate) use reader::RowGroup;
pub use reader::ShardSet;
pub use rows::RowTable;
pub use shared_cells::SharedCells;
pub use writer::write_shards;

/// Names of the columns every cell file has; `obs` columns follow.
pub(crate) mod column {
    pub(crate) const GENES: &str = "genes";
    pub(crate) const COUNTS: &str = "counts";
    pub(crate) const TOTAL_COUNTS: &str = "total_counts";
    pub(crate) const N_GENES: &str = "n_genes";
    pub(crate) const CELL_ID: &str = "cell_id";
    pub(crate) const SOURCE: &str = "source";
    /// The cell's row in its source, counted from 0.
    pub(crate) const SOURCE_ROW: &str = "source_row";
    /// All of them: no `obs` column may have one of these names.
    pub(crate) const ALL: [&str; 7] = [GENES, COUNTS, TOTAL_COUNTS, N_GENES, CELL_ID, SOURCE, SOURCE_ROW];
}

/// File names inside the folder.
pub(crate) const MANIFEST_FILE: &str = "manifest.json";
pub(crate) const VOCABULARY_FILE: &str = "vocabulary.parquet";
pub(crate) const SOURCES_FILE: &str = "sources.parquet";
