//! Settings of `annotate train` and `annotate predict`.

use std::path::PathBuf;

use cellpatch_data::{ExpressionOptions, Fractions, MatrixChoice, MousePolicy, ValuePolicy};
use cellpatch_model::{AnnotationHead, AnnotatorConfig, CellPatchConfig};
use cellpatch_train::annotation::ClassWeights;
use cellpatch_train::{AnnotationConfig, CheckpointPolicy, Schedule};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::device::DeviceChoice;
use crate::failure::{Category, Failure};
use crate::memory_size::MemorySize;
use crate::model::NamedModel;
use crate::options::{PretrainOptions, mouse_policy};

/// How cells of one file, or of several, are read.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[command(next_help_heading = "Data")]
pub(crate) struct ReadOptions {
    /// Read counts from this layer [default: raw/X if it holds counts, else X]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// Read the cells of this genome, where a 10x input has several
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub genome: Option<String>,
    /// Whether the values are counts, or log1p-normalised already and used as they are [default: counts]
    #[arg(long, value_name = "counts|normalized", value_parser = ["counts", "normalized"], hide_possible_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<String>,
    /// Gene tokens of the model: a vocabulary.parquet or gene2tok.json[.gz] [default: what lies beside the model]
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<PathBuf>,
    /// Least share of genes that must be in the model's vocabulary, from 0 to 1 [default: 0.1]
    #[arg(long, value_name = "SHARE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_match: Option<f64>,
    /// What becomes of mouse genes where the vocabulary is of human ones: refused, replaced by their human orthologs, or their
    /// symbols written in capitals, which is an approximation [default: refuse]
    #[arg(long, value_name = "refuse|orthologs|uppercase", value_parser = ["refuse", "orthologs", "uppercase"], hide_possible_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mouse_genes: Option<String>,
    /// Most genes of a cell that go in; of more, a random sample [default: 3000]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_input: Option<usize>,
    /// Decides everything random [default: 42]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

impl ReadOptions {
    pub(crate) fn choice(&self) -> MatrixChoice {
        let normalized = self.values.as_deref() == Some("normalized");
        MatrixChoice {
            layer: self.layer.clone(),
            genome: self.genome.clone(),
            values: if normalized { ValuePolicy::Normalized } else { ValuePolicy::Counts },
        }
    }

    pub(crate) fn mouse(&self) -> MousePolicy {
        mouse_policy(self.mouse_genes.as_deref())
    }

    /// How a file is read in its own order.
    ///
    /// - `max_input`: what the model was trained with
    pub(crate) fn expressions(
        &self,
        model: &NamedModel,
        max_input: usize,
    ) -> Result<ExpressionOptions, Failure> {
        let default = ExpressionOptions::default();
        let min_match = self.min_match.unwrap_or(default.min_match);
        if !(0.0..=1.0).contains(&min_match) {
            return Err(usage(format!("min-match is {min_match}: it must be from 0 to 1")));
        }
        Ok(ExpressionOptions {
            choice: self.choice(),
            genes: model.genes.clone(),
            max_input: self.max_input.unwrap_or(max_input).max(1),
            min_match,
            mouse: self.mouse(),
            seed: self.seed.unwrap_or(default.seed),
            ..default
        })
    }
}

pub(crate) fn usage(message: String) -> Failure {
    Failure::new(Category::Usage, message)
}

/// Settings of `annotate train`.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[command(next_help_heading = "Data")]
pub(crate) struct TrainOptions {
    /// Labelled cells, which are split: an .h5ad file, a folder of them; repeat for more
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Vec<PathBuf>>,
    /// Instead of --data: files to train on; repeat for more
    #[arg(long, value_name = "PATH", conflicts_with = "data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train: Option<Vec<PathBuf>>,
    /// With --train: files to choose the best epoch by [default: a tenth of the training cells]
    #[arg(long, value_name = "PATH", conflicts_with = "data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<Vec<PathBuf>>,
    /// With --train: files to judge by [default: none]
    #[arg(long, value_name = "PATH", conflicts_with = "data")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Vec<PathBuf>>,
    /// The obs column with the cell types [default: cell_type]
    #[arg(long, value_name = "COLUMN")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Names in that column that mean no label, beside empty ones and nan; repeat for more
    #[arg(long = "missing-label", value_name = "NAME")]
    #[serde(rename = "missing-label", skip_serializing_if = "Option::is_none")]
    pub missing_labels: Option<Vec<String>>,
    /// How --data is split: stratified (every class in all parts) or random [default: stratified]
    #[arg(long, value_name = "stratified|random", value_parser = ["stratified", "random"], hide_possible_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Keep the groups of this obs column together, such as donor_id
    #[arg(long, value_name = "COLUMN", conflicts_with = "split")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_by: Option<String>,
    /// A table of cell and part (train, validation, test), such as the split.tsv of an earlier run
    #[arg(long, value_name = "FILE", conflicts_with_all = ["split", "split_by"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_file: Option<PathBuf>,
    /// Shares of the three parts [default: 0.8,0.1,0.1]
    #[arg(long, value_name = "TRAIN,VALIDATION,TEST", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fractions: Option<Vec<f64>>,
    #[command(flatten)]
    #[serde(flatten)]
    pub read: ReadOptions,
    /// Where the encoder starts: a run, a .safetensors or .pth file, or none [default: none]
    #[arg(long, value_name = "RUN|FILE|none", help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// Train the head only
    #[arg(long, value_name = "true|false", hide_possible_values = true, num_args = 0..=1, default_missing_value = "true", help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeze: Option<bool>,
    /// What the head reads: the patches (direct), or the patches through the latent bottleneck (projected) [default: direct]
    #[arg(long, value_name = "direct|projected", value_parser = ["direct", "projected"], hide_possible_values = true, help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// Without --init: the model, paper or tiny [default: paper]
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Dropout of the head's hidden layers [default: 0.1]
    #[arg(long, value_name = "SHARE", help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// Train the head on features of mean 0 and deviation 1 [default: true]
    #[arg(long, value_name = "true|false", hide_possible_values = true, num_args = 0..=1, default_missing_value = "true", help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalize_features: Option<bool>,
    /// Passes over the training cells [default: 50, or as many as 1,000 steps take]
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
    /// Cells per optimizer step [default: 32]
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<usize>,
    /// Adam's step size [default: 1e-3]
    #[arg(long, value_name = "X", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// L2, coupled into the gradient [default: 5e-4]
    #[arg(long, value_name = "X", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f32>,
    /// Clip the norm over all gradients together; 0 for no clipping [default: 5]
    #[arg(long, value_name = "NORM", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f32>,
    /// Steps over which the learning rate rises from 0 [default: 50]
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<usize>,
    /// What the learning rate does after the warm-up [default: cosine]
    #[arg(long, value_name = "constant|cosine", value_parser = ["constant", "cosine"], hide_possible_values = true, help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// Stop after this many epochs without a better validation macro-F1 [default: never]
    #[arg(long, value_name = "EPOCHS", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<usize>,
    /// How much a cell of each class counts: none (all alike), square-root or balanced (all classes alike) [default: square-root]
    #[arg(long, value_name = "none|square-root|balanced", value_parser = ["none", "square-root", "balanced"], hide_possible_values = true, help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_weights: Option<String>,
    /// Share of the wanted probability that is spread over all classes [default: 0]
    #[arg(long, value_name = "SHARE", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_smoothing: Option<f32>,
    /// Genes by which each class is told from the others, and to which cells are reduced; 0 for all genes [default: 50]
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub genes_per_class: Option<usize>,
    /// Share of a training cell's genes left out, others each time [default: 0.3]
    #[arg(long, value_name = "SHARE", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gene_dropout: Option<f32>,
    /// Train this many times, with other seeds and splits, and report mean and 95 % interval [default: 1]
    #[arg(long, value_name = "N", help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeats: Option<usize>,
    /// Also label the test cells by logistic regression and nearest neighbours
    #[arg(long, value_name = "true|false", hide_possible_values = true, num_args = 0..=1, default_missing_value = "true", help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<bool>,
    /// Most attention scores, or kept rows' numbers where scores are not stored, held at a time, in millions [default: 64]
    #[arg(long, value_name = "MILLIONS", help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_scores: Option<usize>,
    /// Memory that sharding may use for cells, such as 512M or 2G [default: 256M]
    #[arg(long, value_name = "SIZE", help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<MemorySize>,
    /// auto, cpu, wgpu, cuda, cuda:N or ndarray [default: auto]
    #[arg(long, value_name = "DEVICE", help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceChoice>,
}

impl TrainOptions {
    pub(crate) fn label(&self) -> &str {
        self.label.as_deref().unwrap_or("cell_type")
    }

    pub(crate) fn seed(&self) -> u64 {
        self.read.seed.unwrap_or(42)
    }

    pub(crate) fn repeats(&self) -> usize {
        self.repeats.unwrap_or(1).max(1)
    }

    pub(crate) fn fractions(&self) -> Result<Fractions, Failure> {
        match self.fractions.as_deref() {
            None => Ok(Fractions::default()),
            Some(&[train, validation, test]) => Ok(Fractions { train, validation, test }),
            Some(given) => Err(usage(format!("fractions has {} shares: three are needed", given.len()))
                .with_help(
                    "give the shares to train, validate and test on, such as --fractions 0.8,0.1,0.1",
                )),
        }
    }

    /// The model of a run without `--init`.
    pub(crate) fn model(&self) -> Result<CellPatchConfig, Failure> {
        PretrainOptions { preset: self.preset.clone(), ..PretrainOptions::default() }.model()
    }

    /// What the training computes.
    pub(crate) fn annotation(
        &self,
        model: CellPatchConfig,
        n_classes: usize,
        seed: u64,
    ) -> Result<AnnotationConfig, Failure> {
        let mut annotator = AnnotatorConfig::new(model, n_classes);
        annotator.dropout = self.dropout.unwrap_or(annotator.dropout);
        annotator.head = match self.head.as_deref() {
            Some("projected") => AnnotationHead::Projected,
            _ => AnnotationHead::Direct,
        };
        let mut config = AnnotationConfig::new(annotator);
        config.seed = seed;
        config.freeze_encoder = self.freeze.unwrap_or(false);
        config.normalize_features = self.normalize_features.unwrap_or(config.normalize_features);
        config.class_weights = match self.class_weights.as_deref() {
            Some("balanced") => ClassWeights::Balanced,
            Some("square-root") => ClassWeights::SquareRoot,
            Some("none") => ClassWeights::None,
            _ => config.class_weights,
        };
        config.schedule = match self.schedule.as_deref() {
            Some("constant") => Schedule::Constant,
            Some("cosine") => Schedule::Cosine,
            _ => config.schedule,
        };
        config.label_smoothing = self.label_smoothing.unwrap_or(config.label_smoothing);
        if let Some(n) = self.genes_per_class {
            config.genes_per_class = (n > 0).then_some(n);
        }
        config.gene_dropout = self.gene_dropout.unwrap_or(config.gene_dropout);
        config.max_input = self.read.max_input.unwrap_or(config.max_input);
        config.epochs = self.epochs.unwrap_or(config.epochs);
        config.batch_size = self.batch_size.unwrap_or(config.batch_size);
        config.max_scores = self.max_scores.map_or(config.max_scores, |millions| millions * 1_000_000);
        config.learning_rate = self.learning_rate.unwrap_or(config.learning_rate);
        config.weight_decay = self.weight_decay.unwrap_or(config.weight_decay);
        config.clip_norm = self.clip_norm.map_or(config.clip_norm, |norm| (norm != 0.0).then_some(norm));
        config.warmup_steps = self.warmup_steps.unwrap_or(config.warmup_steps);
        config.patience = self.patience.or(config.patience);
        config.validate()?;
        Ok(config)
    }

    /// When checkpoints are written.
    pub(crate) fn checkpoints(&self) -> CheckpointPolicy {
        CheckpointPolicy { keep: 1, ..CheckpointPolicy::default() }
    }
}

/// Settings of `annotate predict`.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct PredictOptions {
    /// The run of `annotate train`, or its model.safetensors
    #[arg(long, value_name = "RUN")]
    pub model: PathBuf,
    /// The .h5ad file to label
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    #[command(flatten)]
    pub read: ReadOptions,
    /// Where the labels go: an .h5ad (a copy of the input with new columns), .csv, .tsv or .parquet
    #[arg(long, short, value_name = "FILE", required_unless_present = "in_place", help_heading = "Result")]
    pub out: Option<PathBuf>,
    /// Add the columns to the input file itself
    #[arg(long, conflicts_with = "out", help_heading = "Result")]
    pub in_place: bool,
    /// Replace the output file if there is one
    #[arg(long, help_heading = "Result")]
    pub overwrite: bool,
    /// What the new members are called: NAME_label, NAME_confidence, ... [default: cellpatch]
    #[arg(
        long,
        value_name = "NAME",
        default_value = "cellpatch",
        hide_default_value = true,
        help_heading = "Result"
    )]
    pub prefix: String,
    /// Also write the probability of every class
    #[arg(long, help_heading = "Result")]
    pub probabilities: bool,
    /// Also write the N most probable classes
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, help_heading = "Result")]
    pub top: usize,
    /// Confidence below which a cell is called unknown; 0 for never [default: chosen on the validation cells]
    #[arg(long, value_name = "X", help_heading = "Result")]
    pub unknown_below: Option<f64>,
    /// An obs column with the true cell types, to score the labels against
    #[arg(long, value_name = "COLUMN", help_heading = "Result")]
    pub label: Option<String>,
    /// auto, cpu, wgpu, cuda, cuda:N or ndarray [default: auto]
    #[arg(long, value_name = "DEVICE", help_heading = "Run")]
    pub device: Option<DeviceChoice>,
}
