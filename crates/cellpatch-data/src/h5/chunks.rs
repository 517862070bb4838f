//! Chunks that we decode ourselves: because the library does not know their filter, or because several are inflated at once.

use hdf5_pure::Source;
use rayon::prelude::*;

use super::element::{Element, Number};
use super::filters;
use super::source::FileSource;

/// Where a chunk is in the array and in the file.
pub(super) struct StoredChunk {
    pub(super) offset: Vec<usize>,
    pub(super) address: u64,
    pub(super) size: usize,
    pub(super) skipped: u32,
}

/// The chunks of an array of one or two dimensions.
pub(super) struct OwnChunks {
    pub(super) chunk: Vec<usize>,
    pub(super) chunk_bytes: usize,
    pub(super) filters: Vec<filters::Filter>,
    /// By offset.
    pub(super) chunks: Vec<StoredChunk>,
    /// The chunk decoded last: the next read of a sequence begins in it.
    pub(super) last: Option<(usize, Vec<u8>)>,
}

impl OwnChunks {
    /// Copies the rows `start..start + count` of an array of one or two dimensions.
    pub(super) fn read(
        &mut self,
        source: &FileSource,
        shape: &[usize],
        element_size: usize,
        start: usize,
        count: usize,
    ) -> Result<Vec<u8>, String> {
        let width = shape.get(1).copied().unwrap_or(1);
        let chunk_rows = self.chunk[0];
        let chunk_width = self.chunk.get(1).copied().unwrap_or(1);
        let mut rows = vec![0; count * width * element_size];
        let mut found = 0;
        let first = self.chunks.partition_point(|chunk| chunk.offset[0].saturating_add(chunk_rows) <= start);
        for index in first..self.chunks.len() {
            let top = self.chunks[index].offset[0];
            let left = self.chunks[index].offset.get(1).copied().unwrap_or(0);
            if top >= start + count {
                break;
            }
            if left >= width {
                continue;
            }
            let (from, to) = (top.max(start), (top + chunk_rows).min(start + count));
            let columns = chunk_width.min(width - left);
            let decoded = self.decoded(source, index, element_size)?;
            for row in from..to {
                let source_at = (row - top) * chunk_width * element_size;
                let target_at = ((row - start) * width + left) * element_size;
                let length = columns * element_size;
                rows[target_at..target_at + length].copy_from_slice(&decoded[source_at..source_at + length]);
            }
            found += (to - from) * columns;
        }
        if found != count * width {
            return Err(format!("only {found} of the {} values at row {start} are stored", count * width));
        }
        Ok(rows)
    }

    /// Numbers of an array of one dimension, from `start` on; several chunks are decoded at once.
    pub(super) fn read_numbers<T: Number>(
        &mut self,
        source: &FileSource,
        element: &Element,
        start: usize,
        numbers: &mut [T],
    ) -> Result<(), String> {
        let chunk_rows = self.chunk[0];
        let mut pieces = Vec::with_capacity(numbers.len() / chunk_rows + 2);
        let (mut row, mut rest) = (start, numbers);
        while !rest.is_empty() {
            let (index, inside) = (row / chunk_rows, row % chunk_rows);
            let piece;
            (piece, rest) = rest.split_at_mut((chunk_rows - inside).min(rest.len()));
            row += piece.len();
            pieces.push((index, inside, piece));
        }
        let this = &*self;
        let decode = |(index, inside, piece): (usize, usize, &mut [T])| {
            let size = element.size();
            let range = inside * size..(inside + piece.len()) * size;
            if let Some((_, bytes)) = this.last.as_ref().filter(|(last, _)| *last == index) {
                return T::decode(element, &bytes[range], piece).map(|()| None);
            }
            if this.chunks.get(index).is_none_or(|chunk| chunk.offset[0] != index * chunk_rows) {
                return Err(format!("the values at row {} are not stored", index * chunk_rows));
            }
            if piece.len() == chunk_rows
                && let Some(place) = T::place(element, piece)
            {
                this.decode_into(source, index, size, place)?;
                return T::check(element, piece).map(|()| None);
            }
            let bytes = this.decode(source, index, size)?;
            T::decode(element, &bytes[range], piece)?;
            // Where the chunk goes on, so will the next read.
            Ok((inside + piece.len() < chunk_rows).then_some((index, bytes)))
        };
        let decoded: Result<Vec<_>, String> = pieces.into_par_iter().map(decode).collect();
        if let Some(last) = decoded?.pop().flatten() {
            self.last = Some(last);
        }
        Ok(())
    }

    fn decoded(&mut self, source: &FileSource, index: usize, element_size: usize) -> Result<&[u8], String> {
        if self.last.as_ref().is_none_or(|(last, _)| *last != index) {
            self.last = Some((index, self.decode(source, index, element_size)?));
        }
        Ok(self.last.as_ref().map_or(&[], |(_, bytes)| bytes.as_slice()))
    }

    fn stored(&self, source: &FileSource, index: usize) -> Result<(&StoredChunk, Vec<u8>), String> {
        let chunk = &self.chunks[index];
        let stored = source.read_exact_at(chunk.address, chunk.size).map_err(|error| error.to_string())?;
        Ok((chunk, stored))
    }

    /// Decodes a chunk to its own place.
    fn decode_into(
        &self,
        source: &FileSource,
        index: usize,
        element_size: usize,
        place: &mut [u8],
    ) -> Result<(), String> {
        let (chunk, stored) = self.stored(source, index)?;
        filters::decode_into(stored, &self.filters, chunk.skipped, element_size, place)
    }

    fn decode(&self, source: &FileSource, index: usize, element_size: usize) -> Result<Vec<u8>, String> {
        let (chunk, stored) = self.stored(source, index)?;
        filters::decode(stored, &self.filters, chunk.skipped, element_size, self.chunk_bytes)
    }
}
