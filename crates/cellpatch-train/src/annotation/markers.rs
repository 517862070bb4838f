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

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums of cells: class and expression of three genes, tokens 1 to 3.
    fn sums(cells: &[(usize, [f64; 3])], n_classes: usize) -> Vec<Sums> {
        let mut classes = vec![Sums::new(4); n_classes];
        for (class, expression) in cells {
            classes[*class].n_cells += 1.0;
            for (gene, value) in expression.iter().enumerate() {
                let [sum, squares] = &mut classes[*class].of_gene[gene + 1];
                (*sum, *squares) = (*sum + value, *squares + value * value);
            }
        }
        classes
    }

    #[test]
    fn genes_are_ranked_by_the_difference_of_means_in_standard_errors() {
        let cells = [
            (0, [3.0, 1.0, 0.0]),
            (0, [3.2, 0.0, 0.0]),
            (0, [2.9, 2.0, 0.0]),
            (1, [0.1, 1.0, 0.0]),
            (1, [0.0, 0.5, 0.0]),
            (1, [0.2, 2.5, 0.0]),
        ];
        let classes = sums(&cells, 2);
        let rankings = rankings(&classes);
        let token = GeneToken;
        assert_eq!(rankings, [[token(1), token(2)], [token(1), token(2)]], "nobody expresses the third");
        // Welch's t of the first gene: means 91/30 and 0.1; variances 7/300 and 0.01, of 3 cells each.
        let (mean, error) = classes[0].mean_and_error(1, 3.0);
        let (other_mean, other_error) = classes[1].mean_and_error(1, 3.0);
        let t = (mean - other_mean) / (error + other_error).sqrt();
        let expected = (91.0 / 30.0 - 0.1) / ((7.0 / 300.0 + 0.01) / 3.0_f64).sqrt();
        assert!((t - expected).abs() < 1e-9, "{t} {expected}");
    }

    #[test]
    fn a_rare_class_has_genes_of_its_own() {
        let mut cells: Vec<(usize, [f64; 3])> = (0..60)
            .map(|cell| {
                let noise = f64::from(cell % 5) / 10.0;
                (usize::from(cell % 2 == 0), [2.0 * f64::from(cell % 2) + noise, 1.0 + noise, noise / 4.0])
            })
            .collect();
        cells.extend([(2, [1.0, 1.2, 1.9]), (2, [1.1, 1.1, 2.0])]);
        let chosen = in_turns(&rankings(&sums(&cells, 3)), 2);
        assert_eq!(chosen, [GeneToken(1), GeneToken(3)], "the second gene tells nothing");
    }

    #[test]
    fn rankings_take_turns_until_there_are_enough_or_no_more() {
        let ranking = |tokens: &[u32]| tokens.iter().copied().map(GeneToken).collect::<Vec<_>>();
        let rankings = [ranking(&[5, 1, 2]), ranking(&[5, 9]), ranking(&[7, 5, 3, 8])];
        assert_eq!(in_turns(&rankings, 4), ranking(&[1, 5, 7, 9]));
        assert_eq!(in_turns(&rankings, 50), ranking(&[1, 2, 3, 5, 7, 8, 9]));
        assert_eq!(in_turns(&[], 3), []);
    }
}
