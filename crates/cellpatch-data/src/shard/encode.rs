//! From a bucket of cells to a Parquet file.

use std::{
    fs::File,
    io::{BufWriter, Seek, SeekFrom, Write},
    path::Path,
    sync::Arc,
};

use arrow::{
    array::{
        ArrayRef, DictionaryArray, Float32Array, Float64Array, Int32Array, ListArray, RecordBatch,
        StringArray, UInt16Array, UInt32Array,
    },
    buffer::{OffsetBuffer, ScalarBuffer},
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, Encoding, ZstdLevel},
    file::{
        metadata::{ColumnChunkMetaData, RowGroupMetaData},
        properties::{EnabledStatistics, WriterProperties},
    },
    schema::types::ColumnPath,
};
use sha2::{Digest, Sha256};

use super::{
    column,
    folder::{hash, hash_file, hex},
    manifest::{CellFile, RowGroupEntry, SideFile, StoredValues},
    reader::bad_file,
    spill::{Bucket, BucketCell},
};
use crate::error::{Error, Result};

const ZSTD_LEVEL: i32 = 3;
/// Cells that become Arrow arrays at a time: only their compressed pages wait for the row group to be complete.
const PIECE_CELLS: usize = 256;

/// What all cell files of a set have in common.
#[derive(Debug)]
pub(super) struct CellEncoder {
    schema: SchemaRef,
    values: StoredValues,
    row_group_cells: usize,
    sources: ArrayRef,
    /// Categories of each `obs` column, in its order.
    categories: Vec<ArrayRef>,
}

impl CellEncoder {
    /// - `sources`: names of all sources
    /// - `obs_columns`: names of the columns and all their categories
    pub(super) fn new<'a>(
        values: StoredValues,
        row_group_cells: usize,
        sources: impl Iterator<Item = &'a str>,
        obs_columns: &[(&str, Vec<&str>)],
    ) -> Self {
        let count_type = match values {
            StoredValues::CountsU16 => DataType::UInt16,
            StoredValues::CountsF32 | StoredValues::Log1pF32 => DataType::Float32,
        };
        let dictionary = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let mut fields = vec![
            Field::new(column::GENES, DataType::List(element(DataType::UInt32)), false),
            Field::new(column::COUNTS, DataType::List(element(count_type)), false),
            Field::new(column::TOTAL_COUNTS, DataType::Float64, false),
            Field::new(column::N_GENES, DataType::UInt32, false),
            Field::new(column::CELL_ID, DataType::Utf8, false),
            Field::new(column::SOURCE, dictionary(), false),
            Field::new(column::SOURCE_ROW, DataType::UInt32, false),
        ];
        fields.extend(obs_columns.iter().map(|(name, _)| Field::new(*name, dictionary(), true)));
        let texts = |texts: &Vec<&str>| Arc::new(StringArray::from_iter_values(texts)) as ArrayRef;
        Self {
            schema: Arc::new(Schema::new(fields)),
            values,
            row_group_cells,
            sources: Arc::new(StringArray::from_iter_values(sources)),
            categories: obs_columns.iter().map(|(_, categories)| texts(categories)).collect(),
        }
    }

    /// Writes all cells of a bucket.
    pub(super) fn write(&self, bucket: &Bucket, folder: &Path, name: String) -> Result<CellFile> {
        let path = folder.join(&name);
        let path_of = |column: &str| ColumnPath::from(vec![column.into(), "list".into(), "element".into()]);
        // The library's defaults would put ids in dictionaries, keep statistics of every list and pack 1,048,576 cells
        // in a row group. Ids ascend, so their differences are small; counts are few and repeat.
        let properties = properties()
            .set_max_row_group_row_count(Some(self.row_group_cells))
            .set_column_dictionary_enabled(path_of(column::GENES), false)
            .set_column_encoding(path_of(column::GENES), Encoding::DELTA_BINARY_PACKED)
            .set_column_dictionary_enabled(ColumnPath::from(column::CELL_ID), false)
            .set_column_dictionary_enabled(ColumnPath::from(column::SOURCE_ROW), false)
            .build();
        let mut writer = ParquetFile::create(&path, &self.schema, properties)?;
        let mut sizes = Vec::new();
        for start in (0..bucket.n_cells()).step_by(self.row_group_cells) {
            let end = (start + self.row_group_cells).min(bucket.n_cells());
            for piece in (start..end).step_by(PIECE_CELLS) {
                let cells: Vec<BucketCell<'_>> =
                    bucket.cells(piece..(piece + PIECE_CELLS).min(end)).collect();
                writer.write(&self.batch(&cells).map_err(|error| bad_file(&path, error.to_string()))?)?;
            }
            writer.end_row_group()?;
            sizes.push((end - start) as u32);
        }
        let written = writer.finish()?;
        describe(&path, name, &sizes, &written)
    }

    fn batch(&self, cells: &[BucketCell<'_>]) -> Result<RecordBatch, ArrowError> {
        let n_genes: Vec<u32> = cells.iter().map(|cell| cell.n_genes() as u32).collect();
        let genes: Vec<u32> = concat(cells, BucketCell::genes);
        let counts: ArrayRef = match self.values {
            StoredValues::CountsU16 => Arc::new(UInt16Array::from(concat(cells, BucketCell::counts_u16))),
            StoredValues::CountsF32 | StoredValues::Log1pF32 => {
                Arc::new(Float32Array::from(concat(cells, BucketCell::counts_f32)))
            }
        };
        let sources = cells.iter().map(|cell| Some(cell.source));
        let mut columns: Vec<ArrayRef> = vec![
            list(&n_genes, Arc::new(UInt32Array::from(genes)))?,
            list(&n_genes, counts)?,
            Arc::new(Float64Array::from_iter_values(cells.iter().map(|cell| cell.total_counts))),
            Arc::new(UInt32Array::from(n_genes)),
            Arc::new(StringArray::from_iter_values(cells.iter().map(|cell| cell.cell_id))),
            dictionary(sources, &self.sources)?,
            Arc::new(UInt32Array::from_iter_values(cells.iter().map(|cell| cell.row))),
        ];
        for (index, categories) in self.categories.iter().enumerate() {
            columns.push(dictionary(cells.iter().map(|cell| cell.label(index)), categories)?);
        }
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

/// Writes `sources.parquet`: one row a source, with its name and the tokens it measured, ascending.
pub(super) fn write_sources(path: &Path, names: &[&str], measured: &[Vec<u32>]) -> Result<()> {
    let schema = Arc::new(Schema::new(vec![
        Field::new(column::SOURCE, DataType::Utf8, false),
        Field::new(column::GENES, DataType::List(element(DataType::UInt32)), false),
    ]));
    let lengths: Vec<u32> = measured.iter().map(|tokens| tokens.len() as u32).collect();
    let batch = list(&lengths, Arc::new(UInt32Array::from(measured.concat()))).and_then(|tokens| {
        let names = Arc::new(StringArray::from_iter_values(names));
        RecordBatch::try_new(Arc::clone(&schema), vec![names, tokens])
    });
    let batch = batch.map_err(|error| bad_file(path, error.to_string()))?;
    let mut writer = ParquetFile::create(path, &schema, properties().build())?;
    writer.write(&batch)?;
    writer.finish().map(|_| ())
}

/// Size and checksum of a finished file, which is also made durable.
pub(super) fn seal(folder: &Path, name: &str) -> Result<SideFile> {
    let path = folder.join(name);
    let opened = File::options().write(true).open(&path);
    opened.and_then(|file| file.sync_all()).map_err(|source| Error::io("sync", &path, source))?;
    let (bytes, sha256) = hash_file(&path)?;
    Ok(SideFile { name: name.to_owned(), bytes, sha256 })
}

pub(crate) fn properties() -> parquet::file::properties::WriterPropertiesBuilder {
    let level = ZstdLevel::try_new(ZSTD_LEVEL).unwrap_or_default();
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_created_by(concat!("cellpatch-data ", env!("CARGO_PKG_VERSION")).to_owned())
}

pub(crate) fn element(data_type: DataType) -> Arc<Field> {
    Arc::new(Field::new("element", data_type, false))
}

fn concat<'a, T, I: Iterator<Item = T>>(
    cells: &'a [BucketCell<'a>],
    of: impl Fn(&'a BucketCell<'a>) -> I,
) -> Vec<T> {
    let mut values = Vec::with_capacity(cells.iter().map(BucketCell::n_genes).sum());
    cells.iter().for_each(|cell| values.extend(of(cell)));
    values
}

fn list(lengths: &[u32], values: ArrayRef) -> Result<ArrayRef, ArrowError> {
    let mut end = 0i64;
    let ends = lengths.iter().map(|&length| {
        end += i64::from(length);
        i32::try_from(end)
    });
    let too_long = || ArrowError::InvalidArgumentError("a row group has more than 2^31 genes".into());
    let offsets: Vec<i32> =
        std::iter::once(Ok(0)).chain(ends).collect::<Result<_, _>>().map_err(|_| too_long())?;
    let field = element(values.data_type().clone());
    Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::new(ScalarBuffer::from(offsets)), values, None)?))
}

fn dictionary(
    codes: impl Iterator<Item = Option<u32>>,
    categories: &ArrayRef,
) -> Result<ArrayRef, ArrowError> {
    let keys: Int32Array = codes.map(|code| code.map(|code| code as i32)).collect();
    Ok(Arc::new(DictionaryArray::try_new(keys, Arc::clone(categories))?))
}

/// What a finished file is.
struct Written {
    bytes: u64,
    sha256: String,
    /// Start and end of each row group.
    row_groups: Vec<(u64, u64)>,
}

/// The manifest's entry of a file; reads it once more for the checksums of its parts.
fn describe(path: &Path, name: String, sizes: &[u32], written: &Written) -> Result<CellFile> {
    let fail = |source| Error::io("read", path, source);
    let mut file = File::open(path).map_err(fail)?;
    let mut hash_range = |start: u64, end: u64| -> Result<String> {
        file.seek(SeekFrom::Start(start)).map_err(fail)?;
        Ok(hash(&mut file, end - start).map_err(fail)?.1)
    };
    let mut row_groups = Vec::with_capacity(sizes.len());
    for (&n_cells, &(start, end)) in sizes.iter().zip(&written.row_groups) {
        row_groups.push(RowGroupEntry {
            n_cells,
            start,
            bytes: end - start,
            sha256: hash_range(start, end)?,
        });
    }
    let footer_start = written.row_groups.last().map_or(0, |&(_, end)| end);
    let footer_sha256 = hash_range(footer_start, written.bytes)?;
    Ok(CellFile { name, bytes: written.bytes, sha256: written.sha256.clone(), footer_sha256, row_groups })
}

/// A Parquet file whose checksum is taken while it is written.
struct ParquetFile<'a> {
    path: &'a Path,
    writer: ArrowWriter<HashingFile>,
}

impl<'a> ParquetFile<'a> {
    fn create(path: &'a Path, schema: &SchemaRef, properties: WriterProperties) -> Result<Self> {
        let file = File::create(path).map_err(|source| Error::io("create", path, source))?;
        let file =
            HashingFile { file: BufWriter::with_capacity(1 << 18, file), hasher: Sha256::new(), n_bytes: 0 };
        let writer = ArrowWriter::try_new(file, Arc::clone(schema), Some(properties));
        Ok(Self { path, writer: writer.map_err(|error| write_error(path, error))? })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).map_err(|error| write_error(self.path, error))
    }

    fn end_row_group(&mut self) -> Result<()> {
        self.writer.flush().map_err(|error| write_error(self.path, error))
    }

    /// Completes the file and makes it durable.
    fn finish(mut self) -> Result<Written> {
        let metadata = self.writer.finish().map_err(|error| write_error(self.path, error))?;
        let file = self.writer.inner_mut();
        let fail = |source| Error::io("write", self.path, source);
        file.flush().map_err(fail)?;
        file.file.get_ref().sync_all().map_err(fail)?;
        let range = |group: &RowGroupMetaData| {
            let chunks = || group.columns().iter().map(ColumnChunkMetaData::byte_range);
            let start = chunks().map(|(start, _)| start).min().unwrap_or(0);
            (start, chunks().map(|(start, length)| start + length).max().unwrap_or(start))
        };
        Ok(Written {
            bytes: file.n_bytes,
            sha256: hex(&file.hasher.clone().finalize()),
            row_groups: metadata.row_groups().iter().map(range).collect(),
        })
    }
}

/// A full disk is the machine's fault, not Parquet's: find the I/O error inside.
pub(crate) fn write_error(path: &Path, error: parquet::errors::ParquetError) -> Error {
    match error {
        parquet::errors::ParquetError::External(inner) => match inner.downcast::<std::io::Error>() {
            Ok(source) => Error::io("write", path, *source),
            Err(inner) => bad_file(path, inner.to_string()),
        },
        other => bad_file(path, other.to_string()),
    }
}

struct HashingFile {
    file: BufWriter<File>,
    hasher: Sha256,
    n_bytes: u64,
}

impl Write for HashingFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n_written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..n_written]);
        self.n_bytes += n_written as u64;
        Ok(n_written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}
