//! The ZIP archives `torch.save` writes: every member stored as it is.

use std::collections::HashMap;
use std::ops::Range;

/// A ZIP archive in memory.
pub(super) struct Archive<'a> {
    bytes: &'a [u8],
    members: HashMap<String, Range<usize>>,
}

const END_OF_DIRECTORY: &[u8] = b"PK\x05\x06";
const DIRECTORY_ENTRY: &[u8] = b"PK\x01\x02";
const LOCAL_HEADER: &[u8] = b"PK\x03\x04";
/// Of the end-of-directory record and the comment behind it.
const LONGEST_END: usize = 22 + u16::MAX as usize;

impl<'a> Archive<'a> {
    /// Whether the bytes start as an archive does.
    pub(super) fn is_archive(bytes: &[u8]) -> bool {
        bytes.starts_with(LOCAL_HEADER)
    }

    /// Reads the directory (APPNOTE.TXT, sections 4.3.12 and 4.3.16).
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let tail = bytes.len().saturating_sub(LONGEST_END);
        let end = bytes[tail..].windows(4).rposition(|window| window == END_OF_DIRECTORY).map(|at| tail + at);
        let end = end.ok_or("its ZIP directory is missing: it was cut short")?;
        let n_members = u16_at(bytes, end + 10)?;
        let mut at = u32_at(bytes, end + 16)?;
        let mut members = HashMap::new();
        for _ in 0..n_members {
            if !bytes.get(at..).is_some_and(|rest| rest.starts_with(DIRECTORY_ENTRY)) {
                return Err("its ZIP directory is damaged, or of the 64-bit kind".into());
            }
            let (method, size) = (u16_at(bytes, at + 10)?, u32_at(bytes, at + 24)?);
            let (name_length, extra_length, comment_length) =
                (u16_at(bytes, at + 28)?, u16_at(bytes, at + 30)?, u16_at(bytes, at + 32)?);
            let header = u32_at(bytes, at + 42)?;
            let name = bytes.get(at + 46..at + 46 + name_length).ok_or("its ZIP directory is damaged")?;
            let name = String::from_utf8_lossy(name).into_owned();
            if method != 0 {
                return Err(format!("its member {name} is compressed, which torch.save never does"));
            }
            let start = header + 30 + u16_at(bytes, header + 26)? + u16_at(bytes, header + 28)?;
            if start + size > bytes.len() {
                return Err(format!("its member {name} is cut short"));
            }
            members.insert(name, start..start + size);
            at += 46 + name_length + extra_length + comment_length;
        }
        Ok(Self { bytes, members })
    }

    /// A member's bytes.
    pub(super) fn member(&self, name: &str) -> Option<&'a [u8]> {
        self.members.get(name).map(|range| &self.bytes[range.clone()])
    }

    /// The folder in which a member of this name lies, with its slash.
    pub(super) fn folder_of(&self, file: &str) -> Option<&str> {
        let mut folders = self.members.keys().filter_map(|name| name.strip_suffix(file));
        folders.find(|folder| folder.is_empty() || folder.ends_with('/'))
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Result<usize, String> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map(|&field| u16::from_le_bytes(field).into()).ok_or_else(|| "its ZIP directory is damaged".into())
}

fn u32_at(bytes: &[u8], at: usize) -> Result<usize, String> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field
        .map(|&field| u32::from_le_bytes(field) as usize)
        .ok_or_else(|| "its ZIP directory is damaged".into())
}
