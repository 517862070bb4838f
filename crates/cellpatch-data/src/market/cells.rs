//! A Matrix Market file as blocks of cells.

use std::sync::{Arc, OnceLock};

use super::header::MarketFile;
use super::reader::EntryReader;
use crate::counts::CountBlock;
use crate::error::{Error, Result};
use crate::matrix::{BlockCheck, ENTRY_BYTES, Entries, Entry, Regrouped, Sample, ValueKind};
use crate::source::BlockReader;
use crate::tenx::KeptFeatures;

/// Entries that are looked at to tell what the values are.
const SAMPLE_ENTRIES: usize = 1 << 18;

/// Which dimension of the file the cells are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Orientation {
    /// Cells are columns, as 10x Genomics writes them.
    GenesByCells,
    /// Cells are rows, as in AnnData.
    CellsByGenes,
}

/// What a pass over the whole file tells.
#[derive(Debug)]
struct Survey {
    /// Entries of each cell, features that are left out not counted.
    row_lengths: Vec<u32>,
    /// Whether cells come one after the other.
    sorted: bool,
}

/// The cells of a file, with the features that are kept.
#[derive(Debug, Clone)]
pub(crate) struct MarketCells {
    file: MarketFile,
    orientation: Orientation,
    features: KeptFeatures,
    survey: Arc<OnceLock<Survey>>,
}

impl MarketCells {
    pub(crate) fn new(file: MarketFile, orientation: Orientation, features: KeptFeatures) -> Self {
        Self { file, orientation, features, survey: Arc::default() }
    }

    pub(crate) fn file(&self) -> &MarketFile {
        &self.file
    }

    pub(crate) fn features(&self) -> &KeptFeatures {
        &self.features
    }

    fn n_cells(&self) -> usize {
        match self.orientation {
            Orientation::GenesByCells => self.file.n_columns(),
            Orientation::CellsByGenes => self.file.n_rows(),
        }
    }

    fn read(&self) -> Result<CellEntries<'_>> {
        Ok(CellEntries { cells: self, reader: EntryReader::open(self.file.path())? })
    }

    /// What the values look like, judged by the first of them.
    pub(crate) fn detect(&self) -> Result<ValueKind> {
        let mut entries = self.read()?;
        let mut sample = Sample::default();
        let (mut row, mut cell, mut sorted) = (0, Vec::new(), true);
        for _ in 0..SAMPLE_ENTRIES {
            let Some(entry) = entries.next()? else { break };
            if entry.row != row {
                sorted &= entry.row > row;
                // Totals of cells mean something only where a cell's entries stand together.
                if sorted {
                    sample.cell(&cell)
                } else {
                    sample.values(cell.iter().map(|&value| f64::from(value)))
                }
                (row, cell) = (entry.row, Vec::new());
            }
            cell.push(entry.value);
        }
        sample.values(cell.iter().map(|&value| f64::from(value)));
        Ok(sample.kind())
    }

    /// The pass over the whole file, made once.
    fn survey(&self) -> Result<&Survey> {
        if self.survey.get().is_none() {
            let mut row_lengths = vec![0u32; self.n_cells()];
            let (mut sorted, mut last) = (true, 0);
            let mut entries = self.read()?;
            while let Some(entry) = entries.next()? {
                sorted &= entry.row >= last;
                last = entry.row;
                if let Some(length) = row_lengths.get_mut(entry.row as usize) {
                    *length = length.saturating_add(1);
                }
            }
            // Another thread may have been faster: the result is the same.
            let _ = self.survey.set(Survey { row_lengths, sorted });
        }
        self.survey.get().ok_or_else(|| self.changed())
    }

    fn changed(&self) -> Error {
        Error::Invalid {
            path: self.file.path().to_path_buf(),
            dataset: "the file".into(),
            reason: "it changed while it was read".into(),
        }
    }

    /// Every cell in order, in blocks of at most `max_bytes`, each value checked to be of the `expected` kind.
    pub(crate) fn blocks(&self, max_bytes: usize, expected: &ValueKind) -> Result<MarketBlocks> {
        let survey = self.survey()?;
        let order = if survey.sorted {
            Order::Sorted(Box::new(EntryReader::open(self.file.path())?))
        } else {
            let mut entries = self.clone();
            Order::Regrouped(Box::new(Regrouped::new(&mut entries, max_bytes)?))
        };
        let check = BlockCheck {
            path: self.file.path().to_path_buf(),
            matrix: "the matrix".into(),
            n_genes: self.features.genes.len(),
            expected: Some(expected.clone()),
        };
        Ok(MarketBlocks { cells: self.clone(), order, max_bytes, check, next_row: 0 })
    }
}

impl Entries for MarketCells {
    fn row_lengths(&mut self) -> Result<Vec<u32>> {
        Ok(self.survey()?.row_lengths.clone())
    }

    fn for_each(&mut self, visit: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let mut entries = self.read()?;
        while let Some(entry) = entries.next()? {
            visit(entry)?;
        }
        Ok(())
    }
}

/// The entries of kept features, in the file's order.
struct CellEntries<'a> {
    cells: &'a MarketCells,
    reader: EntryReader,
}

impl CellEntries<'_> {
    fn next(&mut self) -> Result<Option<Entry>> {
        next_entry(&mut self.reader, self.cells)
    }
}

fn next_entry(reader: &mut EntryReader, cells: &MarketCells) -> Result<Option<Entry>> {
    while let Some((row, column, value)) = reader.next_entry()? {
        let (cell, gene) = match cells.orientation {
            Orientation::GenesByCells => (column, row),
            Orientation::CellsByGenes => (row, column),
        };
        if let Some(column) = cells.features.column(gene) {
            return Ok(Some(Entry { row: cell, column, value: value as f32 }));
        }
    }
    Ok(None)
}

enum Order {
    Sorted(Box<EntryReader>),
    Regrouped(Box<Regrouped>),
}

/// Iterates over the cells of a file in blocks. After an error it ends.
pub(crate) struct MarketBlocks {
    cells: MarketCells,
    order: Order,
    max_bytes: usize,
    check: BlockCheck,
    next_row: usize,
}

impl MarketBlocks {
    fn next_block(&mut self) -> Result<CountBlock> {
        let first_row = self.next_row;
        let mut block = match &mut self.order {
            Order::Regrouped(regrouped) => regrouped.rows_from(first_row)?,
            Order::Sorted(reader) => {
                let lengths = &self.cells.survey()?.row_lengths[first_row..];
                sorted_rows(reader, &self.cells, lengths, first_row, self.max_bytes)?
            }
        };
        block.first_row = first_row;
        block.tidy();
        self.check.check(&block)?;
        self.next_row = first_row + block.n_cells();
        if self.next_row == self.cells.n_cells() {
            self.finish()?;
        }
        Ok(block)
    }

    /// Reads to the end, where a file that has changed since the survey shows.
    fn finish(&mut self) -> Result<()> {
        if let Order::Sorted(reader) = &mut self.order
            && next_entry(reader, &self.cells)?.is_some()
        {
            return Err(self.cells.changed());
        }
        Ok(())
    }
}

impl BlockReader for MarketBlocks {}

impl Iterator for MarketBlocks {
    type Item = Result<CountBlock>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next_row >= self.cells.n_cells() {
            return None;
        }
        let block = self.next_block();
        if block.is_err() {
            self.next_row = self.cells.n_cells();
        }
        Some(block)
    }
}

/// The next cells of a sorted file, as many as fit.
///
/// - `lengths`: entries of the cells from `first_row` on
fn sorted_rows(
    reader: &mut EntryReader,
    cells: &MarketCells,
    lengths: &[u32],
    first_row: usize,
    max_bytes: usize,
) -> Result<CountBlock> {
    let mut block = CountBlock { first_row, offsets: vec![0], ..CountBlock::default() };
    let (mut n_entries, mut bytes) = (0, 0);
    for &length in lengths {
        bytes += length as usize * ENTRY_BYTES + size_of::<usize>();
        if bytes > max_bytes && block.offsets.len() > 1 {
            break;
        }
        n_entries += length as usize;
        block.offsets.push(n_entries);
    }
    let mut cell = 0;
    for position in 0..n_entries {
        let entry = next_entry(reader, cells)?.ok_or_else(|| cells.changed())?;
        while position >= block.offsets[cell + 1] {
            cell += 1;
        }
        if entry.row as usize != first_row + cell {
            return Err(cells.changed());
        }
        block.columns.push(entry.column);
        block.values.push(entry.value);
    }
    Ok(block)
}
