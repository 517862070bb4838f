//! # cellpatch-train
//!
//! Training of CellPatch: pretraining, in which masked genes are predicted from the others, and annotation, in which cells are told
//! their types. This crate joins `cellpatch-data`, which knows no tensors, and `cellpatch-model`, which knows no cells.
//!
//! - [`PretrainingConfig`] decides what is computed; its defaults are the paper's. Two runs with equal configurations on
//!   equal data give equal bits on the CPU.
//! - [`PretrainingData`] splits a shard set and opens a loader on each half.
//! - [`pretrain`] trains through Burn's `Learner` and `SupervisedTraining`. [`Pretrainer`] is the `TrainStep`: it computes
//!   a batch in parts of similar length under a memory limit, adds up their gradients, and clips their global norm where
//!   that is asked for.
//! - The loop itself is a learning strategy of ours. Burn's own forget the position in the data and save at the ends of
//!   epochs only; this one commits weights, moments and position together, at any step, as one [`Checkpoint`] folder. Every
//!   random number is a function of seed and position, so a run that is killed and resumed computes the bits of one that
//!   was not. [`train`] opens it to other models: a [`Trainee`] says what a step is, a [`BatchSource`] where batches come
//!   from, a [`TrainingSetup`] the rest; validation can be left out.
//! - [`collective`] lets several processes, on one machine or many, train one model: each takes its part of every batch, and
//!   [`pretrain_as_rank`] takes the step of the whole.
//! - [`GeneMeans`] gives the loss a yardstick: predicting every gene's training mean. R2 is measured against it.
//! - [`RunDirectory`] holds what a run writes; [`Observer`] watches it.
//! - [`annotate`] finetunes on the classes of an [`AnnotationData`], as an [`AnnotationConfig`] says, and keeps the model that labels the
//!   validation cells best with an [`AnnotationCard`]; [`annotation`] has what labels cells with it, and the baselines it is
//!   measured against.
//! - [`embed`] and [`patch_features`] read cells with a trained model; [`AttentionByClass`] tells which genes it looks at.
//!
//! ```
//! use std::sync::Arc;
//! use burn::backend::{Autodiff, Flex};
//! use cellpatch_data::synthetic::{SyntheticConfig, write_h5ad};
//! use cellpatch_data::{ShardOptions, write_shards};
//! use cellpatch_model::Preset;
//! use cellpatch_train::{Execution, PretrainingConfig, PretrainingData, RunDirectory, pretrain};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let file = folder.path().join("cells.h5ad");
//! write_h5ad(&SyntheticConfig { n_cells: 60, ..Default::default() }, &file)?;
//! let shards = write_shards(&[file], &folder.path().join("shards"), &ShardOptions::default(), &mut |_| {})?;
//!
//! let mut config = PretrainingConfig::new(Preset::Tiny.config().with_gene_capacity(2_100));
//! config.epochs = 1;
//! config.batch_size = 16;
//! let data = PretrainingData::open(Arc::new(shards), &config)?;
//! let run = Arc::new(RunDirectory::create(&folder.path().join("run"))?);
//! let device = Default::default();
//! let outcome = pretrain::<Autodiff<Flex>>(&device, &data, &config, run, Execution::default(), Arc::new(()))?;
//! assert!(outcome.best.is_some_and(|best| best.losses.validation.is_some_and(f64::is_finite)));
//! # Ok(())
//! # }
//! ```

pub mod annotation;
mod attention;
mod baseline;
mod batches;
mod checkpoint;
mod clipping;
pub mod collective;
mod config;
mod error;
mod features;
mod files;
mod loss;
mod metrics;
mod objective;
mod optimizer;
mod prepared;
mod pretrain;
mod renderer;
mod run;
mod schedule;
mod setup;
mod strategy;

pub use annotation::{AnnotationCard, AnnotationConfig, AnnotationData, AnnotationOutcome, annotate};
pub use attention::{AttentionByClass, GeneAttention};
pub use baseline::GeneMeans;
pub use batches::{Batch, BatchIterator, BatchSource, Batches, Cursor, MaskedCells, PretrainingBatch};
pub use checkpoint::{BestEpoch, Checkpoint, EpochLosses, Fingerprint, Finish, TrainingState, newest, read};
pub use clipping::clip_global_norm;
pub use config::{PretrainingConfig, Schedule, ValidationSplit};
pub use error::{Error, Result};
pub use features::{CellEmbedding, CellFeatures, embed, patch_features};
pub use files::{read_json, write_json};
pub use loss::BatchLoss;
pub use metrics::{ClassificationScores, EpochRecord, MetricRecord, Observer, StepRecord, read_metrics};
pub use objective::{Pretrainer, PretrainingMemory, numbered};
pub use optimizer::{CoupledAdam, SharedOptimizer, coupled_adam};
pub use prepared::{Preparation, PreparedCells};
pub use pretrain::{Execution, ModelCard, PretrainingData, PretrainingOutcome, pretrain, pretrain_as_rank};
pub use run::RunDirectory;
pub use schedule::LearningRate;
pub use setup::{CheckpointPolicy, Trainee, TrainingSetup};
pub use strategy::{STEPS_PER_READ, train};
