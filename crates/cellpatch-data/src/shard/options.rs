//! How shard sets are made.

use super::{ShardPart, column, manifest::MAX_ROW_GROUP_CELLS};
use crate::{
    GeneVocabulary, MatrixChoice, QualityFilter,
    error::{Error, Result},
};

/// How [`write_shards`](super::write_shards) makes a shard set.
#[derive(Debug, Clone)]
pub struct ShardOptions {
    /// Seed of the permutation, and of the sample under `max_cells`.
    pub seed: u64,
    /// Which cells and genes are kept, source by source.
    pub quality: QualityFilter,
    /// Which matrix of each file is read.
    pub choice: MatrixChoice,
    /// Columns of `obs` that cells keep, as categories. Where a file has no such column, its cells have no label.
    pub obs_columns: Vec<String>,
    /// At most this many cells, a random sample of all that quality control keeps.
    pub max_cells: Option<usize>,
    /// The column of `obs` by whose labels the sample is divided: from each as large a share as it has of all cells, and at
    /// least one cell where `max_cells` is enough for it. It is kept like those of `obs_columns`.
    pub stratify: Option<String>,
    /// Whether cells that a file's own `is_primary_data` calls a copy of another data set's are kept.
    pub keep_secondary: bool,
    /// Shard only this part of the inputs, for [`merge_shards`](super::merge_shards).
    pub part: Option<ShardPart>,
    /// Cells a row group of the Parquet files.
    pub row_group_cells: usize,
    /// Bytes of cells in memory at any time, about. It also sets the size of the files: a quarter of this as plain numbers,
    /// before they are encoded.
    pub max_memory: usize,
    /// Tokens of known genes. Without one, every gene gets a new token.
    pub vocabulary: Option<GeneVocabulary>,
    /// Whether genes that are not in `vocabulary` get new tokens. If not, they count in a cell's total and no more.
    pub extend_vocabulary: bool,
    /// Rows of the gene table, padding included, when `vocabulary` is not given.
    pub capacity: usize,
    /// What becomes of files of mouse genes where `vocabulary` is of human ones.
    pub mouse: crate::MousePolicy,
    /// Least share of a file's genes that must be in `vocabulary`, in 0..=1.
    pub min_match: f64,
}

impl Default for ShardOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            quality: QualityFilter::default(),
            choice: MatrixChoice::default(),
            obs_columns: Vec::new(),
            max_cells: None,
            stratify: None,
            keep_secondary: false,
            part: None,
            row_group_cells: 2048,
            max_memory: 256 << 20,
            vocabulary: None,
            extend_vocabulary: true,
            capacity: 70_000,
            mouse: crate::MousePolicy::default(),
            min_match: 0.2,
        }
    }
}

impl ShardOptions {
    pub(super) fn check(&self) -> Result<()> {
        let bad = |option, value: String, reason: &str| {
            Err(Error::BadOption { option, value, reason: reason.into() })
        };
        if self.row_group_cells == 0 || self.row_group_cells > MAX_ROW_GROUP_CELLS {
            return bad("row-group-cells", self.row_group_cells.to_string(), "it must be from 1 to 65536");
        }
        if self.max_memory < 16 << 20 {
            return bad("max-memory", self.max_memory.to_string(), "it must be at least 16 MiB");
        }
        if self.max_cells == Some(0) {
            return bad("max-cells", "0".into(), "it must be at least 1");
        }
        if let (Some(column), None) = (&self.stratify, self.max_cells) {
            return bad("stratify", column.clone(), "it needs the size of the sample: --max-cells");
        }
        if let Some(part) = self.part {
            if self.vocabulary.is_none() || self.extend_vocabulary {
                let reason = "parts agree on tokens by a given vocabulary that does not grow";
                return bad("part", part.to_string(), reason);
            }
            if self.max_cells.is_some() {
                return bad("part", part.to_string(), "a sample is taken of all parts, when they are merged");
            }
        }
        if !(0.0..=1.0).contains(&self.min_match) {
            return bad("min-match", self.min_match.to_string(), "it must be from 0 to 1");
        }
        let columns = self.columns();
        for (index, name) in columns.iter().enumerate() {
            if name.is_empty() || column::ALL.contains(&name.as_str()) || columns[..index].contains(name) {
                return bad(
                    "label column",
                    name.clone(),
                    "it is empty, given twice, or a name shard files use",
                );
            }
        }
        Ok(())
    }

    /// Columns of `obs` that cells keep, the one to stratify by among them.
    pub(super) fn columns(&self) -> Vec<String> {
        let stratify = self.stratify.iter().filter(|column| !self.obs_columns.contains(column));
        self.obs_columns.iter().chain(stratify).cloned().collect()
    }
}

/// How far [`write_shards`](super::write_shards) is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardProgress {
    /// What is being done.
    pub stage: ShardStage,
    /// Cells that are through this stage.
    pub done: usize,
    /// Cells this stage has.
    pub total: usize,
}

/// The stages of [`write_shards`](super::write_shards), in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardStage {
    /// Reading all cells for quality control and the vocabulary.
    Survey,
    /// Reading all cells again and putting them in random order; left out where they are in memory.
    Permute,
    /// Writing Parquet files.
    Write,
}
