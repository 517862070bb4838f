//! The first bytes of the file: where its root group is and where it ends (format specification, II.A).

use hdf5_pure::Source;

use super::checksum::checksum;
use super::fields::{Fields, UNDEFINED, read};
use super::header::ObjectHeader;
use crate::h5::source::FileSource;

const SIGNATURE: &[u8] = b"\x89HDF\r\n\x1a\n";
/// The longest superblock, that of version 1.
const MAX_BYTES: u64 = 100;
/// Message types a superblock extension may hold that say: appending is not enough.
const DRIVER: u16 = 0x14;
const FILE_SPACE: u16 = 0x17;
const CACHE_IMAGE: u16 = 0x18;

/// A superblock and where its fields are.
pub(super) struct Superblock {
    bytes: Vec<u8>,
    version: u8,
    /// Position of the end-of-file address.
    end_at: usize,
    /// Position of the root group's address.
    root_at: usize,
    /// Address of the root group's header.
    pub(super) root: u64,
}

impl Superblock {
    /// Reads the superblock, and refuses files whose free space or storage must be kept account of elsewhere.
    pub(super) fn read(source: &FileSource) -> Result<Self, String> {
        let head = read(source, 0, MAX_BYTES.min(source.len()))?;
        let mut fields = Fields::new(&head);
        if fields.expect(SIGNATURE).is_err() {
            return Err("it begins with a block of another program (a userblock)".into());
        }
        let version = fields.byte()?;
        let (length, base_at) = match version {
            0 => (96, 24),
            1 => (100, 28),
            2 | 3 => (48, 12),
            _ => return Err(format!("its superblock has version {version}, which is not known")),
        };
        let sizes_at = if version < 2 { 13 } else { 9 };
        if head.get(sizes_at..sizes_at + 2) != Some(&[8, 8]) {
            return Err("its addresses do not have 8 bytes".into());
        }
        let mut fields = Fields::new(head.get(base_at..length).ok_or("the superblock is cut short")?);
        if fields.address()? != 0 {
            return Err("its addresses do not begin at 0".into());
        }
        // Version 0 and 1: free space, end, driver, then the root's entry, a name before the address. Later: extension, end, root.
        let extra = fields.address()?;
        fields.skip(8)?;
        let (end_at, root_at) = if version < 2 {
            if fields.address()? != UNDEFINED {
                return Err("it is stored with a special file driver".into());
            }
            fields.skip(8)?;
            (base_at + 16, base_at + 40)
        } else {
            check_extension(source, extra)?;
            (base_at + 16, base_at + 24)
        };
        let root = fields.address()?;
        Ok(Self { bytes: head[..length].to_vec(), version, end_at, root_at, root })
    }

    /// The superblock of the same file with another root group and another end.
    pub(super) fn with_root(&self, root: u64, end: u64) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[self.end_at..self.end_at + 8].copy_from_slice(&end.to_le_bytes());
        bytes[self.root_at..self.root_at + 8].copy_from_slice(&root.to_le_bytes());
        if self.version < 2 {
            // What follows caches the old group's table: cache type, reserved, 16 bytes of scratch.
            bytes[self.root_at + 8..self.root_at + 32].fill(0);
        } else {
            let end = bytes.len() - 4;
            let sum = checksum(&bytes[..end]);
            bytes[end..].copy_from_slice(&sum.to_le_bytes());
        }
        bytes
    }
}

fn check_extension(source: &FileSource, address: u64) -> Result<(), String> {
    if address == UNDEFINED {
        return Ok(());
    }
    for message in ObjectHeader::read(source, address)?.messages {
        match message.kind {
            DRIVER => return Err("it is stored with a special file driver".into()),
            CACHE_IMAGE => return Err("it holds an image of a metadata cache".into()),
            FILE_SPACE => {
                let mut fields = Fields::new(&message.body);
                let (_version, strategy, persistent) = (fields.byte()?, fields.byte()?, fields.byte()?);
                if strategy == 1 || persistent != 0 {
                    return Err("it keeps account of free space in pages or on disk".into());
                }
            }
            _ => {}
        }
    }
    Ok(())
}
