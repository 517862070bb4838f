//! The first pass over a source: quality control, and the token of every gene.

use std::path::Path;

use super::{manifest::SourceEntry, options::ShardOptions};
use crate::{
    CellSource, Gene, GeneVocabulary, Quality, QualityPass,
    error::{Error, Result},
    source::genes_under,
};

/// How many of the genes that were left out are named.
const N_MISSES: usize = 10;

/// What becomes of a gene column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColumnFate {
    /// Not seen in enough cells: as if it were not in the file.
    Filtered,
    /// Not in the vocabulary: part of the total, and nothing else.
    Unknown,
    /// Becomes this token.
    Token(u32),
}

/// What the first pass learns about a source.
#[derive(Debug, Clone)]
pub(super) struct Survey {
    /// The manifest's entry, but for what only the second pass knows.
    pub(super) entry: SourceEntry,
    /// Cells that passed quality control.
    pub(super) kept_cells: Vec<bool>,
    pub(super) columns: Vec<ColumnFate>,
    /// Tokens the source measured, ascending.
    pub(super) measured: Vec<u32>,
    /// Values of kept cells, at most as many as will be stored.
    pub(super) n_values: u64,
    /// No smaller than any count once those of columns with the same token are summed.
    pub(super) largest: f32,
    pub(super) is_log1p: bool,
}

/// Reads a source once.
///
/// - `observe_cells` is told how many cells each block had
pub(super) fn read(
    source: &dyn CellSource,
    options: &ShardOptions,
    block_bytes: usize,
    observe_cells: &mut dyn FnMut(usize),
) -> Result<Statistics> {
    let genes = genes_under(source, options.vocabulary.as_ref(), options.mouse)?;
    let filter = options.quality;
    let mut pass = QualityPass::new(filter, genes.len());
    let mut totals = vec![0f64; genes.len()];
    let (mut largest, mut n_values) = (0f32, 0u64);
    for block in source.blocks(block_bytes)? {
        let block = block?;
        pass.observe(&block);
        for cell in 0..block.n_cells() {
            let (columns, values) = block.cell(cell);
            if !filter.keeps_cell(values) {
                continue;
            }
            n_values += values.len() as u64;
            for (&column, &value) in columns.iter().zip(values) {
                largest = largest.max(value);
                totals[column as usize] += f64::from(value);
            }
        }
        observe_cells(block.n_cells());
    }
    Ok(Statistics { genes, quality: pass.finish(), totals, largest, n_values })
}

/// Numbers of one source before its genes have tokens.
#[derive(Debug)]
pub(super) struct Statistics {
    genes: Vec<Gene>,
    quality: Quality,
    /// Sum of each gene over kept cells.
    totals: Vec<f64>,
    largest: f32,
    n_values: u64,
}

impl Statistics {
    /// Gives the kept genes their tokens: those of the vocabulary, and new ones if it may `grow`.
    pub(super) fn assign(self, vocabulary: &mut GeneVocabulary, grow: bool, path: &Path) -> Result<Survey> {
        let kept: Vec<usize> =
            (0..self.genes.len()).filter(|&column| self.quality.kept_genes[column]).collect();
        let kept_genes: Vec<Gene> = kept.iter().map(|&column| self.genes[column].clone()).collect();
        let matched = match grow {
            true => vocabulary.extend(&kept_genes, path)?,
            false => vocabulary.match_genes(&kept_genes),
        };
        let mut columns = vec![ColumnFate::Filtered; self.genes.len()];
        let mut measured = Vec::with_capacity(kept.len());
        for (&column, token) in kept.iter().zip(&matched.tokens) {
            columns[column] = match token {
                Some(token) => {
                    measured.push(token.0);
                    ColumnFate::Token(token.0)
                }
                None => ColumnFate::Unknown,
            };
        }
        measured.sort_unstable();
        let most_columns = measured.chunk_by(|a, b| a == b).map(<[u32]>::len).max().unwrap_or(1);
        measured.dedup();
        let mut misses: Vec<usize> = matched.misses.iter().map(|&index| kept[index]).collect();
        misses.sort_by(|&a, &b| self.totals[b].total_cmp(&self.totals[a]));
        let name = |&column: &usize| self.genes[column].name().to_owned();
        let entry = SourceEntry {
            n_cells: self.quality.kept_cells.len() as u64,
            n_cells_kept: self.quality.n_kept_cells() as u64,
            n_genes: self.genes.len() as u64,
            n_genes_kept: kept.len() as u64,
            n_matched_by_id: matched.by_id as u64,
            n_matched_by_symbol: (matched.n_matched() - matched.by_id) as u64,
            n_new: matched.new as u64,
            n_duplicates: matched.duplicates as u64,
            n_dropped: matched.misses.len() as u64,
            largest_misses: misses.iter().take(N_MISSES).map(name).collect(),
            ..SourceEntry::default()
        };
        Ok(Survey {
            entry,
            kept_cells: self.quality.kept_cells,
            columns,
            measured,
            n_values: self.n_values,
            largest: self.largest * most_columns as f32,
            is_log1p: false,
        })
    }
}

/// Refuses a source whose genes are mostly not in the vocabulary it was given.
pub(super) fn check_match(
    genes: &[Gene],
    vocabulary: &GeneVocabulary,
    least: f64,
    path: &Path,
) -> Result<()> {
    let matched = vocabulary.match_genes(genes);
    if matched.rate() >= least {
        return Ok(());
    }
    Err(Error::FewGenesMatched {
        path: path.to_path_buf(),
        matched: matched.n_matched(),
        n_genes: genes.len(),
        examples: matched
            .misses
            .iter()
            .take(N_MISSES)
            .map(|&column| genes[column].name().to_owned())
            .collect(),
    })
}
