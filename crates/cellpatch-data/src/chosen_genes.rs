//! Expression of some genes of all cells, at once.

use crate::error::{Error, Result};
use crate::normalize::normalize;
use crate::source::CellSource;
use crate::variable_genes::{VariableGeneOptions, VariableGenes};
use crate::vocabulary::{Gene, GeneMatch};

/// Bytes of a block of cells.
const BLOCK_BYTES: usize = 32 << 20;

/// log1p-normalised expression of chosen genes of all cells, for methods that look at a whole slice: [cells, genes], sparse.
///
/// Cells are scaled by their counts of all genes, chosen or not, as everywhere else.
#[derive(Debug, Clone, PartialEq)]
pub struct ChosenGenes {
    /// The genes, one a column.
    pub genes: Vec<Gene>,
    /// Their columns in the source's matrix, ascending.
    pub columns: Vec<usize>,
    /// Where each cell's entries begin, and where the last's end: [cells + 1].
    pub offsets: Vec<usize>,
    /// Of each entry the gene, ascending within a cell: its place in `genes`.
    pub indices: Vec<u32>,
    /// Of each entry the value.
    pub values: Vec<f32>,
}

impl ChosenGenes {
    /// Reads genes by their columns.
    ///
    /// - columns: ascending
    ///
    /// # Errors
    /// [`Error::BadOption`] if columns are not ascending or not in the matrix, and what [`CellSource::blocks`] says.
    pub fn read(source: &dyn CellSource, columns: &[usize]) -> Result<Self> {
        let all = source.genes()?;
        let mut place = vec![None; all.len()];
        for (index, &column) in columns.iter().enumerate() {
            let follows = index == 0 || columns[index - 1] < column;
            match place.get_mut(column).filter(|_| follows) {
                Some(place) => *place = Some(index as u32),
                None => {
                    return Err(Error::BadOption {
                        option: "columns",
                        value: column.to_string(),
                        reason: format!("they must be ascending and below {}", all.len()),
                    });
                }
            }
        }
        let mut chosen = Self {
            genes: columns.iter().map(|&column| all[column].clone()).collect(),
            columns: columns.to_vec(),
            offsets: vec![0],
            indices: Vec::new(),
            values: Vec::new(),
        };
        let are_counts = !source.is_log1p();
        let (mut entries, mut counts, mut normalized) = (Vec::new(), Vec::new(), Vec::new());
        for block in source.blocks(BLOCK_BYTES)? {
            let block = block?;
            for cell in 0..block.n_cells() {
                let (columns, values) = block.cell(cell);
                let total: f64 = values.iter().map(|&value| f64::from(value)).sum();
                entries.clear();
                for (&column, &value) in columns.iter().zip(values) {
                    if let Some(Some(gene)) = place.get(column as usize).filter(|_| value != 0.0) {
                        entries.push((*gene, value));
                    }
                }
                entries.sort_unstable_by_key(|entry| entry.0);
                counts.clear();
                counts.extend(entries.iter().map(|entry| entry.1));
                match are_counts {
                    true => normalize(&counts, total as f32, &mut normalized),
                    false => normalized.clone_from(&counts),
                }
                chosen.indices.extend(entries.iter().map(|entry| entry.0));
                chosen.values.extend_from_slice(&normalized);
                chosen.offsets.push(chosen.values.len());
            }
        }
        Ok(chosen)
    }

    /// How many cells there are.
    pub fn n_cells(&self) -> usize {
        self.offsets.len() - 1
    }
}

/// The columns of the genes that vary most ([`VariableGenes`]), ascending; all of them where there are no more than asked for.
///
/// # Errors
/// [`Error::NotCounts`] where values are normalised already and there are more genes than asked for: their variances are not
/// what the choice is made by. Otherwise as [`VariableGenes::of`].
pub fn variable_columns(source: &dyn CellSource, n_top: usize) -> Result<Vec<usize>> {
    let n_genes = source.matrix_info()?.n_genes;
    if n_top >= n_genes {
        return Ok((0..n_genes).collect());
    }
    if source.is_log1p() {
        return Err(Error::NotCounts {
            path: source.path().to_path_buf(),
            dataset: source.matrix(),
            found: format!("variable genes are chosen by their counts, and it holds {}", source.value_kind()),
        });
    }
    let options = VariableGeneOptions { n_top, ..VariableGeneOptions::default() };
    Ok(VariableGenes::of(source, None, &options)?.columns())
}

impl GeneMatch {
    /// Some columns of a matrix that have a token, with it; of several columns with one token the first.
    ///
    /// - columns: ascending
    pub fn tokens_of(&self, columns: &[usize]) -> (Vec<usize>, Vec<u32>) {
        let mut seen = std::collections::HashSet::new();
        let known = columns.iter().filter_map(|&column| {
            let token = self.tokens.get(column).copied().flatten()?;
            seen.insert(token.0).then_some((column, token.0))
        });
        known.unzip()
    }
}
