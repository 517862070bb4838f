//! What became of the sources of a shard set, as tables.

use std::fmt::Write as _;

use cellpatch_data::{GeneVocabulary, MatchReport, ShardSet, SharedCells, SourceEntry};

/// Cells, genes, unmatched genes and cells in common: a table each, as lines for a terminal.
pub(crate) fn describe(shards: &ShardSet) -> Vec<String> {
    let manifest = shards.manifest();
    let sources = &manifest.sources;
    let mut lines = table(&cell_rows(sources));
    lines.push(String::new());
    lines.extend(table(&gene_rows(sources)));
    for source in sources.iter().filter(|source| !source.largest_misses.is_empty()) {
        lines.push(format!(
            "not in the vocabulary, most counts first, {}: {}",
            source.name,
            source.largest_misses.join(", ")
        ));
    }
    if !manifest.shared_cells.is_empty() {
        lines.push(String::new());
        lines.push("sources that seem to have cells in common:".into());
        lines.extend(table(&shared_rows(&manifest.shared_cells, sources)));
    }
    lines
}

fn cell_rows(sources: &[SourceEntry]) -> Vec<Vec<String>> {
    let mut rows = vec![headings(&["source", "cells", "copies", "kept", "written", "matrix"])];
    rows.extend(sources.iter().map(|source| {
        vec![
            source.name.clone(),
            source.n_cells.to_string(),
            source.n_cells_secondary.to_string(),
            source.n_cells_kept.to_string(),
            source.n_cells_written.to_string(),
            source.matrix.clone(),
        ]
    }));
    rows
}

fn gene_rows(sources: &[SourceEntry]) -> Vec<Vec<String>> {
    let headings =
        headings(&["source", "genes", "kept", "by id", "by name", "new", "left out", "duplicates"]);
    let row = |source: &SourceEntry| {
        let counts = [
            source.n_genes,
            source.n_genes_kept,
            source.n_matched_by_id,
            source.n_matched_by_symbol,
            source.n_new,
            source.n_dropped,
            source.n_duplicates,
        ];
        std::iter::once(source.name.clone()).chain(counts.iter().map(u64::to_string)).collect()
    };
    std::iter::once(headings).chain(sources.iter().map(row)).collect()
}

fn shared_rows(pairs: &[SharedCells], sources: &[SourceEntry]) -> Vec<Vec<String>> {
    let n_cells = |name: &str| {
        sources.iter().find(|source| source.name == name).map_or(0, |source| source.n_cells_written)
    };
    let mut rows =
        vec![headings(&["source", "and", "same barcode", "same total too", "of the smaller's cells"])];
    rows.extend(pairs.iter().map(|pair| {
        vec![
            pair.first.clone(),
            pair.second.clone(),
            pair.n_barcodes.to_string(),
            pair.n_alike.to_string(),
            n_cells(&pair.first).min(n_cells(&pair.second)).to_string(),
        ]
    }));
    rows
}

fn headings(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// Lines of columns of equal width: words to the left, numbers and their headings to the right.
fn table(rows: &[Vec<String>]) -> Vec<String> {
    let n_columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..n_columns).map(width).collect();
    let is_number = |text: &String| text.bytes().all(|digit| digit.is_ascii_digit());
    let is_right: Vec<bool> =
        (0..n_columns).map(|column| rows.iter().skip(1).all(|row| is_number(&row[column]))).collect();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (column, text) in row.iter().enumerate() {
            let width = widths[column];
            let _ = match is_right[column] {
                true => write!(line, "{text:>width$}  "),
                false => write!(line, "{text:width$}  "),
            };
        }
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// How a file's genes are found in a vocabulary: the report, and the same for programs.
pub(crate) fn match_report(
    genes: &[cellpatch_data::Gene],
    vocabulary: &GeneVocabulary,
) -> (MatchReport, serde_json::Value) {
    let report = vocabulary.match_genes(genes).report(genes, None);
    let rows: Vec<_> = (report.rows.iter())
        .map(|row| serde_json::json!({ "what": row.what, "genes": row.n_genes, "examples": row.examples }))
        .collect();
    let value = serde_json::json!({ "genes": report.n_genes, "rows": rows });
    (report, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_numbers_are_aligned_at_their_right() {
        let rows = [["source", "cells"], ["liver", "12"], ["a long name", "1234"]];
        let lines = table(&rows.map(|row| row.map(String::from).to_vec()));
        assert_eq!(lines, ["source       cells", "liver           12", "a long name   1234"]);
    }
}
