//! From a slice to a trained model in a run directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::backend::{AutodiffBackend, Backend};
use cellpatch_model::Checkpoint;
use cellpatch_train::{
    Execution, Fingerprint, Finish, LearningRate, Observer, RunDirectory, Schedule, TrainingSetup,
    TrainingState, read_json, write_json,
};
use serde::{Deserialize, Serialize};

use super::batches::SliceData;
use super::config::{SpatialModelConfig, SpatialTrainingConfig};
use super::model::SpatialModel;
use super::trainer::SpatialTrainer;
use crate::backend::SpatialBackend;
use crate::error::{Error, Result};
use crate::graph::Neighborhood;

/// Where the weights' metadata hold the configuration, as JSON.
const CONFIG_KEY: &str = "cellpatch.spatial";

/// What stands beside the weights of a spatial model in `model.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpatialCard {
    /// Version of the crate that wrote it.
    pub version: String,
    /// What was trained, and how.
    pub config: SpatialTrainingConfig,
    /// Who is whose neighbour.
    pub neighborhood: Neighborhood,
    /// Of a stack: up to which distance spots of adjacent sections are neighbours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub between_radius: Option<f64>,
    /// Names of the genes, in the order of the model's features.
    pub genes: Vec<String>,
    /// Of CellPatch+STAGATE: rows of the gene table that the patches read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Vec<u32>>,
    /// Spots of the slice.
    pub spots: usize,
    /// Edges of its graph, self loops included.
    pub edges: usize,
    /// Epochs the weights have seen.
    pub epoch: usize,
    /// Optimizer steps taken.
    pub steps: u64,
    /// Mean squared error over the newest finished epoch.
    pub loss: Option<f64>,
}

impl SpatialCard {
    /// The card of a training that has not begun.
    ///
    /// - genes: names of the slice's genes
    pub fn new(
        config: SpatialTrainingConfig,
        neighborhood: Neighborhood,
        genes: Vec<String>,
        data: &SliceData,
    ) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            config,
            neighborhood,
            between_radius: None,
            genes,
            tokens: data.patch_genes().map(|genes| genes.tokens().to_vec()),
            spots: data.slice().graph().n_spots(),
            edges: data.slice().graph().n_edges(),
            epoch: 0,
            steps: 0,
            loss: None,
        }
    }

    fn at(&self, state: &TrainingState) -> Self {
        let best = state.best;
        Self {
            epoch: best.map_or(0, |best| best.epoch),
            loss: best.map(|best| best.losses.train),
            steps: state.step,
            ..self.clone()
        }
    }

    /// Reads a card.
    ///
    /// # Errors
    ///
    /// [`Error::Train`] if there is none, or it is that of another kind of model.
    pub fn read(path: &Path) -> Result<Self> {
        Ok(read_json(path, "the card of a spatial model")?)
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(CONFIG_KEY.to_owned(), serde_json::json!(self.config).to_string())])
    }
}

/// How a training ended.
#[derive(Debug, Clone)]
pub struct SpatialOutcome<B: Backend> {
    /// Why it is over; none when it was interrupted and can be resumed.
    pub finish: Option<Finish>,
    /// Epochs finished.
    pub epochs: usize,
    /// Optimizer steps taken.
    pub steps: u64,
    /// Seconds of training, over all resumes.
    pub seconds: f64,
    /// Mean squared error over the newest finished epoch.
    pub loss: Option<f64>,
    /// The model with its newest weights; none where it was interrupted.
    pub model: Option<SpatialModel<B>>,
    /// The newest checkpoint's folder.
    pub checkpoint: PathBuf,
}

/// Trains a model on a slice: mean squared error of the reconstructed expression (STAGATE and CellPatch papers, Methods).
///
/// The run directory gets `metrics.jsonl`, `checkpoints/`, and at every checkpoint `model.safetensors` with `model.json`. A run
/// that is killed at any moment and resumed computes, on the CPU, the same bits as one that was not.
///
/// - init: a pretrained CellPatch whose embeddings and first block CellPatch+STAGATE starts from
/// - card: of [`SpatialCard::new`]; its configuration decides what is computed
///
/// # Errors
///
/// [`Error::BadConfig`] for bad settings, [`Error::Disagreement`] and [`Error::NoPatchGenes`] for data of another model,
/// [`Error::Model`] for weights of other sizes, [`Error::Train`] for a disk that cannot be written, a checkpoint of another
/// run, or a loss that is no longer a number.
pub fn train<B>(
    device: &B::Device,
    data: &SliceData,
    card: SpatialCard,
    init: Option<&Checkpoint>,
    run: Arc<RunDirectory>,
    execution: Execution,
    observer: Arc<dyn Observer>,
) -> Result<SpatialOutcome<B::InnerBackend>>
where
    B: AutodiffBackend + SpatialBackend,
    B::InnerBackend: SpatialBackend<Device = B::Device>,
{
    let config = card.config.clone();
    config.validate()?;
    check(&config, data)?;
    B::seed(device, config.seed);
    let mut model = config.model.init::<B>(device);
    if let Some(weights) = init {
        model = model.with_pretrained(weights)?;
    }
    if config.freeze_patches {
        model = model.freeze_patches();
    }
    // More epochs may be asked for when a run goes on.
    let fixed = SpatialTrainingConfig { epochs: 0, ..config.clone() };
    let setup = TrainingSetup {
        training: data.batches(&config)?,
        validation: None,
        epochs: config.epochs,
        patience: None,
        weight_decay: config.weight_decay,
        seed: config.seed,
        policy: execution.checkpoints,
        resume: execution.resume,
        interrupter: execution.interrupter,
        run: Some(Arc::clone(&run)),
        collective: None,
        fingerprint: Fingerprint::new::<B>(device, &fixed, &data.digest())?,
        observer,
        validation_loss_gene_mean: None,
    };
    let (model_run, model_card) = (Arc::clone(&run), card.clone());
    let state = cellpatch_train::train(
        device,
        SpatialTrainer::new(model, config.clip_norm),
        setup,
        |steps, done| {
            let total = steps * config.epochs;
            LearningRate::new(config.learning_rate, 0.0, Schedule::Constant, 0, total, done)
        },
        move |trainer: &SpatialTrainer<B::InnerBackend>, state| {
            let card = model_card.at(state);
            trainer.model.save(&model_run.model(), &card.metadata()).map_err(Error::into_train)?;
            write_json(&model_run.model_card(), &card)
        },
    )?;
    let model = match state.finished {
        Some(_) => {
            let fresh = config.model.init::<B::InnerBackend>(device);
            let weights = Checkpoint::read(run.model()).map_err(Error::Model)?;
            Some(fresh.with_weights(&weights)?)
        }
        None => None,
    };
    Ok(SpatialOutcome {
        finish: state.finished,
        epochs: state.epoch - 1,
        steps: state.step,
        seconds: state.seconds,
        loss: state.last.map(|losses| losses.train),
        model,
        checkpoint: cellpatch_train::newest(&run.checkpoints())?.0.folder,
    })
}

/// Finds out whether data and model belong together, before the first step.
fn check(config: &SpatialTrainingConfig, data: &SliceData) -> Result<()> {
    let (found, expected) = (data.slice().expression().n_genes(), config.model.n_genes());
    if found != expected {
        return Err(Error::Disagreement { what: "genes of the slice", found, expected });
    }
    if let SpatialModelConfig::CellPatchStagate(model) = &config.model {
        let genes = data.patch_genes().ok_or(Error::NoPatchGenes)?;
        let capacity = model.cell_patch.gene_capacity;
        let most = genes.tokens().iter().max().map_or(0, |&token| token as usize);
        if most >= capacity {
            return Err(Error::Disagreement {
                what: "rows of the gene table",
                found: capacity,
                expected: most + 1,
            });
        }
    }
    Ok(())
}
