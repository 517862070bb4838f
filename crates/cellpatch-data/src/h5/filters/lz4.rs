//! LZ4, the filter `hdf5plugin.LZ4`: a chunk in blocks, each compressed by itself or stored as it is.

use super::lz4_block;

/// Undoes the filter on a chunk that must not unpack to more than `limit` bytes. All numbers are big-endian.
pub(super) fn decode(stored: &[u8], limit: u64) -> Result<Vec<u8>, String> {
    let mut rest = stored;
    let mut take = |count: usize| -> Result<&[u8], String> {
        let (taken, after) = rest.split_at_checked(count).ok_or("an lz4 chunk is cut short")?;
        rest = after;
        Ok(taken)
    };
    let number = |bytes: &[u8]| bytes.iter().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
    let n_bytes = number(take(8)?);
    let block_size = number(take(4)?).min(n_bytes);
    if n_bytes > limit {
        return Err("a chunk decompresses to more than its size".into());
    }
    if block_size == 0 && n_bytes > 0 {
        return Err("an lz4 chunk has blocks of 0 bytes".into());
    }
    let mut bytes = Vec::with_capacity(n_bytes as usize);
    while (bytes.len() as u64) < n_bytes {
        let size = block_size.min(n_bytes - bytes.len() as u64) as usize;
        let length = number(take(4)?) as usize;
        let block = take(length)?;
        if length == size {
            bytes.extend_from_slice(block);
        } else {
            bytes.extend_from_slice(&lz4_block(block, size)?);
        }
    }
    Ok(bytes)
}
