//! The checksum of HDF5's metadata: Bob Jenkins' lookup3 (`hashlittle`, public domain), started at 0.

/// The checksum of some bytes.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    let start = 0xdead_beef_u32.wrapping_add(bytes.len() as u32);
    let mut state = [start; 3];
    if bytes.is_empty() {
        return start;
    }
    // The last one to twelve bytes are finished in another way than those before.
    let last = (bytes.len() - 1) / 12 * 12;
    for block in bytes[..last].chunks_exact(12) {
        add(&mut state, block);
        mix(&mut state);
    }
    add(&mut state, &bytes[last..]);
    finish(&mut state);
    state[2]
}

/// Adds up to twelve bytes, as three words padded with zeros.
fn add(state: &mut [u32; 3], bytes: &[u8]) {
    for (word, bytes) in state.iter_mut().zip(bytes.chunks(4)) {
        let mut padded = [0; 4];
        padded[..bytes.len()].copy_from_slice(bytes);
        *word = word.wrapping_add(u32::from_le_bytes(padded));
    }
}

/// Six steps; the three words change roles from one to the next.
fn mix(state: &mut [u32; 3]) {
    for (step, rotation) in [4, 6, 8, 16, 19, 4].into_iter().enumerate() {
        let (x, y, z) = (step % 3, (step + 1) % 3, (step + 2) % 3);
        state[x] = state[x].wrapping_sub(state[z]) ^ state[z].rotate_left(rotation);
        state[z] = state[z].wrapping_add(state[y]);
    }
}

/// Seven steps, beginning with the third word.
fn finish(state: &mut [u32; 3]) {
    for (step, rotation) in [14, 11, 25, 16, 4, 14, 24].into_iter().enumerate() {
        let (x, y) = ((step + 2) % 3, (step + 1) % 3);
        state[x] = (state[x] ^ state[y]).wrapping_sub(state[y].rotate_left(rotation));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published values of lookup3's own driver, for an initial value of 0.
    #[test]
    fn lookup3_gives_its_published_values() {
        assert_eq!(checksum(b""), 0xdead_beef);
        assert_eq!(checksum(b"Four score and seven years ago"), 0x1777_0551);
    }
}
