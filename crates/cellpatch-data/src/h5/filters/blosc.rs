//! Blosc 1, the filter `hdf5plugin.Blosc`: a chunk in blocks, each of them shuffled and compressed by one of several
//! codecs (c-blosc, README_CHUNK_FORMAT).

use super::bitshuffle;
use super::{inflate, lz4_block, unshuffle};

const HEADER_BYTES: usize = 16;
const BYTE_SHUFFLE: u8 = 0x01;
const COPIED: u8 = 0x02;
const BIT_SHUFFLE: u8 = 0x04;
const NOT_SPLIT: u8 = 0x10;
/// Blocks are split by byte of the element up to this element size, and from this many elements on.
const MAX_SPLITS: usize = 16;
const MIN_SPLIT_ELEMENTS: usize = 128;

/// Undoes the filter on a chunk that must not unpack to more than `limit` bytes.
pub(super) fn decode(stored: &[u8], limit: u64) -> Result<Vec<u8>, String> {
    let header = stored.get(..HEADER_BYTES).ok_or("a blosc chunk is cut short")?;
    let number = |at: usize| -> Result<usize, String> { u32_at(stored, at) };
    let (flags, element_size) = (header[2], usize::from(header[3]).max(1));
    let (n_bytes, block_size, stored_size) = (number(4)?, number(8)?, number(12)?);
    if n_bytes as u64 > limit {
        return Err("a chunk decompresses to more than its size".into());
    }
    let stored = stored.get(..stored_size).ok_or("a blosc chunk is cut short")?;
    if flags & COPIED != 0 {
        let bytes = stored.get(HEADER_BYTES..HEADER_BYTES + n_bytes).ok_or("a blosc chunk is cut short")?;
        return Ok(bytes.to_vec());
    }
    if n_bytes == 0 {
        return Ok(Vec::new());
    }
    if block_size == 0 {
        return Err("a blosc chunk has blocks of 0 bytes".into());
    }
    let block_size = block_size.min(n_bytes);
    let mut bytes = Vec::with_capacity(n_bytes);
    for block in 0..n_bytes.div_ceil(block_size) {
        let start = u32_at(stored, HEADER_BYTES + 4 * block)?;
        let size = block_size.min(n_bytes - bytes.len());
        let may_split = flags & NOT_SPLIT == 0
            && element_size <= MAX_SPLITS
            && block_size / element_size >= MIN_SPLIT_ELEMENTS
            && size == block_size;
        let n_parts = if may_split { element_size } else { 1 };
        let unpacked = unpack_block(stored, start, size, n_parts, flags >> 5)?;
        bytes.extend_from_slice(&match flags {
            _ if flags & BYTE_SHUFFLE != 0 && element_size > 1 => unshuffle(&unpacked, element_size),
            _ if flags & BIT_SHUFFLE != 0 && (size / element_size).is_multiple_of(8) => {
                bitshuffle::untranspose(&unpacked, element_size)
            }
            _ => unpacked,
        });
    }
    Ok(bytes)
}

/// Unpacks the parts of one block of `size` bytes.
fn unpack_block(
    stored: &[u8],
    start: usize,
    size: usize,
    n_parts: usize,
    codec: u8,
) -> Result<Vec<u8>, String> {
    let part_size = size / n_parts;
    let mut block = Vec::with_capacity(size);
    let mut at = start;
    for _ in 0..n_parts {
        let length = u32_at(stored, at)?;
        let part = (at + 4).checked_add(length).and_then(|end| stored.get(at + 4..end));
        let part = part.ok_or("a blosc block is cut short")?;
        at += 4 + length;
        if length == part_size {
            block.extend_from_slice(part);
            continue;
        }
        let unpacked = match codec {
            0 => blosclz(part, part_size)?,
            1 => lz4_block(part, part_size)?,
            3 => inflate(flate2::read::ZlibDecoder::new(part), part_size as u64)?,
            4 => {
                let decoder = zstd::stream::read::Decoder::new(part).map_err(|error| error.to_string())?;
                inflate(decoder, part_size as u64)?
            }
            2 => return Err("it is compressed with blosc and snappy, which is not supported".into()),
            other => {
                return Err(format!("it is compressed with blosc's codec {other}, which is not supported"));
            }
        };
        if unpacked.len() != part_size {
            return Err(format!("a blosc block unpacks to {} bytes, expected {part_size}", unpacked.len()));
        }
        block.extend_from_slice(&unpacked);
    }
    Ok(block)
}

/// Unpacks blosc's own codec, a form of FastLZ: literal runs, and copies of what came before.
fn blosclz(packed: &[u8], size: usize) -> Result<Vec<u8>, String> {
    const LITERALS: u8 = 32;
    const LONG_LENGTH: usize = 6;
    const FAR: usize = 31 << 8;
    const FAR_DISTANCE: usize = 8191;
    let mut input = packed.iter().copied();
    let mut next = || input.next().map(usize::from).ok_or("a blosclz block is cut short");
    let mut unpacked: Vec<u8> = Vec::with_capacity(size);
    let mut control = next()? & 31;
    loop {
        if control < usize::from(LITERALS) {
            for _ in 0..=control {
                unpacked.push(next()? as u8);
            }
        } else {
            let mut length = (control >> 5) - 1;
            let high = (control & 31) << 8;
            if length == LONG_LENGTH {
                loop {
                    let more = next()?;
                    length += more;
                    if more < 255 || length > size {
                        break;
                    }
                }
            }
            let low = next()?;
            let distance = if low == 255 && high == FAR {
                (next()? << 8) + next()? + FAR_DISTANCE + 1
            } else {
                high + low + 1
            };
            let from =
                unpacked.len().checked_sub(distance).ok_or("a blosclz block refers to before its start")?;
            if length + 3 > size.saturating_sub(unpacked.len()) {
                return Err("a blosclz block unpacks to more than its size".into());
            }
            // What is copied may reach into what the copy itself makes.
            for at in from..from + length + 3 {
                unpacked.push(unpacked[at]);
            }
        }
        if unpacked.len() > size {
            return Err("a blosclz block unpacks to more than its size".into());
        }
        match next() {
            Ok(following) => control = following,
            Err(_) => return Ok(unpacked),
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Result<usize, String> {
    let field = at.checked_add(4).and_then(|end| bytes.get(at..end)).and_then(|field| field.try_into().ok());
    field.map(|field| u32::from_le_bytes(field) as usize).ok_or_else(|| "a blosc chunk is cut short".into())
}
