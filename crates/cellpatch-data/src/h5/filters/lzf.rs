//! LZF, h5py's own filter, where it stands beside one the HDF5 library does not know.

/// Unpacks literal runs and copies of what came before, at most `limit` bytes.
pub(super) fn decode(packed: &[u8], limit: u64) -> Result<Vec<u8>, String> {
    const LITERALS: usize = 32;
    const LONG_LENGTH: usize = 7;
    let mut input = packed.iter().copied();
    let mut unpacked: Vec<u8> = Vec::new();
    while let Some(control) = input.next().map(usize::from) {
        let mut next = || input.next().map(usize::from).ok_or("an lzf chunk is cut short");
        if control < LITERALS {
            for _ in 0..=control {
                unpacked.push(next()? as u8);
            }
        } else {
            let mut length = control >> 5;
            if length == LONG_LENGTH {
                length += next()?;
            }
            let distance = ((control & 31) << 8) + next()? + 1;
            let from =
                unpacked.len().checked_sub(distance).ok_or("an lzf chunk refers to before its start")?;
            for at in from..from + length + 2 {
                unpacked.push(unpacked[at]);
            }
        }
        if unpacked.len() as u64 > limit {
            return Err("a chunk decompresses to more than its size".into());
        }
    }
    Ok(unpacked)
}
