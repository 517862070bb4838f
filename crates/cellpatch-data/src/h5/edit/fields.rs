//! Little-endian fields of HDF5's structures.

use hdf5_pure::Source;

use crate::h5::source::FileSource;

/// The address that means "nowhere".
pub(super) const UNDEFINED: u64 = u64::MAX;

/// Largest structure read in one piece: no header, node or block of a real file comes near.
const MAX_STRUCTURE_BYTES: u64 = 1 << 26;

/// `n_bytes` at `address`, checked against the file's length before anything is allocated.
pub(super) fn read(source: &FileSource, address: u64, n_bytes: u64) -> Result<Vec<u8>, String> {
    let inside = address.checked_add(n_bytes).is_some_and(|end| end <= source.len());
    let length = usize::try_from(n_bytes).ok().filter(|_| inside && n_bytes <= MAX_STRUCTURE_BYTES);
    let length = length.ok_or_else(|| format!("{n_bytes} bytes at {address} are not in the file"))?;
    source.read_exact_at(address, length).map_err(|error| error.to_string())
}

/// Takes fields from the front of some bytes.
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// What was not taken yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or("a structure is cut short")?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(super) fn skip(&mut self, count: usize) -> Result<(), String> {
        self.take(count).map(|_| ())
    }

    /// Four letters that every block of HDF5 begins with.
    pub(super) fn expect(&mut self, signature: &[u8]) -> Result<(), String> {
        if self.take(signature.len())? == signature {
            return Ok(());
        }
        Err(format!("a block does not begin with {:?}", String::from_utf8_lossy(signature)))
    }

    /// An unsigned number of 0 to 8 bytes.
    pub(super) fn number(&mut self, width: usize) -> Result<u64, String> {
        let mut bytes = [0; 8];
        let room = bytes.get_mut(..width).ok_or("a number is wider than 8 bytes")?;
        room.copy_from_slice(self.take(width)?);
        Ok(u64::from_le_bytes(bytes))
    }

    /// A number of `width` bytes that counts things in memory.
    pub(super) fn count(&mut self, width: usize) -> Result<usize, String> {
        usize::try_from(self.number(width)?).map_err(|_| "a count is too large".to_string())
    }

    pub(super) fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn address(&mut self) -> Result<u64, String> {
        self.number(8)
    }
}
