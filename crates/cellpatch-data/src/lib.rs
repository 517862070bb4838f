//! # cellpatch-data
//!
//! Single-cell count matrices to a gene vocabulary, Parquet shards and masked batches. There is no deep learning in this
//! crate: it ends where tensors begin.
//!
//! The path of a cell, in the order of the modules:
//!
//! 1. [`AnnDataFile`] opens an `.h5ad` of any AnnData version, finds the matrix with raw counts ([`MatrixChoice`]) and
//!    hands it out as [`CountBlock`]s: consecutive cells in CSR form, within a budget of bytes, whatever the matrix was
//!    stored as. Every number that comes out was checked.
//!    [`open_cells`] does the same for whatever else holds cells, 10x `.h5` files and matrix folders among them: a
//!    [`CellSource`].
//! 2. [`GeneVocabulary`] gives each gene a token, by Ensembl id first and symbol second, so that files that name their
//!    genes differently meet in one table. Token 0 is padding. [`GeneReference`] is the table of human genes it matches
//!    through.
//! 3. [`QualityPass`] leaves out cells and genes as scanpy does; [`normalize`] scales a cell to 10,000 counts and takes
//!    `ln(1 + x)`.
//! 4. [`write_shards`] puts all of that on disk: a folder of Parquet files with raw counts in a random order of cells, and
//!    a manifest that is written last. A folder without it is not a [`ShardSet`].
//! 5. [`Split`] divides the cells, [`Loader`] streams them: the same batches from the same seed whatever the number of
//!    threads, from any position. [`Masking`] hides genes on the way, each cell from a random stream of its own.
//! 6. [`MaskedBatch`] is ragged, and is cut into parts of similar length before anything is padded.
//!
//! The way back, for labels and embeddings:
//!
//! 7. [`AnnDataFile::obs_column`] reads any annotation as [`Labels`] or texts; a [`Partition`] divides labelled cells in
//!    three, by class or by donor, and can be saved and taken up again.
//! 8. [`ExpressionReader`] reads a file in its own order under a model's tokens, in bounded memory.
//! 9. [`H5adAnnotator`] adds columns and matrices to a copy of an `.h5ad` and leaves the rest as it is, byte for byte;
//!    [`PredictionTable`], [`EmbeddingTable`] and [`NpyMatrix`] write the same as CSV, Parquet and `.npy`.
//!
//! For methods that look at a few thousand genes only, [`VariableGenes`] chooses them from raw counts as Seurat and scanpy do, and
//! [`ChosenGenes`] reads them. [`Coordinates`] are where the spots of a slice lie: in `obsm`, in `obs`, or in a Visium folder.
//!
//! [`dataset`] knows public data sets. With the feature `remote` it fetches them, and `ShardSet::open_url` opens a shard set on a
//! server: its files come through a folder of this machine, a loader's before they are needed.
//!
//! [`synthetic`] makes realistic cells and writes them as a true `.h5ad`, so that examples and tests take the same path.
//!
//! Errors are one enum, [`Error`]: its text says what happened and where, [`Error::help`] what to do about it.
//!
//! ```
//! use std::sync::Arc;
//! use cellpatch_data::synthetic::{SyntheticConfig, write_h5ad};
//! use cellpatch_data::{Loader, LoaderOptions, ShardOptions, Split, write_shards};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let file = folder.path().join("cells.h5ad");
//! write_h5ad(&SyntheticConfig { n_cells: 200, ..Default::default() }, &file)?;
//!
//! let options = ShardOptions { obs_columns: vec!["donor_id".into()], ..Default::default() };
//! let shards = write_shards(&[file], &folder.path().join("shards"), &options, &mut |_progress| {})?;
//! let shards = Arc::new(shards);
//!
//! let split = Split::by_column(&shards, "donor_id", 0.2, 42)?;
//! let options = LoaderOptions { batch_size: 32, seed: 42, ..Default::default() };
//! let loader = Loader::new(Arc::clone(&shards), split.train, options)?;
//! for batch in loader.epoch(1, 0) {
//!     let batch = batch?;
//!     let (genes, values) = batch.input(0);
//!     assert_eq!(genes.len(), values.len());
//! }
//! # Ok(())
//! # }
//! ```

mod anndata;
mod batch;
mod chosen_genes;
mod coordinates;
mod counts;
pub mod dataset;
mod error;
mod expressions;
mod gene_selection;
mod h5;
mod loader;
mod market;
mod masking;
mod matrix;
mod normalize;
mod partition;
mod quality;
pub mod random;
mod record_batches;
#[cfg(feature = "remote")]
mod remote;
mod selection;
mod shard;
mod source;
mod split;
pub mod synthetic;
mod table;
mod tenx;
#[cfg(feature = "remote")]
#[cfg(test)]
#[path = "../tests/http_server/mod.rs"]
mod test_server;
mod transfer_failure;
mod unfinished_file;
mod variable_genes;
mod vocabulary;

pub use anndata::{
    AnnDataFile, AnnotationSummary, ChosenMatrix, Column, ColumnValues, H5adAnnotator, Labels, MatrixChoice,
    MatrixLocation, MatrixSlot, MissingNames, NewValues, ObsMatrix, UnsValue,
};
pub use batch::{ExpressionBatch, MaskedBatch, PaddedGenes, PaddedShape};
pub use chosen_genes::{ChosenGenes, variable_columns};
pub use coordinates::{CoordinateChoice, Coordinates, Sections, visium_matrix};
pub use counts::CountBlock;
pub use error::{Error, ErrorCategory, Result};
pub use expressions::{ExpressionOptions, ExpressionReader};
pub use gene_selection::GeneSelection;
pub use loader::{Epoch, Loader, LoaderOptions};
pub use masking::Masking;
pub use matrix::{CountBlocks, MatrixInfo, MatrixStorage, ValueKind, ValuePolicy};
pub use normalize::{TARGET_SUM, normalize};
pub use partition::{ClassCounts, Fractions, Part, Partition, PartitionMatch, PartitionReport};
pub use quality::{Quality, QualityFilter, QualityPass};
#[cfg(feature = "remote")]
pub use remote::CacheOptions;
pub use selection::RowSelection;
pub use shard::{
    CellFile, Manifest, MergeOptions, PartEntry, QualityCounts, RowGroupEntry, RowTable, ShardOptions,
    ShardPart, ShardProgress, ShardSet, ShardStage, SharedCells, SideFile, SourceEntry, StoredValues,
    merge_shards, write_shards,
};
pub use source::{
    BlockReader, CellBlocks, CellDescription, CellFormat, CellNames, CellSource, MatrixDescription,
    cell_inputs, describe_cells, open_cells,
};
pub use split::Split;
pub use table::{
    CellPrediction, EmbeddingTable, NpyMatrix, PredictionColumns, PredictionTable, TableFormat, TableSummary,
    write_cell_table,
};
pub use transfer_failure::TransferFailure;
pub use unfinished_file::Existing;
pub use variable_genes::{GeneVariability, VariableGeneOptions, VariableGenes};
pub use vocabulary::{
    Gene, GeneMatch, GeneReference, GeneToken, GeneVocabulary, MatchReport, MatchRow, MousePolicy,
    ReferenceGene, RepairedName, Species, humanize, orthologs,
};
