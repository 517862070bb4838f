//! Embeddings, one row a cell or gene.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::file::{TableFile, TableFormat, TableSummary};
use crate::error::{Error, Result};
use crate::shard::element;
use crate::unfinished_file::Existing;

/// Bytes of values that become a batch of rows.
const BATCH_BYTES: usize = 4 << 20;

/// Writes embeddings as Parquet: a column of names and a column `embedding`, a list of float32 of fixed length.
pub struct EmbeddingTable {
    file: TableFile,
    schema: SchemaRef,
    width: i32,
    names: Vec<String>,
    values: Vec<f32>,
}

impl std::fmt::Debug for EmbeddingTable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("EmbeddingTable").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl EmbeddingTable {
    /// Begins a table.
    ///
    /// - `name_column`: what a row's name is called, such as `cell_id`
    /// - `width`: numbers in an embedding
    ///
    /// # Errors
    /// [`Error::BadOption`] if the width is 0 or more than 2^31 - 1; [`Error::FileExists`]; [`Error::Io`].
    pub fn create(path: &Path, existing: Existing, name_column: &str, width: usize) -> Result<Self> {
        let width = i32::try_from(width).ok().filter(|&width| width > 0).ok_or_else(|| Error::BadOption {
            option: "embedding width",
            value: width.to_string(),
            reason: "it must be at least 1 and fit 31 bits".into(),
        })?;
        let values = DataType::FixedSizeList(element(DataType::Float32), width);
        let schema = Arc::new(Schema::new(vec![
            Field::new(name_column, DataType::Utf8, false),
            Field::new("embedding", values, false),
        ]));
        let row_bytes = 32 + 4 * width as usize;
        let file = TableFile::create(path, existing, TableFormat::Parquet, &schema, row_bytes)?;
        Ok(Self { file, schema, width, names: Vec::new(), values: Vec::new() })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// [`Error::WrongLength`] if the embedding is not as wide as the table; [`Error::Io`].
    pub fn push(&mut self, name: &str, embedding: &[f32]) -> Result<()> {
        let expected = self.width as usize;
        if embedding.len() != expected {
            let what = format!("the embedding of {name:?}");
            return Err(Error::WrongLength { what, of: "values", found: embedding.len(), expected });
        }
        self.names.push(name.to_string());
        self.values.extend_from_slice(embedding);
        if self.values.len() * size_of::<f32>() >= BATCH_BYTES { self.write_batch() } else { Ok(()) }
    }

    /// Completes the file and gives it its name.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::FileExists`] if a file of this name has appeared meanwhile and may not be replaced.
    pub fn finish(mut self) -> Result<TableSummary> {
        self.write_batch()?;
        self.file.finish()
    }

    fn write_batch(&mut self) -> Result<()> {
        let (names, values) = (std::mem::take(&mut self.names), std::mem::take(&mut self.values));
        if names.is_empty() {
            return Ok(());
        }
        let batch = || {
            let values = Arc::new(Float32Array::from(values));
            let lists = FixedSizeListArray::try_new(element(DataType::Float32), self.width, values, None)?;
            let columns: Vec<ArrayRef> =
                vec![Arc::new(StringArray::from_iter_values(&names)), Arc::new(lists)];
            RecordBatch::try_new(Arc::clone(&self.schema), columns)
        };
        let batch =
            batch().map_err(|error| Error::io("write", self.file.path(), std::io::Error::other(error)))?;
        self.file.write(&batch)
    }
}
