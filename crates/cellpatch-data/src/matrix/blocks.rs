//! A matrix as blocks of consecutive cells, in bounded memory.

use std::ops::Range;

use super::regroup::{ColumnEntries, Regrouped};
use super::{BlockCheck, Matrix, Parts, Sparse, ValueKind};
use crate::counts::CountBlock;
use crate::error::Result;
use crate::h5::{Array, to_f64};
use crate::source::BlockReader;

/// Entries of a sparse matrix decoded at a time.
pub(super) const PIECE: usize = 1 << 17;
/// Row offsets held at a time.
const WINDOW: usize = 1 << 16;
/// Bytes of one entry of a block.
pub(crate) const ENTRY_BYTES: usize = size_of::<u32>() + size_of::<f32>();

/// Iterates over the cells of a matrix in blocks. After an error it ends.
pub struct CountBlocks {
    matrix: Matrix,
    max_block_bytes: usize,
    check: BlockCheck,
    next_row: usize,
    end_row: usize,
    /// Where the rows of a row-compressed matrix begin.
    offsets: Option<Offsets>,
    /// A column-compressed matrix regrouped by rows, once the first block was asked for.
    columnar: Option<Regrouped>,
    /// A block that is done with.
    spare: CountBlock,
}

impl std::fmt::Debug for CountBlocks {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("CountBlocks")
            .field("matrix", &self.matrix.name)
            .field("next_row", &self.next_row)
            .finish_non_exhaustive()
    }
}

impl CountBlocks {
    pub(crate) fn new(
        mut matrix: Matrix,
        max_block_bytes: usize,
        expected: Option<ValueKind>,
    ) -> Result<Self> {
        let offsets = match &mut matrix.parts {
            Parts::Rows(sparse) => Some(Offsets::check(sparse)?),
            _ => None,
        };
        let end_row = matrix.n_cells;
        let check = BlockCheck {
            path: matrix.values().path().to_path_buf(),
            matrix: matrix.name.clone(),
            n_genes: matrix.n_genes,
            expected,
        };
        Ok(Self {
            matrix,
            max_block_bytes,
            check,
            next_row: 0,
            end_row,
            offsets,
            columnar: None,
            spare: CountBlock::default(),
        })
    }

    /// How many cells the matrix has.
    pub fn n_cells(&self) -> usize {
        self.matrix.n_cells
    }

    /// How many genes the matrix has.
    pub fn n_genes(&self) -> usize {
        self.matrix.n_genes
    }

    /// Goes on at another row, and ends before `end_row`. Not for column-compressed matrices.
    pub(crate) fn seek(&mut self, row: usize, end_row: usize) {
        self.next_row = row;
        self.end_row = end_row.min(self.matrix.n_cells);
    }

    fn next_block(&mut self) -> Result<CountBlock> {
        let first_row = self.next_row;
        let (first_row, mut block) = match &mut self.matrix.parts {
            Parts::Dense(array) => {
                (first_row, dense_rows(array.as_mut(), first_row, self.end_row, self.max_block_bytes)?)
            }
            Parts::Rows(sparse) => {
                let offsets = self
                    .offsets
                    .as_mut()
                    .ok_or_else(|| sparse.indptr.invalid("its offsets were not read"))?;
                let spare = std::mem::take(&mut self.spare);
                let rows = first_row..self.end_row;
                (first_row, sparse_rows(sparse, offsets, rows, self.max_block_bytes, spare)?)
            }
            Parts::Columns(sparse) => {
                if self.columnar.is_none() {
                    Offsets::check(sparse)?;
                    let mut entries = ColumnEntries { sparse, n_rows: self.matrix.n_cells };
                    self.columnar = Some(Regrouped::new(&mut entries, self.max_block_bytes)?);
                }
                let columnar =
                    self.columnar.as_mut().ok_or_else(|| sparse.indptr.invalid("it was not regrouped"))?;
                (first_row, columnar.rows_from(first_row)?)
            }
        };
        block.first_row = first_row;
        block.tidy();
        self.check.check(&block)?;
        self.next_row = first_row + block.n_cells();
        Ok(block)
    }
}

impl BlockReader for CountBlocks {
    fn reuse(&mut self, block: CountBlock) {
        self.spare = block;
    }
}

impl Iterator for CountBlocks {
    type Item = Result<CountBlock>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next_row >= self.end_row {
            return None;
        }
        let block = self.next_block();
        if block.is_err() {
            self.next_row = self.end_row;
        }
        Some(block)
    }
}

/// Rows of a dense matrix, their zeros left out.
fn dense_rows(array: &mut dyn Array, first: usize, end: usize, max_bytes: usize) -> Result<CountBlock> {
    let n_genes = array.row_len();
    let row_bytes = n_genes.saturating_mul(array.element().size() + ENTRY_BYTES).max(1);
    let mut count = (max_bytes / row_bytes).max(1);
    // End on a chunk boundary where that is possible: the next block then decodes no chunk twice.
    let chunk = array.rows_per_chunk();
    let aligned = first.saturating_add(count) / chunk * chunk;
    if aligned > first {
        count = aligned - first;
    }
    count = count.min(end - first);
    let bytes = array.read_rows(first, count)?;
    let mut block = CountBlock { first_row: first, offsets: vec![0], ..CountBlock::default() };
    let element = array.element().clone();
    let row_bytes = n_genes * element.size();
    for row in 0..count {
        let row = &bytes[row * row_bytes..(row + 1) * row_bytes];
        let values = to_f64(&element, row).map_err(|reason| array.invalid(reason))?;
        for (column, value) in (0u32..).zip(values).filter(|&(_, value)| value != 0.0) {
            block.columns.push(column);
            block.values.push(value as f32);
        }
        block.offsets.push(block.columns.len());
    }
    Ok(block)
}

/// Rows of a row-compressed matrix as stored: maybe unsorted, with duplicates and zeros.
///
/// - `block`: whose memory is used
fn sparse_rows(
    sparse: &mut Sparse,
    offsets: &mut Offsets,
    rows: Range<usize>,
    max_bytes: usize,
    mut block: CountBlock,
) -> Result<CountBlock> {
    let first = rows.start;
    let start = offsets.at(sparse, first)?;
    block.first_row = first;
    block.offsets.clear();
    block.offsets.push(0);
    let mut stop = start;
    for row in rows {
        let next = offsets.at(sparse, row + 1)?;
        if next < stop {
            return Err(sparse.indptr.invalid("it changed while it was read"));
        }
        let bytes =
            (next - start).saturating_mul(ENTRY_BYTES).saturating_add((row + 1 - first) * size_of::<usize>());
        if row > first && bytes > max_bytes {
            break;
        }
        stop = next;
        block.offsets.push(stop - start);
    }
    block.columns.resize(stop - start, 0);
    block.values.resize(stop - start, 0.0);
    sparse.indices.read_positions(start, &mut block.columns)?;
    sparse.data.read_values(start, &mut block.values)?;
    Ok(block)
}

/// The offsets of a compressed matrix, checked once and then read in windows.
pub(super) struct Offsets {
    first: usize,
    window: Vec<usize>,
}

impl Offsets {
    /// Checks that offsets begin at 0, never descend and end at the number of entries.
    pub(super) fn check(sparse: &mut Sparse) -> Result<Self> {
        let n_offsets = sparse.indptr.n_rows();
        let n_stored = sparse.data.n_rows();
        let mut previous = 0;
        for start in (0..n_offsets).step_by(WINDOW) {
            let window = sparse.indptr.read_integers(start, WINDOW.min(n_offsets - start))?;
            for (position, &offset) in (start..).zip(&window) {
                if position == 0 && offset != 0 {
                    return Err(sparse.indptr.invalid(format!("it begins at {offset}, expected 0")));
                }
                if offset < previous {
                    let reason = format!("it descends from {previous} to {offset} at position {position}");
                    return Err(sparse.indptr.invalid(reason));
                }
                previous = offset;
            }
        }
        if usize::try_from(previous) != Ok(n_stored) {
            return Err(sparse
                .indptr
                .invalid(format!("it ends at {previous}, {n_stored} entries are stored")));
        }
        Ok(Self { first: 0, window: Vec::new() })
    }

    /// The offset at a position.
    pub(super) fn at(&mut self, sparse: &mut Sparse, position: usize) -> Result<usize> {
        if position < self.first || position >= self.first + self.window.len() {
            let count = WINDOW.min(sparse.indptr.n_rows().saturating_sub(position));
            let window = sparse.indptr.read_integers(position, count)?;
            self.window = window.into_iter().map(|offset| usize::try_from(offset).unwrap_or(0)).collect();
            self.first = position;
        }
        let offset = self.window.get(position - self.first).copied();
        offset.ok_or_else(|| sparse.indptr.invalid(format!("it has no position {position}")))
    }
}
