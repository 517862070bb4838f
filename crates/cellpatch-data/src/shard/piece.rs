//! Cells column by column, on their way from memory to Parquet.

use std::ops::Range;

use super::manifest::StoredValues;

/// Cells in their final order.
pub(super) trait OrderedCells: Sync {
    /// Appends the cells of a range.
    fn gather(&self, range: Range<usize>, piece: &mut Piece);
}

/// Cells column by column. Genes and counts are handed on a few cells at a time; the light columns are those of a whole row
/// group.
#[derive(Debug)]
pub(super) struct Piece {
    /// Genes of each cell.
    pub(super) n_genes: Vec<u32>,
    /// Tokens of the cells since [`clear_genes`](Self::clear_genes), cell by cell.
    pub(super) genes: Vec<u32>,
    pub(super) counts: Counts,
    pub(super) total_counts: Vec<f64>,
    /// Names one after the other, and where each ends.
    pub(super) names: String,
    pub(super) name_ends: Vec<i32>,
    pub(super) sources: Vec<u32>,
    pub(super) rows: Vec<u32>,
    /// Codes of each `obs` column.
    pub(super) labels: Vec<Vec<Option<u32>>>,
}

/// Counts in the type of their set.
#[derive(Debug)]
pub(super) enum Counts {
    U16(Vec<u16>),
    F32(Vec<f32>),
}

impl Piece {
    pub(super) fn new(values: StoredValues, n_labels: usize) -> Self {
        let counts = match values {
            StoredValues::CountsU16 => Counts::U16(Vec::new()),
            StoredValues::CountsF32 | StoredValues::Log1pF32 => Counts::F32(Vec::new()),
        };
        Self {
            n_genes: Vec::new(),
            genes: Vec::new(),
            counts,
            total_counts: Vec::new(),
            names: String::new(),
            name_ends: vec![0],
            sources: Vec::new(),
            rows: Vec::new(),
            labels: vec![Vec::new(); n_labels],
        }
    }

    /// Forgets genes and counts that were handed on.
    pub(super) fn clear_genes(&mut self) {
        self.genes.clear();
        match &mut self.counts {
            Counts::U16(counts) => counts.clear(),
            Counts::F32(counts) => counts.clear(),
        }
    }

    pub(super) fn push_name(&mut self, name: &str) {
        self.names.push_str(name);
        // Names of a row group beyond 2 GB are not names.
        self.name_ends.push(i32::try_from(self.names.len()).unwrap_or(i32::MAX));
    }
}
