//! The genes that tell classes apart.

use cellpatch_data::{GeneSelection, GeneToken, Loader};

use crate::Result;

/// Sums over the cells of one class, gene by gene.
#[derive(Debug, Clone)]
struct Sums {
    n_cells: f64,
    /// By token, of expression and of its square.
    of_gene: Vec<[f64; 2]>,
}

impl Sums {
    fn new(n_rows: usize) -> Self {
        Self { n_cells: 0.0, of_gene: vec![[0.0; 2]; n_rows] }
    }

    /// Mean and squared standard error of a gene, the latter as of `n` cells.
    fn mean_and_error(&self, gene: usize, n: f64) -> (f64, f64) {
        let [sum, squares] = self.of_gene[gene];
        let mean = sum / self.n_cells;
        let variance =
            (squares / self.n_cells - mean * mean).max(0.0) * self.n_cells / (self.n_cells - 1.0).max(1.0);
        (mean, variance / n)
    }
}

/// The genes whose mean expression in a class differs most from that in all other cells, `per_class` of each class.
///
/// Classes take turns, and a gene that another class has taken counts for neither: rare classes have as many genes of their
/// own as frequent ones. Differences are judged by Welch's t, up and down alike, with both means taken to be of as many cells
/// as the smaller group has, so that a class of few cells is not led by genes that none of them happens to express.
///
/// - `cells`: the training cells, with all their genes
/// - `n_rows`: tokens of the vocabulary, padding included
///
/// # Errors
/// Those of the loader.
pub(super) fn marker_genes(
    cells: &Loader,
    class_of: impl Fn(u64) -> usize,
    n_classes: usize,
    n_rows: usize,
    per_class: usize,
) -> Result<GeneSelection> {
    let mut classes = vec![Sums::new(n_rows); n_classes];
    for batch in cells.expressions(0, 0) {
        let batch = batch?;
        for (cell, &row) in batch.rows.iter().enumerate() {
            let class = &mut classes[class_of(row)];
            class.n_cells += 1.0;
            let (genes, values) = batch.cell(cell);
            for (&gene, &value) in genes.iter().zip(values) {
                let [sum, squares] = &mut class.of_gene[gene as usize];
                *sum += f64::from(value);
                *squares += f64::from(value) * f64::from(value);
            }
        }
    }
    Ok(GeneSelection::new(in_turns(&rankings(&classes), per_class * n_classes)))
}

/// The expressed genes of each class, those that mark it most first.
fn rankings(classes: &[Sums]) -> Vec<Vec<GeneToken>> {
    let n_rows = classes.first().map_or(0, |class| class.of_gene.len());
    let mut all = Sums::new(n_rows);
    for class in classes {
        all.n_cells += class.n_cells;
        for (sum, of_class) in all.of_gene.iter_mut().zip(&class.of_gene) {
            *sum = [sum[0] + of_class[0], sum[1] + of_class[1]];
        }
    }
    let expressed: Vec<usize> = (0..n_rows).filter(|&gene| all.of_gene[gene][1] > 0.0).collect();
    let ranking = |class: &Sums| {
        let others = Sums {
            n_cells: all.n_cells - class.n_cells,
            of_gene: all
                .of_gene
                .iter()
                .zip(&class.of_gene)
                .map(|(a, c)| [a[0] - c[0], a[1] - c[1]])
                .collect(),
        };
        let n = class.n_cells.min(others.n_cells).max(1.0);
        let t = |gene: usize| {
            let (mean, error) = class.mean_and_error(gene, n);
            let (other_mean, other_error) = others.mean_and_error(gene, n);
            (mean - other_mean).abs() / (error + other_error + 1e-9).sqrt()
        };
        let mut ranked: Vec<(f64, usize)> = expressed.iter().map(|&gene| (t(gene), gene)).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        ranked.into_iter().map(|(_, gene)| GeneToken(gene as u32)).collect()
    };
    classes.iter().filter(|class| class.n_cells > 0.0).map(ranking).collect()
}

/// The first `n_genes` different genes of several rankings that take turns.
fn in_turns(rankings: &[Vec<GeneToken>], n_genes: usize) -> Vec<GeneToken> {
    let mut chosen = std::collections::BTreeSet::new();
    let longest = rankings.iter().map(Vec::len).max().unwrap_or(0);
    for rank in 0..longest {
        for gene in rankings.iter().filter_map(|ranking| ranking.get(rank)) {
            if chosen.len() < n_genes {
                chosen.insert(*gene);
            }
        }
    }
    chosen.into_iter().collect()
}
