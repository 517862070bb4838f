//! Every setting of `pretrain` and `shard`: a flag, a key of the configuration file, and a default.
//!
//! The same struct is read from the command line and from TOML; flags win over the file, the file over the defaults.

use std::path::{Path, PathBuf};

use cellpatch_data::{Masking, MatrixChoice, MousePolicy, QualityFilter, ShardOptions, ValuePolicy};
use cellpatch_model::{CellPatchConfig, ExpressionEmbedding, Precision, Preset};
use cellpatch_train::{CheckpointPolicy, PretrainingConfig, Schedule, ValidationSplit};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::cache::CacheChoice;
use crate::device::DeviceChoice;
use crate::failure::Failure;
use crate::memory_size::MemorySize;

/// `obs` columns that are kept in shards when a file has them.
pub(crate) const USUAL_COLUMNS: [&str; 8] =
    ["cell_type", "donor_id", "assay", "tissue", "disease", "batch", "sex", "development_stage"];

/// What --vocabulary calls the built-in table of human genes.
pub(crate) const HUMAN: &str = "human";

/// Settings of reading and sharding.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
#[command(next_help_heading = "Data")]
pub(crate) struct DataOptions {
    /// An .h5ad file, a 10x .h5 file or matrix folder, a folder of these, or a shard set; repeat for more. A shard set may
    /// also be on a server: s3://bucket/path, gs://, az://, https://host/path
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Vec<PathBuf>>,
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
    /// Leave out cells with fewer genes [default: 200]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_genes: Option<usize>,
    /// Leave out genes seen in fewer cells of a file [default: 3]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_cells: Option<usize>,
    /// Take a random sample of this many cells [default: all]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cells: Option<usize>,
    /// Divide the sample of --max-cells by the labels of this obs column, each in its proportion and at least one cell
    #[arg(long, value_name = "COLUMN")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stratify: Option<String>,
    /// Keep cells that a file's is_primary_data calls copies of another data set's [default: false]
    #[arg(long, value_name = "true|false", hide_possible_values = true, num_args = 0..=1, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_secondary: Option<bool>,
    /// Gene tokens to use: a vocabulary.parquet, a released gene2tok.json[.gz], or human, the built-in table of human
    /// genes [default: made from the data]
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<PathBuf>,
    /// Leave out genes that are not in --vocabulary instead of giving them new tokens [default: false]
    #[arg(long, value_name = "true|false", hide_possible_values = true, num_args = 0..=1, default_missing_value = "true")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known_genes_only: Option<bool>,
    /// With --vocabulary, stop when less than this share of a file's genes is in it [default: 0.3]
    #[arg(long, value_name = "SHARE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_match: Option<f64>,
    /// What becomes of mouse genes where the vocabulary is of human ones: refused, replaced by their human orthologs, or their
    /// symbols written in capitals, which is an approximation [default: refuse]
    #[arg(long, value_name = "refuse|orthologs|uppercase", value_parser = ["refuse", "orthologs", "uppercase"], hide_possible_values = true)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mouse_genes: Option<String>,
    /// Keep this obs column in the shards; repeat for more [default: the usual ones, such as cell_type and donor_id]
    #[arg(long = "obs-column", value_name = "COLUMN")]
    #[serde(rename = "obs-column", skip_serializing_if = "Option::is_none")]
    pub obs_columns: Option<Vec<String>>,
    /// Memory that sharding may use for cells, such as 512M or 2G [default: 256M]
    #[arg(long, value_name = "SIZE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<MemorySize>,
    /// Decides everything random [default: 42]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Rows of the gene embedding, padding included [default: the preset's, 70,000 for paper]
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gene_capacity: Option<usize>,
}

/// Settings of a pretraining.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct PretrainOptions {
    #[command(flatten)]
    #[serde(flatten)]
    pub data: DataOptions,
    #[command(flatten)]
    #[serde(flatten)]
    pub cache: CacheChoice,
    /// The model: paper, released or tiny [default: paper]
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// How a value enters the model: continuous (released weights) or binned to 0..5 (the paper's text) [default: the preset's]
    #[arg(long, value_name = "continuous|binned", value_parser = ["continuous", "binned"], hide_possible_values = true, help_heading = "Model")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
    /// Passes over the training cells [default: 50]
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
    /// Cells per optimizer step [default: 512]
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<usize>,
    /// Put cells of similar length into one batch: less padding, noisier training [default: false]
    #[arg(long, value_name = "true|false", hide_possible_values = true, num_args = 0..=1, default_missing_value = "true", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length_buckets: Option<bool>,
    /// Adam's step size [default: 1e-4]
    #[arg(long, value_name = "X", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// L2, coupled into the gradient [default: 5e-5]
    #[arg(long, value_name = "X", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f32>,
    /// Clip the norm over all gradients together [default: no clipping]
    #[arg(long, value_name = "NORM", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f32>,
    /// Steps over which the learning rate rises from 0 [default: 0]
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<usize>,
    /// What the learning rate does after the warm-up [default: constant]
    #[arg(long, value_name = "constant|cosine", value_parser = ["constant", "cosine"], hide_possible_values = true, help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// Where the cosine ends [default: 0]
    #[arg(long, value_name = "X", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_learning_rate: Option<f64>,
    /// Stop after this many epochs without a better validation loss [default: never]
    #[arg(long, value_name = "EPOCHS", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<usize>,
    /// Share of cells kept for validation [default: 0.1]
    #[arg(long, value_name = "SHARE", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_fraction: Option<f64>,
    /// Keep the groups of this obs column together when splitting, such as donor_id [default: random cells]
    #[arg(long, value_name = "COLUMN", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_by: Option<String>,
    /// Share of a cell's non-zero genes that are hidden and predicted [default: 0.3]
    #[arg(long, value_name = "SHARE", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub masked_fraction: Option<f64>,
    /// Most genes of a cell that go in [default: 3000]
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_input: Option<usize>,
    /// Most genes of a cell that are predicted [default: 1000]
    #[arg(long, value_name = "N", help_heading = "Training")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_targets: Option<usize>,
    /// Most attention scores, or kept rows' numbers where scores are not stored, held at a time, in millions: larger
    /// batches are computed in parts [default: 64]
    #[arg(long, value_name = "MILLIONS", help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_scores: Option<usize>,
    /// Seconds between checkpoints inside an epoch [default: 300]
    #[arg(long, value_name = "SECONDS", help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_seconds: Option<f64>,
    /// Steps between checkpoints inside an epoch [default: only by time]
    #[arg(long, value_name = "STEPS", help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_steps: Option<u64>,
    /// Checkpoints that stay on the disk [default: 2]
    #[arg(long, value_name = "N", help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_checkpoints: Option<usize>,
    /// Colour the report's cells by this obs column [default: cell_type if there is one]
    #[arg(long, value_name = "COLUMN", help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// auto, cpu, wgpu, cuda, cuda:N or ndarray [default: auto; cpu for the built-in cells]
    #[arg(long, value_name = "DEVICE", help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceChoice>,
    /// How a GPU's kernels store what lies inside blocks: f32, bf16, or f16; sums, norms and weights have 32 bits always
    /// [default: f32]
    #[arg(long, value_name = "NAME", help_heading = "Run")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
}

impl DataOptions {
    /// What sharding is asked to do.
    ///
    /// - `wanted`: columns a later step needs, kept beside those that were asked for.
    pub(crate) fn shard_options(&self, capacity: usize, wanted: &[String]) -> Result<ShardOptions, Failure> {
        let default = ShardOptions::default();
        let mut obs_columns: Vec<String> =
            wanted.iter().chain(self.obs_columns.iter().flatten()).cloned().collect();
        obs_columns.sort();
        obs_columns.dedup();
        let vocabulary =
            self.vocabulary.as_deref().map(|path| read_vocabulary(path, capacity)).transpose()?;
        Ok(ShardOptions {
            seed: self.seed.unwrap_or(42),
            quality: QualityFilter {
                min_genes: self.min_genes.unwrap_or(default.quality.min_genes),
                min_cells: self.min_cells.unwrap_or(default.quality.min_cells),
            },
            choice: MatrixChoice {
                layer: self.layer.clone(),
                genome: self.genome.clone(),
                values: match self.values.as_deref() {
                    Some("normalized") => ValuePolicy::Normalized,
                    _ => ValuePolicy::Counts,
                },
            },
            obs_columns,
            max_cells: self.max_cells,
            stratify: self.stratify.clone(),
            keep_secondary: self.keep_secondary.unwrap_or(false),
            max_memory: self.max_memory.map_or(default.max_memory, |size| size.bytes),
            min_match: self.min_match.unwrap_or(if vocabulary.is_some() { 0.3 } else { 0.0 }),
            mouse: mouse_policy(self.mouse_genes.as_deref()),
            extend_vocabulary: !self.known_genes_only.unwrap_or(false),
            vocabulary,
            capacity,
            ..default
        })
    }
}

/// What a flag says of mouse genes.
pub(crate) fn mouse_policy(flag: Option<&str>) -> MousePolicy {
    match flag {
        Some("uppercase") => MousePolicy::Uppercase,
        Some("orthologs") => MousePolicy::Orthologs,
        _ => MousePolicy::Refuse,
    }
}

/// Reads a vocabulary: Parquet, a released JSON dictionary, or the built-in table of human genes.
pub(crate) fn read_vocabulary(
    path: &Path,
    capacity: usize,
) -> Result<cellpatch_data::GeneVocabulary, Failure> {
    if path == Path::new(HUMAN) && !path.exists() {
        return Ok(cellpatch_data::GeneVocabulary::reference(capacity)?);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.ends_with(".json") || name.ends_with(".json.gz") {
        Ok(cellpatch_data::GeneVocabulary::from_gene2tok(path, capacity)?)
    } else {
        Ok(cellpatch_data::GeneVocabulary::read_parquet(path)?)
    }
}

impl PretrainOptions {
    /// The model that was asked for.
    pub(crate) fn model(&self) -> Result<CellPatchConfig, Failure> {
        let preset = match &self.preset {
            Some(name) => name.parse::<Preset>()?,
            None => Preset::Paper,
        };
        let mut model = preset.config();
        if let Some(capacity) = self.data.gene_capacity {
            model.gene_capacity = capacity;
        }
        match self.expression.as_deref() {
            Some("binned") => model.expression = ExpressionEmbedding::Binned { max_value: 5 },
            Some("continuous") => model.expression = ExpressionEmbedding::Continuous,
            _ => {}
        }
        Ok(model)
    }

    /// What the training computes.
    pub(crate) fn pretraining(&self) -> Result<PretrainingConfig, Failure> {
        let mut config = PretrainingConfig::new(self.model()?);
        let masking = Masking::default();
        config.masking = Masking {
            masked_fraction: self.masked_fraction.unwrap_or(masking.masked_fraction),
            max_input: self.max_input.unwrap_or(masking.max_input),
            max_targets: self.max_targets.unwrap_or(masking.max_targets),
            ..masking
        };
        config.validation = ValidationSplit {
            fraction: self.validation_fraction.unwrap_or(config.validation.fraction),
            by: self.validation_by.clone(),
        };
        config.max_cells = self.data.max_cells;
        config.epochs = self.epochs.unwrap_or(config.epochs);
        config.batch_size = self.batch_size.unwrap_or(config.batch_size);
        config.length_buckets = self.length_buckets.unwrap_or(false);
        config.max_scores = self.max_scores.map_or(config.max_scores, |millions| millions * 1_000_000);
        config.learning_rate = self.learning_rate.unwrap_or(config.learning_rate);
        config.weight_decay = self.weight_decay.unwrap_or(config.weight_decay);
        config.clip_norm = self.clip_norm;
        config.warmup_steps = self.warmup_steps.unwrap_or(0);
        config.min_learning_rate = self.min_learning_rate.unwrap_or(0.0);
        config.patience = self.patience;
        config.seed = self.data.seed.unwrap_or(config.seed);
        config.schedule = match self.schedule.as_deref() {
            Some("cosine") => Schedule::Cosine,
            _ => Schedule::Constant,
        };
        config.validate()?;
        Ok(config)
    }

    /// When checkpoints are written.
    pub(crate) fn checkpoints(&self) -> CheckpointPolicy {
        let default = CheckpointPolicy::default();
        CheckpointPolicy {
            every_seconds: self.checkpoint_seconds.unwrap_or(default.every_seconds),
            every_steps: self.checkpoint_steps.filter(|&steps| steps > 0),
            keep: self.keep_checkpoints.unwrap_or(default.keep).max(1),
        }
    }

    /// `obs` columns this pretraining cannot do without.
    pub(crate) fn required_columns(&self) -> Vec<String> {
        self.validation_by.iter().chain(&self.label).cloned().collect()
    }
}
