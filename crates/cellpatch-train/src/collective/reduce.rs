//! Sums whose order is that of the ranks, and the parts of a long vector that are worth sending.

use std::ops::Range;

/// Numbers that are sent together or not at all: a row of the gene table at the paper's width.
pub(super) const BLOCK: usize = 32;

/// What rank `part` of `n_parts` sums up, of `length` numbers.
pub(super) fn slice_of(length: usize, part: usize, n_parts: usize) -> Range<usize> {
    length * part / n_parts..length * (part + 1) / n_parts
}

/// `((first + second) + third) + ...`: the same bits wherever and whenever it is computed.
///
/// - terms: of rank 0 first, all as long as `sum`
pub(super) fn sum_in_order<'a>(sum: &mut [f32], terms: impl IntoIterator<Item = Term<'a>>) {
    for (index, term) in terms.into_iter().enumerate() {
        match (index, term) {
            (0, Term::Own(values)) => sum.copy_from_slice(values),
            (0, Term::Bytes(bytes)) => read_floats(bytes, sum, |sum, value| *sum = value),
            (_, Term::Own(values)) => sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value),
            (_, Term::Bytes(bytes)) => read_floats(bytes, sum, |sum, value| *sum += value),
        }
    }
}

/// One rank's numbers: this one's, or as they came.
#[derive(Debug, Clone, Copy)]
pub(super) enum Term<'a> {
    Own(&'a [f32]),
    Bytes(&'a [u8]),
}

/// Floats as they are sent: little-endian.
pub(super) fn to_bytes(values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; size_of_val(values)];
    let (floats, _) = bytes.as_chunks_mut::<4>();
    floats.iter_mut().zip(values).for_each(|(bytes, value)| *bytes = value.to_le_bytes());
    bytes
}

/// Reads what [`to_bytes`] wrote into as many numbers.
pub(super) fn read_floats(bytes: &[u8], into: &mut [f32], mut put: impl FnMut(&mut f32, f32)) {
    let (floats, _) = bytes.as_chunks::<4>();
    into.iter_mut().zip(floats).for_each(|(target, bytes)| put(target, f32::from_le_bytes(*bytes)));
}

/// Which blocks of a vector hold anything but +0.0: one bit each, the first in the lowest bit of the first byte.
///
/// A batch touches some genes only, and the rows of the others have no gradient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UsedBlocks {
    bits: Vec<u8>,
    length: usize,
}

impl UsedBlocks {
    /// Those of a vector.
    pub(super) fn of(values: &[f32]) -> Self {
        let mut bits = vec![0; Self::n_bytes(values.len())];
        for (block, values) in values.chunks(BLOCK).enumerate() {
            // By bits, for a sum in which -0.0 is left out would differ from one in which it is not.
            if values.iter().any(|value| value.to_bits() != 0) {
                bits[block / 8] |= 1 << (block % 8);
            }
        }
        Self { bits, length: values.len() }
    }

    /// Bytes that the bits of a vector take.
    pub(super) fn n_bytes(length: usize) -> usize {
        length.div_ceil(BLOCK).div_ceil(8)
    }

    /// The bits.
    pub(super) fn bits(&self) -> &[u8] {
        &self.bits
    }

    /// Adds another rank's.
    pub(super) fn join(&mut self, bits: &[u8]) {
        self.bits.iter_mut().zip(bits).for_each(|(own, other)| *own |= other);
    }

    fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        let is_used = |block: &usize| self.bits[block / 8] & (1 << (block % 8)) != 0;
        let range = |block: usize| block * BLOCK..((block + 1) * BLOCK).min(self.length);
        (0..self.length.div_ceil(BLOCK)).filter(is_used).map(range)
    }

    /// The used blocks of a vector, one after the other.
    pub(super) fn pack(&self, values: &[f32]) -> Vec<f32> {
        let mut packed = Vec::with_capacity(self.ranges().map(|range| range.len()).sum());
        self.ranges().for_each(|range| packed.extend_from_slice(&values[range]));
        packed
    }

    /// Puts packed blocks back to their places; the others stay as they are.
    pub(super) fn unpack(&self, packed: &[f32], values: &mut [f32]) {
        let mut rest = packed;
        for range in self.ranges() {
            let (block, others) = rest.split_at(range.len());
            values[range].copy_from_slice(block);
            rest = others;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_a_vector_without_overlap() {
        for (length, n_parts) in [(0, 3), (2, 4), (10, 3), (1_000_003, 7)] {
            let slices: Vec<_> = (0..n_parts).map(|part| slice_of(length, part, n_parts)).collect();
            assert_eq!((slices[0].start, slices[n_parts - 1].end), (0, length));
            assert!(slices.windows(2).all(|pair| pair[0].end == pair[1].start));
        }
    }

    #[test]
    fn only_used_blocks_are_sent_and_come_back_to_their_places() {
        let mut values = vec![0.0_f32; 10 * BLOCK + 5];
        (values[3 * BLOCK + 4], values[10 * BLOCK + 4]) = (1.5, 2.5);
        let mut used = UsedBlocks::of(&values);
        assert_eq!(used.pack(&values).len(), BLOCK + 5);
        let mut other = vec![0.0_f32; values.len()];
        other[7 * BLOCK] = -0.0;
        used.join(UsedBlocks::of(&other).bits());
        let packed = used.pack(&values);
        assert_eq!(packed.len(), 2 * BLOCK + 5, "-0.0 is not nothing");
        let mut back = vec![0.0; values.len()];
        used.unpack(&packed, &mut back);
        assert_eq!(back, values);
    }

    #[test]
    fn a_sum_is_in_the_order_of_its_terms() {
        let terms = [[1e8_f32, 1.0], [-1e8, 1e-8], [1.0, -1.0]];
        let bytes: Vec<Vec<u8>> = terms.iter().map(|term| to_bytes(term)).collect();
        let mut sum = [7.0; 2];
        sum_in_order(&mut sum, [Term::Bytes(&bytes[0]), Term::Own(&terms[1]), Term::Bytes(&bytes[2])]);
        assert_eq!(sum, [1.0, 0.0]);
        sum_in_order(&mut sum, [Term::Own(&terms[0]), Term::Bytes(&bytes[2]), Term::Bytes(&bytes[1])]);
        assert_eq!(sum, [0.0, 1e-8], "another order, another sum");
    }
}
