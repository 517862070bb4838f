//! The training loop as a Burn learning strategy that can stop and go on anywhere.
//!
//! Burn's own strategies checkpoint at epoch ends only and forget the position in the data, the early-stopping state
//! and the random state. This one drives the same `Learner` step by step and commits all of it together.

mod start;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use burn::data::dataloader::DataLoader;
use burn::optim::GradientsParams;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::train::{
    InferenceStep as _, Interrupter, Learner, LearningComponentsMarker, SupervisedLearningStrategy,
    SupervisedTraining, SupervisedTrainingEventProcessor, TrainLoader, TrainOutput, TrainingComponents,
    TrainingStrategy, ValidLoader,
};
use cellpatch_analysis::metrics::ConfusionMatrix;
use cellpatch_model::ModelBackend;

use self::start::{Records, Start};
use crate::batches::{BatchSource, Batches, Cursor, NoBatches};
use crate::checkpoint::{self, BestEpoch, EpochLosses, Finish, TrainingState};
use crate::collective::{Exchanged, StepPart};
use crate::loss::{self, BatchLoss};
use crate::metrics::{ClassificationScores, EpochRecord, MetricRecord, MetricsFile, StepRecord};
use crate::optimizer::{CoupledAdam, SharedOptimizer, coupled_adam};
use crate::renderer::SilentRenderer;
use crate::schedule::LearningRate;
use crate::setup::{Trainee, TrainingSetup};
use crate::{Error, Result};

type Adam<M, B> = SharedOptimizer<CoupledAdam<M, B>>;
type Components<M, B> = LearningComponentsMarker<B, LearningRate, M, Adam<M, B>>;

/// Losses are read back from the device this often, so that a step need not wait for it. Until then it holds their batches.
pub const STEPS_PER_READ: usize = 8;

/// Writes the weights that are kept.
type SaveModel<M> = dyn Fn(&M, &TrainingState) -> Result<()>;

/// Trains a model, from the start or from the newest checkpoint of its run, until it is done or interrupted; the state it
/// ends in says which.
///
/// On the CPU a run that was killed and resumed computes the bits of one that was not, as long as the trainee's step is a
/// function of its weights and its batch.
///
/// Where there is a collective, every rank calls this with its part of the batches: a step is then that of the whole batch,
/// and rank 0 alone writes. When a rank is gone the others end with [`Error::Collective`] at their next step; rank 0 saves a
/// checkpoint before.
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
    let Start { model, optimizer, state: start } = start::start(device, model, optimizer, &setup)?;
    let training_cursor = Arc::new(Cursor::default());
    let validation_cursor = Arc::new(Cursor::default());
    let batches = |source: &M::Source, cursor: &Arc<Cursor>| {
        Batches::new(source.clone(), Arc::clone(cursor), setup.dropout_seed())
    };
    let training: Arc<dyn DataLoader<B, _>> = Arc::new(batches(&setup.training, &training_cursor));
    let validation: Arc<dyn DataLoader<B::InnerBackend, _>> = match &setup.validation {
        Some(source) => Arc::new(batches(source, &validation_cursor)),
        None => Arc::new(NoBatches),
    };
    let learning_rate = learning_rate(setup.training.n_batches(), start.step as usize);
    let run = setup.run.clone();
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
    // Burn writes nothing there: its loggers and checkpoints are switched off.
    let folder = run.as_ref().map_or(Path::new(""), |run| run.path());
    SupervisedTraining::new(folder, training, validation)
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
    /// A step and its loss.
    Step(StepRecord, StepLoss<B>),
    /// The end of an epoch that is not validated.
    EpochEnd { epoch: usize, step: u64, seconds: f64 },
}

/// The loss of a step.
enum StepLoss<B: Backend> {
    /// Still on the device only.
    OnDevice(BatchLoss<B>),
    /// Added up over the ranks.
    Whole { sum: f64, weight: f64 },
}

impl<B: Backend> StepLoss<B> {
    /// The sum of the losses, for which it may wait, and what it is divided by.
    fn read(&self) -> (f64, f64) {
        match self {
            Self::OnDevice(loss) => (loss.sum(), loss.weight),
            &Self::Whole { sum, weight } => (sum, weight),
        }
    }
}

/// A batch after the forward and backward pass, on all ranks.
struct Step<B: Backend> {
    gradients: GradientsParams,
    loss: StepLoss<B>,
    n_cells: u64,
    /// Whether a rank was asked to end; all ranks know it at the same step.
    stops: bool,
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
        let mut metrics = match &self.strategy.setup.run {
            Some(run) => MetricsFile::open(&run.metrics(), self.state.metrics_bytes)?,
            None => MetricsFile::nowhere(),
        };
        while self.state.finished.is_none() {
            let interrupted = match self.epoch(&mut metrics) {
                // The last step that all took is whole here: nothing of it needs to be lost.
                Err(error @ Error::Collective(_)) => {
                    self.checkpoint(&mut metrics)?;
                    return Err(error);
                }
                ended => ended?,
            };
            if interrupted {
                self.checkpoint(&mut metrics)?;
                break;
            }
        }
        Ok(self.state.clone())
    }

    /// Takes the rest of an epoch; true when it was interrupted.
    fn epoch(&mut self, metrics: &mut MetricsFile) -> Result<bool> {
        Ok(self.train_epoch(metrics)? || self.end_epoch(metrics)?)
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
        let mut batches = training.iter();
        while let Some(batch) = self.wait_for(&mut *batches) {
            self.learner.lr_step();
            let n_cells = M::Source::cells_in(&batch.cells);
            let output = self.learner.train_step(batch);
            let step = self.over_ranks(output, n_cells as u64)?;
            self.learner.optimizer_step(step.gradients);
            self.state.step += 1;
            self.state.batch += 1;
            self.state.cells += step.n_cells;
            self.unread.push(Unread::Step(self.step_record(), step.loss));
            if self.unread.len() >= STEPS_PER_READ {
                self.read_losses(metrics)?;
            }
            if step.stops || self.is_alone_and_stopped() {
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

    /// The next batch, and how long it took to come.
    fn wait_for<T>(&mut self, batches: &mut (impl Iterator<Item = T> + ?Sized)) -> Option<T> {
        let began = Instant::now();
        let batch = batches.next();
        self.state.seconds_waited += began.elapsed().as_secs_f64();
        batch
    }

    /// Gradients and loss of a whole batch, from those of this rank's part.
    fn over_ranks(
        &self,
        output: TrainOutput<BatchLoss<B::InnerBackend>>,
        n_cells: u64,
    ) -> Result<Step<B::InnerBackend>> {
        let Some(collective) = &self.strategy.setup.collective else {
            let loss = StepLoss::OnDevice(output.item);
            return Ok(Step { gradients: output.grads, loss, n_cells, stops: false });
        };
        let own = self.part(output.item, n_cells);
        let Exchanged { gradients, whole } =
            collective.exchange_gradients::<B, M>(&self.learner.model(), output.grads, &own)?;
        let StepPart { loss_sum: sum, weight, n_cells, stops, .. } = whole;
        let loss = loss::mean(sum, weight);
        if !loss.is_finite() {
            return Err(Error::Diverged { loss, step: self.state.step + 1 });
        }
        Ok(Step { gradients, loss: StepLoss::Whole { sum, weight }, n_cells, stops })
    }

    /// What this rank tells the others of its part of a batch.
    fn part(&self, loss: BatchLoss<B::InnerBackend>, n_cells: u64) -> StepPart {
        StepPart {
            loss_sum: loss.sum(),
            weight: loss.weight,
            n_cells,
            stops: self.interrupter.should_stop(),
            classified: loss.classified,
        }
    }

    /// Whether the only process was asked to end. Several agree on it in their exchanges: none may go ahead alone.
    fn is_alone_and_stopped(&self) -> bool {
        self.strategy.setup.collective.is_none() && self.interrupter.should_stop()
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
                    let (sum, weight) = loss.read();
                    record.loss = loss::mean(sum, weight);
                    if !record.loss.is_finite() {
                        return Err(Error::Diverged { loss: record.loss, step: record.step });
                    }
                    self.state.epoch_loss_sum += sum;
                    self.state.epoch_weight += weight;
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
            let in_batch = M::Source::cells_in(&batch.cells) as u64;
            let own = self.part(model.step(batch), in_batch);
            let whole = match &setup.collective {
                Some(collective) => collective.exchange(&own)?,
                None => own,
            };
            sum += whole.loss_sum;
            weight += whole.weight;
            done += whole.n_cells as usize;
            classified.extend(whole.classified);
            setup.observer.on_validation(done, n_cells);
            if whole.stops {
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
            self.save_model(model)?;
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
            self.save_model(&self.learner.model().valid())?;
        }
        self.last_checkpoint = Instant::now();
        let TrainingSetup { run, fingerprint, observer, policy, .. } = &self.strategy.setup;
        let Some(run) = run else { return Ok(()) };
        self.state.seconds = self.seconds();
        self.state.metrics_bytes = metrics.synced_length()?;
        let records =
            Records::of::<M, B>(self.learner.model(), &self.strategy.optimizer, &run.checkpoints())?;
        let (model, optimizer) = (records.model, records.optimizer.unwrap_or_default());
        let folder = checkpoint::write(&run.checkpoints(), fingerprint, &self.state, &model, &optimizer)?;
        checkpoint::prune(&run.checkpoints(), policy.keep)?;
        observer.on_checkpoint(self.state.step, &folder);
        self.last_checkpoint = Instant::now();
        Ok(())
    }

    /// Writes the weights that are kept, where this process writes anything.
    fn save_model(&self, model: &M::InnerModule) -> Result<()> {
        match self.strategy.setup.run {
            Some(_) => (self.strategy.save_model)(model, &self.state),
            None => Ok(()),
        }
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
