//! Cells of the first pass that are kept in memory, where it allows, so that the second pass need not read the file again.

use std::ops::Range;

use super::{
    assembler::{AscendingTokens, CellAssembler},
    piece::{Counts, OrderedCells, Piece},
    spill::NO_LABEL,
    survey::{ColumnFate, Survey},
};
use crate::{CountBlock, error::Result, source::CellNames};

/// What a cell takes besides its genes: its place in the order, its name, its row.
const CELL_BYTES: usize = 64;

/// All cells of a source that passed quality control, in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct KeptCells {
    blocks: Vec<KeptBlock>,
    n_bytes: usize,
}

/// Cells of one block, as narrow as they are.
#[derive(Debug, Clone)]
struct KeptBlock {
    rows: Vec<u32>,
    /// One more than there are cells.
    offsets: Vec<u32>,
    columns: Columns,
    values: Values,
}

#[derive(Debug, Clone)]
enum Columns {
    U16(Vec<u16>),
    U32(Vec<u32>),
}

#[derive(Debug, Clone)]
enum Values {
    U16(Vec<u16>),
    F32(Vec<f32>),
}

impl KeptCells {
    /// Takes those cells of a block that are `kept`; `None` if all together exceed `max_bytes`.
    ///
    /// - `n_genes`: columns there are
    pub(super) fn push(
        mut self,
        block: &CountBlock,
        kept: &[bool],
        n_genes: usize,
        max_bytes: usize,
    ) -> Option<Self> {
        let n_entries: usize =
            (0..kept.len()).filter(|&cell| kept[cell]).map(|cell| block.cell(cell).0.len()).sum();
        u32::try_from(n_entries).ok()?;
        let mut taken = KeptBlock {
            rows: Vec::with_capacity(kept.len()),
            offsets: vec![0],
            columns: match n_genes <= 1 << 16 {
                true => Columns::U16(Vec::with_capacity(n_entries)),
                false => Columns::U32(Vec::with_capacity(n_entries)),
            },
            values: Values::U16(Vec::with_capacity(n_entries)),
        };
        let mut end = 0;
        for cell in (0..kept.len()).filter(|&cell| kept[cell]) {
            let (columns, values) = block.cell(cell);
            match &mut taken.columns {
                Columns::U16(narrow) => narrow.extend(columns.iter().map(|&column| column as u16)),
                Columns::U32(wide) => wide.extend_from_slice(columns),
            }
            taken.values.push(values);
            end += columns.len() as u32;
            taken.offsets.push(end);
            taken.rows.push((block.first_row + cell) as u32);
        }
        self.n_bytes += n_entries * taken.entry_bytes() + kept.len() * CELL_BYTES;
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
                values.clear();
                for (column, value) in block.entries(cell) {
                    columns.push(column);
                    values.push(value);
                }
                visit(row as usize, &columns, &values)?;
            }
        }
        Ok(())
    }
}

impl Values {
    fn push(&mut self, values: &[f32]) {
        if let Self::U16(counts) = self {
            let is_count = |value: f32| f32::from(value as i32 as u16) == value;
            if values.iter().fold(true, |all, &value| all & is_count(value)) {
                counts.extend(values.iter().map(|&value| value as i32 as u16));
                return;
            }
            *self = Self::F32(counts.iter().copied().map(f32::from).collect());
        }
        if let Self::F32(fractions) = self {
            fractions.extend_from_slice(values);
        }
    }
}

impl KeptBlock {
    fn entry_bytes(&self) -> usize {
        let column = if matches!(self.columns, Columns::U16(_)) { 2 } else { 4 };
        column + if matches!(self.values, Values::U16(_)) { 2 } else { 4 }
    }

    fn range(&self, cell: usize) -> Range<usize> {
        self.offsets[cell] as usize..self.offsets[cell + 1] as usize
    }

    fn entries(&self, cell: usize) -> impl Iterator<Item = (u32, f32)> {
        self.range(cell).map(|at| {
            let column = match &self.columns {
                Columns::U16(columns) => u32::from(columns[at]),
                Columns::U32(columns) => columns[at],
            };
            let value = match &self.values {
                Values::U16(values) => f32::from(values[at]),
                Values::F32(values) => values[at],
            };
            (column, value)
        })
    }

    fn has_token(&self, cell: usize, columns: &[ColumnFate]) -> bool {
        let is_token = |(column, _)| matches!(columns.get(column as usize), Some(ColumnFate::Token(_)));
        self.entries(cell).any(is_token)
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
        for place in &self.order[range] {
            let held = &self.inputs[place.input as usize];
            let (block, cell) = (&held.cells.blocks[place.block as usize], place.cell as usize);
            let row = block.rows[cell];
            let range = block.range(cell);
            match (&held.ascending, &block.columns, &block.values, &piece.counts) {
                (Some(tokens), Columns::U16(columns), Values::U16(values), Counts::U16(_)) => {
                    tokens.append(&columns[range.clone()], &values[range], piece);
                }
                (Some(tokens), Columns::U32(columns), Values::U16(values), Counts::U16(_)) => {
                    tokens.append(&columns[range.clone()], &values[range], piece);
                }
                _ => {
                    assembler.normalize_first = held.normalize_first;
                    assembler.assemble(block.entries(cell), &held.survey.columns);
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
