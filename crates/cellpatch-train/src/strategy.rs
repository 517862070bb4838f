//! The training loop as a Burn learning strategy that can stop and go on anywhere.
//!
//! Burn's own strategies checkpoint at epoch ends only and forget the position in the data, the early-stopping state
//! and the random state. This one drives the same `Learner` step by step and commits all of it together.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use burn::module::{AutodiffModule, Module};
use burn::optim::Optimizer;
use burn::record::{FullPrecisionSettings, NamedMpkBytesRecorder, Recorder};
use burn::tensor::backend::AutodiffBackend;
use burn::train::{
    InferenceStep as _, Interrupter, Learner, LearningComponentsMarker, SupervisedLearningStrategy,
    SupervisedTrainingEventProcessor, TrainLoader, TrainingComponents, ValidLoader,
};
use cellpatch_model::ModelBackend;

use crate::batches::Cursor;
use crate::checkpoint::{self, BestEpoch, Checkpoint, EpochLosses, Fingerprint, Finish, TrainingState};
use crate::config::PretrainingConfig;
use crate::metrics::{EpochRecord, MetricRecord, MetricsFile, Observer, StepRecord};
use crate::objective::{BatchLoss, Pretrainer};
use crate::optimizer::{CoupledAdam, SharedOptimizer};
use crate::run::RunDirectory;
use crate::schedule::LearningRate;
use crate::{Error, Result};

type Adam<B> = SharedOptimizer<CoupledAdam<Pretrainer<B>, B>>;
type Components<B> = LearningComponentsMarker<B, LearningRate, Pretrainer<B>, Adam<B>>;

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

/// What the loop works with beside the learner.
pub(crate) struct Surroundings {
    pub config: PretrainingConfig,
    pub policy: CheckpointPolicy,
    pub run: Arc<RunDirectory>,
    pub fingerprint: Fingerprint,
    pub observer: Arc<dyn Observer>,
    pub training_cursor: Arc<Cursor>,
    pub validation_cursor: Arc<Cursor>,
    pub batches_per_epoch: usize,
    pub validation_cells: usize,
    pub validation_loss_gene_mean: f64,
}

/// How the loop ended.
#[derive(Debug, Clone)]
pub(crate) enum Ending {
    Finished(TrainingState),
    Interrupted(TrainingState),
}

/// Writes the weights of a new best epoch.
type SaveModel<B> = dyn Fn(&Pretrainer<B>, &TrainingState) -> Result<()>;

/// See the module's documentation.
pub(crate) struct ResumableStrategy<B: AutodiffBackend>
where
    B::InnerBackend: ModelBackend,
{
    surroundings: Surroundings,
    optimizer: Adam<B>,
    start: TrainingState,
    save_model: Box<SaveModel<B::InnerBackend>>,
    ending: Mutex<Option<Result<Ending>>>,
}

impl<B> ResumableStrategy<B>
where
    B: AutodiffBackend + ModelBackend,
    B::InnerBackend: ModelBackend,
{
    /// A strategy that goes on from `start`.
    pub(crate) fn new(
        surroundings: Surroundings,
        optimizer: Adam<B>,
        start: TrainingState,
        save_model: impl Fn(&Pretrainer<B::InnerBackend>, &TrainingState) -> Result<()> + 'static,
    ) -> Self {
        Self { surroundings, optimizer, start, save_model: Box::new(save_model), ending: Mutex::new(None) }
    }

    /// How the loop ended; nothing before it did.
    pub(crate) fn take_ending(&self) -> Option<Result<Ending>> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Puts weights and moments back as a checkpoint holds them.
///
/// # Errors
/// [`Error::Format`] when a record is not one of this model.
pub(crate) fn restore<B>(
    checkpoint: &Checkpoint,
    model: Pretrainer<B>,
    optimizer: Adam<B>,
    device: &B::Device,
) -> Result<(Pretrainer<B>, Adam<B>)>
where
    B: AutodiffBackend + ModelBackend,
    B::InnerBackend: ModelBackend,
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
    let optimizer = Optimizer::<Pretrainer<B>, B>::load_record(optimizer, record);
    Ok((model, optimizer))
}

impl<B> SupervisedLearningStrategy<Components<B>> for ResumableStrategy<B>
where
    B: AutodiffBackend + ModelBackend,
    B::InnerBackend: ModelBackend,
{
    fn fit(
        &self,
        components: TrainingComponents<Components<B>>,
        learner: Learner<Components<B>>,
        training: TrainLoader<Components<B>>,
        validation: ValidLoader<Components<B>>,
        _first_epoch: usize,
    ) -> (Pretrainer<B>, SupervisedTrainingEventProcessor<Components<B>>) {
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

struct TrainingLoop<'a, B: AutodiffBackend + ModelBackend>
where
    B::InnerBackend: ModelBackend,
{
    strategy: &'a ResumableStrategy<B>,
    learner: Learner<Components<B>>,
    training: TrainLoader<Components<B>>,
    validation: ValidLoader<Components<B>>,
    interrupter: Interrupter,
    state: TrainingState,
    /// Steps whose loss is still on the device only.
    unread: Vec<(StepRecord, BatchLoss<B::InnerBackend>)>,
    clock: Instant,
    seconds_before: f64,
    last_checkpoint: Instant,
}

impl<B> TrainingLoop<'_, B>
where
    B: AutodiffBackend + ModelBackend,
    B::InnerBackend: ModelBackend,
{
    fn run(&mut self) -> Result<Ending> {
        let mut metrics =
            MetricsFile::open(&self.strategy.surroundings.run.metrics(), self.state.metrics_bytes)?;
        while self.state.finished.is_none() {
            let interrupted = self.train_epoch(&mut metrics)? || self.validate(&mut metrics)?;
            if interrupted {
                self.checkpoint(&mut metrics)?;
                return Ok(Ending::Interrupted(self.state.clone()));
            }
            self.checkpoint(&mut metrics)?;
        }
        Ok(Ending::Finished(self.state.clone()))
    }

    /// Takes the epoch's remaining steps; true when it was interrupted.
    fn train_epoch(&mut self, metrics: &mut MetricsFile) -> Result<bool> {
        let surroundings = &self.strategy.surroundings;
        surroundings.training_cursor.set(self.state.epoch as u64, self.state.batch);
        let training = Arc::clone(&self.training);
        for batch in training.iter() {
            self.learner.lr_step();
            let n_cells = batch.cells.n_cells();
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
        if let Some(error) = surroundings.training_cursor.take_failure() {
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
            batches: self.strategy.surroundings.batches_per_epoch,
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
            let squared_error = loss.squared_error();
            record.loss = squared_error / loss.n_targets.max(1) as f64;
            if !record.loss.is_finite() {
                return Err(Error::Diverged { loss: record.loss, step: record.step });
            }
            self.state.epoch_squared_error += squared_error;
            self.state.epoch_targets += loss.n_targets as u64;
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
        surroundings.validation_cursor.set(0, 0);
        let model = self.learner.model().valid();
        let (mut squared_error, mut n_targets, mut done) = (0.0, 0, 0);
        for batch in self.validation.iter() {
            done += batch.cells.n_cells();
            let loss = model.step(batch);
            squared_error += loss.squared_error();
            n_targets += loss.n_targets;
            surroundings.observer.on_validation(done, surroundings.validation_cells);
            if self.interrupter.should_stop() {
                return Ok(true);
            }
        }
        if let Some(error) = surroundings.validation_cursor.take_failure() {
            return Err(error.into());
        }
        let losses = EpochLosses {
            train: self.state.epoch_squared_error / self.state.epoch_targets.max(1) as f64,
            validation: squared_error / n_targets.max(1) as f64,
        };
        self.close_epoch(losses, &model, metrics)?;
        Ok(false)
    }

    fn close_epoch(
        &mut self,
        losses: EpochLosses,
        model: &Pretrainer<B::InnerBackend>,
        metrics: &mut MetricsFile,
    ) -> Result<()> {
        let Surroundings { config, observer, validation_loss_gene_mean, .. } = &self.strategy.surroundings;
        let epoch = self.state.epoch;
        let best = self.state.best.is_none_or(|best| losses.validation < best.losses.validation);
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
            epochs: config.epochs,
            step: self.state.step,
            train_loss: losses.train,
            validation_loss: losses.validation,
            validation_loss_gene_mean: *validation_loss_gene_mean,
            validation_r2: 1.0 - losses.validation / validation_loss_gene_mean,
            best,
            seconds: self.seconds(),
        };
        observer.on_epoch(&record);
        metrics.append(&[MetricRecord::Epoch(record)])?;
        if config.patience.is_some_and(|patience| self.state.epochs_without_improvement >= patience) {
            self.state.finished = Some(Finish::StoppedEarly);
        } else if epoch >= config.epochs {
            self.state.finished = Some(Finish::Completed);
        }
        self.state.epoch += 1;
        self.state.batch = 0;
        (self.state.epoch_squared_error, self.state.epoch_targets) = (0.0, 0);
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
        let moments = Optimizer::<Pretrainer<B>, B>::to_record(&self.strategy.optimizer);
        let optimizer = Recorder::<B>::record(&recorder, moments, ()).map_err(unwritable)?;
        let folder = checkpoint::write(&run.checkpoints(), fingerprint, &self.state, &model, &optimizer)?;
        checkpoint::prune(&run.checkpoints(), policy.keep)?;
        observer.on_checkpoint(self.state.step, &folder);
        self.last_checkpoint = Instant::now();
        Ok(())
    }
}
