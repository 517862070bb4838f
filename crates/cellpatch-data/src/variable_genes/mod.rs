//! Which genes vary more between cells than genes of their mean do.

mod loess;
mod moments;

use self::loess::{Loess, N_TERMS};
use self::moments::{ClippedMoments, Moments};
use crate::error::{Error, Result};
use crate::source::{CellBlocks, CellSource};

/// Bytes of a block of cells.
const BLOCK_BYTES: usize = 32 << 20;

/// How variable genes are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VariableGeneOptions {
    /// How many genes are chosen, at most.
    pub n_top: usize,
    /// The share of genes that take part in each local fit of variance against mean: above 0, at most 1.
    pub span: f64,
}

impl Default for VariableGeneOptions {
    /// 3,000 genes, as spatial methods take, and scanpy's span.
    fn default() -> Self {
        Self { n_top: 3_000, span: 0.3 }
    }
}

/// How much one gene varies between cells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GeneVariability {
    /// Mean count.
    pub mean: f64,
    /// Variance of the counts (divisor `n_cells - 1`).
    pub variance: f64,
    /// The variance of a gene of this mean, by a curve through all genes; 1 for a gene that does not vary.
    pub expected_variance: f64,
    /// The variance of the counts after they were divided by the root of the expected variance and cut off above at the
    /// root of the number of cells; 0 for a gene that does not vary.
    pub standardized_variance: f64,
}

/// The genes of a count matrix by how much they vary: those of the highest standardised variance (Stuart et al. 2019,
/// "Feature selection for individual datasets"), as Seurat's `vst` and scanpy's
/// `highly_variable_genes(flavor="seurat_v3")` choose them.
#[derive(Debug, Clone, PartialEq)]
pub struct VariableGenes {
    genes: Vec<GeneVariability>,
    ranked: Vec<usize>,
    n_cells: usize,
}

impl VariableGenes {
    /// Looks at all cells of a matrix, or at some of them, in two passes over its blocks.
    ///
    /// - `source`: of raw counts; other values than counts have variances that this curve is not made for.
    /// - `kept_cells`: `[n_cells]`, which cells count; all where nothing is given.
    ///
    /// # Errors
    /// [`Error::BadOption`] for no genes or a span outside 0 to 1, [`Error::WrongLength`] where `kept_cells` are not those
    /// of the file, [`Error::FewVariableGenes`] where fewer than three genes vary, and what
    /// [`CellSource::blocks`] says of the matrix.
    pub fn of(
        source: &dyn CellSource,
        kept_cells: Option<&[bool]>,
        options: &VariableGeneOptions,
    ) -> Result<Self> {
        let &VariableGeneOptions { n_top, span } = options;
        if n_top == 0 {
            return Err(bad_option("n_top", n_top, "at least one gene must be chosen"));
        }
        if !(span > 0.0 && span <= 1.0) {
            return Err(bad_option("span", span, "it must be above 0 and at most 1"));
        }
        if let Some(kept) = kept_cells.filter(|kept| kept.len() != source.n_cells()) {
            return Err(Error::WrongLength {
                what: "the list of kept cells".into(),
                of: "cells",
                found: kept.len(),
                expected: source.n_cells(),
            });
        }
        let is_kept = |row: usize| kept_cells.is_none_or(|kept| kept[row]);
        let n_genes = source.matrix_info()?.n_genes;
        let moments = Moments::of(source.blocks(BLOCK_BYTES)?, n_genes, is_kept)?;
        let n_cells = moments.n_cells();
        let n_varying = moments.varying().count();
        if n_varying < N_TERMS {
            let (path, needed) = (source.path().to_path_buf(), N_TERMS);
            return Err(Error::FewVariableGenes { path, n_cells, n_varying, needed });
        }
        let expected = expected_variances(&moments, span);
        let standardized = standardized_variances(source.blocks(BLOCK_BYTES)?, is_kept, &moments, &expected)?;
        let genes: Vec<GeneVariability> = (0..expected.len())
            .map(|gene| GeneVariability {
                mean: moments.mean(gene),
                variance: moments.variance(gene),
                expected_variance: expected[gene],
                standardized_variance: standardized[gene],
            })
            .collect();
        let mut ranked: Vec<usize> = (0..genes.len()).collect();
        // Stable: of genes that vary as much, the first in the matrix comes first.
        ranked.sort_by(|&a, &b| standardized[b].total_cmp(&standardized[a]));
        ranked.truncate(n_top);
        Ok(Self { genes, ranked, n_cells })
    }

    /// The columns of the chosen genes, the most variable first.
    pub fn ranked(&self) -> &[usize] {
        &self.ranked
    }

    /// The columns of the chosen genes in the order of the matrix.
    pub fn columns(&self) -> Vec<usize> {
        let mut columns = self.ranked.clone();
        columns.sort_unstable();
        columns
    }

    /// All genes of the matrix, one a column.
    pub fn genes(&self) -> &[GeneVariability] {
        &self.genes
    }

    /// How many cells were looked at.
    pub fn n_cells(&self) -> usize {
        self.n_cells
    }
}

/// The variance of genes of each gene's mean: a curve through the logarithms of both.
fn expected_variances(moments: &Moments, span: f64) -> Vec<f64> {
    let (means, variances): (Vec<f64>, Vec<f64>) =
        moments.varying().map(|gene| (moments.mean(gene).log10(), moments.variance(gene).log10())).unzip();
    let curve = Loess::fit(&means, &variances, span);
    let mut expected = vec![1.0; moments.n_genes()];
    for (gene, mean) in moments.varying().zip(means) {
        expected[gene] = 10_f64.powf(curve.at(mean));
    }
    expected
}

fn standardized_variances(
    blocks: CellBlocks,
    is_kept: impl Fn(usize) -> bool,
    moments: &Moments,
    expected: &[f64],
) -> Result<Vec<f64>> {
    let n = moments.n_cells() as f64;
    let limits =
        (0..expected.len()).map(|gene| expected[gene].sqrt() * n.sqrt() + moments.mean(gene)).collect();
    let clipped = ClippedMoments::of(blocks, is_kept, limits)?;
    let variance = |gene: usize| {
        let (mean, sum, squares) = (moments.mean(gene), clipped.sum(gene), clipped.sum_of_squares(gene));
        (n * mean * mean + squares - 2.0 * sum * mean) / ((n - 1.0) * expected[gene])
    };
    Ok((0..expected.len()).map(variance).collect())
}

fn bad_option(option: &'static str, value: impl ToString, reason: &str) -> Error {
    Error::BadOption { option, value: value.to_string(), reason: reason.into() }
}
