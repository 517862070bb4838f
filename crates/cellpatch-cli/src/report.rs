//! The end of a pretraining: its summary, and the page with curves and cells.

use std::path::PathBuf;

use cellpatch_analysis::{
    CellMap, ConfigurationSection, CurvePoint, DataFacts, DropOut, Fact, NextStep, Pca, PretrainingReport,
    RunFile, Source, Validation,
};
use cellpatch_data::ShardSet;
use cellpatch_model::ModelBackend;
use cellpatch_model::weights::load_safetensors;
use cellpatch_train::{
    EpochLosses, Finish, MetricRecord, PretrainingConfig, PretrainingData, PretrainingOutcome, RunDirectory,
    patch_features, read_metrics,
};
use serde::Serialize;

use crate::device::DeviceChoice;
use crate::failure::Failure;
use crate::options::PretrainOptions;
use crate::ranks::Rank;

/// At most this many validation cells are drawn.
const CELLS_DRAWN: usize = 2_000;

/// Waiting for data is said where it takes more than this share of the time.
const NOTABLE_WAIT: f64 = 0.05;

/// Labels a picture is coloured by when none is named, in order of preference.
const USUAL_LABELS: [&str; 3] = ["cell_type", "cell_types", "label"];

/// The machine-readable result of a pretraining.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Summary {
    pub command: &'static str,
    pub version: &'static str,
    pub device: String,
    /// How many trained together.
    pub processes: usize,
    pub cells_train: usize,
    pub cells_validation: usize,
    pub genes: u64,
    pub vocabulary_size: usize,
    pub epochs: usize,
    pub steps: u64,
    pub seconds: f64,
    pub cells_per_second: f64,
    /// Share of the time in which training waited for its next batch.
    pub waited_for_data: f64,
    pub train_loss: Option<f64>,
    pub validation_loss: Option<f64>,
    pub validation_loss_gene_mean: f64,
    pub validation_r2: Option<f64>,
    pub best_epoch: Option<usize>,
    pub stopped_early: bool,
    /// None on a rank other than 0, which writes nothing.
    pub checkpoint: Option<PathBuf>,
    pub model: PathBuf,
    pub report: PathBuf,
    pub run_dir: PathBuf,
}

impl Summary {
    pub(crate) fn new(
        data: &PretrainingData,
        outcome: &PretrainingOutcome,
        run: &RunDirectory,
        device: DeviceChoice,
        rank: Option<&Rank>,
    ) -> Self {
        let losses: Option<EpochLosses> = outcome.best.map(|best| best.losses);
        let validation = losses.and_then(|losses| losses.validation);
        Self {
            command: "pretrain",
            version: env!("CARGO_PKG_VERSION"),
            device: device.to_string(),
            processes: rank.map_or(1, |rank| rank.world_size),
            cells_train: data.training().n_cells(),
            cells_validation: data.validation().n_cells(),
            genes: u64::from(data.shards().manifest().n_genes),
            vocabulary_size: data.shards().manifest().n_genes as usize,
            epochs: outcome.epochs,
            steps: outcome.steps,
            seconds: outcome.seconds,
            cells_per_second: outcome.cells as f64 / outcome.seconds.max(f64::MIN_POSITIVE),
            waited_for_data: outcome.seconds_waited / outcome.seconds.max(f64::MIN_POSITIVE),
            train_loss: losses.map(|losses| losses.train),
            validation_loss: validation,
            validation_loss_gene_mean: outcome.validation_loss_gene_mean,
            validation_r2: validation.map(|loss| 1.0 - loss / outcome.validation_loss_gene_mean),
            best_epoch: outcome.best.map(|best| best.epoch),
            stopped_early: outcome.finish == Some(Finish::StoppedEarly),
            checkpoint: outcome.checkpoint.clone(),
            model: run.model(),
            report: run.report(),
            run_dir: run.path().to_path_buf(),
        }
    }

    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let number = |value: Option<f64>| value.map_or("none".to_owned(), |value| format!("{value:.4}"));
        let mut text = format!(
            "\npretrained {} epochs on {} cells in {:.0} s ({:.0} cells/s on {}{})\n",
            self.epochs,
            self.cells_train,
            self.seconds,
            self.cells_per_second,
            self.device,
            if self.processes > 1 { format!(", {} processes", self.processes) } else { String::new() },
        );
        if self.waited_for_data > NOTABLE_WAIT {
            text.push_str(&format!(
                "{:.0} % of that time the next batch was not there yet: the disk, the network or the cores are too slow for the device\n",
                100.0 * self.waited_for_data
            ));
        }
        text.push_str(&format!(
            "validation loss {} against {:.4} when each gene's mean is predicted: R2 {}{}\n\n",
            number(self.validation_loss),
            self.validation_loss_gene_mean,
            number(self.validation_r2),
            self.best_epoch
                .filter(|&best| best != self.epochs)
                .map_or(String::new(), |best| format!(" (epoch {best})")),
        ));
        let written = [
            ("model", Some(&self.model)),
            ("report", Some(&self.report)),
            ("checkpoint", self.checkpoint.as_ref()),
        ];
        for (name, path) in written {
            let Some(path) = path else { continue };
            text.push_str(&format!("{name:11}{}\n", path.display()));
        }
        text
    }
}

/// Writes `report.html`: the page is drawn with the weights in `model.safetensors`.
pub(crate) fn write<B: ModelBackend>(
    summary: &Summary,
    options: &PretrainOptions,
    config: &PretrainingConfig,
    data: &PretrainingData,
    run: &RunDirectory,
    device: &B::Device,
) -> Result<(), Failure> {
    let records = read_metrics(&run.metrics())?;
    let best_loss = summary.validation_loss;
    let report = PretrainingReport {
        title: format!("CellPatch pretraining: {}", run.path().display()),
        command_line: std::iter::once("cellpatch".to_owned())
            .chain(std::env::args().skip(1))
            .collect::<Vec<_>>()
            .join(" "),
        summary: summary_facts(summary),
        data: data_facts(data, config)?,
        configuration: configuration(config, summary),
        training_loss: records.iter().filter_map(training_point).collect(),
        validation_loss: records.iter().filter_map(validation_point).collect(),
        validation: best_loss.map(|loss| Validation {
            n_cells: data.validation().n_cells() as u64,
            loss,
            gene_mean_loss: summary.validation_loss_gene_mean,
        }),
        cell_map: cell_map::<B>(options, config, data, run, device)?,
        files: files(),
        next_steps: next_steps(run),
    };
    run.write(&run.report(), report.render().as_bytes())?;
    Ok(())
}

fn training_point(record: &MetricRecord) -> Option<CurvePoint> {
    match record {
        MetricRecord::Step(step) => Some(CurvePoint { step: step.step, loss: step.loss }),
        MetricRecord::Epoch(_) => None,
    }
}

fn validation_point(record: &MetricRecord) -> Option<CurvePoint> {
    match record {
        MetricRecord::Epoch(epoch) => epoch.validation_loss.map(|loss| CurvePoint { step: epoch.step, loss }),
        MetricRecord::Step(_) => None,
    }
}

fn summary_facts(summary: &Summary) -> Vec<Fact> {
    vec![
        Fact::new("Epochs", summary.epochs),
        Fact::new("Optimizer steps", summary.steps),
        Fact::new("Time", format!("{:.0} s", summary.seconds)),
        Fact::new("Speed", format!("{:.0} cells/s", summary.cells_per_second)),
        Fact::new("Device", &summary.device),
    ]
}

fn data_facts(data: &PretrainingData, config: &PretrainingConfig) -> Result<DataFacts, Failure> {
    let manifest = data.shards().manifest();
    let source = |source: &cellpatch_data::SourceEntry| Source {
        name: source.name.clone(),
        n_cells: source.n_cells,
        n_cells_kept: source.n_cells_kept,
        n_genes: source.n_genes,
        n_genes_matched: source.n_matched_by_id + source.n_matched_by_symbol,
        n_genes_new: source.n_new,
    };
    let quality = &manifest.quality;
    Ok(DataFacts {
        n_cells_training: data.training().n_cells() as u64,
        n_cells_validation: data.validation().n_cells() as u64,
        split: match &config.validation.by {
            Some(column) => format!("whole groups of {column}, seed {}", config.seed),
            None => format!("random cells, seed {}", config.seed),
        },
        n_genes: u64::from(manifest.n_genes),
        vocabulary_size: u64::from(data.shards().manifest().n_genes),
        sources: manifest.sources.iter().map(source).collect(),
        drop_outs: vec![DropOut {
            rule: format!("cells with fewer than {} genes", quality.min_genes),
            n_dropped: quality.n_cells_read - quality.n_cells_kept,
            n_total: quality.n_cells_read,
        }],
        genes_per_cell: data.shards().rows()?.n_genes,
    })
}

fn configuration(config: &PretrainingConfig, summary: &Summary) -> Vec<ConfigurationSection> {
    let section = |name: &str, fields: Vec<Fact>| ConfigurationSection { name: name.into(), fields };
    let model = &config.model;
    vec![
        section(
            "Model",
            vec![
                Fact::new("Gene capacity", model.gene_capacity),
                Fact::new("Embedding width", model.embedding_dim),
                Fact::new("Patch tokens", model.n_patches),
                Fact::new("Heads", model.n_heads),
                Fact::new("Expression", format!("{:?}", model.expression)),
                Fact::new("Padding", format!("{:?}", model.padding)),
            ],
        ),
        section(
            "Training",
            vec![
                Fact::new("Epochs asked for", config.epochs),
                Fact::new("Cells a step", config.batch_size),
                Fact::new("Learning rate", config.learning_rate),
                Fact::new(
                    "Schedule",
                    format!("{:?}, {} warm-up steps", config.schedule, config.warmup_steps),
                ),
                Fact::new("L2", config.weight_decay),
                Fact::new(
                    "Clipping",
                    config.clip_norm.map_or("none".to_owned(), |norm| format!("norm {norm}")),
                ),
                Fact::new("Seed", config.seed),
                Fact::new("Version", summary.version),
            ],
        ),
        section(
            "Masking",
            vec![
                Fact::new("Hidden genes", format!("{:.0} %", 100.0 * config.masking.masked_fraction)),
                Fact::new("Zeros a hidden gene", config.masking.zeros_per_masked),
                Fact::new("Most input genes", config.masking.max_input),
                Fact::new("Most targets", config.masking.max_targets),
            ],
        ),
    ]
}

/// Validation cells by the first two principal components of their patches.
fn cell_map<B: ModelBackend>(
    options: &PretrainOptions,
    config: &PretrainingConfig,
    data: &PretrainingData,
    run: &RunDirectory,
    device: &B::Device,
) -> Result<Option<CellMap>, Failure> {
    if !run.model().is_file() || data.validation().n_cells() < 3 {
        return Ok(None);
    }
    let (model, _) = load_safetensors(config.model.init::<B>(device), run.model())?;
    let features = patch_features(model.encoder(), data.validation(), CELLS_DRAWN, device)?;
    let pca = Pca::fit(&features.values, features.rows.len(), features.n_features, 2)?;
    let (name, labels) = labels(options, data.shards())?;
    let of_row = |&row: &u64| labels.get(row as usize).cloned().flatten();
    let labels: Vec<Option<String>> = features.rows.iter().map(of_row).collect();
    Ok(Some(CellMap::from_pca(&pca, name, &labels)))
}

/// The label of every row of the shard set, and the column's name.
fn labels(options: &PretrainOptions, shards: &ShardSet) -> Result<(String, Vec<Option<String>>), Failure> {
    let columns = &shards.manifest().obs_columns;
    let usual = || USUAL_LABELS.into_iter().find(|usual| columns.iter().any(|column| column == usual));
    let Some(name) = options.label.clone().or_else(|| usual().map(String::from)) else {
        return Ok((String::new(), Vec::new()));
    };
    let labels = shards.labels(&name)?;
    let text = |code: &Option<u32>| code.and_then(|code| labels.categories.get(code as usize).cloned());
    Ok((name, labels.codes.iter().map(text).collect()))
}

fn files() -> Vec<RunFile> {
    let file = |path: &str, content: &str| RunFile { path: path.into(), content: content.into() };
    vec![
        file("model.safetensors", "weights of the best epoch, under the released checkpoints' names"),
        file("model.json", "what the weights are: configuration, vocabulary, losses"),
        file("vocabulary.parquet", "the gene of every token"),
        file("metrics.jsonl", "one object a step and epoch"),
        file("checkpoints/", "to go on with --resume"),
        file("config.toml", "every setting, for --config"),
        file("summary.json", "the numbers on this page"),
    ]
}

fn next_steps(run: &RunDirectory) -> Vec<NextStep> {
    let run = run.path().display();
    let step = |purpose: &str, command: String| NextStep { purpose: purpose.into(), command };
    vec![
        step("Go on for more epochs", format!("cargo xtask pretrain --resume --run-dir {run} --epochs N")),
        step("Look at the run", format!("cargo xtask inspect {run}")),
        step("Repeat it elsewhere", format!("cargo xtask pretrain --config {run}/config.toml")),
    ]
}
