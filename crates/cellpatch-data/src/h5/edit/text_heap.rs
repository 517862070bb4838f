//! New texts, in global heap collections (format specification, III.E).

use crate::h5::element::REFERENCE_SIZE;

/// Signature, version, reserved bytes and size of a collection; index, count, reserved bytes and size of an object.
const HEADER: usize = 16;
/// Bytes of the smallest collection the format allows.
pub(super) const LEAST: usize = 4096;
/// A collection is closed when it has this many bytes; a longer text has one of its own.
const FULL: usize = 1 << 16;
/// Objects are numbered with 16 bits, from 1.
const MOST_OBJECTS: u16 = u16::MAX - 1;

/// A collection being filled.
#[derive(Debug)]
pub(super) struct TextHeap {
    bytes: Vec<u8>,
    n_objects: u16,
    address: u64,
}

impl TextHeap {
    /// A collection that will be written at `address`.
    pub(super) fn at(address: u64) -> Self {
        Self { bytes: vec![0; HEADER], n_objects: 0, address }
    }

    /// Whether another text of `length` bytes fits a collection of the smallest size, which is what new ones reserve.
    pub(super) fn has_room(&self, length: usize) -> bool {
        let used = self.bytes.len() + HEADER + length.next_multiple_of(8);
        used + HEADER <= LEAST && self.n_objects < MOST_OBJECTS
    }

    /// Whether another text belongs in the next collection.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= FULL || self.n_objects >= MOST_OBJECTS
    }

    /// Adds a text and gives the reference to it. An empty text is no object at all.
    pub(super) fn push(&mut self, text: &str) -> Result<[u8; REFERENCE_SIZE], String> {
        let mut reference = [0; REFERENCE_SIZE];
        if text.is_empty() {
            return Ok(reference);
        }
        let length = u32::try_from(text.len()).map_err(|_| "a text has more than 4 GiB")?;
        self.n_objects += 1;
        self.bytes.extend_from_slice(&self.n_objects.to_le_bytes());
        self.bytes.extend_from_slice(&[0; 6]);
        self.bytes.extend_from_slice(&u64::from(length).to_le_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        reference[..4].copy_from_slice(&length.to_le_bytes());
        reference[4..12].copy_from_slice(&self.address.to_le_bytes());
        reference[12..].copy_from_slice(&u32::from(self.n_objects).to_le_bytes());
        Ok(reference)
    }

    /// Where the collection goes.
    pub(super) fn address(&self) -> u64 {
        self.address
    }

    /// The collection's bytes; none if no text is in it.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.n_objects == 0 {
            return Vec::new();
        }
        let used = self.bytes.len();
        // The rest is object 0, whose size counts its own header; where that does not fit there is no rest.
        if used < LEAST {
            let rest = (LEAST - used).max(HEADER);
            self.bytes.resize(used + rest, 0);
            self.bytes[used + 8..used + 16].copy_from_slice(&(rest as u64).to_le_bytes());
        }
        let size = self.bytes.len() as u64;
        self.bytes[..5].copy_from_slice(b"GCOL\x01");
        self.bytes[8..16].copy_from_slice(&size.to_le_bytes());
        self.bytes
    }
}
