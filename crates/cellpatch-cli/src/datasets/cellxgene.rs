//! `cellpatch datasets cellxgene`.

use std::fmt::Write as _;
use std::path::PathBuf;

use cellpatch_data::dataset::{CELLXGENE_API, CellxgeneDataset, CellxgeneQuery, Term};
use clap::Args;
use indicatif::BinaryBytes;
use serde_json::json;

use super::{Tries, download, line, result};
use crate::failure::Failure;
use crate::terminal::Terminal;

/// Arguments of `datasets cellxgene`.
#[derive(Debug, Args)]
pub(crate) struct CellxgeneArguments {
    /// Only of this species, such as "Homo sapiens"; a part of a label, or an ontology term, as for the next three
    #[arg(long, value_name = "TEXT")]
    pub organism: Option<String>,
    /// Only of this tissue, such as lung or UBERON:0002048
    #[arg(long, value_name = "TEXT")]
    pub tissue: Option<String>,
    /// Only measured like this, such as "10x 3' v3"
    #[arg(long, value_name = "TEXT")]
    pub assay: Option<String>,
    /// Only with this disease; normal for none
    #[arg(long, value_name = "TEXT")]
    pub disease: Option<String>,
    /// Only with at least this many cells
    #[arg(long, value_name = "N")]
    pub min_cells: Option<u64>,
    /// Only with at most this many cells
    #[arg(long, value_name = "N")]
    pub max_cells: Option<u64>,
    /// Only the first N, which are the newest
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Download the .h5ad of each into this folder
    #[arg(long, value_name = "FOLDER")]
    pub download: Option<PathBuf>,
    /// The server to ask
    #[arg(long, value_name = "URL", default_value = CELLXGENE_API)]
    pub api: String,
    #[command(flatten)]
    pub tries: Tries,
}

/// Lists what fits, and downloads it if asked to.
pub(super) fn run(terminal: &Terminal, arguments: &CellxgeneArguments) -> Result<(), Failure> {
    let query = CellxgeneQuery {
        organism: arguments.organism.clone(),
        tissue: arguments.tissue.clone(),
        assay: arguments.assay.clone(),
        disease: arguments.disease.clone(),
        min_cells: arguments.min_cells,
        max_cells: arguments.max_cells,
        limit: arguments.limit,
    };
    let options = arguments.tries.options();
    let found = query.run(&arguments.api, &options)?;
    let mut text: String = found.iter().map(|dataset| describe(dataset) + "\n").collect();
    let n_cells: u64 = found.iter().filter_map(|dataset| dataset.cell_count).sum();
    let n_bytes: u64 = found.iter().filter_map(|dataset| dataset.h5ad()?.filesize).sum();
    let total = format!("{} data sets, {n_cells} cells, {} as .h5ad", found.len(), BinaryBytes(n_bytes));
    text.push_str(&total);
    let mut files = Vec::new();
    if let Some(folder) = &arguments.download {
        terminal.note(&total);
        for dataset in found.iter().filter(|dataset| dataset.h5ad().is_some()) {
            let fetched = download(terminal, &dataset.manifest()?, folder, options)?;
            fetched.iter().for_each(|file| terminal.note(&line(file)));
            files.extend(fetched);
        }
        let _ = write!(text, "\n{} files are in {}", files.len(), folder.display());
    }
    let value = json!({ "cells": n_cells, "bytes": n_bytes, "datasets": found, "files": files });
    terminal.result(&text, &result("datasets cellxgene", value));
    Ok(())
}

fn describe(dataset: &CellxgeneDataset) -> String {
    let labels = |terms: &[Term]| {
        let shown: Vec<&str> = terms.iter().take(3).map(|term| term.label.as_str()).collect();
        shown.join(", ") + if terms.len() > shown.len() { ", ..." } else { "" }
    };
    let size = dataset.h5ad().and_then(|asset| asset.filesize);
    format!(
        "{}  {} cells, {}\n  {}\n  {}; {}; {}; {}",
        dataset.dataset_version_id,
        dataset.cell_count.map_or_else(|| "?".to_owned(), |n_cells| n_cells.to_string()),
        size.map_or_else(|| "no .h5ad".to_owned(), |bytes| BinaryBytes(bytes).to_string()),
        dataset.title.as_deref().unwrap_or("(no title)"),
        labels(&dataset.organism),
        labels(&dataset.tissue),
        labels(&dataset.assay),
        labels(&dataset.disease),
    )
}
