//! `cellpatch embed`: embeddings of cells and genes, and which genes each cell type's patches attend.

use std::path::{Path, PathBuf};

use cellpatch_data::{
    EmbeddingTable, Existing, ExpressionReader, GeneToken, H5adAnnotator, Masking, MatrixSlot, MissingNames,
    NpyMatrix, UnsValue,
};
use cellpatch_model::{CellPatchConfig, Encoder, ModelBackend};
use cellpatch_train::{AttentionByClass, CellEmbedding, embed};
use clap::Args;
use serde_json::{Value, json};

use crate::annotate::ReadOptions;
use crate::attention;
use crate::device::{DeviceChoice, on_device};
use crate::failure::{Category, Failure};
use crate::inputs;
use crate::model::NamedModel;
use crate::terminal::Terminal;

/// Settings of `embed`.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct EmbedOptions {
    /// A run of `pretrain` or `annotate train`, or a weights file
    #[arg(long, value_name = "RUN|FILE")]
    pub model: PathBuf,
    /// The .h5ad file whose cells are embedded
    #[arg(long, value_name = "FILE", required_unless_present = "genes")]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub read: ReadOptions,
    /// What a cell's embedding is: latent (n_patches x 10 numbers), patches (n_patches x 32) or mean (32: the patches' mean)
    #[arg(long, value_name = "latent|patches|mean", value_parser = ["latent", "patches", "mean"], default_value = "latent", hide_possible_values = true, help_heading = "Result")]
    pub embedding: String,
    /// Where embeddings go: an .h5ad (a copy of the input with obsm[NAME]), .parquet or .npy
    #[arg(long, short, value_name = "FILE", help_heading = "Result")]
    pub out: Option<PathBuf>,
    /// Add the embedding to the input file itself
    #[arg(long, conflicts_with = "out", help_heading = "Result")]
    pub in_place: bool,
    /// Replace output files that exist
    #[arg(long, help_heading = "Result")]
    pub overwrite: bool,
    /// What the matrix is called in obsm
    #[arg(long, value_name = "NAME", default_value = "X_cellpatch", help_heading = "Result")]
    pub name: String,
    /// Also write the embedding of every gene of the vocabulary, with its symbol, to this .parquet
    #[arg(long, value_name = "FILE", help_heading = "Result")]
    pub genes: Option<PathBuf>,
    /// Also write the attention to every gene by cell type to this .csv, and as a figure beside it; needs --label
    #[arg(long, value_name = "FILE", requires = "label", help_heading = "Result")]
    pub attention: Option<PathBuf>,
    /// The obs column with the cell types, for --attention
    #[arg(long, value_name = "COLUMN", help_heading = "Result")]
    pub label: Option<String>,
    /// auto, cpu, wgpu, cuda, cuda:N or ndarray [default: auto]
    #[arg(long, value_name = "DEVICE", help_heading = "Run")]
    pub device: Option<DeviceChoice>,
}

/// Embeds the cells of a file, the genes of a model, or both.
pub(crate) fn run(terminal: &Terminal, options: &EmbedOptions) -> Result<(), Failure> {
    let wants_cells = options.out.is_some() || options.in_place;
    if !wants_cells && options.genes.is_none() && options.attention.is_none() {
        return Err(Failure::new(Category::Usage, "there is nothing to write")
            .with_help("name a file by --out, --genes or --attention, or give --in-place"));
    }
    let named = NamedModel::open(&options.model, options.read.vocabulary.as_deref())?;
    let config = named.checkpoint.config()?;
    let device = options.device.unwrap_or_default().resolve(terminal)?;
    let job = Job { terminal, options, named: &named, config: &config, device };
    on_device!(device, |B, backend_device| job.run::<B>(&backend_device))
}

struct Job<'a> {
    terminal: &'a Terminal,
    options: &'a EmbedOptions,
    named: &'a NamedModel,
    config: &'a CellPatchConfig,
    device: DeviceChoice,
}

/// Where cells' embeddings go while they come.
enum Sink {
    None,
    File(Box<H5adAnnotator>, MatrixSlot),
    Table(Box<EmbeddingTable>, Vec<String>),
    Npy(Box<NpyMatrix>),
}

impl Job<'_> {
    fn run<B: ModelBackend>(&self, device: &B::Device) -> Result<(), Failure> {
        let encoder = self.named.checkpoint.encoder::<B>(self.config, device)?;
        let mut value = json!({
            "command": "embed",
            "version": env!("CARGO_PKG_VERSION"),
            "device": self.device.to_string(),
            "model": self.named.weights,
        });
        let mut lines = Vec::new();
        if let Some(path) = &self.options.genes {
            let n_genes = self.genes(&encoder, path)?;
            lines.push(format!("wrote the embeddings of {n_genes} genes to {}", path.display()));
            add(
                &mut value,
                "genes",
                json!({ "out": path, "genes": n_genes, "width": self.config.embedding_dim }),
            );
        }
        if let Some(data) = &self.options.data {
            self.cells(&encoder, data, device, &mut lines, &mut value)?;
        }
        self.terminal.result(&lines.join("\n"), &value);
        Ok(())
    }

    fn existing(&self) -> Existing {
        if self.options.overwrite { Existing::Replace } else { Existing::Keep }
    }

    fn embedding(&self) -> CellEmbedding {
        match self.options.embedding.as_str() {
            "patches" => CellEmbedding::Patches,
            "mean" => CellEmbedding::Mean,
            _ => CellEmbedding::Latent,
        }
    }

    /// Rows of the gene table, under symbol or id.
    fn genes<B: ModelBackend>(&self, encoder: &Encoder<B>, path: &Path) -> Result<usize, Failure> {
        let d = self.config.embedding_dim;
        let table: Vec<f32> = encoder.gene_table().into_data().iter::<f32>().collect();
        let mut out = EmbeddingTable::create(path, self.existing(), "gene", d)?;
        for (GeneToken(token), gene) in self.named.vocabulary.iter() {
            let at = token as usize * d;
            out.push(gene.name(), &table[at..at + d])?;
        }
        Ok(out.finish()?.n_rows)
    }

    fn cells<B: ModelBackend>(
        &self,
        encoder: &Encoder<B>,
        data: &Path,
        device: &B::Device,
        lines: &mut Vec<String>,
        value: &mut Value,
    ) -> Result<(), Failure> {
        let started = std::time::Instant::now();
        let read = self.options.read.expressions(self.named, Masking::default().max_input)?;
        let reader = ExpressionReader::open(data, &self.named.vocabulary, read)?;
        inputs::describe_genes(self.terminal, &reader)?;
        let embedding = self.embedding();
        let width = embedding.width(self.config);
        let n_cells = reader.n_cells();
        let labels = match (&self.options.attention, &self.options.label) {
            (Some(_), Some(column)) => Some(reader.source().labels(column)?.known(&MissingNames::default())),
            _ => None,
        };
        let mut attention =
            AttentionByClass::new(labels.as_ref().map_or(0, |labels| labels.categories.len()));
        let mut sink = self.open(&reader, width)?;
        let bar = self.terminal.progress("embedding", n_cells as u64, "cells");
        let mut first_row = 0;
        for batch in reader {
            let batch = batch?;
            if !matches!(sink, Sink::None) {
                let values = embed(encoder, &batch, embedding, device)?;
                match &mut sink {
                    Sink::None => {}
                    Sink::File(file, slot) => file.write_rows(*slot, first_row, &values)?,
                    Sink::Npy(matrix) => matrix.push_rows(&values)?,
                    Sink::Table(table, cell_ids) => {
                        for (row, cell) in batch.rows.iter().zip(values.chunks_exact(width)) {
                            table.push(&cell_ids[*row as usize], cell)?;
                        }
                    }
                }
            }
            if let Some(labels) = &labels {
                let classes: Vec<Option<u32>> =
                    batch.rows.iter().map(|&row| labels.codes[row as usize]).collect();
                attention.add(encoder, &batch, &classes, device)?;
            }
            first_row += batch.n_cells();
            bar.update(first_row as u64, "");
        }
        bar.finish();
        let written = self.finish(sink)?;
        let seconds = started.elapsed().as_secs_f64();
        if let Some(path) = &written {
            let rate = n_cells as f64 / seconds.max(f64::MIN_POSITIVE);
            lines.push(format!(
                "wrote {n_cells} x {width} numbers ({}) to {} in {seconds:.1} s ({rate:.0} cells/s on {})",
                self.options.embedding,
                path.display(),
                self.device
            ));
            let cells = json!({
                "out": path, "cells": n_cells, "embedding": self.options.embedding, "width": width,
                "seconds": seconds, "cells_per_second": rate,
            });
            add(value, "cells", cells);
        }
        if let (Some(path), Some(labels)) = (&self.options.attention, &labels) {
            let figure = self.write_attention(path, &attention, &labels.categories)?;
            lines.push(format!(
                "wrote attention by cell type to {} and {}",
                path.display(),
                figure.display()
            ));
            add(value, "attention", json!({ "out": path, "figure": figure, "classes": labels.categories }));
        }
        Ok(())
    }

    fn open(&self, reader: &ExpressionReader, width: usize) -> Result<Sink, Failure> {
        let input = reader.source().path().to_path_buf();
        if self.options.in_place {
            return self.slot(H5adAnnotator::create_in_place(&input)?, width);
        }
        let Some(out) = &self.options.out else { return Ok(Sink::None) };
        match out.extension().and_then(|extension| extension.to_str()).unwrap_or_default() {
            "h5ad" => self.slot(H5adAnnotator::create(&input, out, self.existing())?, width),
            "parquet" => {
                let table = EmbeddingTable::create(out, self.existing(), "cell_id", width)?;
                Ok(Sink::Table(Box::new(table), reader.source().cell_ids()?))
            }
            "npy" => Ok(Sink::Npy(Box::new(NpyMatrix::create(out, self.existing(), width)?))),
            _ => Err(Failure::new(
                Category::Usage,
                format!("{} does not say what kind of file is wanted", out.display()),
            )
            .with_help("end its name in .h5ad, .parquet or .npy")),
        }
    }

    fn slot(&self, mut file: H5adAnnotator, width: usize) -> Result<Sink, Failure> {
        let slot = file.obsm(&self.options.name, width)?;
        Ok(Sink::File(Box::new(file), slot))
    }

    fn finish(&self, sink: Sink) -> Result<Option<PathBuf>, Failure> {
        Ok(match sink {
            Sink::None => None,
            Sink::Table(table, _) => Some(table.finish()?.path),
            Sink::Npy(matrix) => Some(matrix.finish()?.path),
            Sink::File(mut file, _) => {
                let entries = [
                    ("embedding", UnsValue::Text(self.options.embedding.clone())),
                    ("obsm", UnsValue::Text(self.options.name.clone())),
                    ("version", UnsValue::Text(env!("CARGO_PKG_VERSION").into())),
                ];
                file.uns("cellpatch_embedding", &entries)?;
                Some(file.finish()?.path)
            }
        })
    }

    /// The table, and a figure beside it.
    fn write_attention(
        &self,
        path: &Path,
        attention: &AttentionByClass,
        classes: &[String],
    ) -> Result<PathBuf, Failure> {
        let figure = path.with_extension("svg");
        let table = attention::csv(attention, classes, &self.named.vocabulary);
        let svg =
            attention::heatmap(attention, classes, &self.named.vocabulary).map(|heatmap| heatmap.to_svg());
        for (path, text) in [(path, Some(table)), (figure.as_path(), svg)] {
            if path.exists() && !self.options.overwrite {
                return Err(cellpatch_data::Error::FileExists { path: path.to_path_buf() }.into());
            }
            if let Some(text) = text {
                std::fs::write(path, text)
                    .map_err(|error| cellpatch_data::Error::io("write", path, error))?;
            }
        }
        Ok(figure)
    }
}

fn add(value: &mut Value, name: &str, entry: Value) {
    if let Value::Object(fields) = value {
        fields.insert(name.into(), entry);
    }
}
