//! What a training is made of.

use std::sync::Arc;

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use burn::train::{InferenceStep, Interrupter, TrainStep};

use crate::Result;
use crate::batches::{Batch, BatchSource, mix};
use crate::checkpoint::Fingerprint;
use crate::collective::Collective;
use crate::loss::BatchLoss;
use crate::metrics::Observer;
use crate::run::RunDirectory;

/// A model with its objective, as [`train`](crate::train) trains it.
pub trait Trainee<B>:
    AutodiffModule<B, InnerModule = Self::Frozen>
    + TrainStep<Input = Batch<<Self::Source as BatchSource>::Cells>, Output = BatchLoss<B::InnerBackend>>
    + std::fmt::Display
    + 'static
where
    B: AutodiffBackend,
{
    /// Where its batches come from.
    type Source: BatchSource;
    /// The same without gradients, for validation.
    type Frozen: InferenceStep<
            Input = Batch<<Self::Source as BatchSource>::Cells>,
            Output = BatchLoss<B::InnerBackend>,
        >;

    /// Takes up a training whose weights and moments have been put back.
    ///
    /// - `n_steps`: taken before
    fn resumed(self, _n_steps: u64) -> Self {
        self
    }

    /// Makes the frozen model ready to be validated and kept.
    ///
    /// - `cells`: of the training source as validation would read them
    ///
    /// # Errors
    /// Those of the source.
    fn before_validation(
        frozen: Self::Frozen,
        _cells: &mut dyn Iterator<Item = Result<<Self::Source as BatchSource>::Cells>>,
    ) -> Result<Self::Frozen> {
        Ok(frozen)
    }
}

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

/// What a training is made of, beside the model.
pub struct TrainingSetup<S> {
    /// What is trained on.
    pub training: S,
    /// What epochs are judged by. Without it the newest weights are the ones kept, and neither model nor checkpoint is
    /// written at the end of every epoch: epochs may be as short as a step.
    pub validation: Option<S>,
    /// Passes over the training batches.
    pub epochs: usize,
    /// Epochs without a better validation after which training ends early.
    pub patience: Option<usize>,
    /// Coupled L2 of Adam.
    pub weight_decay: f32,
    /// What dropout counts from.
    pub seed: u64,
    /// When checkpoints are written.
    pub policy: CheckpointPolicy,
    /// Go on from the newest checkpoint of the run.
    pub resume: bool,
    /// Tells the loop to save a checkpoint and end.
    pub interrupter: Interrupter,
    /// Where everything is written; none on a rank other than 0.
    pub run: Option<Arc<RunDirectory>>,
    /// The processes that train together, each on its part of every batch. A trainee whose step or
    /// [`Trainee::before_validation`] measures cells beside loss and gradients, as batch normalisation does, sees its
    /// rank's cells only.
    pub collective: Option<Arc<Collective>>,
    /// What a resume must match.
    pub fingerprint: Fingerprint,
    /// Who watches.
    pub observer: Arc<dyn Observer>,
    /// See [`EpochRecord::validation_loss_gene_mean`](crate::EpochRecord::validation_loss_gene_mean).
    pub validation_loss_gene_mean: Option<f64>,
}

impl<S> TrainingSetup<S> {
    /// What this rank's dropout counts from: ranks drop each its own.
    pub(crate) fn dropout_seed(&self) -> u64 {
        match self.collective.as_ref().map_or(0, |collective| collective.rank()) {
            0 => self.seed,
            rank => mix(self.seed ^ mix(rank as u64)),
        }
    }
}
