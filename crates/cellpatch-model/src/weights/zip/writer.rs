//! Writes archives as `torch.save` does.

use std::io::{self, Write};

use super::{DIRECTORY_ENTRY, END_OF_DIRECTORY, LOCAL_HEADER, crc32};

/// Bytes of members start at multiples of this, so that they can be mapped into memory as they are.
pub(crate) const ALIGNMENT: usize = 64;
/// Bit 11: names are UTF-8 (section 4.4.4).
const UTF8: u16 = 0x0800;
/// Tag of the extra field PyTorch aligns members with.
const PADDING_TAG: &[u8] = b"FB";

/// An archive being written: stored members, then [`ArchiveWriter::finish`].
///
/// The same members give the same bytes. There are no 64-bit records: what needs them is an error of kind
/// [`io::ErrorKind::FileTooLarge`].
pub(crate) struct ArchiveWriter<W> {
    out: W,
    at: usize,
    directory: Vec<u8>,
    n_members: u16,
}

impl<W: Write> ArchiveWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, at: 0, directory: Vec::new(), n_members: 0 }
    }

    /// Adds a member, its bytes aligned (sections 4.3.7 and 4.3.12).
    pub(crate) fn member(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let size = small(bytes.len())?;
        let name_length = u16::try_from(name.len()).map_err(|_| too_large())?;
        let extra_start = self.at + 30 + name.len();
        let padding = (extra_start + 4).next_multiple_of(ALIGNMENT) - extra_start - 4;
        // Version, flags, method, time, date, checksum, sizes and lengths, which both records have in this order.
        let record = |version: u16, extra_length: u16| {
            let mut record = Vec::with_capacity(26);
            record.extend(version.to_le_bytes());
            record.extend(UTF8.to_le_bytes());
            record.extend([0; 6]);
            record.extend(crc32(bytes).to_le_bytes());
            record.extend(size.to_le_bytes());
            record.extend(size.to_le_bytes());
            record.extend(name_length.to_le_bytes());
            record.extend(extra_length.to_le_bytes());
            record
        };
        let header_at = small(self.at)?;
        self.directory.extend(DIRECTORY_ENTRY);
        self.directory.extend([0; 2]);
        self.directory.extend(record(0, 0));
        // Comment, disk, attributes.
        self.directory.extend([0; 10]);
        self.directory.extend(header_at.to_le_bytes());
        self.directory.extend(name.as_bytes());

        let padding_length = padding as u16;
        self.put(LOCAL_HEADER)?;
        self.put(&record(0, padding_length + 4))?;
        self.put(name.as_bytes())?;
        self.put(PADDING_TAG)?;
        self.put(&padding_length.to_le_bytes())?;
        self.put(&[b'Z'; ALIGNMENT][..padding])?;
        self.put(bytes)?;
        self.n_members = self.n_members.checked_add(1).filter(|&n| n < u16::MAX).ok_or_else(too_large)?;
        Ok(())
    }

    /// Writes the directory and its end (section 4.3.16).
    pub(crate) fn finish(mut self) -> io::Result<W> {
        let (directory_at, directory_size) = (small(self.at)?, small(self.directory.len())?);
        let directory = std::mem::take(&mut self.directory);
        self.put(&directory)?;
        self.put(END_OF_DIRECTORY)?;
        self.put(&[0; 4])?;
        self.put(&self.n_members.to_le_bytes())?;
        self.put(&self.n_members.to_le_bytes())?;
        self.put(&directory_size.to_le_bytes())?;
        self.put(&directory_at.to_le_bytes())?;
        self.put(&[0; 2])?;
        Ok(self.out)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len();
        self.out.write_all(bytes)
    }
}

/// A size or place in 32 bits; the largest number stands for "see the 64-bit record".
fn small(size: usize) -> io::Result<u32> {
    u32::try_from(size).ok().filter(|&size| size < u32::MAX).ok_or_else(too_large)
}

fn too_large() -> io::Error {
    io::Error::new(
        io::ErrorKind::FileTooLarge,
        "an archive for PyTorch is limited to 4 GB and 65,534 tensors here",
    )
}
