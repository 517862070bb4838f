//! The command tree.

use std::path::PathBuf;

use cellpatch_data::ShardPart;
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::annotate::{PredictOptions, TrainOptions};
use crate::cache::CacheChoice;
use crate::datasets::Datasets;
use crate::device::DeviceChoice;
use crate::embed::EmbedOptions;
use crate::merge::MergeArguments;
use crate::options::{DataOptions, PretrainOptions};
use crate::ranks::RankOptions;
use crate::spatial::SpatialOptions;
use crate::weights::{ExportOptions, ImportOptions};

/// A foundation model for single-cell RNA-seq: from counts to a trained model, on CPU, wgpu and CUDA.
#[derive(Debug, Parser)]
#[command(
    name = "cellpatch",
    version,
    propagate_version = true,
    max_term_width = 120,
    args_override_self = true
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub output: OutputOptions,
}

/// What is printed.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputOptions {
    /// Print one JSON value with the result on stdout, and nothing else there
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress, only results, warnings and errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Pretrain a model by predicting masked genes; without --data, on built-in synthetic cells
    Pretrain(Box<PretrainArguments>),
    /// Turn .h5ad files into a shard set: quality control, gene vocabulary, shuffled Parquet
    Shard(Box<ShardArguments>),
    /// Join the parts that `shard --part` made, on this machine or on many, into one shard set
    Merge(MergeArguments),
    /// Name cell types: finetune on labelled cells, label others
    #[command(subcommand)]
    Annotate(Annotate),
    /// Find domains of tissue on slices with coordinates: STAGATE, or STAGATE behind CellPatch's first layer
    Spatial(Box<SpatialArguments>),
    /// Write embeddings of cells and genes, and attention by cell type
    Embed(Box<EmbedOptions>),
    /// Read weights of PyTorch (.pth) or safetensors into a folder that other commands take as a model
    Import(ImportOptions),
    /// Write a model's weights as safetensors, or as a .pth that PyTorch loads
    Export(ExportOptions),
    /// Public data sets: list, describe and download them, or search CELLxGENE Discover
    #[command(subcommand)]
    Datasets(Datasets),
    /// Describe an .h5ad file, a shard set, a run, a checkpoint or a weights file
    Inspect(InspectArguments),
    /// Show which devices work here, and what the others lack
    Doctor(DoctorArguments),
}

/// Arguments of `pretrain`.
#[derive(Debug, Args)]
pub(crate) struct PretrainArguments {
    #[command(flatten)]
    pub options: PretrainOptions,
    #[command(flatten)]
    pub ranks: RankOptions,
    /// A TOML file whose keys are these flags; flags win over it
    #[arg(long, value_name = "FILE", help_heading = "Run")]
    pub config: Option<PathBuf>,
    /// The folder for everything this run writes [default: runs/pretrain-N]
    #[arg(long, value_name = "FOLDER", help_heading = "Run")]
    pub run_dir: Option<PathBuf>,
    /// Go on from the last checkpoint of --run-dir, or of the newest run
    #[arg(long, help_heading = "Run")]
    pub resume: bool,
}

/// The commands of `annotate`.
#[derive(Debug, Subcommand)]
pub(crate) enum Annotate {
    /// Finetune a model on the cells of a label column, and judge it on test cells
    Train(Box<AnnotateTrainArguments>),
    /// Label the cells of a file with a trained model
    Predict(Box<PredictOptions>),
}

/// Arguments of `annotate train`.
#[derive(Debug, Args)]
pub(crate) struct AnnotateTrainArguments {
    #[command(flatten)]
    pub options: TrainOptions,
    /// A TOML file whose keys are these flags; flags win over it
    #[arg(long, value_name = "FILE", help_heading = "Run")]
    pub config: Option<PathBuf>,
    /// The folder for everything this run writes [default: runs/annotate-N]
    #[arg(long, value_name = "FOLDER", help_heading = "Run")]
    pub run_dir: Option<PathBuf>,
    /// Go on from the last checkpoint of --run-dir, or of the newest run
    #[arg(long, help_heading = "Run")]
    pub resume: bool,
}

/// Arguments of `spatial`.
#[derive(Debug, Args)]
pub(crate) struct SpatialArguments {
    #[command(flatten)]
    pub options: SpatialOptions,
    /// A TOML file whose keys are these flags; flags win over it
    #[arg(long, value_name = "FILE", help_heading = "Run")]
    pub config: Option<PathBuf>,
    /// The folder for everything this run writes [default: runs/spatial-N]
    #[arg(long, value_name = "FOLDER", help_heading = "Run")]
    pub run_dir: Option<PathBuf>,
    /// Go on from the last checkpoint of --run-dir, or of the newest run
    #[arg(long, help_heading = "Run")]
    pub resume: bool,
}

/// Arguments of `shard`.
#[derive(Debug, Args)]
pub(crate) struct ShardArguments {
    #[command(flatten)]
    pub options: DataOptions,
    /// The folder for the shard set
    #[arg(long, short, value_name = "FOLDER")]
    pub out: PathBuf,
    /// Shard only the I-th of N parts of the data, for `merge`: each part is a command of its own, with the same --data in
    /// the same order. It implies --known-genes-only, with the human genes where no --vocabulary is given
    #[arg(long, value_name = "I/N", help_heading = "Parts")]
    pub part: Option<ShardPart>,
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArguments {
    /// What to describe: a file, a folder, or the address of a shard set, such as s3://bucket/path or https://host/path
    pub path: PathBuf,
    #[command(flatten)]
    pub cache: CacheChoice,
    /// Read every file of a shard set and compare its checksum with the manifest's
    #[arg(long)]
    pub verify: bool,
    /// Also show how a file's genes are found in this vocabulary: a vocabulary.parquet, a gene2tok.json[.gz], or human
    #[arg(long, value_name = "PATH")]
    pub vocabulary: Option<PathBuf>,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    /// Try one device in this process
    #[arg(long, hide = true)]
    pub probe: Option<DeviceChoice>,
}

/// The keys a configuration file of `pretrain` may have: its flags that hold a value of their own.
pub(crate) fn pretrain_keys() -> Vec<String> {
    let ranks = RankOptions::augment_args(clap::Command::new("ranks"));
    let belongs_to_a_start: Vec<&str> =
        ranks.get_arguments().filter_map(|argument| argument.get_long()).collect();
    let mut keys = keys(&["pretrain"]);
    keys.retain(|key| !belongs_to_a_start.contains(&key.as_str()));
    keys
}

/// The same of `annotate train`.
pub(crate) fn annotate_train_keys() -> Vec<String> {
    keys(&["annotate", "train"])
}

/// The same of `spatial`.
pub(crate) fn spatial_keys() -> Vec<String> {
    keys(&["spatial"])
}

fn keys(path: &[&str]) -> Vec<String> {
    let elsewhere = ["config", "run-dir", "resume", "json", "quiet", "help", "version"];
    let command = Arguments::command();
    let mut found = Some(&command);
    for name in path {
        found = found.and_then(|command| command.find_subcommand(name));
    }
    let arguments = found.map(|command| command.get_arguments()).into_iter().flatten();
    let names = arguments.filter_map(|argument| argument.get_long());
    names.filter(|name| !elsewhere.contains(name)).map(String::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_key_of_a_stored_configuration_is_a_flag() {
        let keys = pretrain_keys();
        for key in ["data", "batch-size", "obs-column", "device", "seed", "checkpoint-steps"] {
            assert!(keys.iter().any(|known| known == key), "{key} is not in {keys:?}");
        }
        assert!(!keys.iter().any(|key| key == "resume"));
    }
}
