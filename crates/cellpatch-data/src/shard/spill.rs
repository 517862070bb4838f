//! The permutation in bounded memory: cells are thrown into buckets on disk by a random key, and each bucket is later
//! sorted by that key in memory.
//!
//! The result is the order of all keys, whatever the number of buckets: sorting random keys is a uniform permutation.

use std::{
    fs::{self, OpenOptions},
    io::{BufReader, Read, Write},
    path::{Path, PathBuf},
};

use flate2::Crc;
use serde::{Deserialize, Serialize};

use super::{
    balance::KeyRanges,
    narrow,
    piece::{Counts, OrderedCells, Piece},
};
use crate::error::{Error, Result};

/// Bytes of a record's fixed head: key, source, row, total, length of the name, genes, wide gaps between them, wide counts.
const HEAD_BYTES: usize = 8 + 4 + 4 + 8 + 4 * 4;
/// Stands for "no label".
pub(super) const NO_LABEL: u32 = u32::MAX;

/// One cell on its way from source to shard.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SpilledCell<'a> {
    pub(super) key: u64,
    pub(super) source: u32,
    /// Its row in the source.
    pub(super) row: u32,
    pub(super) total_counts: f64,
    pub(super) cell_id: &'a str,
    /// Codes of the `obs` columns, [`NO_LABEL`] where there is none.
    pub(super) labels: &'a [u32],
    pub(super) genes: &'a [u32],
    pub(super) counts: &'a [f32],
}

/// How cells are laid out in buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SpillLayout {
    pub(super) n_labels: usize,
    /// Whether every count is a whole number up to 65,535: most then take a byte instead of four.
    pub(super) counts_u16: bool,
}

impl SpillLayout {
    /// Bytes a gene of a cell takes once it is a number again.
    pub(super) fn gene_bytes(self) -> usize {
        4 + if self.counts_u16 { 2 } else { 4 }
    }

    /// Bytes a cell takes besides its genes, given the length of its name.
    pub(super) fn cell_bytes(self, id_bytes: usize) -> usize {
        HEAD_BYTES + id_bytes + 4 * self.n_labels
    }
}

/// How much of a bucket's file is known to be right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BucketMark {
    pub(super) bytes: u64,
    /// CRC-32 of these bytes.
    crc: u32,
}

/// Buckets being filled.
#[derive(Debug)]
pub(super) struct Buckets {
    layout: SpillLayout,
    folder: PathBuf,
    ranges: KeyRanges,
    buffers: Vec<Vec<u8>>,
    buffer_bytes: usize,
    written: Vec<u64>,
    crcs: Vec<Crc>,
    packed: PackedCell,
}

/// The genes and counts of a cell as they are in a bucket.
#[derive(Debug, Default)]
struct PackedCell {
    gaps: Vec<u8>,
    wide_gaps: Vec<u32>,
    counts: Vec<u8>,
    wide_counts: Vec<u16>,
}

impl PackedCell {
    fn pack(&mut self, cell: &SpilledCell<'_>, layout: SpillLayout) {
        let Self { gaps, wide_gaps, counts, wide_counts } = self;
        gaps.clear();
        wide_gaps.clear();
        counts.clear();
        wide_counts.clear();
        narrow::push_gaps(cell.genes, gaps, wide_gaps);
        match layout.counts_u16 {
            true => narrow::push_counts(cell.counts, counts, wide_counts),
            false => counts.extend(cell.counts.iter().flat_map(|count| count.to_le_bytes())),
        }
    }

    fn n_bytes(&self) -> usize {
        self.gaps.len() + 4 * self.wide_gaps.len() + self.counts.len() + 2 * self.wide_counts.len()
    }

    fn append_to(&self, buffer: &mut Vec<u8>) {
        buffer.extend_from_slice(&self.gaps);
        self.wide_gaps.iter().for_each(|gap| buffer.extend_from_slice(&gap.to_le_bytes()));
        buffer.extend_from_slice(&self.counts);
        self.wide_counts.iter().for_each(|count| buffer.extend_from_slice(&count.to_le_bytes()));
    }
}

impl Buckets {
    /// Buckets in `folder` with nothing in them, which together keep at most about `memory` bytes unwritten.
    pub(super) fn new(folder: &Path, ranges: &KeyRanges, memory: usize, layout: SpillLayout) -> Result<Self> {
        let mut buckets = Self::unopened(folder, ranges, memory, layout);
        let nothing = vec![BucketMark::default(); ranges.len()];
        buckets.take_up(&nothing).map(|_| buckets)
    }

    /// Buckets as they were at `marks`; `None` if they are not there like that.
    pub(super) fn resume(
        folder: &Path,
        ranges: &KeyRanges,
        memory: usize,
        layout: SpillLayout,
        marks: &[BucketMark],
    ) -> Result<Option<Self>> {
        let mut buckets = Self::unopened(folder, ranges, memory, layout);
        Ok((marks.len() == ranges.len() && buckets.take_up(marks)?).then_some(buckets))
    }

    fn unopened(folder: &Path, ranges: &KeyRanges, memory: usize, layout: SpillLayout) -> Self {
        let n_buckets = ranges.len();
        Self {
            layout,
            folder: folder.to_path_buf(),
            ranges: ranges.clone(),
            buffers: vec![Vec::new(); n_buckets],
            buffer_bytes: (memory / n_buckets).clamp(16 << 10, 4 << 20),
            written: vec![0; n_buckets],
            crcs: std::iter::repeat_with(Crc::new).take(n_buckets).collect(),
            packed: PackedCell::default(),
        }
    }

    /// Cuts every file to its mark, and says whether what is left is what was written.
    fn take_up(&mut self, marks: &[BucketMark]) -> Result<bool> {
        let mut buffer = vec![0; 1 << 16];
        for (bucket, mark) in marks.iter().enumerate() {
            let path = self.path(bucket);
            let file = match OpenOptions::new().read(true).write(true).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && mark.bytes == 0 => continue,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
                Err(source) => return Err(Error::io("read", &path, source)),
            };
            let fail = |source| Error::io("read", &path, source);
            if file.metadata().map_err(fail)?.len() < mark.bytes {
                return Ok(false);
            }
            file.set_len(mark.bytes).map_err(fail)?;
            let mut left = BufReader::new(file).take(mark.bytes);
            loop {
                let n_read = left.read(&mut buffer).map_err(fail)?;
                if n_read == 0 {
                    break;
                }
                self.crcs[bucket].update(&buffer[..n_read]);
            }
            self.written[bucket] = mark.bytes;
            if self.crcs[bucket].sum() != mark.crc {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Adds a cell to the bucket of its key.
    pub(super) fn push(&mut self, cell: &SpilledCell<'_>) -> Result<()> {
        let bucket = self.ranges.position(cell.key);
        self.packed.pack(cell, self.layout);
        let n_bytes = self.layout.cell_bytes(cell.cell_id.len()) + self.packed.n_bytes();
        if self.buffers[bucket].len() + n_bytes > self.buffer_bytes {
            self.flush(bucket)?;
        }
        let buffer = &mut self.buffers[bucket];
        // Its size for good: hundreds of buffers that grow piece by piece leave holes all over the heap.
        buffer.reserve_exact(self.buffer_bytes.max(n_bytes) - buffer.len());
        buffer.extend_from_slice(&cell.key.to_le_bytes());
        buffer.extend_from_slice(&cell.source.to_le_bytes());
        buffer.extend_from_slice(&cell.row.to_le_bytes());
        buffer.extend_from_slice(&cell.total_counts.to_le_bytes());
        let PackedCell { gaps, wide_gaps, wide_counts, .. } = &self.packed;
        for length in [cell.cell_id.len(), gaps.len(), wide_gaps.len(), wide_counts.len()] {
            buffer.extend_from_slice(&(length as u32).to_le_bytes());
        }
        buffer.extend_from_slice(cell.cell_id.as_bytes());
        cell.labels.iter().for_each(|label| buffer.extend_from_slice(&label.to_le_bytes()));
        self.packed.append_to(buffer);
        Ok(())
    }

    /// Writes what is still in memory, and says how far every bucket is.
    pub(super) fn marks(&mut self) -> Result<Vec<BucketMark>> {
        (0..self.buffers.len()).try_for_each(|bucket| self.flush(bucket))?;
        let marks = self.written.iter().zip(&self.crcs);
        Ok(marks.map(|(&bytes, crc)| BucketMark { bytes, crc: crc.sum() }).collect())
    }

    /// Appends: with thousands of buckets, keeping their files open would exceed what a process may open.
    fn flush(&mut self, bucket: usize) -> Result<()> {
        let path = self.path(bucket);
        let buffer = &mut self.buffers[bucket];
        if buffer.is_empty() {
            return Ok(());
        }
        let opened = OpenOptions::new().create(true).append(true).open(&path);
        opened
            .and_then(|mut file| file.write_all(buffer))
            .map_err(|source| Error::io("write", &path, source))?;
        self.written[bucket] += buffer.len() as u64;
        self.crcs[bucket].update(buffer);
        buffer.clear();
        Ok(())
    }

    fn path(&self, bucket: usize) -> PathBuf {
        bucket_path(&self.folder, bucket)
    }
}

/// Where a bucket is.
pub(super) fn bucket_path(folder: &Path, bucket: usize) -> PathBuf {
    folder.join(format!("bucket-{bucket:05}"))
}

/// One bucket in memory, its cells in order of their keys.
#[derive(Debug)]
pub(super) struct Bucket {
    layout: SpillLayout,
    bytes: Vec<u8>,
    /// Key and start of each cell. Cells with equal keys stay in the order they came.
    cells: Vec<(u64, usize)>,
}

/// One cell of a bucket; numbers are little-endian bytes.
#[derive(Debug, Clone, Copy)]
struct BucketCell<'a> {
    source: u32,
    row: u32,
    total_counts: f64,
    cell_id: &'a str,
    labels: &'a [u8],
    gaps: &'a [u8],
    wide_gaps: &'a [u8],
    counts: &'a [u8],
    wide_counts: &'a [u8],
}

impl Bucket {
    /// Reads a bucket and sorts its cells.
    pub(super) fn read(path: &Path, layout: SpillLayout, mark: BucketMark) -> Result<Self> {
        let bytes = fs::read(path).map_err(|source| Error::io("read", path, source))?;
        let mut crc = Crc::new();
        crc.update(&bytes);
        if bytes.len() as u64 != mark.bytes || crc.sum() != mark.crc {
            let changed = std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not what was written");
            return Err(Error::Io { action: "read", path: path.to_path_buf(), source: changed });
        }
        let mut bucket = Self { layout, bytes, cells: Vec::new() };
        let mut start = 0;
        while start < bucket.bytes.len() {
            let Some((key, end)) = bucket.record(start).map(|(key, _, end)| (key, end)) else {
                let cut_short = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                return Err(Error::Io { action: "read", path: path.to_path_buf(), source: cut_short });
            };
            bucket.cells.push((key, start));
            start = end;
        }
        bucket.cells.sort_unstable();
        Ok(bucket)
    }

    pub(super) fn n_cells(&self) -> usize {
        self.cells.len()
    }

    /// Key, contents and end of the record at `start`, or nothing if it is cut short.
    fn record(&self, start: usize) -> Option<(u64, BucketCell<'_>, usize)> {
        let mut rest = self.bytes.get(start..)?;
        let key = u64::from_le_bytes(*take_array(&mut rest)?);
        let source = u32::from_le_bytes(*take_array(&mut rest)?);
        let row = u32::from_le_bytes(*take_array(&mut rest)?);
        let total_counts = f64::from_le_bytes(*take_array(&mut rest)?);
        let mut length = || Some(u32::from_le_bytes(*take_array(&mut rest)?) as usize);
        let [id_bytes, n_genes, n_wide_gaps, n_wide_counts] = [length()?, length()?, length()?, length()?];
        let cell_id = std::str::from_utf8(take(&mut rest, id_bytes)?).ok()?;
        let labels = take(&mut rest, 4 * self.layout.n_labels)?;
        let gaps = take(&mut rest, n_genes)?;
        let wide_gaps = take(&mut rest, 4 * n_wide_gaps)?;
        let counts = take(&mut rest, if self.layout.counts_u16 { n_genes } else { 4 * n_genes })?;
        let wide_counts = take(&mut rest, 2 * n_wide_counts)?;
        let cell =
            BucketCell { source, row, total_counts, cell_id, labels, gaps, wide_gaps, counts, wide_counts };
        Some((key, cell, self.bytes.len() - rest.len()))
    }
}

impl OrderedCells for Bucket {
    fn gather(&self, range: std::ops::Range<usize>, piece: &mut Piece) {
        for (_, cell, _) in self.cells[range].iter().filter_map(|&(_, start)| self.record(start)) {
            piece.n_genes.push(cell.gaps.len() as u32);
            let wide_gaps = cell.wide_gaps.as_chunks::<4>().0.iter().map(|&bytes| u32::from_le_bytes(bytes));
            piece.genes.extend(narrow::numbers(cell.gaps, wide_gaps));
            match &mut piece.counts {
                Counts::U16(counts) => {
                    let wide = cell.wide_counts.as_chunks::<2>().0.iter();
                    let wide = wide.map(|&bytes| u16::from_le_bytes(bytes));
                    narrow::extend_by_counts(cell.counts, wide, counts);
                }
                Counts::F32(counts) => {
                    counts.extend(
                        cell.counts.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)),
                    );
                }
            }
            piece.total_counts.push(cell.total_counts);
            piece.push_name(cell.cell_id);
            piece.sources.push(cell.source);
            piece.rows.push(cell.row);
            for (column, &code) in piece.labels.iter_mut().zip(cell.labels.as_chunks::<4>().0) {
                column.push(Some(u32::from_le_bytes(code)).filter(|&code| code != NO_LABEL));
            }
        }
    }
}

fn take<'a>(rest: &mut &'a [u8], n_bytes: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(n_bytes)?;
    *rest = left;
    Some(taken)
}

fn take_array<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(taken)
}
