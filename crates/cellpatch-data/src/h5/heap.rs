//! Texts of variable length, which HDF5 keeps in global heap collections (format specification, III.E).

use std::collections::HashMap;

use hdf5_pure::Source;

use super::element::REFERENCE_SIZE;
use super::source::FileSource;

/// Collections kept decoded: neighbouring texts share one, and columns written together alternate between two or three.
const CACHED_COLLECTIONS: usize = 8;
/// Bytes of them, where there are more than two: some writers put 65,535 texts in one collection.
const CACHED_BYTES: usize = 2 << 20;
/// h5py writes collections of 4 KiB; one huge text makes one huge collection.
const MAX_COLLECTION_BYTES: u64 = 1 << 28;

/// Reads texts from a file's global heaps.
pub(crate) struct Heap {
    source: FileSource,
    base_address: u64,
    collections: HashMap<u64, Collection>,
    clock: u64,
}

struct Collection {
    bytes: Vec<u8>,
    /// By index, where the object starts and how long it is; one that starts at 0 is not there.
    objects: Vec<(u32, u32)>,
    last_use: u64,
}

impl Collection {
    fn n_bytes(&self) -> usize {
        self.bytes.len() + size_of_val(self.objects.as_slice())
    }
}

impl Heap {
    /// Heaps of a file whose addresses count from `base_address`.
    pub(crate) fn new(source: FileSource, base_address: u64) -> Self {
        Self { source, base_address, collections: HashMap::new(), clock: 0 }
    }

    /// The texts behind references of 16 bytes each. An absent text is empty.
    pub(crate) fn texts(&mut self, references: &[u8]) -> Result<Vec<String>, String> {
        references.chunks_exact(REFERENCE_SIZE).map(|reference| self.text(reference)).collect()
    }

    fn text(&mut self, reference: &[u8]) -> Result<String, String> {
        let length = u32_at(reference, 0)? as usize;
        let address = u64_at(reference, 4)?;
        let index = u32_at(reference, 12)?;
        if length == 0 || address == 0 || address == u64::MAX {
            return Ok(String::new());
        }
        let collection = self.collection(address)?;
        let object = collection.objects.get(index as usize).filter(|(start, _)| *start > 0);
        let &(start, size) = object.ok_or_else(|| format!("text {index} is not in the heap at {address}"))?;
        let (start, size) = (start as usize, size as usize);
        let bytes = collection
            .bytes
            .get(start..start.saturating_add(length.min(size)))
            .ok_or_else(|| format!("text {index} reaches past the heap at {address}"))?;
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    fn collection(&mut self, address: u64) -> Result<&Collection, String> {
        self.clock += 1;
        let clock = self.clock;
        if !self.collections.contains_key(&address) {
            let n_bytes = self.collections.values().map(Collection::n_bytes).sum::<usize>();
            let n = self.collections.len();
            if n >= CACHED_COLLECTIONS || (n > 1 && n_bytes > CACHED_BYTES) {
                let oldest = self.collections.iter().min_by_key(|(_, collection)| collection.last_use);
                if let Some(oldest) = oldest.map(|(&address, _)| address) {
                    self.collections.remove(&oldest);
                }
            }
            let collection = self.read_collection(address)?;
            self.collections.insert(address, collection);
        }
        let collection = self.collections.get_mut(&address).ok_or("the heap is gone")?;
        collection.last_use = clock;
        Ok(collection)
    }

    fn read_collection(&self, address: u64) -> Result<Collection, String> {
        const HEADER: usize = 16;
        let address = address.checked_add(self.base_address).ok_or("a heap address overflows")?;
        let header = self.source.read_exact_at(address, HEADER).map_err(|error| error.to_string())?;
        if &header[..4] != b"GCOL" {
            return Err(format!("no global heap at {address}"));
        }
        let size = u64_at(&header, 8)?;
        if size > MAX_COLLECTION_BYTES {
            return Err(format!("the global heap at {address} claims {size} bytes"));
        }
        let bytes = self.source.read_exact_at(address, size as usize).map_err(|error| error.to_string())?;
        let mut objects = Vec::new();
        let mut position = HEADER;
        // Index (2), reference count (2), reserved (4), size (8), then the data padded to 8 bytes. Index 0 is the free rest.
        while position + HEADER <= bytes.len() {
            let index = usize::from(u16::from_le_bytes([bytes[position], bytes[position + 1]]));
            let length = u64_at(&bytes, position + 8)?;
            if index == 0 {
                break;
            }
            let start = position + HEADER;
            let end = usize::try_from(length)
                .ok()
                .and_then(|length| start.checked_add(length))
                .filter(|&end| end <= bytes.len())
                .ok_or_else(|| format!("text {index} reaches past the heap at {address}"))?;
            if objects.len() <= index {
                objects.resize(index + 1, (0, 0));
            }
            // A collection is no longer than these hold.
            objects[index] = (start as u32, (end - start) as u32);
            position = end.next_multiple_of(8);
        }
        Ok(Collection { bytes, objects, last_use: 0 })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, String> {
    let field = bytes
        .get(at..at + 4)
        .and_then(|field| field.try_into().ok())
        .ok_or("a heap reference is cut short")?;
    Ok(u32::from_le_bytes(field))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, String> {
    let field = bytes
        .get(at..at + 8)
        .and_then(|field| field.try_into().ok())
        .ok_or("a heap reference is cut short")?;
    Ok(u64::from_le_bytes(field))
}
