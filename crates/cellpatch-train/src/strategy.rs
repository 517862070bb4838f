//! The training loop as a Burn learning strategy that can stop and go on anywhere.
//!
//! Burn's own strategies checkpoint at epoch ends only and forget the position in the data, the early-stopping state
//! and the random state. This one drives the same `Learner` step by step and commits all of it together.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use burn::data::dataloader::DataLoader;
use burn::module::AutodiffModule;
use burn::optim::Optimizer;
use burn::record::{FullPrecisionSettings, NamedMpkBytesRecorder, Recorder};
use burn::tensor::backend::AutodiffBackend;
use burn::train::{
    InferenceStep, Interrupter, Learner, LearningComponentsMarker, SupervisedLearningStrategy,
    SupervisedTraining, SupervisedTrainingEventProcessor, TrainLoader, TrainStep, TrainingComponents,
    TrainingStrategy, ValidLoader,
};
use cellpatch_analysis::metrics::ConfusionMatrix;
use cellpatch_data::Loader;
use cellpatch_model::ModelBackend;

use crate::batches::{Batch, Batches, CellSource, Cursor};
use crate::checkpoint::{self, BestEpoch, Checkpoint, EpochLosses, Fingerprint, Finish, TrainingState};
use crate::loss::{self, BatchLoss};
use crate::metrics::{ClassificationScores, EpochRecord, MetricRecord, MetricsFile, Observer, StepRecord};
use crate::optimizer::{CoupledAdam, SharedOptimizer, coupled_adam};
use crate::renderer::SilentRenderer;
use crate::run::RunDirectory;
use crate::schedule::LearningRate;
use crate::{Error, Result};

/// A model with its objective, as this strategy trains it.
pub(crate) trait Trainee<B>:
    AutodiffModule<B, InnerModule = Self::Frozen>
    + TrainStep<Input = Batch<<Self::Source as CellSource>::Cells>, Output = BatchLoss<B::InnerBackend>>
    + std::fmt::Display
    + 'static
where
    B: AutodiffBackend,
{
    /// Where its batches come from.
    type Source: CellSource;
    /// The same without gradients, for validation.
    type Frozen: InferenceStep<Input = Batch<<Self::Source as CellSource>::Cells>, Output = BatchLoss<B::InnerBackend>>;
}

type Adam<M, B> = SharedOptimizer<CoupledAdam<M, B>>;
type Components<M, B> = LearningComponentsMarker<B, LearningRate, M, Adam<M, B>>;

/// When checkpoints are written, and how many stay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CheckpointPolicy {
    /// Seconds between two checkpoints inside an epoch.
    pub every_seconds: f64,
    /// Steps between two checkpoints inside an epoch, whichever comes first.
    pub every_steps: Option<u64>,
    /// How many of the newest stay on the disk.
    pub keep: usize,
}

impl Default for CheckpointPolicy {
    /// Every five minutes, two kept.
    fn default() -> Self {
        Self { every_seconds: 300.0, every_steps: None, keep: 2 }
    }
}

/// Losses are read back from the device this often, so that a step need not wait for it.
const STEPS_PER_READ: usize = 8;

/// What a run is made of, beside the model.
pub(crate) struct Surroundings<S> {
    pub source: S,
    pub training: Arc<Loader>,
    pub validation: Arc<Loader>,
    pub epochs: usize,
    pub patience: Option<usize>,
    pub weight_decay: f32,
    pub seed: u64,
    pub policy: CheckpointPolicy,
    pub resume: bool,
    pub interrupter: Interrupter,
    pub run: Arc<RunDirectory>,
    pub fingerprint: Fingerprint,
    pub observer: Arc<dyn Observer>,
    /// See [`EpochRecord::validation_loss_gene_mean`].
    pub validation_loss_gene_mean: Option<f64>,
}

/// Writes the weights of a new best epoch.
type SaveModel<M> = dyn Fn(&M, &TrainingState) -> Result<()>;

/// Trains a model, from the start or from the newest checkpoint of its run, until it is done or interrupted; the state it
/// ends in says which.
///
/// - `learning_rate`: by the number of steps in an epoch and those already taken
/// - `save_model`: called with the weights of every new best epoch
pub(crate) fn train<B, M>(
    device: &B::Device,
    model: M,
    surroundings: Surroundings<M::Source>,
    learning_rate: impl FnOnce(usize, usize) -> LearningRate,
    save_model: impl Fn(&M::InnerModule, &TrainingState) -> Result<()> + 'static,
) -> Result<TrainingState>
where
    B: AutodiffBackend + ModelBackend,
    B::InnerBackend: ModelBackend,
    M: Trainee<B>,
{
    let optimizer = SharedOptimizer::new(coupled_adam(surroundings.weight_decay));
    let (model, optimizer, start) = if surroundings.resume {
        let (checkpoint, passed_over) = checkpoint::newest(&surroundings.run.checkpoints())?;
        for reason in passed_over {
            surroundings.observer.on_warning(&format!("passed over a damaged checkpoint: {reason}"));
        }
        checkpoint.fingerprint.check(&surroundings.fingerprint, &checkpoint.folder)?;
        let (model, optimizer) = restore(&checkpoint, model, optimizer, device)?;
        (model, optimizer, reopened(checkpoint.state, surroundings.epochs))
    } else {
        (model, optimizer, TrainingState::start())
    };
    let training_cursor = Arc::new(Cursor::default());
    let validation_cursor = Arc::new(Cursor::default());
    let batches = |loader: &Arc<Loader>, cursor: &Arc<Cursor>| {
        Batches::new(surroundings.source.clone(), Arc::clone(loader), Arc::clone(cursor), surroundings.seed)
    };
    let training: Arc<dyn DataLoader<B, _>> = Arc::new(batches(&surroundings.training, &training_cursor));
    let validation: Arc<dyn DataLoader<B::InnerBackend, _>> =
        Arc::new(batches(&surroundings.validation, &validation_cursor));
    let learning_rate = learning_rate(surroundings.training.n_batches(), start.step as usize);
    let run = Arc::clone(&surroundings.run);
    let (interrupter, epochs) = (surroundings.interrupter.clone(), surroundings.epochs);
    let strategy = Arc::new(ResumableStrategy {
        surroundings,
        training_cursor,
        validation_cursor,
        optimizer: optimizer.clone(),
        start: start.clone(),
        save_model: Box::new(save_model),
        ending: Mutex::new(None),
    });
    SupervisedTraining::new(run.path(), training, validation)
        .renderer(SilentRenderer)
        .with_application_logger(None)
        .with_metric_logger(SilentRenderer)
        .with_interrupter(interrupter)
        .num_epochs(epochs)
        .with_training_strategy(TrainingStrategy::Custom(strategy.clone()))
        .launch(Learner::new(model, optimizer, learning_rate));
    let ending = strategy.ending.lock().unwrap_or_else(PoisonError::into_inner).take();
    ending.unwrap_or(Ok(start))
}

/// A finished run goes on when more epochs are asked for than it had.
fn reopened(mut state: TrainingState, epochs: usize) -> TrainingState {
    if state.finished == Some(Finish::Completed) && state.epoch <= epochs {
        state.finished = None;
    }
    state
}

/// See the module's documentation.
struct ResumableStrategy<M: Trainee<B>, B: AutodiffBackend>
where
    B::InnerBackend: ModelBackend,
{
    surroundings: Surroundings<M::Source>,
    training_cursor: Arc<Cursor>,
    validation_cursor: Arc<Cursor>,
    optimizer: Adam<M, B>,
    start: TrainingState,
    save_model: Box<SaveModel<M::InnerModule>>,
    ending: Mutex<Option<Result<TrainingState>>>,
}

/// Puts weights and moments back as a checkpoint holds them.
///
/// # Errors
/// [`Error::Format`] when a record is not one of this model.
fn restore<M, B>(
    checkpoint: &Checkpoint,
    model: M,
    optimizer: Adam<M, B>,
    device: &B::Device,
) -> Result<(M, Adam<M, B>)>
where
    B: AutodiffBackend + ModelBackend,
    B::InnerBackend: ModelBackend,
    M: Trainee<B>,
{
    let recorder = NamedMpkBytesRecorder::<FullPrecisionSettings>::default();
    let damaged = |reason: burn::record::RecorderError| Error::Format {
        action: "read",
        path: checkpoint.folder.clone(),
        reason: reason.to_string(),
    };
    let record = Recorder::<B>::load(&recorder, checkpoint.model.clone(), device).map_err(damaged)?;
    let model = model.load_record(record);
    let record = Recorder::<B>::load(&recorder, checkpoint.optimizer.clone(), device).map_err(damaged)?;
    let optimizer = Optimizer::<M, B>::load_record(optimizer, record);
    Ok((model, optimizer))
}

impl<M, B> SupervisedLearningStrategy<Components<M, B>> for ResumableStrategy<M, B>
where
    B: AutodiffBackend + ModelBackend,
    B::InnerBackend: ModelBackend,
    M: Trainee<B>,
{
    fn fit(
        &self,
        components: TrainingComponents<Components<M, B>>,
        learner: Learner<Components<M, B>>,
        training: TrainLoader<Components<M, B>>,
        validation: ValidLoader<Components<M, B>>,
        _first_epoch: usize,
    ) -> (M, SupervisedTrainingEventProcessor<Components<M, B>>) {
        let mut training_loop = TrainingLoop {
            strategy: self,
            learner,
            training,
            validation,
            interrupter: components.interrupter,
            state: self.start.clone(),
            unread: Vec::new(),
            clock: Instant::now(),
            seconds_before: self.start.seconds,
            last_checkpoint: Instant::now(),
        };
        let ending = training_loop.run();
        *self.ending.lock().unwrap_or_else(PoisonError::into_inner) = Some(ending);
        (training_loop.learner.model(), components.event_processor)
    }
}

struct TrainingLoop<'a, M: Trainee<B>, B: AutodiffBackend + ModelBackend>
where
    B::InnerBackend: ModelBackend,
{
    strategy: &'a ResumableStrategy<M, B>,
    learner: Learner<Components<M, B>>,
    training: TrainLoader<Components<M, B>>,
    validation: ValidLoader<Components<M, B>>,
    interrupter: Interrupter,
    state: TrainingState,
    /// Steps whose loss is still on the device only.
    unread: Vec<(StepRecord, BatchLoss<B::InnerBackend>)>,
    clock: Instant,
    seconds_before: f64,
    last_checkpoint: Instant,
}

impl<M, B> TrainingLoop<'_, M, B>
where
    B: AutodiffBackend + ModelBackend,
    B::InnerBackend: ModelBackend,
    M: Trainee<B>,
{
    fn run(&mut self) -> Result<TrainingState> {
        let mut metrics =
            MetricsFile::open(&self.strategy.surroundings.run.metrics(), self.state.metrics_bytes)?;
        while self.state.finished.is_none() {
            let interrupted = self.train_epoch(&mut metrics)? || self.validate(&mut metrics)?;
            if interrupted {
                self.checkpoint(&mut metrics)?;
                return Ok(self.state.clone());
            }
            self.checkpoint(&mut metrics)?;
        }
        Ok(self.state.clone())
    }

    /// Takes the epoch's remaining steps; true when it was interrupted.
    fn train_epoch(&mut self, metrics: &mut MetricsFile) -> Result<bool> {
        self.strategy.training_cursor.set(self.state.epoch as u64, self.state.batch);
        let training = Arc::clone(&self.training);
        for batch in training.iter() {
            self.learner.lr_step();
            let n_cells = M::Source::n_cells(&batch.cells);
            let output = self.learner.train_step(batch);
            self.learner.optimizer_step(output.grads);
            self.state.step += 1;
            self.state.batch += 1;
            self.state.cells += n_cells as u64;
            self.unread.push((self.step_record(), output.item));
            if self.unread.len() >= STEPS_PER_READ {
                self.read_losses(metrics)?;
            }
            if self.interrupter.should_stop() {
                return Ok(true);
            }
            if self.checkpoint_is_due() {
                self.checkpoint(metrics)?;
            }
        }
        if let Some(error) = self.strategy.training_cursor.take_failure() {
            self.checkpoint(metrics)?;
            return Err(error.into());
        }
        self.read_losses(metrics)?;
        Ok(false)
    }

    fn step_record(&self) -> StepRecord {
        StepRecord {
            step: self.state.step,
            epoch: self.state.epoch,
            batch: self.state.batch,
            batches: self.strategy.surroundings.training.n_batches(),
            loss: f64::NAN,
            learning_rate: self.learner.lr_current(),
            cells: self.state.cells,
            seconds: self.seconds(),
        }
    }

    fn seconds(&self) -> f64 {
        self.seconds_before + self.clock.elapsed().as_secs_f64()
    }

    /// Brings the losses of the last steps to the host, the log and the observer.
    fn read_losses(&mut self, metrics: &mut MetricsFile) -> Result<()> {
        let mut records = Vec::with_capacity(self.unread.len());
        for (mut record, loss) in self.unread.drain(..) {
            let sum = loss.sum();
            record.loss = loss::mean(sum, loss.weight);
            if !record.loss.is_finite() {
                return Err(Error::Diverged { loss: record.loss, step: record.step });
            }
            self.state.epoch_loss_sum += sum;
            self.state.epoch_weight += loss.weight;
            records.push(record);
        }
        if let Some(newest) = records.last() {
            self.strategy.surroundings.observer.on_step(newest);
        }
        metrics.append(&records.into_iter().map(MetricRecord::Step).collect::<Vec<_>>())
    }

    /// Measures the validation loss and closes the epoch; true when it was interrupted.
    fn validate(&mut self, metrics: &mut MetricsFile) -> Result<bool> {
        let surroundings = &self.strategy.surroundings;
        // Epoch 0 belongs to validation: its masks are the same after every training epoch.
        self.strategy.validation_cursor.set(0, 0);
        let model = self.learner.model().valid();
        let (mut sum, mut weight, mut done, mut classified) = (0.0, 0.0, 0, Vec::new());
        for batch in self.validation.iter() {
            done += M::Source::n_cells(&batch.cells);
            let loss = model.step(batch);
            sum += loss.sum();
            weight += loss.weight;
            classified.extend(loss.classified);
            surroundings.observer.on_validation(done, surroundings.validation.n_cells());
            if self.interrupter.should_stop() {
                return Ok(true);
            }
        }
        if let Some(error) = self.strategy.validation_cursor.take_failure() {
            return Err(error.into());
        }
        let losses = EpochLosses {
            train: loss::mean(self.state.epoch_loss_sum, self.state.epoch_weight),
            validation: loss::mean(sum, weight),
            scores: classification_scores(&classified),
        };
        self.close_epoch(losses, &model, metrics)?;
        Ok(false)
    }

    fn close_epoch(
        &mut self,
        losses: EpochLosses,
        model: &M::InnerModule,
        metrics: &mut MetricsFile,
    ) -> Result<()> {
        let Surroundings { epochs, patience, observer, .. } = &self.strategy.surroundings;
        let validation_loss_gene_mean = self.strategy.surroundings.validation_loss_gene_mean;
        let epoch = self.state.epoch;
        let best = self.state.best.is_none_or(|best| losses.are_better_than(&best.losses));
        self.state.last = Some(losses);
        if best {
            self.state.best = Some(BestEpoch { epoch, losses });
            self.state.epochs_without_improvement = 0;
            (self.strategy.save_model)(model, &self.state)?;
        } else {
            self.state.epochs_without_improvement += 1;
        }
        let record = EpochRecord {
            epoch,
            epochs: *epochs,
            step: self.state.step,
            train_loss: losses.train,
            validation_loss: losses.validation,
            validation_loss_gene_mean,
            validation_r2: validation_loss_gene_mean.map(|means| 1.0 - losses.validation / means),
            validation_scores: losses.scores,
            best,
            seconds: self.seconds(),
        };
        observer.on_epoch(&record);
        metrics.append(&[MetricRecord::Epoch(record)])?;
        if patience.is_some_and(|patience| self.state.epochs_without_improvement >= patience) {
            self.state.finished = Some(Finish::StoppedEarly);
        } else if epoch >= *epochs {
            self.state.finished = Some(Finish::Completed);
        }
        self.state.epoch += 1;
        self.state.batch = 0;
        (self.state.epoch_loss_sum, self.state.epoch_weight) = (0.0, 0.0);
        Ok(())
    }

    fn checkpoint_is_due(&self) -> bool {
        let policy = &self.strategy.surroundings.policy;
        self.last_checkpoint.elapsed().as_secs_f64() >= policy.every_seconds
            || policy.every_steps.is_some_and(|steps| self.state.step.is_multiple_of(steps))
    }

    /// Commits weights, moments and position together.
    fn checkpoint(&mut self, metrics: &mut MetricsFile) -> Result<()> {
        self.read_losses(metrics)?;
        let Surroundings { run, fingerprint, observer, policy, .. } = &self.strategy.surroundings;
        self.state.seconds = self.seconds();
        self.state.metrics_bytes = metrics.synced_length()?;
        let recorder = NamedMpkBytesRecorder::<FullPrecisionSettings>::default();
        let unwritable = |reason: burn::record::RecorderError| Error::Format {
            action: "written",
            path: run.checkpoints(),
            reason: reason.to_string(),
        };
        let model =
            Recorder::<B>::record(&recorder, self.learner.model().into_record(), ()).map_err(unwritable)?;
        let moments = Optimizer::<M, B>::to_record(&self.strategy.optimizer);
        let optimizer = Recorder::<B>::record(&recorder, moments, ()).map_err(unwritable)?;
        let folder = checkpoint::write(&run.checkpoints(), fingerprint, &self.state, &model, &optimizer)?;
        checkpoint::prune(&run.checkpoints(), policy.keep)?;
        observer.on_checkpoint(self.state.step, &folder);
        self.last_checkpoint = Instant::now();
        Ok(())
    }
}

/// Accuracy and macro-F1 of (class, given class), one a cell; none where nothing was classified.
fn classification_scores(classified: &[(u32, u32)]) -> Option<ClassificationScores> {
    let n_classes = classified.iter().map(|&(truth, given)| truth.max(given) + 1).max()?;
    let names: Vec<String> = (0..n_classes).map(|class| class.to_string()).collect();
    let (truth, given): (Vec<usize>, Vec<usize>) =
        classified.iter().map(|&(truth, given)| (truth as usize, given as usize)).unzip();
    let confusion = ConfusionMatrix::new(&names, &truth, &given).ok()?;
    Some(ClassificationScores { accuracy: confusion.accuracy(), macro_f1: confusion.macro_f1() })
}
