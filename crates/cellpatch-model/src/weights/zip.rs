//! The ZIP archives `torch.save` writes: every member stored as it is, its bytes at a multiple of 64.
//!
//! The format is APPNOTE.TXT of PKWARE; sections are named where they are used.

mod crc32;
mod writer;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use self::crc32::crc32;
use super::fault::Fault;

pub(super) use writer::{ALIGNMENT, ArchiveWriter};

/// A ZIP archive in memory.
pub(super) struct Archive<'a> {
    members: HashMap<String, Member<'a>>,
    /// Members whose checksum was found right: many tensors may share a storage, which is then read once.
    checked: RefCell<HashSet<String>>,
}

struct Member<'a> {
    bytes: &'a [u8],
    checksum: u32,
}

const END_OF_DIRECTORY: &[u8] = b"PK\x05\x06";
const DIRECTORY_ENTRY: &[u8] = b"PK\x01\x02";
const LOCAL_HEADER: &[u8] = b"PK\x03\x04";
/// Of the end-of-directory record and the comment behind it.
const LONGEST_END: usize = END_LENGTH + u16::MAX as usize;
const END_LENGTH: usize = 22;
/// General purpose bits 0 (encrypted) and 6 (strongly encrypted).
const ENCRYPTED: usize = 0x0041;
/// A field of 32 bits that has its value in a ZIP64 record instead.
const IN_ZIP64: usize = u32::MAX as usize;

impl<'a> Archive<'a> {
    /// Whether the bytes start as an archive does.
    pub(super) fn is_archive(bytes: &[u8]) -> bool {
        bytes.starts_with(LOCAL_HEADER)
    }

    /// Reads the directory (sections 4.3.12 and 4.3.16).
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, Fault> {
        let tail = bytes.len().saturating_sub(LONGEST_END);
        let end = bytes[tail..].windows(4).rposition(|window| window == END_OF_DIRECTORY).map(|at| tail + at);
        let end = end.ok_or(Fault::NoDirectory)?;
        // The length of the comment is the record's last field.
        if u16_at(bytes, end + 20)? > bytes.len() - end - END_LENGTH {
            return Err(Fault::NoDirectory);
        }
        let n_members = u16_at(bytes, end + 10)?;
        let mut at = u32_at(bytes, end + 16)?;
        if n_members == usize::from(u16::MAX) || at == IN_ZIP64 {
            return Err(Fault::Zip64);
        }
        let mut members = HashMap::new();
        for _ in 0..n_members {
            if !bytes.get(at..).is_some_and(|rest| rest.starts_with(DIRECTORY_ENTRY)) {
                return Err(Fault::BadDirectory { at });
            }
            let name_length = u16_at(bytes, at + 28)?;
            let name = bytes.get(at + 46..at + 46 + name_length).ok_or(Fault::BadDirectory { at })?;
            let name = String::from_utf8_lossy(name).into_owned();
            let member = Member::at(bytes, at, &name)?;
            if members.insert(name.clone(), member).is_some() {
                return Err(Fault::TwoMembers { member: name });
            }
            at += 46 + name_length + u16_at(bytes, at + 30)? + u16_at(bytes, at + 32)?;
        }
        Ok(Self { members, checked: RefCell::default() })
    }

    /// A member's bytes, if there is one of this name; they are those that were written.
    pub(super) fn find(&self, name: &str) -> Result<Option<&'a [u8]>, Fault> {
        let Some(member) = self.members.get(name) else {
            return Ok(None);
        };
        // PyTorch writes 0 where it was told to save the time (`torch.serialization.set_crc32_options`).
        if member.checksum != 0 && !self.checked.borrow().contains(name) {
            if crc32(member.bytes) != member.checksum {
                return Err(Fault::WrongChecksum { member: name.to_string() });
            }
            self.checked.borrow_mut().insert(name.to_string());
        }
        Ok(Some(member.bytes))
    }

    /// A member's bytes.
    pub(super) fn member(&self, name: &str) -> Result<&'a [u8], Fault> {
        self.find(name)?.ok_or_else(|| Fault::NoMember { member: name.to_string() })
    }

    /// The folder in which a member of this name lies, with its slash; of several the first by name.
    pub(super) fn folder_of(&self, file: &str) -> Option<&str> {
        let folders = self.members.keys().filter_map(|name| name.strip_suffix(file));
        folders.filter(|folder| folder.is_empty() || folder.ends_with('/')).min()
    }
}

impl<'a> Member<'a> {
    /// The member that the directory's entry at `at` stands for, with the bytes behind its local header
    /// (section 4.3.7).
    fn at(bytes: &'a [u8], at: usize, name: &str) -> Result<Self, Fault> {
        let (flags, method) = (u16_at(bytes, at + 8)?, u16_at(bytes, at + 10)?);
        if flags & ENCRYPTED != 0 {
            return Err(Fault::Encrypted { member: name.to_string() });
        }
        if method != 0 {
            return Err(Fault::Compressed { member: name.to_string() });
        }
        let checksum = u32_at(bytes, at + 16)?;
        let (packed, size, header) =
            (u32_at(bytes, at + 20)?, u32_at(bytes, at + 24)?, u32_at(bytes, at + 42)?);
        if [packed, size, header].contains(&IN_ZIP64) {
            return Err(Fault::Zip64);
        }
        let local = bytes.get(header..).filter(|rest| rest.starts_with(LOCAL_HEADER));
        let stored = local.filter(|_| packed == size).and_then(|local| {
            let name_end = 30 + u16_at(local, 26).ok()?;
            let start = name_end + u16_at(local, 28).ok()?;
            let named = local.get(30..name_end)? == name.as_bytes();
            local.get(start..start + size).filter(|_| named)
        });
        let bytes = stored.ok_or_else(|| Fault::BadMember { member: name.to_string() })?;
        Ok(Self { bytes, checksum: checksum as u32 })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Result<usize, Fault> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map(|&field| u16::from_le_bytes(field).into()).ok_or(Fault::BadDirectory { at })
}

fn u32_at(bytes: &[u8], at: usize) -> Result<usize, Fault> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map(|&field| u32::from_le_bytes(field) as usize).ok_or(Fault::BadDirectory { at })
}
