//! Cells as they are stored, row group by row group.

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::{ArrowPrimitiveType, Float32Type, Float64Type, Int32Type, UInt16Type, UInt32Type},
};

use super::{
    column,
    manifest::StoredValues,
    reader::{RowGroup, ShardSet, bad_file, named},
};
use crate::error::Result;

/// Cells that are Arrow arrays at a time, on their way to [`StoredCells`].
const PIECE_CELLS: usize = 256;
/// Most genes of a row group that memory is reserved for before they are there.
const MAX_RESERVED: usize = 1 << 25;

/// Values as stored.
#[derive(Debug, Clone)]
pub(crate) enum CellCounts {
    U16(Vec<u16>),
    F32(Vec<f32>),
}

/// Cells as stored, such as those of one row group.
#[derive(Debug, Clone)]
pub(crate) struct StoredCells {
    pub(crate) rows: Vec<u64>,
    /// Offsets into `genes` and `counts`, one more than there are cells.
    pub(crate) offsets: Vec<usize>,
    pub(crate) genes: Vec<u32>,
    pub(crate) counts: CellCounts,
    pub(crate) total_counts: Vec<f64>,
    pub(crate) sources: Vec<u32>,
}

impl StoredCells {
    /// No cells yet.
    pub(crate) fn new(values: StoredValues) -> Self {
        let counts = match values {
            StoredValues::CountsU16 => CellCounts::U16(Vec::new()),
            StoredValues::CountsF32 | StoredValues::Log1pF32 => CellCounts::F32(Vec::new()),
        };
        Self {
            rows: Vec::new(),
            offsets: vec![0],
            genes: Vec::new(),
            counts,
            total_counts: Vec::new(),
            sources: Vec::new(),
        }
    }

    pub(crate) fn n_cells(&self) -> usize {
        self.rows.len()
    }

    /// Tokens of one cell, ascending.
    pub(crate) fn genes(&self, cell: usize) -> &[u32] {
        &self.genes[self.offsets[cell]..self.offsets[cell + 1]]
    }

    /// Makes room for cells and for genes of all of them together.
    fn reserve(&mut self, n_cells: usize, n_genes: usize) {
        self.rows.reserve(n_cells);
        self.offsets.reserve(n_cells);
        self.total_counts.reserve(n_cells);
        self.sources.reserve(n_cells);
        // Room for cells somewhat larger than the row group's average.
        let n_genes = n_genes + n_genes / 16;
        self.genes.reserve(n_genes);
        match &mut self.counts {
            CellCounts::U16(counts) => counts.reserve(n_genes),
            CellCounts::F32(counts) => counts.reserve(n_genes),
        }
    }

    /// Appends a cell of `other`, which is of the same shard set.
    pub(crate) fn push(&mut self, other: &Self, cell: usize) {
        let range = other.offsets[cell]..other.offsets[cell + 1];
        self.genes.extend_from_slice(&other.genes[range.clone()]);
        match (&mut self.counts, &other.counts) {
            (CellCounts::U16(counts), CellCounts::U16(more)) => counts.extend_from_slice(&more[range]),
            (CellCounts::F32(counts), CellCounts::F32(more)) => counts.extend_from_slice(&more[range]),
            _ => debug_assert!(false, "all cells of a shard set have one type of counts"),
        }
        self.offsets.push(self.genes.len());
        self.rows.push(other.rows[cell]);
        self.total_counts.push(other.total_counts[cell]);
        self.sources.push(other.sources[cell]);
    }

    /// Appends the cells of a record batch that follow those already here, if `keep` wants their row.
    fn append(
        &mut self,
        batch: &RecordBatch,
        shards: &ShardSet,
        first_row: u64,
        keep: &dyn Fn(u64) -> bool,
    ) -> Result<(), String> {
        let (offsets, genes) = list::<UInt32Type>(named(batch, column::GENES)?)?;
        let counts = named(batch, column::COUNTS)?;
        let totals = named(batch, column::TOTAL_COUNTS)?;
        let totals = totals.as_primitive_opt::<Float64Type>().ok_or("total_counts are not Float64")?.values();
        let sources = source_indices(shards, named(batch, column::SOURCE)?)?;
        let kept: Vec<usize> = (0..batch.num_rows()).filter(|&cell| keep(first_row + cell as u64)).collect();
        let range = |cell: usize| offsets[cell] as usize..offsets[cell + 1] as usize;
        for &cell in &kept {
            let genes = &genes[range(cell)];
            // Tokens index the model's table and masks rely on their order: a wrong file must not get past here.
            let in_range = genes.first().is_none_or(|&first| first > 0)
                && genes.last().is_none_or(|&last| last <= shards.manifest().n_genes);
            if !in_range || !genes.is_sorted_by(|a, b| a < b) {
                return Err("gene tokens are not ascending or not in the vocabulary".into());
            }
            self.genes.extend_from_slice(genes);
            self.offsets.push(self.genes.len());
            self.rows.push(first_row + cell as u64);
            self.total_counts.push(totals[cell]);
            self.sources.push(sources[cell]);
        }
        match &mut self.counts {
            CellCounts::U16(all) => append_counts::<UInt16Type>(all, counts, offsets, &kept),
            CellCounts::F32(all) => append_counts::<Float32Type>(all, counts, offsets, &kept),
        }
    }
}

fn append_counts<T: ArrowPrimitiveType>(
    all: &mut Vec<T::Native>,
    counts: &ArrayRef,
    gene_offsets: &[i32],
    kept: &[usize],
) -> Result<(), String> {
    let (offsets, counts) = list::<T>(counts)?;
    if offsets != gene_offsets {
        return Err("a cell has more genes than counts, or fewer".into());
    }
    kept.iter()
        .for_each(|&cell| all.extend_from_slice(&counts[offsets[cell] as usize..offsets[cell + 1] as usize]));
    Ok(())
}

impl ShardSet {
    /// Reads the cells of one row group that `keep` wants, by their global row.
    pub(crate) fn decode(&self, group: RowGroup, keep: &dyn Fn(u64) -> bool) -> Result<StoredCells> {
        let path = self.file_path(group.file);
        let columns = [column::GENES, column::COUNTS, column::TOTAL_COUNTS, column::SOURCE];
        let mut cells = StoredCells::new(self.manifest().values);
        let n_kept = group.rows().filter(|&row| keep(row)).count();
        let (batches, n_values) = self.read_row_group(group, &columns, PIECE_CELLS)?;
        // Many or few, as the file says: a guess that is not relied on.
        let n_values = n_values.min(MAX_RESERVED);
        cells.reserve(n_kept, n_values / group.n_cells.max(1) as usize * n_kept);
        let mut next_row = group.first_row;
        for batch in batches {
            let batch = batch?;
            cells.append(&batch, self, next_row, keep).map_err(|reason| bad_file(&path, reason))?;
            next_row += batch.num_rows() as u64;
        }
        if next_row != group.rows().end {
            return Err(bad_file(
                &path,
                format!("row group {} does not have {} cells", group.index, group.n_cells),
            ));
        }
        Ok(cells)
    }
}

/// Offsets and values of a list column without nulls.
pub(super) fn list<T: ArrowPrimitiveType>(lists: &ArrayRef) -> Result<(&[i32], &[T::Native]), String> {
    let lists = lists.as_list_opt::<i32>().ok_or("a list column is no list")?;
    let values = lists.values().as_primitive_opt::<T>().ok_or("a list column has the wrong value type")?;
    if lists.null_count() + values.null_count() > 0 {
        return Err("a list column has nulls".into());
    }
    Ok((lists.offsets(), values.values()))
}

/// The index of each cell's source, from its name.
pub(super) fn source_indices(shards: &ShardSet, names: &ArrayRef) -> Result<Vec<u32>, String> {
    let dictionary = names.as_dictionary_opt::<Int32Type>().ok_or("source is not a dictionary")?;
    let values = dictionary.values().as_string_opt::<i32>().ok_or("source is not a dictionary of text")?;
    let indices: Vec<Option<u32>> = values.iter().map(|name| shards.source_index(name?)).collect();
    let index_of = |key: Option<i32>| indices.get(usize::try_from(key?).ok()?).copied().flatten();
    let sources: Option<Vec<u32>> = dictionary.keys().iter().map(index_of).collect();
    sources.ok_or_else(|| "a cell's source is not in the manifest".into())
}
