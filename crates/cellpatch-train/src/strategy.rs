//! The training loop as a Burn learning strategy that can stop and go on anywhere.
//!
//! Burn's own strategies checkpoint at epoch ends only and forget the position in the data, the early-stopping state
//! and the random state. This one drives the same `Learner` step by step and commits all of it together.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use burn::data::dataloader::DataLoader;
use burn::optim::Optimizer;
use burn::record::{FullPrecisionSettings, NamedMpkBytesRecorder, Recorder};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::train::{
    InferenceStep as _, Interrupter, Learner, LearningComponentsMarker, SupervisedLearningStrategy,
    SupervisedTraining, SupervisedTrainingEventProcessor, TrainLoader, TrainingComponents, TrainingStrategy,
    ValidLoader,
};
use cellpatch_analysis::metrics::ConfusionMatrix;
use cellpatch_model::ModelBackend;

use crate::batches::{BatchSource, Batches, Cursor, NoBatches};
use crate::checkpoint::{self, BestEpoch, Checkpoint, EpochLosses, Finish, TrainingState};
use crate::loss::{self, BatchLoss};
use crate::metrics::{ClassificationScores, EpochRecord, MetricRecord, MetricsFile, StepRecord};
use crate::optimizer::{CoupledAdam, SharedOptimizer, coupled_adam};
use crate::renderer::SilentRenderer;
use crate::schedule::LearningRate;
use crate::setup::{Trainee, TrainingSetup};
use crate::{Error, Result};

type Adam<M, B> = SharedOptimizer<CoupledAdam<M, B>>;
type Components<M, B> = LearningComponentsMarker<B, LearningRate, M, Adam<M, B>>;

/// Losses are read back from the device this often, so that a step need not wait for it.
const STEPS_PER_READ: usize = 8;

/// Writes the weights that are kept.
type SaveModel<M> = dyn Fn(&M, &TrainingState) -> Result<()>;

/// Trains a model, from the start or from the newest checkpoint of its run, until it is done or interrupted; the state it
/// ends in says which.
///
/// On the CPU a run that was killed and resumed computes the bits of one that was not, as long as the trainee's step is a
/// function of its weights and its batch.
///
/// - `model`: with parameters [numbered](crate::numbered), so that equal runs write equal checkpoints
/// - `learning_rate`: by the number of steps in an epoch and those already taken
/// - `save_model`: called with the weights of every new best epoch; without validation, with the newest ones at every
///   checkpoint, the last of which is at the end
///
/// # Errors
/// A source or disk that fails, a checkpoint of another run, or a loss that is no longer a number.
pub fn train<B, M>(
    device: &B::Device,
    model: M,
    setup: TrainingSetup<M::Source>,
    learning_rate: impl FnOnce(usize, usize) -> LearningRate,
    save_model: impl Fn(&M::InnerModule, &TrainingState) -> Result<()> + 'static,
) -> Result<TrainingState>
where
    B: AutodiffBackend + ModelBackend,
    B::InnerBackend: ModelBackend,
    M: Trainee<B>,
{
    let optimizer = SharedOptimizer::new(coupled_adam(setup.weight_decay));
    let (model, optimizer, start) = if setup.resume {
        let (checkpoint, passed_over) = checkpoint::newest(&setup.run.checkpoints())?;
        for reason in passed_over {
            setup.observer.on_warning(&format!("passed over a damaged checkpoint: {reason}"));
        }
        checkpoint.fingerprint.check(&setup.fingerprint, &checkpoint.folder)?;
        let (model, optimizer) = restore(&checkpoint, model, optimizer, device)?;
        (model.resumed(checkpoint.state.step), optimizer, reopened(checkpoint.state, setup.epochs))
    } else {
        (model, optimizer, TrainingState::start())
    };
    let training_cursor = Arc::new(Cursor::default());
    let validation_cursor = Arc::new(Cursor::default());
    let batches = |source: &M::Source, cursor: &Arc<Cursor>| {
        Batches::new(source.clone(), Arc::clone(cursor), setup.seed)
    };
    let training: Arc<dyn DataLoader<B, _>> = Arc::new(batches(&setup.training, &training_cursor));
    let validation: Arc<dyn DataLoader<B::InnerBackend, _>> = match &setup.validation {
        Some(source) => Arc::new(batches(source, &validation_cursor)),
        None => Arc::new(NoBatches),
    };
    let learning_rate = learning_rate(setup.training.n_batches(), start.step as usize);
    let run = Arc::clone(&setup.run);
    let (interrupter, epochs) = (setup.interrupter.clone(), setup.epochs);
    let strategy = Arc::new(ResumableStrategy {
        setup,
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
    setup: TrainingSetup<M::Source>,
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

/// What happened since losses were last read.
enum Unread<B: Backend> {
    /// A step, its loss still on the device only.
    Step(StepRecord, BatchLoss<B>),
    /// The end of an epoch that is not validated.
    EpochEnd { epoch: usize, step: u64, seconds: f64 },
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
    /// What is to be reported once its losses are read back from the device.
    unread: Vec<Unread<B::InnerBackend>>,
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
        let mut metrics = MetricsFile::open(&self.strategy.setup.run.metrics(), self.state.metrics_bytes)?;
        while self.state.finished.is_none() {
            let interrupted = self.train_epoch(&mut metrics)? || self.end_epoch(&mut metrics)?;
            if interrupted {
                self.checkpoint(&mut metrics)?;
                break;
            }
        }
        Ok(self.state.clone())
    }

    fn is_validated(&self) -> bool {
        self.strategy.setup.validation.is_some()
    }

    /// Closes an epoch all of whose steps are taken; true when its validation was interrupted.
    fn end_epoch(&mut self, metrics: &mut MetricsFile) -> Result<bool> {
        if self.is_validated() {
            if self.validate(metrics)? {
                return Ok(true);
            }
            self.checkpoint(metrics)?;
            return Ok(false);
        }
        let TrainingState { epoch, step, .. } = self.state;
        self.unread.push(Unread::EpochEnd { epoch, step, seconds: self.seconds() });
        self.turn_to_next_epoch();
        if self.state.finished.is_some() {
            self.checkpoint(metrics)?;
        }
        Ok(false)
    }

    /// Takes the epoch's remaining steps; true when it was interrupted.
    fn train_epoch(&mut self, metrics: &mut MetricsFile) -> Result<bool> {
        self.strategy.training_cursor.set(self.state.epoch as u64, self.state.batch);
        let training = Arc::clone(&self.training);
        for batch in training.iter() {
            self.learner.lr_step();
            let n_cells = M::Source::cells_in(&batch.cells);
            let output = self.learner.train_step(batch);
            self.learner.optimizer_step(output.grads);
            self.state.step += 1;
            self.state.batch += 1;
            self.state.cells += n_cells as u64;
            self.unread.push(Unread::Step(self.step_record(), output.item));
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
            return Err(error);
        }
        Ok(false)
    }

    fn step_record(&self) -> StepRecord {
        StepRecord {
            step: self.state.step,
            epoch: self.state.epoch,
            batch: self.state.batch,
            batches: self.strategy.setup.training.n_batches(),
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
        let observer = &self.strategy.setup.observer;
        let mut records = Vec::with_capacity(self.unread.len());
        let mut newest = None;
        for unread in self.unread.drain(..) {
            match unread {
                Unread::Step(mut record, loss) => {
                    let sum = loss.sum();
                    record.loss = loss::mean(sum, loss.weight);
                    if !record.loss.is_finite() {
                        return Err(Error::Diverged { loss: record.loss, step: record.step });
                    }
                    self.state.epoch_loss_sum += sum;
                    self.state.epoch_weight += loss.weight;
                    newest = Some(records.len());
                    records.push(MetricRecord::Step(record));
                }
                Unread::EpochEnd { epoch, step, seconds } => {
                    let losses = EpochLosses {
                        train: loss::mean(self.state.epoch_loss_sum, self.state.epoch_weight),
                        validation: None,
                        scores: None,
                    };
                    (self.state.epoch_loss_sum, self.state.epoch_weight) = (0.0, 0.0);
                    self.state.last = Some(losses);
                    self.state.best = Some(BestEpoch { epoch, losses });
                    let epochs = self.strategy.setup.epochs;
                    let record = EpochRecord::new(epoch, epochs, step, losses, seconds);
                    observer.on_epoch(&record);
                    records.push(MetricRecord::Epoch(record));
                }
            }
        }
        if let Some(MetricRecord::Step(newest)) = newest.map(|index| &records[index]) {
            observer.on_step(newest);
        }
        metrics.append(&records)
    }

    /// Measures the validation loss and closes the epoch; true when it was interrupted.
    fn validate(&mut self, metrics: &mut MetricsFile) -> Result<bool> {
        self.read_losses(metrics)?;
        let setup = &self.strategy.setup;
        let n_cells = setup.validation.as_ref().map_or(0, BatchSource::n_cells);
        // Epoch 0 belongs to validation: its masks are the same after every training epoch.
        self.strategy.validation_cursor.set(0, 0);
        let model = M::before_validation(self.learner.model().valid(), &mut setup.training.read(0, 0))?;
        let (mut sum, mut weight, mut done, mut classified) = (0.0, 0.0, 0, Vec::new());
        for batch in self.validation.iter() {
            done += M::Source::cells_in(&batch.cells);
            let loss = model.step(batch);
            sum += loss.sum();
            weight += loss.weight;
            classified.extend(loss.classified);
            setup.observer.on_validation(done, n_cells);
            if self.interrupter.should_stop() {
                return Ok(true);
            }
        }
        if let Some(error) = self.strategy.validation_cursor.take_failure() {
            return Err(error);
        }
        let losses = EpochLosses {
            train: loss::mean(self.state.epoch_loss_sum, self.state.epoch_weight),
            validation: Some(loss::mean(sum, weight)),
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
        let TrainingSetup { epochs, patience, observer, validation_loss_gene_mean, .. } =
            &self.strategy.setup;
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
        let means = validation_loss_gene_mean.zip(losses.validation);
        let record = EpochRecord {
            validation_loss_gene_mean: *validation_loss_gene_mean,
            validation_r2: means.map(|(means, loss)| 1.0 - loss / means),
            best,
            ..EpochRecord::new(epoch, *epochs, self.state.step, losses, self.seconds())
        };
        observer.on_epoch(&record);
        metrics.append(&[MetricRecord::Epoch(record)])?;
        let stops = patience.is_some_and(|patience| self.state.epochs_without_improvement >= patience);
        (self.state.epoch_loss_sum, self.state.epoch_weight) = (0.0, 0.0);
        self.turn_to_next_epoch();
        if stops {
            self.state.finished = Some(Finish::StoppedEarly);
        }
        Ok(())
    }

    fn turn_to_next_epoch(&mut self) {
        if self.state.epoch >= self.strategy.setup.epochs {
            self.state.finished = Some(Finish::Completed);
        }
        self.state.epoch += 1;
        self.state.batch = 0;
    }

    fn checkpoint_is_due(&self) -> bool {
        let policy = &self.strategy.setup.policy;
        self.last_checkpoint.elapsed().as_secs_f64() >= policy.every_seconds
            || policy.every_steps.is_some_and(|steps| self.state.step.is_multiple_of(steps))
    }

    /// Commits weights, moments and position together; without validation, the model file before them.
    fn checkpoint(&mut self, metrics: &mut MetricsFile) -> Result<()> {
        self.read_losses(metrics)?;
        if !self.is_validated() {
            (self.strategy.save_model)(&self.learner.model().valid(), &self.state)?;
        }
        let TrainingSetup { run, fingerprint, observer, policy, .. } = &self.strategy.setup;
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

#[cfg(test)]
mod tests;
