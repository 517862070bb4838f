//! `cellpatch shard`.

use std::time::{Duration, Instant};

use cellpatch_data::ShardSet;
use cellpatch_model::Preset;

use crate::arguments::ShardArguments;
use crate::failure::{Category, Failure};
use crate::inputs::{self, Input};
use crate::options::HUMAN;
use crate::sources;
use crate::terminal::Terminal;

/// Shards files into `--out`.
pub(crate) fn run(terminal: &Terminal, arguments: &ShardArguments) -> Result<(), Failure> {
    let started = Instant::now();
    let mut options = arguments.options.clone();
    let Some(paths) = &options.data else {
        return Err(Failure::new(Category::Usage, "no --data was given")
            .with_help("name .h5ad files or folders of them"));
    };
    let Input::Files(files) = inputs::find(paths)? else {
        return Err(Failure::new(Category::Usage, "the input is a shard set already")
            .with_help("`inspect` describes it, `pretrain --data` takes it as it is"));
    };
    if arguments.part.is_some() {
        if options.max_cells.is_some() {
            return Err(Failure::new(
                Category::Usage,
                "a part cannot be a sample: it does not know the others",
            )
            .with_help("give --max-cells and --stratify to `merge`"));
        }
        options.vocabulary.get_or_insert_with(|| HUMAN.into());
        options.known_genes_only = Some(true);
    }
    let capacity = options.gene_capacity.unwrap_or(Preset::Paper.config().gene_capacity);
    let mut shard_options = inputs::shard_options(&files, &options, capacity, &[])?;
    shard_options.part = arguments.part;
    let shards = inputs::write(terminal, &files, &arguments.out, &shard_options)?;
    report(terminal, "shard", &shards, started.elapsed());
    Ok(())
}

/// Says what a shard set that was just made holds.
pub(crate) fn report(terminal: &Terminal, command: &str, shards: &ShardSet, took: Duration) {
    let (manifest, seconds) = (shards.manifest(), took.as_secs_f64());
    let mut text = sources::describe(shards).join("\n");
    let part = manifest.part.as_ref().map_or(String::new(), |entry| format!(", part {}", entry.part));
    text.push_str(&format!(
        "\n{} cells, {} genes in {} files in {}{part} ({seconds:.1} s)",
        manifest.n_cells,
        manifest.n_genes,
        manifest.files.len(),
        shards.path().display(),
    ));
    let value = serde_json::json!({
        "command": command,
        "version": env!("CARGO_PKG_VERSION"),
        "shards": shards.path(),
        "cells": manifest.n_cells,
        "genes": manifest.n_genes,
        "vocabulary_size": manifest.n_genes,
        "seconds": seconds,
        "manifest": manifest,
    });
    terminal.result(&text, &value);
}
