//! From labelled cells to a model that names cell types.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::backend::{AutodiffBackend, Backend};
use cellpatch_analysis::metrics::{Calibration, KEPT_SHARE, Temperature, UnknownThreshold};
use cellpatch_data::{GeneSelection, GeneVocabulary, Loader, Masking};
use cellpatch_model::weights::{annotator_metadata, save_safetensors};
use cellpatch_model::{Annotator, AnnotatorConfig, Checkpoint, ModelBackend};
use serde::{Deserialize, Serialize};

use super::cells::LabelledCells;
use super::classify::CellLogits;
use super::config::AnnotationConfig;
use super::data::AnnotationData;
use super::objective::AnnotationTrainer;
use crate::checkpoint::{self, BestEpoch, EpochLosses, Fingerprint, Finish, TrainingState};
use crate::metrics::Observer;
use crate::pretrain::Execution;
use crate::run::RunDirectory;
use crate::setup::TrainingSetup;
use crate::strategy;
use crate::{Error, Result};

/// Where weights' metadata hold the names of the classes, as JSON.
const CLASSES_KEY: &str = "cellpatch.classes";
/// Where they hold the tokens of the genes that cells are reduced to, as JSON.
const GENES_KEY: &str = "cellpatch.genes";

/// What stands beside the weights of an annotating model in `model.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnnotationCard {
    /// Version of the crate that wrote it.
    pub version: String,
    /// The model's configuration.
    pub annotator: AnnotatorConfig,
    /// The `obs` column it was trained on.
    pub label: String,
    /// The classes, in the order of the model's outputs.
    pub classes: Vec<String>,
    /// The genes that cells are reduced to; none for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub genes: Option<GeneSelection>,
    /// Most genes of a cell that go in.
    pub max_input: usize,
    /// Hash of the vocabulary whose tokens the gene embedding uses.
    pub vocabulary_hash: String,
    /// Genes in it.
    pub vocabulary_size: usize,
    /// The epoch the weights are from.
    pub epoch: usize,
    /// Optimizer steps taken.
    pub steps: u64,
    /// Losses and scores of that epoch; none for weights that were imported.
    pub losses: Option<EpochLosses>,
    /// How confidences are read off the outputs; none until training is over.
    pub confidence: Option<ConfidenceCard>,
}

/// How outputs become confidences, as fitted on the validation cells.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ConfidenceCard {
    /// What logits are divided by before the softmax (Guo et al. 2017).
    pub temperature: f64,
    /// Confidence below which a cell is called unknown.
    pub unknown_threshold: f64,
    /// Expected calibration error on the validation cells, as trained.
    pub calibration_error_before: f64,
    /// The same with the temperature.
    pub calibration_error: f64,
}

impl ConfidenceCard {
    /// Fits the temperature, then the threshold, to logits with known classes.
    ///
    /// - logits: [cells, classes]
    ///
    /// # Errors
    /// [`Error::Analysis`] without cells, or for logits that are no numbers.
    pub fn fit(logits: &[f32], n_classes: usize, truth: &[usize]) -> Result<Self> {
        let temperature = Temperature::fit(logits, n_classes, truth)?;
        let as_trained = Temperature { value: 1.0, ..temperature };
        let confidences = |temperature: &Temperature| -> (Vec<f64>, Vec<bool>) {
            let cells = logits.chunks_exact(n_classes).zip(truth);
            cells
                .map(|(logits, &truth)| {
                    let (class, confidence) = most_probable(&temperature.probabilities(logits));
                    (confidence, class == truth)
                })
                .unzip()
        };
        let (before, correct) = confidences(&as_trained);
        let (after, _) = confidences(&temperature);
        Ok(Self {
            temperature: temperature.value,
            // Where nothing is right there is nothing to keep, and so nothing to choose by.
            unknown_threshold: match correct.contains(&true) {
                true => UnknownThreshold::choose(&after, &correct, KEPT_SHARE)?.confidence,
                false => 0.0,
            },
            calibration_error_before: Calibration::new(&before, &correct)?.expected_error(),
            calibration_error: Calibration::new(&after, &correct)?.expected_error(),
        })
    }

    /// Class probabilities: `[classes]` for logits `[classes]`.
    pub fn probabilities(&self, logits: &[f32]) -> Vec<f64> {
        Temperature { value: self.temperature, loss_before: 0.0, loss_after: 0.0 }.probabilities(logits)
    }
}

/// The first largest of some probabilities.
fn most_probable(probabilities: &[f64]) -> (usize, f64) {
    let cells = probabilities.iter().copied().enumerate();
    cells.fold((0, f64::NEG_INFINITY), |best, next| if next.1 > best.1 { next } else { best })
}

/// How a finetuning ended.
#[derive(Debug, Clone)]
pub struct AnnotationOutcome<B: Backend> {
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
    /// The epoch whose weights the model has.
    pub best: Option<BestEpoch>,
    /// The model of that epoch, and what stands beside it; none where no epoch was finished.
    pub model: Option<(Annotator<B>, AnnotationCard)>,
    /// The newest checkpoint's folder.
    pub checkpoint: PathBuf,
}

/// Trains an annotating model: cross-entropy on labelled cells (paper, Methods).
///
/// The run directory gets `metrics.jsonl`, `checkpoints/`, and whenever the validation macro-F1 is the highest so far
/// `model.safetensors` with `model.json`; when training is over, temperature and threshold for unknown cells as well. Resume
/// is exact as in [`pretrain`](crate::pretrain).
///
/// - `init`: weights whose encoder to start from; its gene table must have been fitted to the data's vocabulary
///   ([`Checkpoint::fit_gene_table`])
/// - `label`: the name of the column with the classes, for the card
///
/// # Errors
/// Bad settings, data that cannot be read, a disk that cannot be written, weights of other sizes, a checkpoint of another
/// run, or a loss that is no longer a number.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a thing of its own, and there is one caller for each kind of run"
)]
pub fn annotate<B>(
    device: &B::Device,
    data: &AnnotationData,
    config: &AnnotationConfig,
    label: &str,
    init: Option<&Checkpoint>,
    run: Arc<RunDirectory>,
    execution: Execution,
    observer: Arc<dyn Observer>,
) -> Result<AnnotationOutcome<B::InnerBackend>>
where
    B: AutodiffBackend + ModelBackend,
    B::InnerBackend: ModelBackend<Device = B::Device>,
{
    config.validate()?;
    B::seed(device, config.seed);
    let model = config.model.init::<B>(device);
    let model = match init {
        Some(weights) => model.with_encoder(weights.encoder::<B>(&config.model.model, device)?),
        None => model,
    };
    let trainer = AnnotationTrainer::new(model, config, data.n_training());
    let card = card(data, config, label);
    let cells = |loader: &Arc<Loader>| LabelledCells {
        loader: Arc::clone(loader),
        class_of_row: Arc::clone(data.class_of_row()),
        gene_dropout: config.gene_dropout,
        seed: config.seed,
    };
    let setup = TrainingSetup {
        training: cells(data.training()),
        validation: Some(cells(data.validation())),
        epochs: config.epochs,
        patience: config.patience,
        weight_decay: config.weight_decay,
        seed: config.seed,
        policy: execution.checkpoints,
        resume: execution.resume,
        interrupter: execution.interrupter,
        run: Some(Arc::clone(&run)),
        collective: None,
        fingerprint: fingerprint::<B>(device, data, config)?,
        observer,
        validation_loss_gene_mean: None,
    };
    let (model_run, model_card) = (Arc::clone(&run), card.clone());
    let state = strategy::train(
        device,
        trainer,
        setup,
        |steps, done| config.learning_rates(steps * config.epochs, done),
        move |trainer: &AnnotationTrainer<B::InnerBackend>, state| {
            let Some(card) = model_card.at(state) else { return Ok(()) };
            save_safetensors(&trainer.kept(), model_run.model(), &card.metadata())?;
            card.write(&model_run.model_card())
        },
    )?;
    let model = match (card.at(&state), state.finished) {
        (Some(card), Some(_)) => Some(finished::<B::InnerBackend>(device, data, card, &run)?),
        _ => None,
    };
    Ok(AnnotationOutcome {
        finish: state.finished,
        epochs: state.epoch - 1,
        steps: state.step,
        cells: state.cells,
        seconds: state.seconds,
        best: state.best,
        model,
        checkpoint: checkpoint::newest(&run.checkpoints())?.0.folder,
    })
}

/// The best epoch's model, and its card with what the validation cells say about confidences.
fn finished<B: ModelBackend>(
    device: &B::Device,
    data: &AnnotationData,
    mut card: AnnotationCard,
    run: &RunDirectory,
) -> Result<(Annotator<B>, AnnotationCard)> {
    let model = card.annotator.init::<B>(device);
    let (model, _) = Checkpoint::read(run.model())?.load_into(model)?;
    let logits = CellLogits::of_loader(&model, data.validation(), device)?;
    let truth: Vec<usize> = logits.rows.iter().map(|&row| data.class_of(row)).collect();
    card.confidence = Some(ConfidenceCard::fit(&logits.values, card.classes.len(), &truth)?);
    card.write(&run.model_card())?;
    Ok((model, card))
}

fn card(data: &AnnotationData, config: &AnnotationConfig, label: &str) -> AnnotationCard {
    let manifest = data.shards().manifest();
    AnnotationCard {
        version: env!("CARGO_PKG_VERSION").into(),
        annotator: config.model.clone(),
        label: label.into(),
        classes: data.classes().to_vec(),
        genes: data.genes().cloned(),
        max_input: config.max_input,
        vocabulary_hash: manifest.vocabulary_hash.clone(),
        vocabulary_size: manifest.n_genes as usize,
        epoch: 0,
        steps: 0,
        losses: None,
        confidence: None,
    }
}

impl AnnotationCard {
    /// The card of the best epoch so far, if there is one.
    fn at(&self, state: &TrainingState) -> Option<Self> {
        let BestEpoch { epoch, losses } = state.best?;
        Some(Self { epoch, losses: Some(losses), steps: state.step, ..self.clone() })
    }

    /// The card of weights from elsewhere, whose confidences nothing is known of.
    ///
    /// - classes: in the order of the model's outputs
    /// - genes: those that cells were reduced to in training
    ///
    /// # Errors
    /// [`Error::BadOption`] if there is not one name for each class.
    pub fn imported(
        annotator: AnnotatorConfig,
        classes: Vec<String>,
        genes: Option<GeneSelection>,
        vocabulary: Option<&GeneVocabulary>,
    ) -> Result<Self> {
        if classes.len() != annotator.n_classes {
            return Err(Error::BadOption {
                option: "classes",
                value: format!("a list of {} names", classes.len()),
                reason: format!("the weights tell {} classes apart", annotator.n_classes),
            });
        }
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").into(),
            annotator,
            label: String::new(),
            classes,
            genes,
            max_input: Masking::default().max_input,
            vocabulary_hash: vocabulary.map_or(String::new(), GeneVocabulary::hash),
            vocabulary_size: vocabulary.map_or(0, GeneVocabulary::len),
            epoch: 0,
            steps: 0,
            losses: None,
            confidence: None,
        })
    }

    /// The names of the classes in the metadata of weights that [`annotate`] wrote.
    pub fn classes_in(metadata: &BTreeMap<String, String>) -> Option<Vec<String>> {
        serde_json::from_str(metadata.get(CLASSES_KEY)?).ok()
    }

    /// The genes in the metadata of weights that [`annotate`] wrote; none where cells keep all of theirs.
    pub fn genes_in(metadata: &BTreeMap<String, String>) -> Option<GeneSelection> {
        serde_json::from_str(metadata.get(GENES_KEY)?).ok()
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        let mut metadata = annotator_metadata(&self.annotator);
        metadata.insert("cellpatch.vocabulary_hash".to_owned(), self.vocabulary_hash.clone());
        metadata.insert(CLASSES_KEY.to_owned(), serde_json::json!(self.classes).to_string());
        if let Some(genes) = &self.genes {
            metadata.insert(GENES_KEY.to_owned(), serde_json::json!(genes).to_string());
        }
        metadata
    }

    /// Writes the card.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        crate::files::write_json(path, self)
    }

    /// Reads a card.
    ///
    /// # Errors
    /// [`Error::Io`] if there is none, [`Error::Format`] if it is not that of an annotating model.
    pub fn read(path: &Path) -> Result<Self> {
        crate::files::read_json(path, "the card of an annotating model")
    }
}

fn fingerprint<B: Backend>(
    device: &B::Device,
    data: &AnnotationData,
    config: &AnnotationConfig,
) -> Result<Fingerprint> {
    // More epochs may be asked for when a run goes on, unless the learning rate depends on how many there are.
    let epochs = match config.schedule {
        crate::Schedule::Constant => 0,
        crate::Schedule::Cosine => config.epochs,
    };
    let fixed = AnnotationConfig { epochs, ..config.clone() };
    let parts = data.partition().parts();
    Fingerprint::new::<B>(device, &fixed, &(data.shards().manifest(), data.class_of_row().as_ref(), parts))
}
