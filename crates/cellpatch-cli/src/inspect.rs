//! `cellpatch inspect`: what a file or folder is.

use std::fmt::Write as _;
use std::path::Path;

use cellpatch_data::{
    AnnDataFile, CellDescription, CellFormat, Gene, GeneVocabulary, MatrixChoice, ShardSet, ValuePolicy,
    describe_cells, open_cells,
};
use cellpatch_model::{Checkpoint, Preset};
use cellpatch_train::{MetricRecord, read_metrics};
use serde_json::{Value, json};

use crate::arguments::InspectArguments;
use crate::cache::address;
use crate::failure::{Category, Failure};
use crate::inputs;
use crate::options::read_vocabulary;
use crate::sources;
use crate::terminal::Terminal;

/// A description: text for people, a value for programs.
struct Description {
    text: String,
    value: Value,
}

/// Describes `path`, whatever it is.
pub(crate) fn run(terminal: &Terminal, arguments: &InspectArguments) -> Result<(), Failure> {
    let path = &arguments.path;
    let is_address = address(path).is_some();
    if !is_address && !path.exists() {
        return Err(cellpatch_data::Error::NotFound { path: path.clone() }.into());
    }
    let mut description = match is_address || path.is_dir() {
        true => folder(arguments)?,
        false => file(path)?,
    };
    if let Some(vocabulary) = &arguments.vocabulary {
        add_match_report(&mut description, path, vocabulary)?;
    }
    if let Value::Object(fields) = &mut description.value {
        fields.insert("command".into(), "inspect".into());
        fields.insert("version".into(), env!("CARGO_PKG_VERSION").into());
        fields.insert("path".into(), json!(path));
    }
    terminal.result(description.text.trim_end(), &description.value);
    Ok(())
}

/// Shows how the genes of the file at `path` are found in a vocabulary.
fn add_match_report(description: &mut Description, path: &Path, vocabulary: &Path) -> Result<(), Failure> {
    let vocabulary = read_vocabulary(vocabulary, Preset::Paper.config().gene_capacity)?;
    let (report, value) = sources::match_report(&genes(path)?, &vocabulary);
    let _ = write!(description.text, "{report}");
    description.value["gene_match"] = value;
    Ok(())
}

/// The genes of any input of cells, whatever its values are.
fn genes(path: &Path) -> Result<Vec<Gene>, Failure> {
    if describe_cells(path, None)?.format != CellFormat::AnnData {
        let choice = MatrixChoice { values: ValuePolicy::Normalized, ..MatrixChoice::default() };
        return Ok(open_cells(path, &choice)?.genes()?);
    }
    let file = AnnDataFile::open(path)?;
    // The matrix of `raw` has genes that the others may lack.
    let mut matrices = file.matrices();
    matrices.sort_by_key(|location| location.to_string() != "raw/X");
    match matrices.first() {
        Some(location) => Ok(file.genes(location)?),
        None => Ok(Vec::new()),
    }
}

fn folder(arguments: &InspectArguments) -> Result<Description, Failure> {
    let path = &arguments.path;
    if path.join("config.toml").is_file() {
        return run_directory(path);
    }
    if path.join("state.json").is_file() {
        return checkpoint(path);
    }
    if inputs::is_shard_set(path) {
        return shard_set(path, &arguments.cache.open(path)?, arguments.verify);
    }
    match describe_cells(path, None) {
        Ok(cells) => Ok(tenx(path, &cells)),
        Err(cellpatch_data::Error::UnknownInput { .. }) => Err(Failure::new(
            Category::Input,
            format!("{} is neither a shard set, a run, a checkpoint nor a 10x matrix folder", path.display()),
        )
        .with_help("give a folder with manifest.json, config.toml or matrix.mtx in it, or a file")),
        Err(error) => Err(error.into()),
    }
}

fn file(path: &Path) -> Result<Description, Failure> {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    match extension.as_str() {
        "safetensors" | "pth" | "pt" | "bin" => weights(path),
        "parquet" => vocabulary(path),
        "h5" | "mtx" | "gz" => {
            let cells = describe_cells(path, None)?;
            if cells.format == CellFormat::AnnData { anndata(path) } else { Ok(tenx(path, &cells)) }
        }
        _ => anndata(path),
    }
}

/// A matrix of 10x Genomics.
fn tenx(path: &Path, cells: &CellDescription) -> Description {
    let mut text = format!("{}: {}, {} cells\n", path.display(), cells.format, cells.n_cells);
    let mut matrices = Vec::new();
    for matrix in &cells.matrices {
        let (name, info, kind) = (&matrix.name, &matrix.info, &matrix.values);
        let (rows, columns) = (info.n_cells, info.n_genes);
        let _ = writeln!(text, "  {name}: {rows} x {columns} {} {}, {kind}", info.storage, info.dtype);
        matrices.push(json!({
            "name": name,
            "cells": rows,
            "genes": columns,
            "storage": info.storage.to_string(),
            "dtype": info.dtype,
            "stored_values": info.n_stored,
            "values": kind.to_string(),
        }));
    }
    for (feature_type, count) in &cells.left_out {
        let _ = writeln!(text, "  left out: {count} features of type {feature_type}");
    }
    let value = json!({
        "kind": "10x",
        "cells": cells.n_cells,
        "matrices": matrices,
        "genomes": cells.genomes,
        "left_out": cells.left_out,
    });
    Description { text, value }
}

fn anndata(path: &Path) -> Result<Description, Failure> {
    let file = AnnDataFile::open(path)?;
    let mut text = format!("{}: AnnData, {} cells\n", path.display(), file.n_cells());
    let mut matrices = Vec::new();
    for location in file.matrices() {
        let info = file.matrix_info(&location)?;
        let kind = file.value_kind(&location)?;
        let (rows, columns) = (info.n_cells, info.n_genes);
        let _ = writeln!(text, "  {location}: {rows} x {columns} {} {}, {kind}", info.storage, info.dtype);
        matrices.push(json!({
            "name": location.to_string(),
            "cells": rows,
            "genes": columns,
            "storage": info.storage.to_string(),
            "dtype": info.dtype,
            "stored_values": info.n_stored,
            "values": kind.to_string(),
        }));
    }
    let mut columns = Vec::new();
    for name in file.obs_columns() {
        let labels = file.obs_column(&name)?.labels();
        let shown: Vec<&str> = labels.categories.iter().take(5).map(String::as_str).collect();
        let more = if labels.categories.len() > shown.len() { ", ..." } else { "" };
        let _ =
            writeln!(text, "  obs {name}: {} values ({}{more})", labels.categories.len(), shown.join(", "));
        columns.push(json!({ "name": name, "values": labels.categories.len() }));
    }
    Ok(Description {
        text,
        value: json!({ "kind": "anndata", "cells": file.n_cells(), "matrices": matrices, "obs": columns }),
    })
}

fn shard_set(path: &Path, shards: &ShardSet, verify: bool) -> Result<Description, Failure> {
    if verify {
        shards.verify()?;
    }
    let manifest = shards.manifest();
    let part = manifest.part.as_ref().map_or(String::new(), |entry| format!(", part {}", entry.part));
    let mut text = format!(
        "{}: shard set{part}, {} cells, {} genes, {} files{}\n",
        path.display(),
        manifest.n_cells,
        manifest.n_genes,
        manifest.files.len(),
        if verify { ", every checksum is right" } else { "" },
    );
    for line in sources::describe(shards) {
        let _ = writeln!(text, "  {line}");
    }
    let value = json!({ "kind": "shard-set", "verified": verify, "manifest": manifest });
    Ok(Description { text, value })
}

fn run_directory(path: &Path) -> Result<Description, Failure> {
    let mut text = format!("{}: run\n", path.display());
    let checkpoint = cellpatch_train::newest(&path.join("checkpoints")).ok();
    let state = checkpoint.as_ref().map(|(checkpoint, _)| &checkpoint.state);
    match (&checkpoint, state) {
        (Some((checkpoint, _)), Some(state)) => {
            let standing = match state.finished {
                Some(_) => "finished".to_owned(),
                None => format!("in epoch {}, batch {}", state.epoch, state.batch),
            };
            let _ = writeln!(text, "  {standing}, {} steps; {}", state.step, checkpoint.folder.display());
        }
        _ => text.push_str("  no checkpoint yet\n"),
    }
    let metrics = path.join("metrics.jsonl");
    let records = if metrics.is_file() { read_metrics(&metrics)? } else { Vec::new() };
    let epochs: Vec<_> = records
        .into_iter()
        .filter_map(|record| match record {
            MetricRecord::Epoch(epoch) => Some(epoch),
            MetricRecord::Step(_) => None,
        })
        .collect();
    for epoch in &epochs {
        let _ = write!(text, "  epoch {:>3}  train {:.4}", epoch.epoch, epoch.train_loss);
        if let Some(loss) = epoch.validation_loss {
            let _ = write!(text, "  validation {loss:.4}");
        }
        if let Some(r2) = epoch.validation_r2 {
            let _ = write!(text, "  R2 {r2:.3}");
        }
        if let Some(scores) = epoch.validation_scores {
            let _ = write!(text, "  accuracy {:.3}  macro-F1 {:.3}", scores.accuracy, scores.macro_f1);
        }
        text.push('\n');
    }
    let value = json!({
        "kind": "run",
        "state": state,
        "checkpoint": checkpoint.as_ref().map(|(checkpoint, _)| &checkpoint.folder),
        "epochs": epochs,
    });
    Ok(Description { text, value })
}

fn checkpoint(path: &Path) -> Result<Description, Failure> {
    let checkpoint = cellpatch_train::read(path)?;
    let state = &checkpoint.state;
    let text = format!(
        "{}: checkpoint, whole\n  epoch {}, batch {}, {} steps, {} cells seen\n  backend {}\n",
        path.display(),
        state.epoch,
        state.batch,
        state.step,
        state.cells,
        checkpoint.fingerprint.backend,
    );
    let value = json!({ "kind": "checkpoint", "state": state, "fingerprint": checkpoint.fingerprint });
    Ok(Description { text, value })
}

fn weights(path: &Path) -> Result<Description, Failure> {
    let tensors = Checkpoint::read(path)?.tensors;
    let parameters: usize = tensors.values().map(|tensor| tensor.num_elements()).sum();
    let mut text = format!("{}: {} tensors, {parameters} parameters\n", path.display(), tensors.len());
    let mut listed = Vec::new();
    for (name, tensor) in tensors {
        let shape: Vec<usize> = tensor.shape.iter().copied().collect();
        let _ = writeln!(text, "  {name} {shape:?}");
        listed.push(json!({ "name": name, "shape": shape }));
    }
    Ok(Description { text, value: json!({ "kind": "weights", "parameters": parameters, "tensors": listed }) })
}

fn vocabulary(path: &Path) -> Result<Description, Failure> {
    let vocabulary = GeneVocabulary::read_parquet(path)?;
    let text = format!(
        "{}: gene vocabulary, {} of {} rows taken\n",
        path.display(),
        vocabulary.len(),
        vocabulary.capacity()
    );
    let value = json!({
        "kind": "vocabulary",
        "genes": vocabulary.len(),
        "capacity": vocabulary.capacity(),
        "hash": vocabulary.hash(),
    });
    Ok(Description { text, value })
}
