//! Results, one row a cell, in files any tool can read: tables of predictions, embeddings, plain matrices.
//!
//! All of them stream: rows are pushed one by one or in blocks, memory is that of a few thousand rows, and the file takes
//! its name when it is complete.

mod cells;
mod delimited;
mod embeddings;
mod file;
mod npy;
mod predictions;

pub use cells::write_cell_table;
pub(crate) use delimited::{fields, write_row};
pub use embeddings::EmbeddingTable;
pub use file::{TableFormat, TableSummary};
pub use npy::NpyMatrix;
pub use predictions::{CellPrediction, PredictionColumns, PredictionTable};
