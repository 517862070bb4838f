//! Chunks compressed with what the HDF5 library does not know: zstd, blosc, lz4, bitshuffle.

mod bitshuffle;
mod blosc;
mod lz4;
mod lzf;

use std::cell::RefCell;
use std::io::Read;

use libdeflater::{DecompressionError, Decompressor};

/// Registered filter numbers.
pub(crate) const DEFLATE: u16 = 1;
pub(crate) const SHUFFLE: u16 = 2;
pub(crate) const FLETCHER32: u16 = 3;
pub(crate) const LZF: u16 = 32000;
pub(crate) const BLOSC: u16 = 32001;
pub(crate) const LZ4: u16 = 32004;
pub(crate) const BITSHUFFLE: u16 = 32008;
pub(crate) const ZSTD: u16 = 32015;

/// Filters the library undoes.
pub(crate) const THEIRS: [u16; 4] = [DEFLATE, SHUFFLE, FLETCHER32, LZF];
/// Filters the library undoes that we undo faster.
pub(crate) const FASTER: [u16; 2] = [DEFLATE, SHUFFLE];
/// Filters that only we undo; we then undo those beside it too.
pub(crate) const OURS: [u16; 4] = [ZSTD, BLOSC, LZ4, BITSHUFFLE];

/// A filter of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Its registered number.
    pub(crate) id: u16,
    /// What it was told when the data were written.
    pub(crate) parameters: Vec<u32>,
}

/// What a filter is called by people, for error messages.
pub(crate) fn filter_name(id: u16) -> String {
    match id {
        4 => "szip".into(),
        5 => "nbit".into(),
        6 => "scale-offset".into(),
        32013 => "zfp".into(),
        32026 => "blosc2".into(),
        _ => format!("filter {id}"),
    }
}

/// Undoes `filters` (in write order, those set in `skipped` left out) on one stored chunk of `chunk_bytes` bytes.
pub(crate) fn decode(
    stored: Vec<u8>,
    filters: &[Filter],
    skipped: u32,
    element_size: usize,
    chunk_bytes: usize,
) -> Result<Vec<u8>, String> {
    // A checksum may follow the data; nothing else is longer than the chunk.
    let limit = chunk_bytes as u64 + 4;
    let mut bytes = stored;
    for (position, filter) in filters.iter().enumerate().rev() {
        if position < 32 && skipped & (1 << position) != 0 {
            continue;
        }
        bytes = match filter.id {
            ZSTD => {
                let decoder =
                    zstd::stream::read::Decoder::new(bytes.as_slice()).map_err(|error| error.to_string())?;
                inflate(decoder, limit)?
            }
            DEFLATE => inflate_at_once(&bytes, chunk_bytes)?,
            LZF => lzf::decode(&bytes, limit)?,
            BLOSC => blosc::decode(&bytes, limit)?,
            LZ4 => lz4::decode(&bytes, limit)?,
            BITSHUFFLE => bitshuffle::decode(&bytes, &filter.parameters, limit)?,
            SHUFFLE => unshuffle(&bytes, element_size),
            FLETCHER32 => {
                let end = bytes.len().checked_sub(4).ok_or("a chunk has no checksum")?;
                bytes.truncate(end);
                bytes
            }
            other => {
                return Err(format!("it is compressed with {}, which is not supported", filter_name(other)));
            }
        };
    }
    if bytes.len() != chunk_bytes {
        return Err(format!("a chunk holds {} bytes, expected {chunk_bytes}", bytes.len()));
    }
    Ok(bytes)
}

/// Decompresses at most `limit` bytes: a small chunk that claims to be huge costs nothing.
fn inflate(decoder: impl Read, limit: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    decoder
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("a chunk does not decompress: {error}"))?;
    if bytes.len() as u64 > limit {
        return Err("a chunk decompresses to more than its size".into());
    }
    Ok(bytes)
}

/// Undoes `filters` as [`decode`] does, into the place of the whole chunk.
pub(crate) fn decode_into(
    stored: Vec<u8>,
    filters: &[Filter],
    skipped: u32,
    element_size: usize,
    chunk: &mut [u8],
) -> Result<(), String> {
    if let ([Filter { id: DEFLATE, .. }], 0) = (filters, skipped & 1) {
        return match inflate_to(&stored, chunk)? {
            length if length == chunk.len() => Ok(()),
            length => Err(format!("a chunk holds {length} bytes, expected {}", chunk.len())),
        };
    }
    chunk.copy_from_slice(&decode(stored, filters, skipped, element_size, chunk.len())?);
    Ok(())
}

/// Decompresses to at most `limit` bytes, whose place is made first.
fn inflate_at_once(packed: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    // A checksum may follow the data.
    let mut unpacked = vec![0; limit + 4];
    let length = inflate_to(packed, &mut unpacked)?;
    unpacked.truncate(length);
    Ok(unpacked)
}

/// Decompresses to the beginning of a place, and says how many bytes that were.
fn inflate_to(packed: &[u8], place: &mut [u8]) -> Result<usize, String> {
    thread_local! {
        static DECOMPRESSOR: RefCell<Decompressor> = RefCell::new(Decompressor::new());
    }
    DECOMPRESSOR.with_borrow_mut(|decompressor| decompressor.zlib_decompress(packed, place)).map_err(
        |error| match error {
            DecompressionError::InsufficientSpace => "a chunk decompresses to more than its size".into(),
            DecompressionError::BadData => "a chunk does not decompress".into(),
        },
    )
}

/// Unpacks a block of LZ4 to `size` bytes.
fn lz4_block(packed: &[u8], size: usize) -> Result<Vec<u8>, String> {
    let mut unpacked = vec![0; size];
    match lz4_flex::block::decompress_into(packed, &mut unpacked) {
        Ok(length) if length == size => Ok(unpacked),
        Ok(length) => Err(format!("an lz4 block unpacks to {length} bytes, expected {size}")),
        Err(error) => Err(format!("an lz4 block does not decompress: {error}")),
    }
}

/// Undoes HDF5's byte shuffle: all first bytes, then all second bytes, ...; bytes beyond whole elements stay at the end.
fn unshuffle(bytes: &[u8], element_size: usize) -> Vec<u8> {
    let n_elements = bytes.len() / element_size.max(1);
    if element_size < 2 || n_elements < 2 {
        return bytes.to_vec();
    }
    let mut restored = vec![0; bytes.len()];
    for byte in 0..element_size {
        let plane = &bytes[byte * n_elements..(byte + 1) * n_elements];
        for (element, &value) in plane.iter().enumerate() {
            restored[element * element_size + byte] = value;
        }
    }
    let whole = n_elements * element_size;
    restored[whole..].copy_from_slice(&bytes[whole..]);
    restored
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffle_and_zstd_are_undone_in_reverse_order() {
        let values: Vec<u8> = (0u32..100).flat_map(u32::to_le_bytes).collect();
        let shuffled: Vec<u8> =
            (0..4).flat_map(|byte| values.iter().skip(byte).step_by(4).copied()).collect();
        let stored = zstd::encode_all(shuffled.as_slice(), 3).unwrap();
        let filters = [SHUFFLE, ZSTD].map(|id| Filter { id, parameters: Vec::new() });
        assert_eq!(decode(stored, &filters, 0, 4, 400).unwrap(), values);
        assert_eq!(decode(values.clone(), &filters, 0b11, 4, 400).unwrap(), values);
    }

    #[test]
    fn a_decompression_bomb_stops_at_the_chunk_size() {
        let bomb = zstd::encode_all(vec![0u8; 10 << 20].as_slice(), 3).unwrap();
        assert!(
            decode(bomb, &[Filter { id: ZSTD, parameters: Vec::new() }], 0, 4, 400)
                .unwrap_err()
                .contains("more than its size")
        );
    }
}
