//! What became of a file's genes, as a table.

use std::fmt;

use super::{Gene, GeneMatch};

/// How many names a row of the table shows.
const EXAMPLES: usize = 10;

/// How the genes of one file were matched, as rows of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct MatchReport {
    /// Genes in the file.
    pub n_genes: usize,
    /// What became of them.
    pub rows: Vec<MatchRow>,
}

/// One row of a [`MatchReport`].
#[derive(Debug, Clone, PartialEq)]
pub struct MatchRow {
    /// What became of these genes: `by Ensembl id`, `unmatched`, ...
    pub what: &'static str,
    /// How many there are.
    pub n_genes: usize,
    /// Some of their names where they are worth a look: for unmatched genes those with the most counts first.
    pub examples: Vec<String>,
}

impl GeneMatch {
    /// The table of what became of each gene.
    ///
    /// - `genes`: those that were matched
    /// - `totals`: the sum of each gene's counts, so that the largest misses come first
    pub fn report(&self, genes: &[Gene], totals: Option<&[f64]>) -> MatchReport {
        let total = |column: usize| totals.and_then(|totals| totals.get(column)).copied().unwrap_or(0.0);
        let mut misses = self.misses.clone();
        misses.sort_by(|&a, &b| total(b).total_cmp(&total(a)));
        let name = |&column: &usize| genes.get(column).map_or("", Gene::name).to_string();
        let repaired =
            self.repaired.iter().take(EXAMPLES).map(|repair| format!("{} = {}", repair.name, repair.symbol));
        let row = |what, n_genes, examples: Vec<String>| MatchRow { what, n_genes, examples };
        let rows = vec![
            row("by Ensembl id", self.by_id, Vec::new()),
            row("by symbol", self.by_symbol, Vec::new()),
            row("by symbol in other capitals", self.by_folded_symbol, Vec::new()),
            row("by another name", self.by_alias - self.repaired.len(), Vec::new()),
            row("dates that were names", self.repaired.len(), repaired.collect()),
            row("new", self.new, Vec::new()),
            row("unmatched", misses.len(), misses.iter().take(EXAMPLES).map(name).collect()),
            row(
                "dates that may be several genes",
                self.ambiguous.len(),
                self.ambiguous.iter().take(EXAMPLES).map(name).collect(),
            ),
            row("of these, columns of a gene seen before", self.duplicates, Vec::new()),
        ];
        MatchReport { n_genes: self.tokens.len(), rows }
    }
}

impl fmt::Display for MatchReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{:>40} {:>7}", "genes", self.n_genes)?;
        for row in self.rows.iter().filter(|row| row.n_genes > 0) {
            let share = 100.0 * row.n_genes as f64 / self.n_genes.max(1) as f64;
            write!(formatter, "{:>40} {:>7} {share:>5.1} %", row.what, row.n_genes)?;
            if !row.examples.is_empty() {
                write!(formatter, "  {}", row.examples.join(", "))?;
            }
            writeln!(formatter)?;
        }
        Ok(())
    }
}
