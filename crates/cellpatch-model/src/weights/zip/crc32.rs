//! The checksum of ZIP archives (APPNOTE.TXT, section 4.4.7): CRC-32 with the reflected polynomial 0xEDB88320.

/// How many bytes one round takes.
const WIDTH: usize = 8;

/// `TABLES[k][byte]`: what a byte contributes when `k` more bytes follow it in a round.
const TABLES: [[u32; 256]; WIDTH] = tables();

const fn tables() -> [[u32; 256]; WIDTH] {
    let mut tables = [[0; 256]; WIDTH];
    let mut byte = 0;
    while byte < 256 {
        let mut remainder = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            remainder = (remainder >> 1) ^ (0xEDB8_8320 * (remainder & 1));
            bit += 1;
        }
        tables[0][byte] = remainder;
        byte += 1;
    }
    let mut k = 1;
    while k < WIDTH {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[k - 1][byte];
            tables[k][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        k += 1;
    }
    tables
}

/// The checksum of the bytes.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let (rounds, rest) = bytes.as_chunks::<WIDTH>();
    let mut remainder = u32::MAX;
    for round in rounds {
        let word = u64::from_le_bytes(*round) ^ u64::from(remainder);
        remainder = word
            .to_le_bytes()
            .iter()
            .zip(TABLES.iter().rev())
            .fold(0, |sum, (&byte, table)| sum ^ table[usize::from(byte)]);
    }
    for &byte in rest {
        remainder = (remainder >> 8) ^ TABLES[0][usize::from(remainder as u8 ^ byte)];
    }
    !remainder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        // The check value of CRC-32/ISO-HDLC, and what Python's zlib.crc32 gives for the others.
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32(b""), 0);
        assert_eq!(crc32(b"a"), 0xE8B7_BE43);
        assert_eq!(crc32(b"The quick brown fox jumps over the lazy dog"), 0x414F_A339);
    }
}
