//! From cells in their final order to Parquet files.

use std::{
    fs::File,
    io::{BufWriter, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{
        ArrayRef, DictionaryArray, Float32Array, Float64Array, Int32Array, ListArray, RecordBatch,
        StringArray, UInt32Array,
    },
    buffer::{Buffer, OffsetBuffer, ScalarBuffer},
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
};
use parquet::{
    arrow::{
        ArrowWriter,
        arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves},
    },
    basic::{Compression, Encoding, ZstdLevel},
    errors::ParquetError,
    file::{
        properties::{EnabledStatistics, WriterProperties},
        writer::SerializedFileWriter,
    },
    schema::types::{ColumnPath, SchemaDescriptor},
};
use sha2::{Digest, Sha256};

use super::{
    column,
    folder::{hash_file, hex},
    in_order::in_order,
    manifest::{CellFile, RowGroupEntry, SideFile, StoredValues},
    pages::{Chunk, Dictionary, ListColumn, write_deltas},
    piece::{Counts, OrderedCells, Piece},
    reader::bad_file,
};
use crate::error::{Error, Result};

/// Of the light columns.
const ZSTD_LEVEL: i32 = 3;
/// Cells of a page of genes and one of counts.
const PAGE_CELLS: usize = 128;
/// Where the columns of lists are among all.
const GENES_LEAF: usize = 0;
const COUNTS_LEAF: usize = 1;

/// What all cell files of a set have in common.
pub(super) struct CellEncoder {
    schema: SchemaRef,
    values: StoredValues,
    row_group_cells: usize,
    /// Row groups in memory at a time.
    n_ahead: usize,
    sources: ArrayRef,
    /// Categories of each `obs` column, in its order.
    categories: Vec<ArrayRef>,
    columns: SchemaDescriptor,
    writers: ArrowRowGroupWriterFactory,
}

/// Cells of one file, and its name.
pub(super) struct FileCells {
    pub(super) name: String,
    pub(super) cells: Range<usize>,
}

/// The columns of a row group, encoded and compressed.
struct EncodedGroup {
    genes: Chunk,
    /// Counts of 16 bits; others are among `light`.
    counts: Option<Chunk>,
    light: Vec<ArrowColumnChunk>,
}

impl CellEncoder {
    /// - `sources`: names of all sources
    /// - `obs_columns`: names of the columns and all their categories
    /// - `n_ahead`: row groups in memory at a time, at most
    pub(super) fn new<'a>(
        values: StoredValues,
        row_group_cells: usize,
        n_ahead: usize,
        sources: impl Iterator<Item = &'a str>,
        obs_columns: &[(&str, Vec<&str>)],
    ) -> Result<Self, ParquetError> {
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
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        // A file that is never written knows what all have in common.
        let (file, writers) =
            ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(cell_properties(row_group_cells)))?
                .into_serialized_writer()?;
        Ok(Self {
            columns: file.schema_descr().clone(),
            writers,
            schema,
            values,
            row_group_cells,
            n_ahead,
            sources: Arc::new(StringArray::from_iter_values(sources)),
            categories: obs_columns.iter().map(|(_, categories)| texts(categories)).collect(),
        })
    }

    /// Writes files of cells: row groups are encoded several at a time, and written in their order.
    pub(super) fn write(
        &self,
        cells: &dyn OrderedCells,
        folder: &Path,
        files: &[FileCells],
        mut observe: impl FnMut(usize),
    ) -> Result<Vec<CellFile>> {
        let groups = files.iter().flat_map(|file| {
            let starts = file.cells.clone().step_by(self.row_group_cells);
            starts.map(move |start| (file, start..(start + self.row_group_cells).min(file.cells.end)))
        });
        let groups: Vec<(&FileCells, Range<usize>)> = groups.collect();
        let path = |file: &FileCells| folder.join(&file.name);
        let encode = |index: usize| {
            let (file, range) = &groups[index];
            self.encode(cells, range.clone()).map_err(|error| write_error(&path(file), error))
        };
        std::thread::scope(|scope| {
            let mut finished = Vec::new();
            let mut open: Option<ParquetFile> = None;
            in_order(groups.len(), self.n_ahead, encode, |index, group: EncodedGroup| {
                let (file, range) = &groups[index];
                if range.start == file.cells.start {
                    let properties = cell_properties(self.row_group_cells);
                    open = Some(ParquetFile::create(path(file), &self.schema, properties)?);
                }
                let Some(writer) = &mut open else { return Ok(()) };
                writer.append(group, range.len())?;
                observe(range.len());
                if range.end == file.cells.end
                    && let Some(writer) = open.take()
                {
                    // The disk takes its time; meanwhile the next file is written.
                    finished.push(scope.spawn(move || writer.finish()));
                }
                Ok(())
            })?;
            let files = finished.into_iter().zip(files).map(|(finished, file)| {
                let panicked = |_| Error::io("write", path(file), std::io::Error::other("a thread panicked"));
                Ok(finished.join().map_err(panicked)??.entry(file.name.clone()))
            });
            files.collect()
        })
    }

    fn encode(&self, cells: &dyn OrderedCells, range: Range<usize>) -> Result<EncodedGroup, ParquetError> {
        let mut writers = self.writers.create_column_writers(0)?;
        let light = writers.split_off(COUNTS_LEAF + 1);
        let mut genes = ListColumn::new(self.columns.column(GENES_LEAF), Encoding::DELTA_BINARY_PACKED)?;
        let mut counts = ListColumn::new(self.columns.column(COUNTS_LEAF), Encoding::RLE_DICTIONARY)?;
        let mut dictionary = Dictionary::new();
        let mut fractions = writers.pop();
        let mut piece = Piece::new(self.values, self.categories.len());
        for start in range.clone().step_by(PAGE_CELLS) {
            let n_before = piece.n_genes.len();
            cells.gather(start..(start + PAGE_CELLS).min(range.end), &mut piece);
            let lengths = &piece.n_genes[n_before..];
            genes.push(lengths, |body| write_deltas(&piece.genes, body))?;
            match &piece.counts {
                Counts::U16(numbers) => counts.push(lengths, |body| dictionary.write(numbers, body))?,
                Counts::F32(numbers) => {
                    let numbers = Arc::new(Float32Array::from(numbers.clone()));
                    let field = self.schema.field(COUNTS_LEAF);
                    write_leaf(fractions.as_mut(), field, &list(lengths, numbers)?)?;
                }
            }
            piece.clear_genes();
        }
        let mut chunks = Vec::with_capacity(light.len() + 1);
        let counts = match &piece.counts {
            Counts::U16(_) => Some(counts.finish(Some(dictionary.numbers()))?),
            Counts::F32(_) => {
                chunks.extend(fractions.map(ArrowColumnWriter::close).transpose()?);
                None
            }
        };
        let fields = self.schema.fields().iter().skip(COUNTS_LEAF + 1);
        for ((mut writer, field), array) in light.into_iter().zip(fields).zip(self.light_columns(piece)?) {
            write_leaf(Some(&mut writer), field, &array)?;
            chunks.push(writer.close()?);
        }
        Ok(EncodedGroup { genes: genes.finish(None)?, counts, light: chunks })
    }

    /// All columns but the lists.
    fn light_columns(&self, piece: Piece) -> Result<Vec<ArrayRef>, ArrowError> {
        let ends = OffsetBuffer::new(ScalarBuffer::from(piece.name_ends));
        let names = StringArray::try_new(ends, Buffer::from_vec(piece.names.into_bytes()), None)?;
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(Float64Array::from(piece.total_counts)),
            Arc::new(UInt32Array::from(piece.n_genes)),
            Arc::new(names),
            dictionary(piece.sources.into_iter().map(Some), &self.sources)?,
            Arc::new(UInt32Array::from(piece.rows)),
        ];
        for (codes, categories) in piece.labels.into_iter().zip(&self.categories) {
            columns.push(dictionary(codes.into_iter(), categories)?);
        }
        Ok(columns)
    }
}

fn write_leaf(
    writer: Option<&mut ArrowColumnWriter>,
    field: &Field,
    array: &ArrayRef,
) -> Result<(), ParquetError> {
    let Some(writer) = writer else { return Ok(()) };
    compute_leaves(field, array)?.iter().try_for_each(|leaf| writer.write(leaf))
}

/// The library's defaults would put ids in dictionaries, keep statistics of every list and pack 1,048,576 cells in a row
/// group.
fn cell_properties(row_group_cells: usize) -> WriterProperties {
    properties()
        .set_max_row_group_row_count(Some(row_group_cells))
        .set_column_dictionary_enabled(ColumnPath::from(column::CELL_ID), false)
        .set_column_dictionary_enabled(ColumnPath::from(column::SOURCE_ROW), false)
        .build()
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
    let file = File::create(path).map_err(|source| Error::io("create", path, source))?;
    let written = ArrowWriter::try_new(file, schema, Some(properties().build())).and_then(|mut writer| {
        writer.write(&batch)?;
        writer.close()
    });
    written.map(drop).map_err(|error| write_error(path, error))
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

/// A Parquet file whose checksums are taken while it is written.
struct ParquetFile {
    path: PathBuf,
    writer: SerializedFileWriter<HashingFile>,
    groups: Vec<RowGroupEntry>,
}

/// What a finished file is.
struct Written {
    bytes: u64,
    sha256: String,
    footer_sha256: String,
    row_groups: Vec<RowGroupEntry>,
}

impl Written {
    fn entry(self, name: String) -> CellFile {
        let Self { bytes, sha256, footer_sha256, row_groups } = self;
        CellFile { name, bytes, sha256, footer_sha256, row_groups }
    }
}

impl ParquetFile {
    fn create(path: PathBuf, schema: &SchemaRef, properties: WriterProperties) -> Result<Self> {
        let file = File::create(&path).map_err(|source| Error::io("create", &path, source))?;
        let file = BufWriter::with_capacity(1 << 18, file);
        let file = HashingFile { file, whole: Sha256::new(), part: Sha256::new(), part_start: 0, n_bytes: 0 };
        let opened = ArrowWriter::try_new(file, Arc::clone(schema), Some(properties)).and_then(|writer| {
            let (mut writer, _) = writer.into_serialized_writer()?;
            // The magic number is not of the first row group.
            writer.flush()?;
            writer.inner_mut().end_part();
            Ok(writer)
        });
        let writer = opened.map_err(|error| write_error(&path, error))?;
        Ok(Self { path, writer, groups: Vec::new() })
    }

    fn append(&mut self, group: EncodedGroup, n_cells: usize) -> Result<()> {
        let EncodedGroup { genes, counts, light } = group;
        let writer = &mut self.writer;
        let appended = || -> Result<(), ParquetError> {
            let mut group = writer.next_row_group()?;
            for (pages, close) in [Some(genes), counts].into_iter().flatten() {
                group.append_column(&pages, close)?;
            }
            light.into_iter().try_for_each(|chunk| chunk.append_to_row_group(&mut group))?;
            group.close()?;
            Ok(writer.flush()?)
        };
        appended().map_err(|error| write_error(&self.path, error))?;
        let (start, bytes, sha256) = self.writer.inner_mut().end_part();
        self.groups.push(RowGroupEntry { n_cells: n_cells as u32, start, bytes, sha256 });
        Ok(())
    }

    /// Completes the file and makes it durable.
    fn finish(mut self) -> Result<Written> {
        self.writer.finish().map_err(|error| write_error(&self.path, error))?;
        let fail = |source| Error::io("write", &self.path, source);
        self.writer.flush().map_err(fail)?;
        let file = self.writer.inner_mut();
        let (_, _, footer_sha256) = file.end_part();
        file.file.get_ref().sync_all().map_err(fail)?;
        Ok(Written {
            bytes: file.n_bytes,
            sha256: hex(&std::mem::take(&mut file.whole).finalize()),
            footer_sha256,
            row_groups: self.groups,
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

/// Takes the checksums of all that is written, and of its parts.
struct HashingFile {
    file: BufWriter<File>,
    whole: Sha256,
    part: Sha256,
    part_start: u64,
    n_bytes: u64,
}

impl HashingFile {
    /// Start, length and checksum of what was written since the last call.
    fn end_part(&mut self) -> (u64, u64, String) {
        let start = std::mem::replace(&mut self.part_start, self.n_bytes);
        (start, self.n_bytes - start, hex(&std::mem::take(&mut self.part).finalize()))
    }
}

impl Write for HashingFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n_written = self.file.write(bytes)?;
        self.whole.update(&bytes[..n_written]);
        self.part.update(&bytes[..n_written]);
        self.n_bytes += n_written as u64;
        Ok(n_written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}
