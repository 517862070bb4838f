//! A table while it is written, as delimited text or Parquet.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use super::write_row;
use crate::error::{Error, Result};
use crate::shard::{properties, write_error};
use crate::unfinished_file::{Existing, UnfinishedFile};

/// Bytes of values in a row group of Parquet, before compression.
const ROW_GROUP_BYTES: usize = 32 << 20;
/// Rows of a row group, within which its bytes decide.
const ROW_GROUP_ROWS: std::ops::RangeInclusive<usize> = 1 << 10..=1 << 17;

/// How a table is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableFormat {
    /// Text, fields separated by commas.
    Csv,
    /// Text, fields separated by tabs.
    Tsv,
    /// Parquet, zstd.
    Parquet,
}

impl TableFormat {
    /// The format a file's name asks for: `.csv`, `.tsv` or `.parquet`.
    ///
    /// # Errors
    /// [`Error::BadOption`] for any other name.
    pub fn of(path: &Path) -> Result<Self> {
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        match extension.as_deref() {
            Some("csv") => Ok(Self::Csv),
            Some("tsv") => Ok(Self::Tsv),
            Some("parquet") => Ok(Self::Parquet),
            _ => Err(Error::BadOption {
                option: "output",
                value: path.display().to_string(),
                reason: "a table's name ends in .csv, .tsv or .parquet".into(),
            }),
        }
    }
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableSummary {
    /// The file.
    pub path: PathBuf,
    /// Rows, without a header.
    pub n_rows: usize,
    /// Size in bytes.
    pub file_bytes: u64,
}

impl TableSummary {
    /// Gives a complete file its name.
    pub(super) fn commit(file: UnfinishedFile, n_rows: usize) -> Result<Self> {
        let path = file.target().to_path_buf();
        file.commit()?;
        let file_bytes = fs::metadata(&path).map_err(|source| Error::io("read", &path, source))?.len();
        Ok(Self { path, n_rows, file_bytes })
    }
}

/// A table of one schema, batch by batch.
pub(super) struct TableFile {
    file: UnfinishedFile,
    rows: Rows,
    n_rows: usize,
}

enum Rows {
    Delimited { delimiter: char, writer: BufWriter<File> },
    Parquet(Box<ArrowWriter<BufWriter<File>>>),
}

impl TableFile {
    /// - `row_bytes`: roughly, for the size of row groups
    pub(super) fn create(
        path: &Path,
        existing: Existing,
        format: TableFormat,
        schema: &SchemaRef,
        row_bytes: usize,
    ) -> Result<Self> {
        let file = UnfinishedFile::create(path, existing)?;
        let mut writer = BufWriter::with_capacity(1 << 18, file.handle()?);
        let delimiter = match format {
            TableFormat::Csv => ',',
            TableFormat::Tsv => '\t',
            TableFormat::Parquet => {
                let properties = parquet_properties(schema, row_bytes);
                let writer = ArrowWriter::try_new(writer, Arc::clone(schema), Some(properties))
                    .map_err(|error| write_error(path, error))?;
                return Ok(Self { file, rows: Rows::Parquet(Box::new(writer)), n_rows: 0 });
            }
        };
        let mut header = String::new();
        write_row(&mut header, delimiter, schema.fields().iter().map(|field| field.name().as_str()));
        writer.write_all(header.as_bytes()).map_err(|source| Error::io("write", path, source))?;
        Ok(Self { file, rows: Rows::Delimited { delimiter, writer }, n_rows: 0 })
    }

    /// The file to be, for errors.
    pub(super) fn path(&self) -> &Path {
        self.file.target()
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let path = self.file.target();
        match &mut self.rows {
            Rows::Parquet(writer) => writer.write(batch).map_err(|error| write_error(path, error))?,
            Rows::Delimited { delimiter, writer } => {
                let text = delimited(batch, *delimiter)
                    .map_err(|error| Error::io("write", path, std::io::Error::other(error)))?;
                writer.write_all(text.as_bytes()).map_err(|source| Error::io("write", path, source))?;
            }
        }
        self.n_rows += batch.num_rows();
        Ok(())
    }

    /// Completes the file and gives it its name.
    pub(super) fn finish(self) -> Result<TableSummary> {
        let Self { file, rows, n_rows } = self;
        let path = file.target();
        let mut writer = match rows {
            Rows::Parquet(writer) => writer.into_inner().map_err(|error| write_error(path, error))?,
            Rows::Delimited { writer, .. } => writer,
        };
        writer.flush().map_err(|source| Error::io("write", path, source))?;
        drop(writer);
        TableSummary::commit(file, n_rows)
    }
}

/// Row groups of a bounded size, and dictionaries only where values repeat: floats do not, names are said once.
fn parquet_properties(schema: &SchemaRef, row_bytes: usize) -> WriterProperties {
    let n_rows = (ROW_GROUP_BYTES / row_bytes.max(1)).clamp(*ROW_GROUP_ROWS.start(), *ROW_GROUP_ROWS.end());
    let mut properties = properties().set_max_row_group_row_count(Some(n_rows));
    for field in schema.fields() {
        let inner: &[&str] = match field.data_type() {
            DataType::Dictionary(..) => continue,
            DataType::FixedSizeList(..) => &["list", "element"],
            _ => &[],
        };
        let path = std::iter::once(field.name().as_str()).chain(inner.iter().copied());
        let path = ColumnPath::new(path.map(str::to_string).collect());
        properties = properties.set_column_dictionary_enabled(path, false);
    }
    properties.build()
}

/// The rows of a batch as text; a missing value is an empty field.
fn delimited(batch: &RecordBatch, delimiter: char) -> Result<String, arrow::error::ArrowError> {
    let options = FormatOptions::default();
    let columns = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
        .collect::<Result<Vec<_>, _>>()?;
    let mut text = String::new();
    for row in 0..batch.num_rows() {
        let row =
            columns.iter().map(|column| column.value(row).try_to_string()).collect::<Result<Vec<_>, _>>()?;
        write_row(&mut text, delimiter, row.iter().map(String::as_str));
    }
    Ok(text)
}
