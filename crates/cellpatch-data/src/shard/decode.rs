//! Cells as they are stored, row group by row group.

use std::path::Path;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::{ArrowPrimitiveType, Float32Type, Float64Type, Int32Type, UInt16Type, UInt32Type},
};

use super::{
    column, lists,
    manifest::StoredValues,
    reader::{OpenRowGroup, RowGroup, ShardSet, bad_file, named},
};
use crate::{
    error::{Error, Result},
    record_batches::guarded,
};

/// Cells that are Arrow arrays at a time, on their way to [`StoredCells`].
const PIECE_CELLS: usize = 256;
/// Most genes of a row group that memory is reserved for before they are there.
const MAX_RESERVED: usize = 1 << 25;
const BAD_TOKENS: &str = "gene tokens are not ascending or not in the vocabulary";
const OTHER_LENGTHS: &str = "a cell has more genes than counts, or fewer";

/// Values as stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum CellCounts {
    U16(Vec<u16>),
    F32(Vec<f32>),
}

/// Cells as stored, such as those of one row group.
#[derive(Debug, Clone, PartialEq)]
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
            if !shards.are_tokens(genes) {
                return Err(BAD_TOKENS.into());
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
        return Err(OTHER_LENGTHS.into());
    }
    kept.iter()
        .for_each(|&cell| all.extend_from_slice(&counts[offsets[cell] as usize..offsets[cell + 1] as usize]));
    Ok(())
}

impl ShardSet {
    /// Reads the cells of one row group that `keep` wants, by their global row.
    pub(crate) fn decode(&self, group: RowGroup, keep: &dyn Fn(u64) -> bool) -> Result<StoredCells> {
        let open = self.open_row_group(group)?;
        let wanted: Vec<bool> = group.rows().map(keep).collect();
        match self.decode_pages(&open, group, &wanted)? {
            Some(cells) => Ok(cells),
            None => self.decode_batches(&open, group, &wanted),
        }
    }

    /// The cells of a row group whose lists are encoded as we encode them.
    fn decode_pages(
        &self,
        open: &OpenRowGroup<'_>,
        group: RowGroup,
        wanted: &[bool],
    ) -> Result<Option<StoredCells>> {
        if self.manifest().values != StoredValues::CountsU16 {
            return Ok(None);
        }
        let n_wanted = wanted.iter().filter(|&&wanted| wanted).count();
        let n_expected = expected_genes(open, group, n_wanted);
        let (Some(mut genes), Some(mut counts)) =
            (open.list_pages(column::GENES)?, open.list_pages(column::COUNTS)?)
        else {
            return Ok(None);
        };
        let Some(genes) = guarded(&open.path, || lists::read_genes(&mut genes, wanted, n_expected))? else {
            return Ok(None);
        };
        let Some(counts) = guarded(&open.path, || lists::read_counts(&mut counts, wanted, n_expected))?
        else {
            return Ok(None);
        };
        let damaged = |reason| Err(bad_file(&open.path, reason));
        if genes.lengths != counts.lengths {
            return damaged(OTHER_LENGTHS);
        }
        let mut cells = StoredCells::new(self.manifest().values);
        cells.reserve(n_wanted, 0);
        let mut end = 0;
        for &length in &genes.lengths {
            let start = end;
            end += length as usize;
            if !self.are_tokens(&genes.numbers[start..end]) {
                return damaged(BAD_TOKENS);
            }
            cells.offsets.push(end);
        }
        cells.genes = genes.numbers;
        cells.counts = CellCounts::U16(counts.numbers);
        let mut row = group.first_row;
        for batch in open.batches(&[column::TOTAL_COUNTS, column::SOURCE], wanted.len())? {
            let batch = batch?;
            let appended = self.append_light(&mut cells, &batch, group, row, wanted);
            appended.map_err(|reason| bad_file(&open.path, reason))?;
            row += batch.num_rows() as u64;
        }
        match row == group.rows().end {
            true => Ok(Some(cells)),
            false => Err(other_size(&open.path, group)),
        }
    }

    /// Appends what cells are besides their genes.
    fn append_light(
        &self,
        cells: &mut StoredCells,
        batch: &RecordBatch,
        group: RowGroup,
        first_row: u64,
        wanted: &[bool],
    ) -> Result<(), String> {
        let totals = named(batch, column::TOTAL_COUNTS)?;
        let totals = totals.as_primitive_opt::<Float64Type>().ok_or("total_counts are not Float64")?.values();
        let sources = source_indices(self, named(batch, column::SOURCE)?)?;
        for ((&total, source), row) in totals.iter().zip(sources).zip(first_row..) {
            if wanted.get((row - group.first_row) as usize) == Some(&true) {
                cells.rows.push(row);
                cells.total_counts.push(total);
                cells.sources.push(source);
            }
        }
        Ok(())
    }

    /// The same by the library, however the lists are encoded.
    fn decode_batches(
        &self,
        open: &OpenRowGroup<'_>,
        group: RowGroup,
        wanted: &[bool],
    ) -> Result<StoredCells> {
        let columns = [column::GENES, column::COUNTS, column::TOTAL_COUNTS, column::SOURCE];
        let mut cells = StoredCells::new(self.manifest().values);
        let n_wanted = wanted.iter().filter(|&&wanted| wanted).count();
        cells.reserve(n_wanted, expected_genes(open, group, n_wanted));
        let keep = |row: u64| wanted.get((row - group.first_row) as usize) == Some(&true);
        let mut next_row = group.first_row;
        for batch in open.batches(&columns, PIECE_CELLS)? {
            let batch = batch?;
            cells.append(&batch, self, next_row, &keep).map_err(|reason| bad_file(&open.path, reason))?;
            next_row += batch.num_rows() as u64;
        }
        match next_row == group.rows().end {
            true => Ok(cells),
            false => Err(other_size(&open.path, group)),
        }
    }

    /// Whether a cell's genes are tokens, ascending. Tokens index the model's table and masks rely on their order: a wrong file
    /// must not get past here.
    fn are_tokens(&self, genes: &[u32]) -> bool {
        let next = genes.get(1..).unwrap_or_default();
        genes.first().is_none_or(|&first| first > 0)
            && genes.last().is_none_or(|&last| last <= self.manifest().n_genes)
            && genes.iter().zip(next).fold(true, |all, (gene, next)| all & (gene < next))
    }
}

/// Many or few genes of some cells, as the file says: a guess that is not relied on. Room for cells somewhat larger than the
/// row group's average.
fn expected_genes(open: &OpenRowGroup<'_>, group: RowGroup, n_wanted: usize) -> usize {
    let n_genes = open.n_genes().min(MAX_RESERVED) / group.n_cells.max(1) as usize * n_wanted;
    n_genes + n_genes / 16
}

fn other_size(path: &Path, group: RowGroup) -> Error {
    bad_file(path, format!("row group {} does not have {} cells", group.index, group.n_cells))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture::shards;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn our_decoder_reads_what_the_library_reads(n_cells in 1usize..500, one_in in 1u64..5) {
            let (_folder, set) = shards(n_cells);
            for &group in set.row_groups() {
                let open = set.open_row_group(group).unwrap();
                let wanted: Vec<bool> = group.rows().map(|row| row % one_in == 0).collect();
                let ours = set.decode_pages(&open, group, &wanted).unwrap();
                let library = set.decode_batches(&open, group, &wanted).unwrap();
                prop_assert_eq!(ours, Some(library));
            }
        }
    }
}
