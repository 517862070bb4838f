//! The traits over the pure-Rust HDF5 library.

use std::path::{Path, PathBuf};

use hdf5_pure::{
    AttrValue, ChunkCacheConfig, Dataset, DatasetAccessProperties, File, FormatError, Layout,
    MetadataCacheConfig, Source,
};

use super::chunks::{OwnChunks, StoredChunk};
use super::datatype::element;
use super::element::Element;
use super::filters::{self, filter_name};
use super::heap::Heap;
use super::source::FileSource;
use super::{Array, Attribute, Container, MATRIX_MARKET, ObjectKind};
use crate::error::{Error, Result};

/// A chunk larger than this cannot be decoded in reasonable memory; HDF5's own limit is 4 GiB.
const MAX_CHUNK_BYTES: usize = 1 << 30;
/// Datasets above this size must really be stored: a declared shape alone can be any number.
const UNCHECKED_BYTES: usize = 16 << 20;
/// Decoded chunks kept between reads of neighbouring rows: one band of chunks, within these bounds.
const MIN_CACHE_BYTES: usize = 1 << 20;
const MAX_CACHE_BYTES: usize = 1 << 28;

/// A file opened by `hdf5-pure`.
pub(crate) struct PureFile {
    path: PathBuf,
    file: File,
    source: FileSource,
}

impl PureFile {
    /// Opens the file and reads its superblock.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let source = FileSource::open(path)?;
        let options =
            hdf5_pure::FileAccessProperties::new().with_metadata_cache(MetadataCacheConfig::new(4 << 20));
        let file = File::from_source_with_options(source.clone(), options).map_err(|error| match error {
            hdf5_pure::Error::Format(FormatError::SignatureNotFound) => {
                Error::NotHdf5 { path: path.to_path_buf(), looks_like: looks_like(&source.head(512)) }
            }
            other => Error::Hdf5 {
                path: path.to_path_buf(),
                dataset: "the superblock".into(),
                reason: reason(&other),
            },
        })?;
        let superblock = file.superblock();
        let refuse = |reason: String| Error::Hdf5 {
            path: path.to_path_buf(),
            dataset: "the superblock".into(),
            reason,
        };
        if superblock.offset_size != 8 || superblock.length_size != 8 {
            return Err(refuse(format!("addresses of {} bytes are not supported", superblock.offset_size)));
        }
        if superblock.eof_address > source.len() {
            return Err(refuse(format!(
                "the file is cut short: it should have {} bytes and has {}",
                superblock.eof_address,
                source.len()
            )));
        }
        Ok(Self { path: path.to_path_buf(), file, source })
    }

    fn failed(&self, dataset: &str, error: &hdf5_pure::Error) -> Error {
        Error::Hdf5 { path: self.path.clone(), dataset: dataset.to_string(), reason: reason(error) }
    }

    fn refuse(&self, dataset: &str, reason: impl Into<String>) -> Error {
        Error::Hdf5 { path: self.path.clone(), dataset: dataset.to_string(), reason: reason.into() }
    }

    /// Checks the layout a dataset declares against its shape and the file, and says how to read it.
    fn storage(&self, name: &str, dataset: &Dataset, shape: &[usize], element: &Element) -> Result<Storage> {
        let n_bytes = shape
            .iter()
            .try_fold(element.size(), |bytes, &length| bytes.checked_mul(length))
            .filter(|&bytes| isize::try_from(bytes).is_ok())
            .ok_or_else(|| self.refuse(name, format!("the shape {shape:?} is too large")))?;
        match dataset.layout().map_err(|error| self.failed(name, &error))? {
            Layout::Compact { size } if size < n_bytes as u64 => {
                Err(self
                    .refuse(name, format!("{size} bytes are stored, its shape {shape:?} needs {n_bytes}")))
            }
            Layout::Compact { .. } => Ok(Storage::Whole),
            Layout::Contiguous { address, size } => {
                let stored = address.is_some_and(|address| {
                    size >= n_bytes as u64
                        && address.checked_add(size).is_some_and(|end| end <= self.source.len())
                });
                if stored || n_bytes == 0 {
                    return Ok(Storage::Whole);
                }
                Err(self.refuse(name, format!("its {n_bytes} bytes are not all in this file")))
            }
            Layout::Chunked { chunk_shape, .. } => {
                self.chunked_storage(name, dataset, shape, &chunk_shape, element)
            }
            Layout::Virtual => {
                Err(self.refuse(name, "it is a virtual dataset, with its values in other files"))
            }
            _ => Err(self.refuse(name, "its storage layout is not supported")),
        }
    }

    fn chunked_storage(
        &self,
        name: &str,
        dataset: &Dataset,
        shape: &[usize],
        chunk_shape: &[u64],
        element: &Element,
    ) -> Result<Storage> {
        let refuse = |reason: String| self.refuse(name, reason);
        let chunk: Vec<usize> =
            chunk_shape.iter().map(|&length| usize::try_from(length).unwrap_or(0)).collect();
        let chunk_bytes = chunk
            .iter()
            .try_fold(element.size(), |bytes, &length| bytes.checked_mul(length))
            .filter(|&bytes| (1..=MAX_CHUNK_BYTES).contains(&bytes) && chunk.len() == shape.len())
            .ok_or_else(|| refuse(format!("chunks of {chunk_shape:?} elements are not supported")))?;
        let filters = dataset.filters();
        let known = [filters::DEFLATE, filters::SHUFFLE, filters::FLETCHER32, filters::LZF, filters::ZSTD];
        if let Some(&unknown) = filters.iter().find(|filter| !known.contains(filter)) {
            return Err(refuse(format!(
                "it is compressed with {}, which is not supported",
                filter_name(unknown)
            )));
        }
        // Zero rows have zero chunks; the products below cannot overflow once the byte count did not.
        let n_chunks: usize =
            shape.iter().zip(&chunk).map(|(&length, &chunk)| length.div_ceil(chunk)).product();
        let n_bytes = shape.iter().product::<usize>() * element.size();
        let ours = filters.contains(&filters::ZSTD);
        let mut stored = Vec::new();
        if ours || n_bytes > UNCHECKED_BYTES {
            stored = dataset.chunks().map_err(|error| self.failed(name, &error))?;
            if stored.len() < n_chunks {
                return Err(refuse(format!("{} of its {n_chunks} chunks are stored", stored.len())));
            }
        }
        if !ours {
            let band: usize =
                shape.iter().zip(&chunk).skip(1).map(|(&length, &chunk)| length.div_ceil(chunk)).product();
            let bytes = band.saturating_mul(chunk_bytes).clamp(MIN_CACHE_BYTES, MAX_CACHE_BYTES);
            return Ok(Storage::Chunked {
                rows: chunk.first().copied().unwrap_or(1),
                cache: (band.max(16), bytes),
            });
        }
        if shape.len() > 2 {
            return Err(refuse("zstd chunks of more than two dimensions are not supported".into()));
        }
        let mut chunks: Vec<StoredChunk> = stored
            .into_iter()
            .map(|chunk| {
                Ok(StoredChunk {
                    offset: chunk
                        .offset
                        .iter()
                        .map(|&offset| usize::try_from(offset).unwrap_or(usize::MAX))
                        .collect(),
                    address: chunk.address,
                    size: usize::try_from(chunk.storage_size)
                        .ok()
                        .filter(|&size| size <= MAX_CHUNK_BYTES)
                        .ok_or_else(|| refuse("a chunk is too large".into()))?,
                    skipped: chunk.filter_mask,
                })
            })
            .collect::<Result<_>>()?;
        chunks.sort_by(|a, b| a.offset.cmp(&b.offset));
        Ok(Storage::Own(OwnChunks { chunk, chunk_bytes, filters, chunks, last: None }))
    }
}

impl Container for PureFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn kind(&self, name: &str) -> Result<Option<ObjectKind>> {
        match self.file.group(name) {
            Ok(_) => return Ok(Some(ObjectKind::Group)),
            Err(hdf5_pure::Error::Format(FormatError::PathNotFound(_))) => return Ok(None),
            Err(hdf5_pure::Error::NotAGroup(_)) => {}
            Err(error) => return Err(self.failed(name, &error)),
        }
        match self.file.dataset(name) {
            Ok(_) => Ok(Some(ObjectKind::Array)),
            // A link through something that is no group, or a named type: nothing a reader could use.
            Err(hdf5_pure::Error::NotADataset(_) | hdf5_pure::Error::NotAGroup(_)) => Ok(None),
            Err(hdf5_pure::Error::Format(FormatError::PathNotFound(_))) => Ok(None),
            Err(error) => Err(self.failed(name, &error)),
        }
    }

    fn members(&self, group: &str) -> Result<Vec<String>> {
        let list = || {
            let handle = self.file.group(group)?;
            let mut members = handle.datasets()?;
            members.append(&mut handle.groups()?);
            Ok(members)
        };
        list().map_err(|error| self.failed(group, &error))
    }

    fn attribute(&self, object: &str, name: &str) -> Result<Option<Attribute>> {
        let read = || match self.file.group(object) {
            Ok(group) => group.attrs(),
            Err(hdf5_pure::Error::NotAGroup(_)) => self.file.dataset(object)?.attrs(),
            Err(error) => Err(error),
        };
        let attributes = read().map_err(|error| self.failed(object, &error))?;
        Ok(attributes.get(name).map(attribute))
    }

    fn array(&self, name: &str) -> Result<Box<dyn Array>> {
        let dataset = self.file.dataset(name).map_err(|error| self.failed(name, &error))?;
        let datatype = dataset.datatype().map_err(|error| self.failed(name, &error))?;
        let element = element(&datatype).map_err(|reason| self.refuse(name, reason))?;
        let shape: Vec<usize> = dataset
            .shape()
            .map_err(|error| self.failed(name, &error))?
            .into_iter()
            .map(|length| usize::try_from(length).map_err(|_| self.refuse(name, "its shape is too large")))
            .collect::<Result<_>>()?;
        let storage = self.storage(name, &dataset, &shape, &element)?;
        let dataset = match &storage {
            Storage::Chunked { cache: (slots, bytes), .. } => {
                let cache = ChunkCacheConfig::from_h5p_cache(*slots, *bytes);
                let properties = DatasetAccessProperties::new().with_chunk_cache(cache);
                self.file.dataset_with_options(name, properties).map_err(|error| self.failed(name, &error))?
            }
            _ => dataset,
        };
        let heap = Heap::new(self.source.clone(), self.file.superblock().base_address.get());
        Ok(Box::new(PureArray {
            path: self.path.clone(),
            name: name.to_string(),
            dataset,
            shape,
            element,
            storage,
            source: self.source.clone(),
            heap,
        }))
    }
}

/// How the values are stored, and so who reads them.
enum Storage {
    /// In one piece.
    Whole,
    /// In chunks the library decodes, with its cache of (chunks, bytes).
    Chunked { rows: usize, cache: (usize, usize) },
    /// In chunks we decode.
    Own(OwnChunks),
}

struct PureArray {
    path: PathBuf,
    name: String,
    dataset: Dataset,
    shape: Vec<usize>,
    element: Element,
    storage: Storage,
    source: FileSource,
    heap: Heap,
}

impl PureArray {
    fn failed(&self, reason: String) -> Error {
        Error::Hdf5 { path: self.path.clone(), dataset: self.name.clone(), reason }
    }
}

impl Array for PureArray {
    fn path(&self) -> &Path {
        &self.path
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn element(&self) -> &Element {
        &self.element
    }

    fn rows_per_chunk(&self) -> usize {
        match &self.storage {
            Storage::Whole => 1,
            Storage::Chunked { rows, .. } => *rows,
            Storage::Own(own) => own.chunk.first().copied().unwrap_or(1),
        }
    }

    fn read_rows(&mut self, start: usize, count: usize) -> Result<Vec<u8>> {
        let n_rows = self.shape.first().copied().unwrap_or(1);
        if start.checked_add(count).is_none_or(|end| end > n_rows) {
            return Err(self.failed(format!("rows {start} to {start} + {count} of {n_rows} were asked for")));
        }
        let expected = count * self.shape.iter().skip(1).product::<usize>() * self.element.size();
        if expected == 0 {
            return Ok(Vec::new());
        }
        let bytes = match &mut self.storage {
            Storage::Own(own) => own.read(&self.source, &self.shape, self.element.size(), start, count),
            _ => self.dataset.read_raw_rows(start as u64, count as u64).map_err(|error| reason(&error)),
        }
        .map_err(|reason| self.failed(reason))?;
        if bytes.len() != expected {
            return Err(self.failed(format!("{} bytes were read, expected {expected}", bytes.len())));
        }
        Ok(bytes)
    }

    fn dereference(&mut self, references: &[u8]) -> Result<Vec<String>> {
        self.heap.texts(references).map_err(|reason| Error::Hdf5 {
            path: self.path.clone(),
            dataset: self.name.clone(),
            reason,
        })
    }
}

/// The library's reason, with the one case explained that users meet.
fn reason(error: &hdf5_pure::Error) -> String {
    match error {
        hdf5_pure::Error::Format(FormatError::InvalidLayoutVersion(version)) => format!(
            "it is stored in data layout version {version}, HDF5 2's newest, which is not supported: write the file without libver=\"latest\""
        ),
        // A soft link has no address, and the library takes it for one.
        hdf5_pure::Error::Format(FormatError::OffsetOverflow { offset: u64::MAX, .. }) => {
            "it is a soft link, which is not supported".into()
        }
        other => other.to_string(),
    }
}

/// What the first bytes of a file that is not HDF5 look like.
fn looks_like(head: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], &'static str); 7] = [
        (b"version https://git-lfs", "a Git LFS pointer: fetch the file with `git lfs pull`"),
        (b"\x1f\x8b", "gzip-compressed data: unpack it first"),
        (b"PK\x03\x04", "a zip archive: unpack it first"),
        (b"PAR1", "a Parquet file"),
        (b"<", "a web page"),
        (b"%%MatrixMarket", MATRIX_MARKET),
        (b"{", "JSON"),
    ];
    if head.is_empty() {
        return Some("an empty file");
    }
    known.iter().find(|(start, _)| head.starts_with(start)).map(|&(_, what)| what)
}

fn attribute(value: &AttrValue) -> Attribute {
    if let Some(text) = value.as_str() {
        return Attribute::Text(text.to_string());
    }
    if let Some(texts) = value.as_strings() {
        return Attribute::Texts(texts.to_vec());
    }
    match value.to_i64s() {
        Some(integers) => Attribute::Integers(integers),
        None => Attribute::Other,
    }
}
