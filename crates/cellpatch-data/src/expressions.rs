//! The cells of a file in its own order, under the tokens of a model: for prediction and embedding.

use std::path::Path;

use crate::{
    CellBlocks, CellSource, CountBlock, ExpressionBatch, Gene, GeneMatch, GeneSelection, GeneToken,
    GeneVocabulary, MatrixChoice, MousePolicy,
    error::{Error, Result},
    masking::{KEEP, sample},
    normalize::normalize,
    open_cells,
    random::{Purpose, stream},
    source::{genes_under, names_in_file},
};

/// Bytes of a block of the file.
const BLOCK_BYTES: usize = 32 << 20;

/// Unmatched genes that are named in an error.
const N_EXAMPLES: usize = 10;

/// How an [`ExpressionReader`] reads.
#[derive(Debug, Clone, PartialEq)]
pub struct ExpressionOptions {
    /// Which matrix is read.
    pub choice: MatrixChoice,
    /// The genes that cells are reduced to; none for all of the vocabulary's.
    pub genes: Option<GeneSelection>,
    /// Most genes of a cell; of more, a uniform sample is taken.
    pub max_input: usize,
    /// Least share of the file's genes, or of the wanted ones, that must be found in the other, in 0..=1.
    pub min_match: f64,
    /// What becomes of mouse genes where the vocabulary is of human ones.
    pub mouse: MousePolicy,
    /// Most cells of a batch.
    pub batch_cells: usize,
    /// Seed of the sample.
    pub seed: u64,
}

impl Default for ExpressionOptions {
    fn default() -> Self {
        Self {
            choice: MatrixChoice::default(),
            genes: None,
            max_input: 3000,
            min_match: 0.1,
            mouse: MousePolicy::default(),
            batch_cells: 1024,
            seed: 42,
        }
    }
}

/// Iterates over the cells of a file, all of them and in its order, as normalised expression of a vocabulary's genes.
///
/// Nothing is filtered, and a cell's total counts genes that are not in the vocabulary. Memory is bounded, whatever
/// the size of the file. After an error it ends.
pub struct ExpressionReader {
    source: Box<dyn CellSource>,
    matched: GeneMatch,
    /// The token of each of the file's genes that is read.
    tokens: Vec<Option<GeneToken>>,
    n_wanted: usize,
    options: ExpressionOptions,
    blocks: CellBlocks,
    block: CountBlock,
    next_cell: usize,
    failed: bool,
}

impl ExpressionReader {
    /// Opens an input and matches its genes.
    ///
    /// # Errors
    /// Those of [`open_cells`]; [`Error::OtherSpecies`]; [`Error::FewGenesMatched`] if too few genes match.
    pub fn open(path: &Path, vocabulary: &GeneVocabulary, options: ExpressionOptions) -> Result<Self> {
        let source = open_cells(path, &options.choice)?;
        let genes = genes_under(source.as_ref(), Some(vocabulary), options.mouse)?;
        let matched = vocabulary.match_genes(&genes);
        let n_wanted = options.genes.as_ref().map_or(vocabulary.len(), GeneSelection::len);
        let block = CountBlock { offsets: vec![0], ..CountBlock::default() };
        let wanted = |token: GeneToken| options.genes.as_ref().is_none_or(|genes| genes.contains(token));
        let tokens: Vec<Option<GeneToken>> =
            matched.tokens.iter().map(|token| token.filter(|&token| wanted(token))).collect();
        check_match(source.as_ref(), &genes, &matched, (&tokens, n_wanted), &options)?;
        let blocks = source.blocks(BLOCK_BYTES)?;
        Ok(Self { source, matched, tokens, n_wanted, options, blocks, block, next_cell: 0, failed: false })
    }

    /// What is read.
    pub fn source(&self) -> &dyn CellSource {
        self.source.as_ref()
    }

    /// How the file's genes map to the vocabulary.
    pub fn genes(&self) -> &GeneMatch {
        &self.matched
    }

    /// Genes that are wanted: the vocabulary's, or those of [`ExpressionOptions::genes`].
    pub fn n_wanted(&self) -> usize {
        self.n_wanted
    }

    /// Wanted genes that the file does not have.
    pub fn n_absent(&self) -> usize {
        self.n_wanted - n_different(&self.tokens)
    }

    /// How many cells there are.
    pub fn n_cells(&self) -> usize {
        self.source.n_cells()
    }

    fn next_batch(&mut self) -> Result<Option<ExpressionBatch>> {
        while self.next_cell >= self.block.n_cells() {
            match self.blocks.next() {
                Some(block) => (self.block, self.next_cell) = (block?, 0),
                None => return Ok(None),
            }
        }
        let end = (self.next_cell + self.options.batch_cells.max(1)).min(self.block.n_cells());
        let mut batch = ExpressionBatch { offsets: vec![0], ..ExpressionBatch::default() };
        let mut cell_reader = CellReader::default();
        let are_counts = !self.source.is_log1p();
        for cell in self.next_cell..end {
            let row = (self.block.first_row + cell) as u64;
            let (columns, values) = self.block.cell(cell);
            cell_reader.read(columns, values, &self.tokens, are_counts);
            cell_reader.append(row, &self.options, &mut batch);
        }
        self.next_cell = end;
        Ok(Some(batch))
    }
}

impl std::fmt::Debug for ExpressionReader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ExpressionReader")
            .field("path", &self.source.path())
            .field("matrix", &self.source.matrix())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Iterator for ExpressionReader {
    type Item = Result<ExpressionBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let batch = self.next_batch().transpose();
        self.failed = matches!(batch, None | Some(Err(_)));
        batch
    }
}

/// How many genes are found, each counted once.
fn n_different(tokens: &[Option<GeneToken>]) -> usize {
    let found: std::collections::HashSet<GeneToken> = tokens.iter().flatten().copied().collect();
    found.len()
}

/// - wanted: the token of each of the file's genes that is wanted, and how many are wanted
fn check_match(
    source: &dyn CellSource,
    genes: &[Gene],
    matched: &GeneMatch,
    (tokens, n_wanted): (&[Option<GeneToken>], usize),
    options: &ExpressionOptions,
) -> Result<()> {
    let n_found = n_different(tokens);
    let of_wanted = n_found as f64 / n_wanted.max(1) as f64;
    if n_found > 0 && matched.rate().max(of_wanted) >= options.min_match {
        return Ok(());
    }
    let first = &matched.misses[..matched.misses.len().min(N_EXAMPLES)];
    Err(Error::FewGenesMatched {
        path: source.path().to_path_buf(),
        matched: n_found,
        n_genes: genes.len(),
        examples: names_in_file(source, genes, options.mouse, first)?,
    })
}

/// One cell after the other; its buffers are used again.
#[derive(Debug, Default)]
struct CellReader {
    pairs: Vec<(u32, f32)>,
    genes: Vec<u32>,
    counts: Vec<f32>,
    values: Vec<f32>,
    order: Vec<u32>,
    fate: Vec<u8>,
}

impl CellReader {
    /// Tokens in ascending order, values of the same token summed, and normalised if these are counts.
    fn read(&mut self, columns: &[u32], values: &[f32], tokens: &[Option<GeneToken>], are_counts: bool) {
        let mut total = 0.0;
        self.pairs.clear();
        for (&column, &value) in columns.iter().zip(values) {
            total += f64::from(value);
            if let Some(Some(token)) = tokens.get(column as usize) {
                self.pairs.push((token.0, value));
            }
        }
        // Stable: sums of fractions must not depend on how the sort treats equal tokens.
        self.pairs.sort_by_key(|&(token, _)| token);
        self.genes.clear();
        self.counts.clear();
        for &(token, value) in &self.pairs {
            match self.counts.last_mut() {
                Some(count) if self.genes.last() == Some(&token) => *count += value,
                _ => {
                    self.genes.push(token);
                    self.counts.push(value);
                }
            }
        }
        if are_counts {
            normalize(&self.counts, total as f32, &mut self.values);
        } else {
            self.values.clone_from(&self.counts);
        }
    }

    fn append(&mut self, row: u64, options: &ExpressionOptions, batch: &mut ExpressionBatch) {
        if self.genes.len() <= options.max_input {
            batch.genes.extend_from_slice(&self.genes);
            batch.values.extend_from_slice(&self.values);
        } else {
            let mut random = stream(options.seed, Purpose::InputSample, 0, row);
            sample(self.genes.len(), options.max_input, &mut random, &mut self.order, &mut self.fate);
            for (gene, _) in self.fate.iter().enumerate().filter(|&(_, &fate)| fate == KEEP) {
                batch.genes.push(self.genes[gene]);
                batch.values.push(self.values[gene]);
            }
        }
        batch.rows.push(row);
        batch.offsets.push(batch.genes.len());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::synthetic::{SyntheticConfig, write_h5ad};
    use crate::{Loader, LoaderOptions, QualityFilter, RowSelection, ShardOptions, write_shards};

    #[test]
    fn a_file_reads_as_its_shards_do_in_its_own_order() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cells.h5ad");
        write_h5ad(&SyntheticConfig { n_cells: 70, n_genes: 480, ..Default::default() }, &file).unwrap();
        let options =
            ShardOptions { quality: QualityFilter { min_genes: 0, min_cells: 0 }, ..ShardOptions::default() };
        let shards =
            write_shards(std::slice::from_ref(&file), &folder.path().join("shards"), &options, &mut |_| {});
        let shards = Arc::new(shards.unwrap());
        let ids = shards.cell_ids().unwrap();
        let rows = RowSelection::from_rows(70, 0..70);
        let options = LoaderOptions { shuffle: false, ..LoaderOptions::default() };
        let loader = Loader::new(Arc::clone(&shards), rows, options).unwrap();
        let sharded: Vec<_> = loader.expressions(0, 0).map(Result::unwrap).collect();

        let options = ExpressionOptions { batch_cells: 16, ..ExpressionOptions::default() };
        let reader = ExpressionReader::open(&file, &shards.vocabulary().unwrap(), options).unwrap();
        assert_eq!(reader.n_absent(), 0);
        let file_ids = reader.source().cell_ids().unwrap();
        let mut n_cells = 0;
        for batch in reader {
            let batch = batch.unwrap();
            for (cell, &row) in batch.rows.iter().enumerate() {
                let at = ids.iter().position(|id| *id == file_ids[row as usize]).unwrap();
                let found = sharded.iter().find_map(|other| {
                    let cell = other.rows.iter().position(|&row| row as usize == at)?;
                    Some(other.cell(cell))
                });
                assert_eq!(batch.cell(cell), found.unwrap());
                n_cells += 1;
            }
        }
        assert_eq!(n_cells, 70);
    }

    #[test]
    fn only_wanted_genes_are_read_and_enough_of_them_must_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cells.h5ad");
        write_h5ad(&SyntheticConfig { n_cells: 20, n_genes: 480, ..Default::default() }, &file).unwrap();
        let genes = open_cells(&file, &MatrixChoice::default()).unwrap().genes().unwrap();
        let mut vocabulary = GeneVocabulary::new(600);
        vocabulary.extend(&genes, &file).unwrap();
        vocabulary.extend(&[Gene::new(None, Some("elsewhere"))], &file).unwrap();
        let read = |genes: Option<GeneSelection>| {
            ExpressionReader::open(&file, &vocabulary, ExpressionOptions { genes, ..Default::default() })
        };
        let all: Vec<ExpressionBatch> = read(None).unwrap().map(Result::unwrap).collect();
        let wanted = GeneSelection::from(vec![2, 3, 5, 7, 11, 13, 481]);
        let reader = read(Some(wanted.clone())).unwrap();
        assert_eq!((reader.n_wanted(), reader.n_absent()), (7, 1));
        for (all, some) in all.iter().zip(reader.map(Result::unwrap)) {
            for cell in 0..all.n_cells() {
                let (genes, values) = all.cell(cell);
                let kept: Vec<(u32, f32)> = genes.iter().copied().zip(values.iter().copied()).collect();
                let kept = kept.into_iter().filter(|&(gene, _)| wanted.contains(GeneToken(gene)));
                let (genes, values) = some.cell(cell);
                assert!(kept.eq(genes.iter().copied().zip(values.iter().copied())));
            }
        }
        let refused = read(Some(GeneSelection::from(vec![481])));
        assert!(matches!(refused, Err(Error::FewGenesMatched { matched: 0, .. })));
    }

    #[test]
    fn genes_of_another_kind_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cells.h5ad");
        write_h5ad(&SyntheticConfig { n_cells: 20, n_genes: 480, ..Default::default() }, &file).unwrap();
        let mut vocabulary = GeneVocabulary::new(100);
        vocabulary.extend(&[Gene::new(None, Some("not-a-gene"))], &file).unwrap();
        let refused = ExpressionReader::open(&file, &vocabulary, ExpressionOptions::default());
        assert!(matches!(refused, Err(Error::FewGenesMatched { matched: 0, .. })));
    }
}
