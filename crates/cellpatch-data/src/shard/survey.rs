//! The first pass over a source: quality control, and the token of every gene.

use serde::{Deserialize, Serialize};

use super::{
    feed::blocks_ahead, folder::hash_files, kept::KeptCells, manifest::SourceEntry, manifest::StoredValues,
    options::ShardOptions,
};
use crate::{
    CellSource, Gene, GeneVocabulary, QualityPass,
    error::{Error, Result},
    source::names_in_file,
};

/// Where CELLxGENE marks the one data set, of several with the same cell, that counts it.
const PRIMARY_COLUMN: &str = "is_primary_data";

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
    /// These cells, where there was room for them.
    pub(super) cells: Option<KeptCells>,
    pub(super) columns: Vec<ColumnFate>,
    /// Tokens the source measured, ascending.
    pub(super) measured: Vec<u32>,
    /// No smaller than any count once those of columns with the same token are summed.
    pub(super) largest: f32,
    pub(super) is_log1p: bool,
}

impl Survey {
    /// Whether counts must become logarithms for a set of such `values`.
    pub(super) fn must_be_normalized(&self, values: StoredValues) -> bool {
        values == StoredValues::Log1pF32 && !self.is_log1p
    }

    /// Which cells are kept, by their row.
    pub(super) fn keeps(&self, row: usize) -> bool {
        self.kept_cells.get(row).is_some_and(|&kept| kept)
    }
}

/// Reads a source once. Its cells come with the numbers if they take at most `keep_bytes`.
///
/// - `n_genes`: the matrix's columns
/// - `observe_cells` is told how many cells each block had
pub(super) fn read(
    source: &dyn CellSource,
    n_genes: usize,
    options: &ShardOptions,
    block_bytes: usize,
    keep_bytes: usize,
    observe_cells: &mut dyn FnMut(usize),
) -> Result<(Statistics, Option<KeptCells>)> {
    let secondary = if options.keep_secondary { Vec::new() } else { secondary_cells(source)? };
    let is_primary = |row: usize| !secondary.get(row).is_some_and(|&secondary| secondary);
    let mut pass = QualityPass::new(options.quality, n_genes);
    let mut totals = vec![0f64; n_genes];
    let (mut largest, mut n_values) = (0f32, 0u64);
    let mut cells = (keep_bytes > 0).then(KeptCells::default);
    // Totals say which of the genes that get no token are missed most.
    let needs_totals = !grows(options);
    let files = source.files();
    let checksum = std::thread::scope(|scope| {
        let checksum = scope.spawn(|| hash_files(&files));
        blocks_ahead(source.blocks(block_bytes)?, |block| {
            let kept = pass.observe_where(block, &is_primary);
            for (cell, _) in kept.iter().enumerate().filter(|&(_, &kept)| kept) {
                let (columns, values) = block.cell(cell);
                n_values += values.len() as u64;
                largest = largest_of(values, largest);
                if needs_totals {
                    for (&column, &value) in columns.iter().zip(values) {
                        totals[column as usize] += f64::from(value);
                    }
                }
            }
            cells = cells.take().and_then(|cells| cells.push(block, kept, keep_bytes));
            observe_cells(block.n_cells());
            Ok(())
        })?;
        let panicked = |_| Error::io("read", source.path(), std::io::Error::other("a thread panicked"));
        checksum.join().map_err(panicked)?
    });
    let (bytes, sha256) = checksum?;
    let quality = pass.finish();
    let statistics = Statistics {
        n_cells: quality.kept_cells.len(),
        kept_cells: runs(&quality.kept_cells),
        kept_genes: runs(&quality.kept_genes),
        n_secondary: secondary.iter().filter(|&&secondary| secondary).count() as u64,
        totals,
        largest,
        n_values,
        bytes,
        sha256,
    };
    Ok((statistics, cells))
}

/// The largest of values and of one before; several at a time, as each comparison waits for the one before it.
fn largest_of(values: &[f32], before: f32) -> f32 {
    let larger = |largest: f32, value: f32| if value > largest { value } else { largest };
    let (eights, rest) = values.as_chunks::<8>();
    let mut largest = [before; 8];
    for eight in eights {
        for (largest, &value) in largest.iter_mut().zip(eight) {
            *largest = larger(*largest, value);
        }
    }
    largest.into_iter().chain(rest.iter().copied()).fold(before, larger)
}

/// Whether genes that the vocabulary lacks get tokens.
fn grows(options: &ShardOptions) -> bool {
    options.extend_vocabulary || options.vocabulary.is_none()
}

/// Cells whose `is_primary_data` is false; none where there is no such column.
fn secondary_cells(source: &dyn CellSource) -> Result<Vec<bool>> {
    if !source.obs_columns().iter().any(|column| column == PRIMARY_COLUMN) {
        return Ok(Vec::new());
    }
    let labels = source.labels(PRIMARY_COLUMN)?;
    let is_false = |name: &String| ["false", "0", "f"].contains(&name.trim().to_lowercase().as_str());
    let says_false: Vec<bool> = labels.categories.iter().map(is_false).collect();
    Ok(labels.codes.iter().map(|code| code.is_some_and(|code| says_false[code as usize])).collect())
}

/// Numbers of one source before its genes have tokens: all the first pass is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Statistics {
    n_cells: usize,
    /// Which cells passed, as [`runs`].
    kept_cells: Vec<u32>,
    /// Which genes were seen in enough cells, as [`runs`].
    kept_genes: Vec<u32>,
    n_secondary: u64,
    /// Sum of each gene over kept cells.
    totals: Vec<f64>,
    largest: f32,
    n_values: u64,
    /// Size and checksum of the source's files.
    bytes: u64,
    sha256: String,
}

impl Statistics {
    /// Gives the kept genes their tokens: those of the vocabulary, and new ones if it may `grow`.
    ///
    /// - `source`: what the numbers are of
    /// - `genes`: of its columns, by [`genes_under`](crate::source::genes_under)
    pub(super) fn assign(
        self,
        source: &dyn CellSource,
        genes: &[Gene],
        options: &ShardOptions,
        vocabulary: &mut GeneVocabulary,
    ) -> Result<Survey> {
        let path = source.path();
        let kept_cells = flags(&self.kept_cells);
        let kept: Vec<usize> =
            (0..).zip(flags(&self.kept_genes)).filter(|&(_, kept)| kept).map(|(column, _)| column).collect();
        let kept_genes: Vec<Gene> = kept.iter().map(|&column| genes[column].clone()).collect();
        let matched = match grows(options) {
            true => vocabulary.extend(&kept_genes, path)?,
            false => vocabulary.match_genes(&kept_genes),
        };
        let mut columns = vec![ColumnFate::Filtered; genes.len()];
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
        misses.truncate(N_MISSES);
        let largest_misses = names_in_file(source, genes, options.mouse, &misses)?;
        let entry = SourceEntry {
            file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            bytes: self.bytes,
            sha256: self.sha256,
            matrix: source.matrix(),
            n_cells: self.n_cells as u64,
            n_cells_secondary: self.n_secondary,
            n_cells_kept: kept_cells.iter().filter(|&&kept| kept).count() as u64,
            n_values: self.n_values,
            n_genes: genes.len() as u64,
            n_genes_kept: kept.len() as u64,
            n_matched_by_id: matched.by_id as u64,
            n_matched_by_symbol: (matched.n_matched() - matched.by_id) as u64,
            n_new: matched.new as u64,
            n_duplicates: matched.duplicates as u64,
            n_dropped: matched.misses.len() as u64,
            largest_misses,
            ..SourceEntry::default()
        };
        Ok(Survey {
            entry,
            kept_cells,
            cells: None,
            columns,
            measured,
            largest: self.largest * most_columns as f32,
            is_log1p: source.is_log1p(),
        })
    }
}

/// Flags as lengths of runs of equal ones, the first of `true`, which may be 0.
fn runs(flags: &[bool]) -> Vec<u32> {
    let mut runs: Vec<u32> = vec![0];
    let mut current = true;
    for &flag in flags {
        if flag != current {
            runs.push(0);
            current = flag;
        }
        if let Some(run) = runs.last_mut() {
            *run += 1;
        }
    }
    runs
}

/// The flags of [`runs`].
fn flags(runs: &[u32]) -> Vec<bool> {
    let flags = runs.iter().zip([true, false].into_iter().cycle());
    flags.flat_map(|(&length, flag)| std::iter::repeat_n(flag, length as usize)).collect()
}

/// Refuses a source whose genes are mostly not in the vocabulary it was given.
pub(super) fn check_match(
    source: &dyn CellSource,
    genes: &[Gene],
    vocabulary: &GeneVocabulary,
    options: &ShardOptions,
) -> Result<()> {
    let matched = vocabulary.match_genes(genes);
    if matched.rate() >= options.min_match {
        return Ok(());
    }
    let first = &matched.misses[..matched.misses.len().min(N_MISSES)];
    Err(Error::FewGenesMatched {
        path: source.path().to_path_buf(),
        matched: matched.n_matched(),
        n_genes: genes.len(),
        examples: names_in_file(source, genes, options.mouse, first)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn flags_come_back_from_their_runs(kept in proptest::collection::vec(any::<bool>(), 0..200)) {
            prop_assert_eq!(flags(&runs(&kept)), kept);
        }
    }
}
