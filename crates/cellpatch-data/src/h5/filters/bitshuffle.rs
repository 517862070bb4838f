//! Bitshuffle, the filter `hdf5plugin.Bitshuffle`: blocks of elements as rows of bits, maybe compressed.

use super::{inflate, lz4_block};

/// Bytes of a block where the file does not say, and the fewest elements it has.
const TARGET_BLOCK_BYTES: usize = 8192;
const MIN_BLOCK_ELEMENTS: usize = 128;
/// Blocks have a multiple of this many elements; what is left at the end is not shuffled.
const STEP: usize = 8;
const LZ4: u32 = 2;
const ZSTD: u32 = 3;

/// Undoes the filter on a chunk that must not unpack to more than `limit` bytes.
///
/// - `parameters`: version (2), element size, elements a block, compression
pub(super) fn decode(stored: &[u8], parameters: &[u32], limit: u64) -> Result<Vec<u8>, String> {
    let parameter = |at: usize| parameters.get(at).copied().unwrap_or(0);
    let element_size = (parameter(2) as usize).max(1);
    let (mut block, compression) = (parameter(3) as usize, parameter(4));
    let mut rest = stored;
    let mut n_bytes = stored.len();
    if compression != 0 {
        n_bytes = take(&mut rest, 8).map(big_endian)?;
        block = take(&mut rest, 4).map(big_endian)? / element_size;
    }
    if n_bytes as u64 > limit {
        return Err("a chunk decompresses to more than its size".into());
    }
    if block == 0 {
        block = (TARGET_BLOCK_BYTES / element_size / STEP * STEP).max(MIN_BLOCK_ELEMENTS);
    }
    if !block.is_multiple_of(STEP) {
        return Err(format!("bitshuffle blocks of {block} elements are not supported"));
    }
    let n_elements = n_bytes / element_size;
    let mut bytes = Vec::with_capacity(n_bytes);
    let mut done = 0;
    while n_elements - done >= STEP {
        let count = block.min((n_elements - done) / STEP * STEP);
        let size = count * element_size;
        let shuffled = match compression {
            0 => take(&mut rest, size)?.to_vec(),
            _ => {
                let length = take(&mut rest, 4).map(big_endian)?;
                unpack(take(&mut rest, length)?, compression, size)?
            }
        };
        bytes.extend_from_slice(&untranspose(&shuffled, element_size));
        done += count;
    }
    bytes.extend_from_slice(take(&mut rest, n_bytes - bytes.len())?);
    Ok(bytes)
}

fn unpack(packed: &[u8], compression: u32, size: usize) -> Result<Vec<u8>, String> {
    let unpacked = match compression {
        LZ4 => lz4_block(packed, size)?,
        ZSTD => {
            let decoder = zstd::stream::read::Decoder::new(packed).map_err(|error| error.to_string())?;
            inflate(decoder, size as u64)?
        }
        other => return Err(format!("bitshuffle's compression {other} is not supported")),
    };
    if unpacked.len() != size {
        return Err(format!("a bitshuffle block unpacks to {} bytes, expected {size}", unpacked.len()));
    }
    Ok(unpacked)
}

/// Elements from rows of bits: all lowest bits of the first bytes, all second bits, ... Bytes beyond a multiple of eight
/// elements stay as they are.
pub(super) fn untranspose(rows: &[u8], element_size: usize) -> Vec<u8> {
    let n_elements = rows.len() / element_size / STEP * STEP;
    let row_bytes = n_elements / STEP;
    let mut elements = rows.to_vec();
    elements[..n_elements * element_size].fill(0);
    for byte in 0..element_size {
        for bit in 0..STEP {
            let row = &rows[(byte * STEP + bit) * row_bytes..][..row_bytes];
            for (group, &bits) in row.iter().enumerate() {
                for element in 0..STEP {
                    elements[(group * STEP + element) * element_size + byte] |= (bits >> element & 1) << bit;
                }
            }
        }
    }
    elements
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], String> {
    let (taken, rest) = bytes.split_at_checked(count).ok_or("a bitshuffle chunk is cut short")?;
    *bytes = rest;
    Ok(taken)
}

fn big_endian(bytes: &[u8]) -> usize {
    bytes.iter().fold(0usize, |value, &byte| value.saturating_mul(256).saturating_add(usize::from(byte)))
}
