//! From a shard set to a pretrained model.

use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::train::Interrupter;
use cellpatch_data::{Loader, LoaderOptions, RowSelection, ShardSet, Split};
use cellpatch_model::ModelBackend;
use cellpatch_model::weights::{config_metadata, save_safetensors};
use serde::{Deserialize, Serialize};

use crate::baseline::GeneMeans;
use crate::batches::{MaskedCells, mix};
use crate::checkpoint::{self, BestEpoch, EpochLosses, Fingerprint, Finish, TrainingState};
use crate::collective::Collective;
use crate::config::PretrainingConfig;
use crate::files::write_json;
use crate::metrics::Observer;
use crate::objective::Pretrainer;
use crate::prepared::Preparation;
use crate::run::RunDirectory;
use crate::setup::{CheckpointPolicy, TrainingSetup};
use crate::strategy;
use crate::{Error, Result};

/// The data of a pretraining, split and ready to be read.
#[derive(Debug)]
pub struct PretrainingData {
    shards: Arc<ShardSet>,
    split: Split,
    training: Arc<Loader>,
    validation: Arc<Loader>,
}

impl PretrainingData {
    /// Splits a shard set and opens both halves.
    ///
    /// # Errors
    /// [`Error::BadOption`] when the vocabulary does not fit the model; otherwise those of the split and the loader.
    pub fn open(shards: Arc<ShardSet>, config: &PretrainingConfig) -> Result<Self> {
        let needed = shards.manifest().n_genes as usize + 1;
        if needed > config.model.gene_capacity {
            return Err(Error::BadOption {
                option: "gene-capacity",
                value: config.model.gene_capacity.to_string(),
                reason: format!("the data's vocabulary needs {needed} rows, padding included"),
            });
        }
        let split = match &config.validation.by {
            Some(column) => Split::by_column(&shards, column, config.validation.fraction, config.seed)?,
            None => Split::random(&shards, config.validation.fraction, config.seed)?,
        };
        let split = match config.max_cells {
            Some(most) => sample(split, most, config.seed),
            None => split,
        };
        let options = LoaderOptions {
            batch_size: config.batch_size,
            seed: config.seed,
            length_buckets: config.length_buckets,
            masking: config.masking,
            ..LoaderOptions::default()
        };
        let training = Loader::new(Arc::clone(&shards), split.train.clone(), options.clone())?;
        let options = LoaderOptions { shuffle: false, ..options };
        let validation = Loader::new(Arc::clone(&shards), split.validation.clone(), options)?;
        Ok(Self { shards, split, training: Arc::new(training), validation: Arc::new(validation) })
    }

    /// The shard set.
    pub fn shards(&self) -> &Arc<ShardSet> {
        &self.shards
    }

    /// Which cells train and which validate.
    pub fn split(&self) -> &Split {
        &self.split
    }

    /// The training batches.
    pub fn training(&self) -> &Arc<Loader> {
        &self.training
    }

    /// The validation batches, in row order.
    pub fn validation(&self) -> &Arc<Loader> {
        &self.validation
    }

    /// What all ranks of a training must have in common: data, backend, and the whole configuration.
    ///
    /// # Errors
    /// [`Error::BadOption`] when the configuration cannot be written as JSON.
    pub fn common<B: Backend>(&self, device: &B::Device, config: &PretrainingConfig) -> Result<Fingerprint> {
        Fingerprint::new::<B>(device, config, self.shards.manifest())
    }
}

/// A uniform sample of both halves of a split: the cells with the smallest hashes.
fn sample(split: Split, most: usize, seed: u64) -> Split {
    let n_rows = split.train.n_rows();
    let mut hashes: Vec<(u64, u64)> =
        split.train.iter().chain(split.validation.iter()).map(|row| (mix(seed ^ mix(row)), row)).collect();
    if hashes.len() <= most {
        return split;
    }
    hashes.select_nth_unstable(most);
    let kept = RowSelection::from_rows(n_rows, hashes[..most].iter().map(|&(_, row)| row));
    let half =
        |rows: &RowSelection| RowSelection::from_rows(n_rows, rows.iter().filter(|&row| kept.contains(row)));
    Split { train: half(&split.train), validation: half(&split.validation) }
}

/// How a pretraining ended.
#[derive(Debug, Clone, PartialEq)]
pub struct PretrainingOutcome {
    /// Why it is over; none when it was interrupted and can be resumed.
    pub finish: Option<Finish>,
    /// Epochs finished.
    pub epochs: usize,
    /// Optimizer steps taken.
    pub steps: u64,
    /// Cells seen, over all epochs.
    pub cells: u64,
    /// Seconds of training and validation, over all resumes.
    pub seconds: f64,
    /// Seconds of those in which the next training batch was not there yet.
    pub seconds_waited: f64,
    /// Losses of the newest finished epoch.
    pub last: Option<EpochLosses>,
    /// The epoch whose weights are in `model`.
    pub best: Option<BestEpoch>,
    /// Mean squared error on the validation targets when each gene's training mean is predicted.
    pub validation_loss_gene_mean: f64,
    /// The newest checkpoint's folder; none on a rank other than 0.
    pub checkpoint: Option<PathBuf>,
}

/// What stands beside the weights in `model.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelCard {
    /// Version of the crate that wrote it.
    pub version: String,
    /// The model's configuration.
    pub model: cellpatch_model::CellPatchConfig,
    /// Hash of the vocabulary whose tokens the gene embedding uses.
    pub vocabulary_hash: String,
    /// Genes in it.
    pub vocabulary_size: usize,
    /// The epoch the weights are from.
    pub epoch: usize,
    /// Optimizer steps taken.
    pub steps: u64,
    /// Losses of that epoch.
    pub losses: EpochLosses,
    /// See [`PretrainingOutcome::validation_loss_gene_mean`].
    pub validation_loss_gene_mean: f64,
}

/// How a run is carried out, beside what it computes.
#[derive(Clone, Default)]
pub struct Execution {
    /// When checkpoints are written.
    pub checkpoints: CheckpointPolicy,
    /// Go on from the newest checkpoint.
    pub resume: bool,
    /// Tells the loop to save a checkpoint and end.
    pub interrupter: Interrupter,
}

/// Pretrains a model: masked genes are predicted from the others, mean squared error (paper, Methods).
///
/// The run directory gets `metrics.jsonl`, `checkpoints/`, and whenever the validation loss is the lowest so far
/// `model.safetensors` with `model.json`. A run that is killed at any moment and resumed computes, on the CPU, the same
/// bits as one that was not.
///
/// # Errors
/// Bad settings, data that cannot be read, a disk that cannot be written, a checkpoint of another run, or a loss that is
/// no longer a number.
pub fn pretrain<B>(
    device: &B::Device,
    data: &PretrainingData,
    config: &PretrainingConfig,
    run: Arc<RunDirectory>,
    execution: Execution,
    observer: Arc<dyn Observer>,
) -> Result<PretrainingOutcome>
where
    B: AutodiffBackend + ModelBackend,
    B::InnerBackend: ModelBackend,
{
    pretrain_seat::<B>(device, data, config, Seat { run: Some(run), collective: None }, execution, observer)
}

/// The same as one of several processes, which divide every batch among them.
///
/// The sum of the parts is the whole batch's gradient: without dropout, the weights are those of one process to rounding, and
/// they are the same bits whenever as many processes train. (With dropout each rank drops its own.) A rank that is gone
/// ends the training on all others; rank 0 saves a checkpoint before.
///
/// - data: the whole data, on every rank
/// - run: on rank 0; the others write nothing and need no folder
/// - execution: whether to resume is looked at on rank 0 only, which hands its checkpoint to the others
///
/// # Errors
/// [`Error::Collective`] when a rank is gone; otherwise as [`pretrain`].
pub fn pretrain_as_rank<B>(
    device: &B::Device,
    data: &PretrainingData,
    config: &PretrainingConfig,
    collective: Arc<Collective>,
    run: Option<Arc<RunDirectory>>,
    execution: Execution,
    observer: Arc<dyn Observer>,
) -> Result<PretrainingOutcome>
where
    B: AutodiffBackend + ModelBackend,
    B::InnerBackend: ModelBackend,
{
    let seat = Seat { run, collective: Some(Arc::clone(&collective)) };
    let ended = pretrain_seat::<B>(device, data, config, seat, execution, observer);
    match &ended {
        Ok(_) => collective.leave(),
        Err(error) => collective.fail(error),
    }
    ended
}

/// What a process is in a pretraining: the only one, rank 0, or another rank.
struct Seat {
    run: Option<Arc<RunDirectory>>,
    collective: Option<Arc<Collective>>,
}

fn pretrain_seat<B>(
    device: &B::Device,
    data: &PretrainingData,
    config: &PretrainingConfig,
    Seat { run, collective }: Seat,
    execution: Execution,
    observer: Arc<dyn Observer>,
) -> Result<PretrainingOutcome>
where
    B: AutodiffBackend + ModelBackend,
    B::InnerBackend: ModelBackend,
{
    config.validate()?;
    let fingerprint = fingerprint::<B>(device, data, config)?;
    let validation_loss_gene_mean = gene_mean_loss(data, config, collective.as_deref())?;
    let part = |loader: &Arc<Loader>| -> Result<MaskedCells> {
        let loader = match &collective {
            Some(ranks) => Arc::new(loader.of_rank(ranks.rank(), ranks.world_size())?),
            None => Arc::clone(loader),
        };
        Ok(MaskedCells { loader, preparation: Preparation::new::<B>(config, device) })
    };

    B::seed(device, config.seed);
    let model = Pretrainer::<B>::new(config, device)?;
    let card = card(data, config, validation_loss_gene_mean);
    let setup = TrainingSetup {
        training: part(&data.training)?,
        validation: Some(part(&data.validation)?),
        epochs: config.epochs,
        patience: config.patience,
        weight_decay: config.weight_decay,
        seed: config.seed,
        policy: execution.checkpoints,
        resume: execution.resume,
        interrupter: execution.interrupter,
        run: run.clone(),
        collective: collective.clone(),
        fingerprint,
        observer,
        validation_loss_gene_mean: Some(validation_loss_gene_mean),
    };
    let model_run = run.clone();
    let state = strategy::train(
        device,
        model,
        setup,
        |steps, done| config.learning_rates(steps * config.epochs, done),
        move |model: &Pretrainer<B::InnerBackend>, state| match &model_run {
            Some(run) => save_model(run, model, &card, state),
            None => Ok(()),
        },
    )?;
    let checkpoint = match &run {
        Some(run) => Some(checkpoint::newest(&run.checkpoints())?.0.folder),
        None => None,
    };
    Ok(PretrainingOutcome {
        finish: state.finished,
        epochs: state.epoch - 1,
        steps: state.step,
        cells: state.cells,
        seconds: state.seconds,
        seconds_waited: state.seconds_waited,
        last: state.last,
        best: state.best,
        validation_loss_gene_mean,
        checkpoint,
    })
}

/// The loss of predicting each gene's training mean; rank 0 measures it for all.
fn gene_mean_loss(
    data: &PretrainingData,
    config: &PretrainingConfig,
    collective: Option<&Collective>,
) -> Result<f64> {
    let Some(collective) = collective else { return own_gene_mean_loss(data, config) };
    let own = match collective.rank() {
        0 => own_gene_mean_loss(data, config)?,
        _ => f64::NAN,
    };
    let bytes = collective.broadcast(own.to_le_bytes().to_vec())?;
    Ok(bytes.first_chunk().map_or(f64::NAN, |bytes| f64::from_le_bytes(*bytes)))
}

fn own_gene_mean_loss(data: &PretrainingData, config: &PretrainingConfig) -> Result<f64> {
    let means = GeneMeans::of_targets(&data.training, config.model.gene_capacity)?;
    let (mut squared_error, mut n_targets) = (0.0, 0);
    for batch in data.validation.epoch(0, 0) {
        let batch = batch?;
        squared_error += means.squared_error(&batch);
        n_targets += batch.target_genes.len();
    }
    Ok(squared_error / n_targets.max(1) as f64)
}

fn card(data: &PretrainingData, config: &PretrainingConfig, validation_loss_gene_mean: f64) -> ModelCard {
    ModelCard {
        version: env!("CARGO_PKG_VERSION").into(),
        model: config.model.clone(),
        vocabulary_hash: data.shards.manifest().vocabulary_hash.clone(),
        vocabulary_size: data.shards.manifest().n_genes as usize,
        epoch: 0,
        steps: 0,
        losses: EpochLosses { train: f64::NAN, validation: None, scores: None },
        validation_loss_gene_mean,
    }
}

fn save_model<B: ModelBackend>(
    run: &RunDirectory,
    model: &Pretrainer<B>,
    card: &ModelCard,
    state: &TrainingState,
) -> Result<()> {
    let Some(best) = state.best else { return Ok(()) };
    let card = ModelCard { epoch: best.epoch, losses: best.losses, steps: state.step, ..card.clone() };
    let mut metadata = config_metadata(&card.model);
    metadata.insert("cellpatch.vocabulary_hash".to_owned(), card.vocabulary_hash.clone());
    save_safetensors(&model.model, run.model(), &metadata)?;
    write_json(&run.model_card(), &card)
}

fn fingerprint<B: Backend>(
    device: &B::Device,
    data: &PretrainingData,
    config: &PretrainingConfig,
) -> Result<Fingerprint> {
    // More epochs may be asked for when a run goes on, unless the learning rate depends on how many there are.
    let epochs = match config.schedule {
        crate::Schedule::Constant => 0,
        crate::Schedule::Cosine => config.epochs,
    };
    let fixed = PretrainingConfig { epochs, ..config.clone() };
    Fingerprint::new::<B>(device, &fixed, data.shards.manifest())
}
