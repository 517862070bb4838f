//! `cellpatch shard`.

use cellpatch_model::Preset;

use crate::arguments::ShardArguments;
use crate::failure::{Category, Failure};
use crate::inputs::{self, Input};
use crate::terminal::Terminal;

/// Shards files into `--out`.
pub(crate) fn run(terminal: &Terminal, arguments: &ShardArguments) -> Result<(), Failure> {
    let started = std::time::Instant::now();
    let Some(paths) = &arguments.options.data else {
        return Err(Failure::new(Category::Usage, "no --data was given")
            .with_help("name .h5ad files or folders of them"));
    };
    let Input::Files(files) = inputs::find(paths)? else {
        return Err(Failure::new(Category::Usage, "the input is a shard set already")
            .with_help("`inspect` describes it, `pretrain --data` takes it as it is"));
    };
    let capacity = arguments.options.gene_capacity.unwrap_or(Preset::Paper.config().gene_capacity);
    let shards = inputs::shard(terminal, &files, &arguments.out, &arguments.options, capacity, &[])?;
    let seconds = started.elapsed().as_secs_f64();
    let manifest = shards.manifest();
    let mut text = inputs::describe_sources(&shards).join("\n");
    text.push_str(&format!(
        "\n{} cells, {} genes in {} ({:.1} s)",
        manifest.n_cells,
        manifest.n_genes,
        arguments.out.display(),
        seconds
    ));
    let value = serde_json::json!({
        "command": "shard",
        "version": env!("CARGO_PKG_VERSION"),
        "shards": arguments.out,
        "cells": manifest.n_cells,
        "genes": manifest.n_genes,
        "vocabulary_size": manifest.n_genes,
        "seconds": seconds,
        "manifest": manifest,
    });
    terminal.result(&text, &value);
    Ok(())
}
