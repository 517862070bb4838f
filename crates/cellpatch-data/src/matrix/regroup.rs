//! Matrices in another order than by cells, regrouped by rows without ever holding the whole.
//!
//! Two passes over the file: one counts the entries of every row and so decides which rows share a block, the other
//! sorts entries into these blocks. A matrix of one block stays in memory; more are written to a temporary file, each
//! block to a region of its own, and read back one at a time.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use super::Sparse;
use super::blocks::{ENTRY_BYTES, Offsets, PIECE};
use crate::counts::CountBlock;
use crate::error::{Error, Result};

/// Bytes of an entry in the temporary file: row, column, value.
const SPILLED_BYTES: usize = 12;
/// Entries collected for a block before they are written.
const MAX_BUFFERED: usize = 1 << 13;

/// One entry of the matrix.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// The cell.
    pub(crate) row: u32,
    /// The gene.
    pub(crate) column: u32,
    /// The value.
    pub(crate) value: f32,
}

/// A matrix whose entries can be visited more than once, in the same order.
pub(crate) trait Entries {
    /// How many entries each row has.
    fn row_lengths(&mut self) -> Result<Vec<u32>>;
    /// Calls `visit` with every entry; rows are inside the matrix.
    fn for_each(&mut self, visit: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()>;
}

/// The rows of one block.
struct Bucket {
    first_row: usize,
    n_entries: usize,
    /// Entries before this bucket, and so its place in the temporary file.
    start: usize,
}

/// A matrix regrouped by rows.
pub(crate) struct Regrouped {
    row_lengths: Vec<u32>,
    buckets: Vec<Bucket>,
    store: Store,
}

enum Store {
    Memory(Vec<Entry>),
    Disk(File),
}

impl Regrouped {
    /// Regroups the entries so that no block but one of a single row exceeds `max_bytes`.
    pub(crate) fn new(entries: &mut dyn Entries, max_bytes: usize) -> Result<Self> {
        let row_lengths = entries.row_lengths()?;
        let buckets = buckets(&row_lengths, max_bytes);
        let store = if buckets.len() <= 1 {
            let mut collected = Vec::new();
            entries.for_each(&mut |entry| {
                collected.push(entry);
                Ok(())
            })?;
            Store::Memory(collected)
        } else {
            Store::Disk(spill(entries, &buckets, max_bytes)?)
        };
        Ok(Self { row_lengths, buckets, store })
    }

    /// The block that begins at `first_row`, which the previous one ended before.
    pub(crate) fn rows_from(&mut self, first_row: usize) -> Result<CountBlock> {
        let position = self.buckets.partition_point(|bucket| bucket.first_row < first_row);
        let end_row = self.buckets.get(position + 1).map_or(self.row_lengths.len(), |next| next.first_row);
        let mut offsets = vec![0];
        let mut total = 0;
        for &length in &self.row_lengths[first_row..end_row] {
            total += length as usize;
            offsets.push(total);
        }
        let mut block = CountBlock { first_row, offsets, columns: vec![0; total], values: vec![0.0; total] };
        let mut next = block.offsets.clone();
        let mut place = |entry: Entry| {
            let at = &mut next[entry.row as usize - first_row];
            (block.columns[*at], block.values[*at]) = (entry.column, entry.value);
            *at += 1;
        };
        match (&mut self.store, self.buckets.get(position)) {
            (Store::Memory(entries), _) => std::mem::take(entries).into_iter().for_each(place),
            (Store::Disk(file), Some(bucket)) => {
                read_back(file, bucket, &mut place).map_err(temporary("read"))?
            }
            (Store::Disk(_), None) => {}
        }
        Ok(block)
    }
}

/// Groups consecutive rows up to `max_bytes`.
fn buckets(row_lengths: &[u32], max_bytes: usize) -> Vec<Bucket> {
    let mut buckets: Vec<Bucket> = Vec::new();
    let mut bytes = 0;
    let mut start = 0;
    for (row, &length) in row_lengths.iter().enumerate() {
        let length = length as usize;
        let row_bytes = length * ENTRY_BYTES + size_of::<usize>();
        if buckets.is_empty() || bytes + row_bytes > max_bytes {
            buckets.push(Bucket { first_row: row, n_entries: 0, start });
            bytes = 0;
        }
        bytes += row_bytes;
        start += length;
        if let Some(bucket) = buckets.last_mut() {
            bucket.n_entries += length;
        }
    }
    buckets
}

/// A column-compressed matrix, column by column.
pub(super) struct ColumnEntries<'a> {
    pub(super) sparse: &'a mut Sparse,
    pub(super) n_rows: usize,
}

impl Entries for ColumnEntries<'_> {
    fn row_lengths(&mut self) -> Result<Vec<u32>> {
        let Self { sparse, n_rows } = self;
        if u32::try_from(*n_rows).is_err() {
            let reason = format!("{n_rows} rows are too many for a column-compressed matrix");
            return Err(sparse.indices.invalid(reason));
        }
        let mut lengths = vec![0u32; *n_rows];
        let n_entries = sparse.indices.n_rows();
        for start in (0..n_entries).step_by(PIECE) {
            for row in sparse.indices.read_integers(start, PIECE.min(n_entries - start))? {
                let length = usize::try_from(row).ok().and_then(|row| lengths.get_mut(row));
                match length {
                    Some(length) => *length = length.saturating_add(1),
                    None => return Err(sparse.indices.invalid(format!("it holds row {row} of {n_rows}"))),
                }
            }
        }
        Ok(lengths)
    }

    fn for_each(&mut self, visit: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let Self { sparse, n_rows } = self;
        let n_entries = sparse.data.n_rows();
        let mut offsets = Offsets::check(sparse)?;
        let mut column = 0;
        let mut column_end = 0;
        for start in (0..n_entries).step_by(PIECE) {
            let count = PIECE.min(n_entries - start);
            let rows = sparse.indices.read_integers(start, count)?;
            let values = sparse.data.read_numbers(start, count)?;
            for (position, (row, value)) in (start..).zip(rows.into_iter().zip(values)) {
                while position >= column_end {
                    column += 1;
                    column_end = offsets.at(sparse, column)?;
                }
                let row = u32::try_from(row).ok().filter(|&row| (row as usize) < *n_rows);
                let row = row.ok_or_else(|| sparse.indices.invalid("it changed while it was read"))?;
                visit(Entry { row, column: column as u32 - 1, value: value as f32 })?;
            }
        }
        Ok(())
    }
}

/// Writes every bucket's entries to its region of a temporary file.
fn spill(entries: &mut dyn Entries, buckets: &[Bucket], max_bytes: usize) -> Result<File> {
    let mut file = tempfile::tempfile().map_err(temporary("create"))?;
    let buffered = (max_bytes / buckets.len() / SPILLED_BYTES).clamp(1, MAX_BUFFERED) * SPILLED_BYTES;
    let mut buffers: Vec<Vec<u8>> = buckets.iter().map(|_| Vec::new()).collect();
    let mut written = vec![0u64; buckets.len()];
    entries.for_each(&mut |entry| {
        let index = buckets.partition_point(|bucket| bucket.first_row <= entry.row as usize) - 1;
        let buffer = &mut buffers[index];
        buffer.extend_from_slice(&entry.row.to_le_bytes());
        buffer.extend_from_slice(&entry.column.to_le_bytes());
        buffer.extend_from_slice(&entry.value.to_le_bytes());
        if buffer.len() >= buffered {
            write_region(&mut file, &buckets[index], &mut written[index], buffer)?;
        }
        Ok(())
    })?;
    for (index, bucket) in buckets.iter().enumerate() {
        write_region(&mut file, bucket, &mut written[index], &mut buffers[index])?;
    }
    Ok(file)
}

fn write_region(file: &mut File, bucket: &Bucket, written: &mut u64, buffer: &mut Vec<u8>) -> Result<()> {
    let position = (bucket.start * SPILLED_BYTES) as u64 + *written;
    file.seek(SeekFrom::Start(position)).and_then(|_| file.write_all(buffer)).map_err(temporary("write"))?;
    *written += buffer.len() as u64;
    buffer.clear();
    Ok(())
}

fn read_back(file: &mut File, bucket: &Bucket, place: &mut impl FnMut(Entry)) -> std::io::Result<()> {
    file.seek(SeekFrom::Start((bucket.start * SPILLED_BYTES) as u64))?;
    let mut buffer = vec![0; MAX_BUFFERED * SPILLED_BYTES];
    let mut left = bucket.n_entries;
    while left > 0 {
        let count = left.min(MAX_BUFFERED);
        let bytes = &mut buffer[..count * SPILLED_BYTES];
        file.read_exact(bytes)?;
        for entry in bytes.chunks_exact(SPILLED_BYTES) {
            let field = |at: usize| [entry[at], entry[at + 1], entry[at + 2], entry[at + 3]];
            place(Entry {
                row: u32::from_le_bytes(field(0)),
                column: u32::from_le_bytes(field(4)),
                value: f32::from_le_bytes(field(8)),
            });
        }
        left -= count;
    }
    Ok(())
}

fn temporary(action: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |error| Error::Io { action, path: std::env::temp_dir(), source: error }
}
