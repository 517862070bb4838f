//! The traits over the pure-Rust HDF5 library.

use std::path::{Path, PathBuf};

use hdf5_pure::{
    ChunkCacheConfig, ChunkIndex, Dataset, DatasetAccessProperties, File, FileAccessProperties, FormatError,
    Layout, MetadataCacheConfig, Source,
};

use super::array::{ArrayError, PureArray, Storage};
use super::chunks::{OwnChunks, StoredChunk};
use super::datatype::element;
use super::edit::{self, Located};
use super::element::Element;
use super::filters::{self, Filter, filter_name};
use super::heap::Heap;
use super::signature::looks_like;
use super::source::FileSource;
use super::{Array, Attribute, Container, ObjectKind};
use crate::error::{Error, Result};

/// A chunk larger than this cannot be decoded in reasonable memory; HDF5's own limit is 4 GiB.
const MAX_CHUNK_BYTES: usize = 1 << 30;
/// Datasets above this size must really be stored: a declared shape alone can be any number.
const UNCHECKED_BYTES: usize = 16 << 20;
/// Decoded chunks kept between reads of neighbouring rows: one band of chunks, within these bounds.
const MIN_CACHE_BYTES: usize = 1 << 20;
const MAX_CACHE_BYTES: usize = 1 << 28;

/// The data layout message of HDF5 2.0, which the library does not know.
const NEWEST_LAYOUT: u8 = 5;

fn options() -> FileAccessProperties {
    FileAccessProperties::new().with_metadata_cache(MetadataCacheConfig::new(4 << 20))
}

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
        let file =
            File::from_source_with_options(source.clone(), options()).map_err(|error| match error {
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
    fn storage(
        &self,
        name: &str,
        dataset: &Dataset,
        layout: Layout,
        shape: &[usize],
        element: &Element,
    ) -> Result<Storage> {
        let n_bytes = shape
            .iter()
            .try_fold(element.size(), |bytes, &length| bytes.checked_mul(length))
            .filter(|&bytes| isize::try_from(bytes).is_ok())
            .ok_or_else(|| self.refuse(name, format!("the shape {shape:?} is too large")))?;
        match layout {
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
        let filters: Vec<Filter> = dataset
            .filter_pipeline()
            .into_iter()
            .map(|filter| Filter { id: filter.id, parameters: filter.client_data })
            .collect();
        let known =
            |filter: &Filter| filters::THEIRS.contains(&filter.id) || filters::OURS.contains(&filter.id);
        if let Some(unknown) = filters.iter().find(|filter| !known(filter)) {
            let name = filter_name(unknown.id);
            return Err(refuse(format!("it is compressed with {name}, which is not supported")));
        }
        // Zero rows have zero chunks; the products below cannot overflow once the byte count did not.
        let n_chunks: usize =
            shape.iter().zip(&chunk).map(|(&length, &chunk)| length.div_ceil(chunk)).product();
        let n_bytes = shape.iter().product::<usize>() * element.size();
        let in_tree = matches!(dataset.chunk_index(), Ok(Some(ChunkIndex::BTreeV2)));
        let ours = in_tree || filters.iter().any(|filter| filters::OURS.contains(&filter.id));
        // Listed even where the library reads them: it makes room for as much as a chunk claims before it looks for it.
        let mut chunks = match in_tree {
            true => self.tree_chunks(name, &chunk, chunk_bytes)?,
            false => self.library_chunks(name, dataset)?,
        };
        if ours || n_bytes > UNCHECKED_BYTES {
            // Chunks beyond the shape are what is left of a larger one.
            let inside =
                |chunk: &StoredChunk| chunk.offset.iter().zip(shape).all(|(&at, &length)| at < length);
            chunks.retain(inside);
            if chunks.len() < n_chunks {
                return Err(refuse(format!("{} of its {n_chunks} chunks are stored", chunks.len())));
            }
        }
        let faster = shape.len() == 1
            && chunks.len() == n_chunks
            && filters.iter().any(|filter| filter.id == filters::DEFLATE)
            && filters.iter().all(|filter| filters::FASTER.contains(&filter.id));
        if !ours && !faster {
            let band: usize =
                shape.iter().zip(&chunk).skip(1).map(|(&length, &chunk)| length.div_ceil(chunk)).product();
            let bytes = band.saturating_mul(chunk_bytes).clamp(MIN_CACHE_BYTES, MAX_CACHE_BYTES);
            return Ok(Storage::Chunked {
                rows: chunk.first().copied().unwrap_or(1),
                cache: (band.max(16), bytes),
            });
        }
        if shape.len() > 2 {
            return Err(refuse(
                "such compressed chunks of more than two dimensions are not supported".into(),
            ));
        }
        chunks.sort_by(|a, b| a.offset.cmp(&b.offset));
        Ok(Storage::Own(OwnChunks { chunk, chunk_bytes, filters, chunks, last: None }))
    }

    /// The chunks as the library lists them.
    fn library_chunks(&self, name: &str, dataset: &Dataset) -> Result<Vec<StoredChunk>> {
        let stored = dataset.chunks().map_err(|error| self.failed(name, &error))?;
        let chunks = stored.into_iter().map(|chunk| {
            let offset = chunk.offset.iter().map(|&offset| usize::try_from(offset).unwrap_or(usize::MAX));
            let size = self.chunk_size(name, chunk.address, chunk.storage_size)?;
            Ok(StoredChunk {
                offset: offset.collect(),
                address: chunk.address,
                size,
                skipped: chunk.filter_mask,
            })
        });
        chunks.collect()
    }

    /// The chunks of an index the library does not list.
    fn tree_chunks(&self, name: &str, chunk: &[usize], chunk_bytes: usize) -> Result<Vec<StoredChunk>> {
        let refuse = |reason: String| self.refuse(name, reason);
        let located = edit::locate(&self.source, name).map_err(refuse)?;
        let located = located.ok_or_else(|| refuse("it is not where it was".into()))?;
        let stored = edit::tree_chunks(&self.source, located.address).map_err(refuse)?;
        let chunks = stored.into_iter().map(|stored| {
            let place = |(&position, &length): (&u64, &usize)| {
                usize::try_from(position).unwrap_or(usize::MAX).saturating_mul(length)
            };
            let offset = stored.position.iter().zip(chunk).map(place).collect();
            let size = self.chunk_size(name, stored.address, stored.size.unwrap_or(chunk_bytes as u64))?;
            Ok(StoredChunk { offset, address: stored.address, size, skipped: stored.skipped })
        });
        chunks.collect()
    }

    /// The size of a stored chunk, if all of it is in the file.
    fn chunk_size(&self, name: &str, address: u64, size: u64) -> Result<usize> {
        if address.checked_add(size).is_none_or(|end| end > self.source.len()) {
            return Err(self.refuse(name, "a chunk reaches past the end of the file"));
        }
        let size = usize::try_from(size).ok().filter(|&size| size <= MAX_CHUNK_BYTES);
        size.ok_or_else(|| self.refuse(name, "a chunk is too large"))
    }
}

impl PureFile {
    /// Does something with an object by its name, and if the library finds none, by the name it has without soft links.
    fn follow<T>(
        &self,
        name: &str,
        act: impl Fn(&str) -> std::result::Result<T, hdf5_pure::Error>,
    ) -> Result<T> {
        let error = match act(name) {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        match self.locate(name, &error)? {
            Some(located) if located.name != name => {
                act(&located.name).map_err(|error| self.failed(name, &error))
            }
            _ => Err(self.failed(name, &error)),
        }
    }

    /// Looks an object up that the library did not find, if a soft link can be why.
    fn locate(&self, name: &str, error: &hdf5_pure::Error) -> Result<Option<Located>> {
        let may_be_link = matches!(
            error,
            hdf5_pure::Error::Format(
                FormatError::PathNotFound(_)
                    // A soft link of an old group has no address, and the library takes that for one.
                    | FormatError::OffsetOverflow { offset: u64::MAX, .. }
            )
        );
        if !may_be_link {
            return Ok(None);
        }
        edit::locate(&self.source, name).map_err(|reason| self.refuse(name, reason))
    }

    /// What `name` is to the library.
    fn library_kind(&self, name: &str) -> std::result::Result<Option<ObjectKind>, hdf5_pure::Error> {
        match self.file.group(name) {
            Ok(_) => return Ok(Some(ObjectKind::Group)),
            Err(hdf5_pure::Error::NotAGroup(_)) => {}
            Err(error) => return Err(error),
        }
        match self.file.dataset(name) {
            Ok(_) => Ok(Some(ObjectKind::Array)),
            // A link through something that is no group, or a named type: nothing a reader could use.
            Err(hdf5_pure::Error::NotADataset(_) | hdf5_pure::Error::NotAGroup(_)) => Ok(None),
            Err(hdf5_pure::Error::Format(FormatError::InvalidLayoutVersion(NEWEST_LAYOUT))) => {
                Ok(Some(ObjectKind::Array))
            }
            Err(error) => Err(error),
        }
    }

    /// Opens an array in `file`, which is this file as it is or with another layout message.
    fn open_array(&self, file: &File, name: &str) -> Result<Box<dyn Array>, ArrayError> {
        let dataset = file.dataset(name)?;
        let datatype = dataset.datatype()?;
        let refuse = |reason: String| ArrayError::Refused(self.refuse(name, reason));
        let element = element(&datatype).map_err(refuse)?;
        let shape: Vec<usize> = dataset
            .shape()?
            .into_iter()
            .map(|length| usize::try_from(length).map_err(|_| refuse("its shape is too large".into())))
            .collect::<std::result::Result<_, _>>()?;
        let layout = dataset.layout()?;
        let storage = self.storage(name, &dataset, layout, &shape, &element).map_err(ArrayError::Refused)?;
        let dataset = match &storage {
            Storage::Chunked { cache: (slots, bytes), .. } => {
                let cache = ChunkCacheConfig::from_h5p_cache(*slots, *bytes);
                let properties = DatasetAccessProperties::new().with_chunk_cache(cache);
                file.dataset_with_options(name, properties)?
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

    /// Opens an array whose layout message the library does not know, as if it had the version before.
    fn open_newest(&self, name: &str) -> Result<Box<dyn Array>, ArrayError> {
        let refuse = |reason: String| ArrayError::Refused(self.refuse(name, reason));
        let located = edit::locate(&self.source, name).map_err(refuse)?;
        let located = located.ok_or_else(|| refuse("it is not where it was".into()))?;
        let patches = edit::older_layout(&self.source, located.address).map_err(refuse)?;
        let file = File::from_source_with_options(self.source.patched(patches), options())?;
        self.open_array(&file, name)
    }
}

impl Container for PureFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn kind(&self, name: &str) -> Result<Option<ObjectKind>> {
        let error = match self.library_kind(name) {
            Ok(kind) => return Ok(kind),
            Err(error) => error,
        };
        match self.locate(name, &error)? {
            Some(located) if located.name != name => {
                self.library_kind(&located.name).map_err(|error| self.failed(name, &error))
            }
            _ if matches!(error, hdf5_pure::Error::Format(FormatError::PathNotFound(_))) => Ok(None),
            // A soft link that leads nowhere.
            None if matches!(error, hdf5_pure::Error::Format(FormatError::OffsetOverflow { .. })) => Ok(None),
            _ => Err(self.failed(name, &error)),
        }
    }

    fn members(&self, group: &str) -> Result<Vec<String>> {
        let listed = self.follow(group, |group| {
            let handle = self.file.group(group)?;
            let mut members = handle.datasets()?;
            members.append(&mut handle.groups()?);
            Ok(members)
        });
        // Where our own reader does not know its way, the library's list must do.
        let Ok(Some(located)) = edit::locate(&self.source, group) else { return listed };
        match (listed, edit::members(&self.source, located.address)) {
            // The library fails for old groups with soft links and leaves those of new groups out.
            (Err(_), Ok(members)) => Ok(members.into_iter().map(|member| member.name).collect()),
            (Ok(mut listed), Ok(members)) => {
                let soft = members.into_iter().filter(|member| member.is_soft_link);
                listed.extend(soft.map(|member| member.name));
                Ok(listed)
            }
            (listed, Err(_)) => listed,
        }
    }

    fn attribute(&self, object: &str, name: &str) -> Result<Option<Attribute>> {
        let attributes = self.follow(object, |object| match self.file.group(object) {
            Ok(group) => group.attrs(),
            Err(hdf5_pure::Error::NotAGroup(_)) => self.file.dataset(object)?.attrs(),
            Err(error) => Err(error),
        })?;
        Ok(attributes.get(name).map(Attribute::from))
    }

    fn array(&self, name: &str) -> Result<Box<dyn Array>> {
        let located = match self.file.dataset(name) {
            Err(error) => self.locate(name, &error)?,
            Ok(_) => None,
        };
        let name = located.as_ref().map_or(name, |located| &located.name);
        let opened = match self.open_array(&self.file, name) {
            Err(ArrayError::Library(hdf5_pure::Error::Format(FormatError::InvalidLayoutVersion(
                NEWEST_LAYOUT,
            )))) => self.open_newest(name),
            opened => opened,
        };
        opened.map_err(|error| match error {
            ArrayError::Library(error) => self.failed(name, &error),
            ArrayError::Refused(error) => error,
        })
    }
}

/// The library's reason.
pub(super) fn reason(error: &hdf5_pure::Error) -> String {
    match error {
        // A soft link has no address, and the library takes it for one.
        hdf5_pure::Error::Format(FormatError::OffsetOverflow { offset: u64::MAX, .. }) => {
            "it is a soft link that leads nowhere".into()
        }
        other => other.to_string(),
    }
}
