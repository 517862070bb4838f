//! Cells of the first pass that are kept in memory, where it allows, so that the second pass need not read the file again.

use std::ops::Range;

use super::{
    assembler::{AscendingTokens, CellAssembler},
    narrow,
    piece::{Counts, OrderedCells, Piece},
    spill::NO_LABEL,
    survey::{ColumnFate, Survey},
};
use crate::{CellSource, CountBlock, MatrixStorage, error::Result, source::CellNames};

/// What an entry takes, most of the time.
const ENTRY_BYTES: usize = 2;
/// What a cell takes besides its genes: its place in the order, its name, its row.
const CELL_BYTES: usize = 64;

/// All cells of a source that passed quality control, in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct KeptCells {
    blocks: Vec<KeptBlock>,
    n_bytes: usize,
}

/// Cells of one block, as narrow as they are: two bytes for nearly every count.
#[derive(Debug, Clone)]
struct KeptBlock {
    rows: Vec<u32>,
    /// One more than there are cells.
    starts: Vec<Start>,
    /// How many columns are passed over before that of each entry.
    gaps: Vec<u8>,
    wide_gaps: Vec<u32>,
    values: Values,
}

/// Where a cell begins.
#[derive(Debug, Clone, Copy, Default)]
struct Start {
    entry: u32,
    wide_gap: u32,
    wide_count: u32,
}

#[derive(Debug, Clone)]
enum Values {
    Counts { narrow: Vec<u8>, wide: Vec<u16> },
    Fractions(Vec<f32>),
}

impl KeptCells {
    /// About what all cells of a source would take; of a dense matrix, whose zeros nobody has counted, the least.
    pub(super) fn expected_bytes(source: &dyn CellSource) -> usize {
        // What is wrong with a matrix is said when it is read.
        let n_entries = source.matrix_info().map_or(0, |info| match info.storage {
            MatrixStorage::Dense => 0,
            _ => info.n_stored,
        });
        n_entries.saturating_mul(ENTRY_BYTES).saturating_add(source.n_cells().saturating_mul(CELL_BYTES))
    }

    /// Takes those cells of a block that are `kept`; `None` if all together exceed `max_bytes`.
    pub(super) fn push(mut self, block: &CountBlock, kept: &[bool], max_bytes: usize) -> Option<Self> {
        let n_entries: usize =
            (0..kept.len()).filter(|&cell| kept[cell]).map(|cell| block.cell(cell).0.len()).sum();
        u32::try_from(n_entries).ok()?;
        let mut taken = KeptBlock::new(kept.len(), n_entries);
        for cell in (0..kept.len()).filter(|&cell| kept[cell]) {
            let (columns, values) = block.cell(cell);
            taken.push((block.first_row + cell) as u32, columns, values);
        }
        self.n_bytes += taken.n_bytes() + kept.len() * CELL_BYTES;
        self.blocks.push(taken);
        (self.n_bytes <= max_bytes).then_some(self)
    }

    /// What they take in memory, about.
    pub(super) fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// Calls `visit` with the row, columns and values of every cell.
    pub(super) fn for_each(&self, mut visit: impl FnMut(usize, &[u32], &[f32]) -> Result<()>) -> Result<()> {
        let (mut columns, mut values) = (Vec::new(), Vec::new());
        for block in &self.blocks {
            for (cell, &row) in block.rows.iter().enumerate() {
                columns.clear();
                columns.extend(block.columns(cell));
                block.values(cell, &mut values);
                visit(row as usize, &columns, &values)?;
            }
        }
        Ok(())
    }
}

impl Values {
    fn push(&mut self, values: &[f32]) {
        if let Self::Counts { narrow, wide } = self {
            if narrow::are_counts(values) {
                narrow::push_counts(values, narrow, wide);
                return;
            }
            let (mut fractions, mut counts) = (Vec::new(), Vec::new());
            narrow::extend_by_counts(narrow, wide.iter().copied(), &mut counts);
            fractions.extend(counts.into_iter().map(f32::from));
            *self = Self::Fractions(fractions);
        }
        if let Self::Fractions(fractions) = self {
            fractions.extend_from_slice(values);
        }
    }
}

impl KeptBlock {
    /// A block with room for cells and their entries.
    fn new(n_cells: usize, n_entries: usize) -> Self {
        let mut starts = Vec::with_capacity(n_cells + 1);
        starts.push(Start::default());
        Self {
            rows: Vec::with_capacity(n_cells),
            starts,
            gaps: Vec::with_capacity(n_entries),
            wide_gaps: Vec::new(),
            values: Values::Counts { narrow: Vec::with_capacity(n_entries), wide: Vec::new() },
        }
    }

    /// - `columns`: ascending
    fn push(&mut self, row: u32, columns: &[u32], values: &[f32]) {
        narrow::push_gaps(columns, &mut self.gaps, &mut self.wide_gaps);
        self.values.push(values);
        self.rows.push(row);
        let n_wide = if let Values::Counts { wide, .. } = &self.values { wide.len() } else { 0 };
        self.starts.push(Start {
            entry: self.gaps.len() as u32,
            wide_gap: self.wide_gaps.len() as u32,
            wide_count: n_wide as u32,
        });
    }

    /// What its entries take.
    fn n_bytes(&self) -> usize {
        let values = match &self.values {
            Values::Counts { narrow, wide } => narrow.len() + 2 * wide.len(),
            Values::Fractions(fractions) => 4 * fractions.len(),
        };
        self.gaps.len() + 4 * self.wide_gaps.len() + values
    }

    fn columns(&self, cell: usize) -> impl Iterator<Item = u32> {
        let (start, end) = (self.starts[cell], self.starts[cell + 1]);
        let wide = self.wide_gaps[start.wide_gap as usize..end.wide_gap as usize].iter().copied();
        narrow::numbers(&self.gaps[start.entry as usize..end.entry as usize], wide)
    }

    /// Replaces `counts` by those of a cell; `false` where they are fractions.
    fn counts(&self, cell: usize, counts: &mut Vec<u16>) -> bool {
        let (start, end) = (self.starts[cell], self.starts[cell + 1]);
        let Values::Counts { narrow, wide } = &self.values else { return false };
        let wide = &wide[start.wide_count as usize..end.wide_count as usize];
        counts.clear();
        let narrow = &narrow[start.entry as usize..end.entry as usize];
        narrow::extend_by_counts(narrow, wide.iter().copied(), counts);
        true
    }

    /// Replaces `values` by those of a cell.
    fn values(&self, cell: usize, values: &mut Vec<f32>) {
        values.clear();
        match &self.values {
            Values::Fractions(fractions) => {
                let (start, end) = (self.starts[cell], self.starts[cell + 1]);
                values.extend_from_slice(&fractions[start.entry as usize..end.entry as usize]);
            }
            Values::Counts { .. } => {
                let mut counts = Vec::new();
                self.counts(cell, &mut counts);
                values.extend(counts.into_iter().map(f32::from));
            }
        }
    }

    fn has_token(&self, cell: usize, columns: &[ColumnFate]) -> bool {
        let is_token = |column| matches!(columns.get(column as usize), Some(ColumnFate::Token(_)));
        self.columns(cell).any(is_token)
    }
}

/// The cells of all inputs in their final order, in memory.
#[derive(Debug)]
pub(super) struct HeldCells<'a> {
    inputs: Vec<HeldInput<'a>>,
    order: Vec<Place>,
    /// Cells of each input with genes, and without.
    n_cells: Vec<(u64, u64)>,
}

/// One input of them.
#[derive(Debug)]
pub(super) struct HeldInput<'a> {
    cells: &'a KeptCells,
    survey: &'a Survey,
    /// Where no cell needs sorting.
    ascending: Option<AscendingTokens>,
    normalize_first: bool,
    /// Names of all rows one after the other, and where each begins.
    names: String,
    name_starts: Vec<u32>,
    /// Codes of each `obs` column; none where the source lacks it.
    labels: Vec<Vec<u32>>,
}

/// Where a cell is. Cells with equal keys stay in the order of their inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    key: u64,
    input: u32,
    block: u32,
    cell: u32,
}

impl<'a> HeldInput<'a> {
    /// `None` where the names are too long to be held.
    pub(super) fn new(
        cells: &'a KeptCells,
        survey: &'a Survey,
        normalize_first: bool,
        cell_names: CellNames,
        labels: Vec<Vec<u32>>,
    ) -> Result<Option<Self>> {
        let (mut names, mut name_starts) = (String::new(), vec![0]);
        for name in cell_names {
            names.push_str(&name?);
            let Ok(start) = u32::try_from(names.len()) else { return Ok(None) };
            name_starts.push(start);
        }
        let ascending = AscendingTokens::of(&survey.columns);
        Ok(Some(Self { cells, survey, ascending, normalize_first, names, name_starts, labels }))
    }

    fn name(&self, row: usize) -> &str {
        let end = self.name_starts.get(row + 1).map_or(0, |&end| end as usize);
        self.names.get(self.name_starts.get(row).map_or(0, |&start| start as usize)..end).unwrap_or_default()
    }
}

impl<'a> HeldCells<'a> {
    /// Orders the cells that have genes, and counts those of each input with and without.
    ///
    /// - `key`: the random number of an input's row, which decides where the cell goes
    pub(super) fn new(inputs: Vec<HeldInput<'a>>, key: impl Fn(usize, u32) -> u64) -> Self {
        let (mut order, mut n_cells) = (Vec::new(), vec![(0, 0); inputs.len()]);
        for (input, (held, (n_written, n_without_genes))) in inputs.iter().zip(&mut n_cells).enumerate() {
            for (at, block) in held.cells.blocks.iter().enumerate() {
                let rows = block.rows.iter().enumerate();
                for (cell, &row) in rows.filter(|&(_, &row)| held.survey.keeps(row as usize)) {
                    if !block.has_token(cell, &held.survey.columns) {
                        *n_without_genes += 1;
                        continue;
                    }
                    *n_written += 1;
                    let (key, input) = (key(input, row), input as u32);
                    order.push(Place { key, input, block: at as u32, cell: cell as u32 });
                }
            }
        }
        order.sort_unstable();
        Self { inputs, order, n_cells }
    }

    /// Of each input, how many cells have genes and how many have none and are left out.
    pub(super) fn n_cells(&self) -> &[(u64, u64)] {
        &self.n_cells
    }

    /// Where the cells with each of some ranges of keys are; those without cells are left out.
    ///
    /// - `position`: which range a key is in, ascending
    pub(super) fn ranges(&self, position: impl Fn(u64) -> usize) -> Vec<Range<usize>> {
        let groups = self.order.chunk_by(|a, b| position(a.key) == position(b.key));
        let mut start = 0;
        let range = |group: &[Place]| {
            start += group.len();
            start - group.len()..start
        };
        groups.map(range).collect()
    }
}

impl OrderedCells for HeldCells<'_> {
    fn gather(&self, range: Range<usize>, piece: &mut Piece) {
        let mut assembler = CellAssembler::default();
        let (mut columns, mut counts, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for place in &self.order[range] {
            let held = &self.inputs[place.input as usize];
            let (block, cell) = (&held.cells.blocks[place.block as usize], place.cell as usize);
            let row = block.rows[cell];
            columns.clear();
            columns.extend(block.columns(cell));
            match (&held.ascending, &piece.counts) {
                (Some(tokens), Counts::U16(_)) if block.counts(cell, &mut counts) => {
                    tokens.append_counts(&columns, &counts, piece);
                }
                _ => {
                    block.values(cell, &mut values);
                    assembler.normalize_first = held.normalize_first;
                    let entries = columns.iter().copied().zip(values.iter().copied());
                    assembler.assemble(entries, &held.survey.columns);
                    assembler.append_to(piece);
                }
            }
            piece.push_name(held.name(row as usize));
            piece.sources.push(place.input);
            piece.rows.push(row);
            for (column, codes) in piece.labels.iter_mut().zip(&held.labels) {
                column.push(codes.get(row as usize).copied().filter(|&code| code != NO_LABEL));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Cells of ascending columns, some far apart, with counts small and large, or fractions.
    fn cells() -> impl Strategy<Value = Vec<Vec<(u32, f32)>>> {
        let gap = prop_oneof![4 => 1u32..20, 1 => 253u32..259, 1 => 1u32..70_000];
        let whole = prop_oneof![4 => 1u16..20, 1 => 253u16..259, 1 => 1u16..=u16::MAX].prop_map(f32::from);
        let value = prop_oneof![60 => whole, 1 => 0.1f32..3.0, 1 => 60_000f32..90_000.0];
        let cell = proptest::collection::vec((gap, value), 0..60).prop_map(|entries| {
            let mut next = 0;
            let column = |(gap, value)| {
                next += gap;
                (next - 1, value)
            };
            entries.into_iter().map(column).collect()
        });
        proptest::collection::vec(cell, 0..12)
    }

    proptest! {
        #[test]
        fn kept_cells_come_back(blocks in proptest::collection::vec(cells(), 1..4), every in 1usize..3) {
            let (mut kept, mut expected, mut first_row) = (KeptCells::default(), Vec::new(), 0);
            for cells in blocks {
                let mut block = CountBlock { first_row, offsets: vec![0], ..CountBlock::default() };
                for cell in &cells {
                    block.columns.extend(cell.iter().map(|&(column, _)| column));
                    block.values.extend(cell.iter().map(|&(_, value)| value));
                    block.offsets.push(block.columns.len());
                }
                let wanted: Vec<bool> = (0..cells.len()).map(|cell| cell % every == 0).collect();
                kept = kept.push(&block, &wanted, usize::MAX).unwrap();
                expected.extend(cells.iter().enumerate().step_by(every).map(|(cell, entries)| (first_row + cell, entries.clone())));
                first_row += cells.len();
            }
            let mut found = Vec::new();
            kept.for_each(|row, columns, values| {
                found.push((row, columns.iter().copied().zip(values.iter().copied()).collect::<Vec<_>>()));
                Ok(())
            })
            .unwrap();
            prop_assert_eq!(found, expected);
        }
    }
}
