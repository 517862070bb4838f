//! Adds objects to a copy of an HDF5 file and leaves every other byte as it is.
//!
//! New arrays, texts and groups go to the end of the file. The groups that get new members, and the root above them, are
//! written again at the end too: their headers with the same attributes and the same addresses of all other members, in
//! the form newer HDF5 gives groups. Last, the superblock is pointed at the new root. So no dataset is decoded, moved or
//! recompressed, object references stay valid, and memory is that of what is added, whatever the size of the file. What
//! was replaced stays in the file as unused bytes, as with HDF5's own library.
//!
//! `hdf5-pure` edits too, but holds files with old superblocks, which h5py writes by default, in memory whole, refuses
//! groups with dense links, and needs a new matrix in one piece. The layout follows the HDF5 File Format Specification,
//! version 3.0, whose sections the modules name.

mod checksum;
mod datatype;
mod fields;
mod fractal_heap;
mod group;
mod header;
mod index;
mod link;
mod lookup;
mod superblock;
mod symbol_table;
mod text_heap;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use hdf5_pure::Source;

pub(crate) use datatype::{NewAttribute, NewType};
use group::GroupObject;
use link::Target;
pub(crate) use lookup::{Located, locate, members, older_layout, tree_chunks};
use superblock::Superblock;
use text_heap::TextHeap;

use super::element::REFERENCE_SIZE;
use super::source::FileSource;
use crate::error::{Error, Result};

/// A place in the file: a new object's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address(u64);

/// New values of a matrix, to be written in pieces.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reserved {
    /// The matrix.
    pub(crate) address: Address,
    first_byte: u64,
}

/// Edits a copy of a file.
pub(crate) struct Editor {
    /// The file that is read.
    path: PathBuf,
    source: FileSource,
    /// Its copy, and the name that will have.
    copy: File,
    target: PathBuf,
    superblock: Superblock,
    root: GroupObject,
    /// Groups directly below the root that were changed.
    groups: BTreeMap<String, GroupObject>,
    /// Texts of attributes, which are short and many: collections of their own would take 4 KiB each.
    short_texts: Option<TextHeap>,
    /// Where the next object goes.
    end: u64,
}

impl Editor {
    /// Reads the structure of `path`; nothing is written yet.
    ///
    /// - `copy`: the same bytes, open for writing
    /// - `target`: what errors of writing should name
    ///
    /// Fails if the file's end cannot simply be moved: paged files, files with account of free space, userblocks.
    pub(crate) fn open(path: &Path, copy: File, target: &Path) -> Result<Self> {
        let source = FileSource::open(path)?;
        let failed =
            |reason| Error::CannotAdd { path: path.to_path_buf(), member: "anything".into(), reason };
        let superblock = Superblock::read(&source).map_err(failed)?;
        let root = GroupObject::read(&source, superblock.root).map_err(failed)?;
        let end = source.len().next_multiple_of(8);
        Ok(Self {
            path: path.to_path_buf(),
            source,
            copy,
            target: target.to_path_buf(),
            superblock,
            root,
            groups: BTreeMap::new(),
            short_texts: None,
            end,
        })
    }

    /// Opens a group below the root for changes; a group that is not there is made, with `attributes`.
    ///
    /// Fails for a dataset (the compound tables of AnnData before 0.7), a soft link, and a group with several names.
    pub(crate) fn open_group(&mut self, name: &str, attributes: &[NewAttribute]) -> Result<()> {
        if self.groups.contains_key(name) {
            return Ok(());
        }
        let group = match self.root.target(name) {
            Some(&Target::Object(address)) => GroupObject::read(&self.source, address),
            Some(Target::Elsewhere(what)) => Err(format!("it is {what}")),
            Some(Target::Name(_)) => Err("it is a soft link".into()),
            None => {
                let mut group = GroupObject::new();
                attributes.iter().try_for_each(|attribute| group.set_attribute(attribute)).map(|()| group)
            }
        };
        let group = group.map_err(|reason| self.failed(name, reason))?;
        self.groups.insert(name.to_string(), group);
        Ok(())
    }

    /// Whether an open group has a member of this name.
    pub(crate) fn has_member(&self, group: &str, name: &str) -> bool {
        self.groups.get(group).is_some_and(|group| group.target(name).is_some())
    }

    /// Adds a member to an open group, or replaces the one of this name.
    pub(crate) fn put(&mut self, group: &str, name: &str, object: Address) {
        if let Some(group) = self.groups.get_mut(group) {
            group.put(name, object.0);
        }
    }

    /// Adds or replaces an attribute of an open group.
    pub(crate) fn set_attribute(&mut self, group: &str, attribute: &NewAttribute) -> Result<()> {
        let result = self.groups.get_mut(group).map_or(Ok(()), |group| group.set_attribute(attribute));
        result.map_err(|reason| self.failed(group, reason))
    }

    /// An attribute that holds one text.
    pub(crate) fn text_attribute(&mut self, name: &str, text: &str) -> Result<NewAttribute> {
        let heap = match self.short_texts.take() {
            Some(heap) if heap.has_room(text.len()) => heap,
            full => {
                self.write_short_texts(full)?;
                let heap = TextHeap::at(self.end);
                self.end += text_heap::LEAST as u64;
                heap
            }
        };
        let data = if heap.has_room(text.len()) {
            let mut heap = heap;
            let reference = heap.push(text).map_err(|reason| self.failed(name, reason))?;
            self.short_texts = Some(heap);
            reference.to_vec()
        } else {
            self.short_texts = Some(heap);
            self.write_texts([text].into_iter())?
        };
        Ok(NewAttribute::new(name, NewType::Text, &[], &data))
    }

    fn write_short_texts(&mut self, heap: Option<TextHeap>) -> Result<()> {
        heap.map_or(Ok(()), |heap| {
            let address = heap.address();
            self.write_at(address, &heap.finish())
        })
    }

    /// An attribute that holds a list of texts.
    ///
    /// Fails above 4,000 or so: an attribute ends at 64 KiB.
    pub(crate) fn texts_attribute(&mut self, name: &str, texts: &[String]) -> Result<NewAttribute> {
        let data = self.write_texts(texts.iter().map(String::as_str))?;
        Ok(NewAttribute::new(name, NewType::Text, &[texts.len() as u64], &data))
    }

    /// An attribute that is true or false.
    pub(crate) fn boolean_attribute(&self, name: &str, value: bool) -> NewAttribute {
        NewAttribute::new(name, NewType::Boolean, &[], &[u8::from(value)])
    }

    /// Writes texts and gives the references to them, 16 bytes each.
    pub(crate) fn write_texts<'t>(&mut self, texts: impl Iterator<Item = &'t str>) -> Result<Vec<u8>> {
        let mut references = Vec::with_capacity(texts.size_hint().0 * REFERENCE_SIZE);
        let mut heap = TextHeap::at(self.end);
        for text in texts {
            if heap.is_full() {
                self.append(&heap.finish())?;
                heap = TextHeap::at(self.end);
            }
            references.extend_from_slice(&heap.push(text).map_err(|reason| self.failed("a text", reason))?);
        }
        self.append(&heap.finish())?;
        Ok(references)
    }

    /// Writes an array.
    ///
    /// - `shape`: no dimensions for a scalar
    /// - `data`: the elements' bytes, little-endian, rows first
    pub(crate) fn write_array(
        &mut self,
        of: NewType,
        shape: &[u64],
        data: &[u8],
        attributes: &[NewAttribute],
    ) -> Result<Address> {
        let first_byte = self.append(data)?;
        let header = datatype::array_header(of, shape, first_byte, attributes);
        let bytes = header.encode().map_err(|reason| self.failed("an array", reason))?;
        self.append(&bytes).map(Address)
    }

    /// Makes room for an array whose values come later.
    pub(crate) fn reserve_array(
        &mut self,
        of: NewType,
        shape: &[u64],
        attributes: &[NewAttribute],
    ) -> Result<Reserved> {
        let n_bytes = shape.iter().try_fold(of.size() as u64, |bytes, &length| bytes.checked_mul(length));
        let first_byte = self.end;
        let end = n_bytes.and_then(|n_bytes| first_byte.checked_add(n_bytes)?.checked_next_multiple_of(8));
        self.end = end
            .filter(|&end| i64::try_from(end).is_ok())
            .ok_or_else(|| self.failed("a matrix", format!("its shape {shape:?} is too large")))?;
        let header = datatype::array_header(of, shape, first_byte, attributes);
        let bytes = header.encode().map_err(|reason| self.failed("a matrix", reason))?;
        let address = Address(self.append(&bytes)?);
        Ok(Reserved { address, first_byte })
    }

    /// Writes values of a reserved array, `offset` bytes from its first.
    pub(crate) fn write_values(&mut self, array: Reserved, offset: u64, data: &[u8]) -> Result<()> {
        self.write_at(array.first_byte + offset, data)
    }

    /// Writes a group that no other group knows yet.
    pub(crate) fn write_group(
        &mut self,
        members: &[(&str, Address)],
        attributes: &[NewAttribute],
    ) -> Result<Address> {
        let mut group = GroupObject::new();
        members.iter().for_each(|&(name, address)| group.put(name, address.0));
        attributes
            .iter()
            .try_for_each(|attribute| group.set_attribute(attribute))
            .and_then(|()| group.encode())
            .map_err(|reason| self.failed("a group", reason))
            .and_then(|bytes| self.append(&bytes))
            .map(Address)
    }

    /// Writes the changed groups and the root, and points the superblock at it. Until then the copy is the old file.
    pub(crate) fn commit(mut self) -> Result<()> {
        for (name, group) in std::mem::take(&mut self.groups) {
            let bytes = group.encode().map_err(|reason| self.failed(&name, reason))?;
            let address = self.append(&bytes)?;
            self.root.put(&name, address);
        }
        let heap = self.short_texts.take();
        self.write_short_texts(heap)?;
        let bytes = self.root.encode().map_err(|reason| self.failed("/", reason))?;
        let root = self.append(&bytes)?;
        self.copy.set_len(self.end).map_err(|source| Error::io("write", &self.target, source))?;
        self.write_at(0, &self.superblock.with_root(root, self.end))
    }

    /// Writes at the end and gives the address.
    fn append(&mut self, bytes: &[u8]) -> Result<u64> {
        let address = self.end;
        self.write_at(address, bytes)?;
        self.end = (address + bytes.len() as u64).next_multiple_of(8);
        Ok(address)
    }

    fn write_at(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        self.copy
            .seek(SeekFrom::Start(address))
            .and_then(|_| self.copy.write_all(bytes))
            .map_err(|source| Error::io("write", &self.target, source))
    }

    fn failed(&self, member: &str, reason: String) -> Error {
        Error::CannotAdd { path: self.path.clone(), member: member.to_string(), reason }
    }
}
