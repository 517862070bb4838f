//! What a pretraining is asked to do.

use cellpatch_data::Masking;
use cellpatch_model::CellPatchConfig;
use serde::{Deserialize, Serialize};

use crate::schedule::LearningRate;
use crate::{Error, Result};

/// How the learning rate goes over the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// The same at every step, as in the paper.
    #[default]
    Constant,
    /// Half a cosine from the learning rate down to `min_learning_rate` at the last step.
    Cosine,
}

/// Which cells are kept for validation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValidationSplit {
    /// The share of cells, between 0 and 1 (both excluded).
    pub fraction: f64,
    /// An `obs` column whose groups stay together, such as `donor_id`; random cells when absent.
    pub by: Option<String>,
}

/// Everything that decides what a pretraining computes; two runs with equal configurations on equal data give equal
/// weights on the CPU.
///
/// The defaults are the paper's: Adam at 1e-4 with coupled L2 5e-5, batches of 512 cells, 50 epochs, no clipping.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PretrainingConfig {
    /// The model.
    pub model: CellPatchConfig,
    /// How genes are hidden from the input.
    pub masking: Masking,
    /// The validation cells.
    pub validation: ValidationSplit,
    /// Use a random sample of this many of the data's cells.
    pub max_cells: Option<usize>,
    /// Passes over the training cells.
    pub epochs: usize,
    /// Cells per optimizer step.
    pub batch_size: usize,
    /// Whether cells of similar length share a batch; see `LoaderOptions::length_buckets`. Parts of a batch always hold
    /// cells of similar length.
    pub length_buckets: bool,
    /// Most numbers that one forward and backward pass holds at once: attention scores (cells x heads x queries x keys of
    /// the largest block), or, where kernels store no scores, the rows that are kept for the backward pass.
    /// A batch above it is computed in parts whose gradients add up to the batch's, so this changes memory and not the
    /// objective.
    pub max_scores: usize,
    /// Adam's step size.
    pub learning_rate: f64,
    /// Coupled L2, added to the gradient as PyTorch's `Adam(weight_decay)` does.
    pub weight_decay: f32,
    /// Largest allowed norm over all gradients together; none as in the paper.
    pub clip_norm: Option<f32>,
    /// Steps over which the learning rate rises linearly from 0.
    pub warmup_steps: usize,
    /// What follows the warm-up.
    pub schedule: Schedule,
    /// Where the cosine ends.
    pub min_learning_rate: f64,
    /// Epochs without a better validation loss after which training ends early.
    pub patience: Option<usize>,
    /// Decides the split, the initial weights, the masks, the order of cells and the dropout.
    pub seed: u64,
}

impl PretrainingConfig {
    /// The paper's settings for a model.
    pub fn new(model: CellPatchConfig) -> Self {
        Self {
            model,
            masking: Masking::default(),
            validation: ValidationSplit { fraction: 0.1, by: None },
            max_cells: None,
            epochs: 50,
            batch_size: 512,
            length_buckets: false,
            max_scores: 64 << 20,
            learning_rate: 1e-4,
            weight_decay: 5e-5,
            clip_norm: None,
            warmup_steps: 0,
            schedule: Schedule::Constant,
            min_learning_rate: 0.0,
            patience: None,
            seed: 42,
        }
    }

    /// The learning rate of a run of `total_steps`, of which `done` have been taken.
    pub(crate) fn learning_rates(&self, total_steps: usize, done: usize) -> LearningRate {
        let Self { learning_rate, min_learning_rate, schedule, warmup_steps, .. } = *self;
        LearningRate::new(learning_rate, min_learning_rate, schedule, warmup_steps, total_steps, done)
    }

    /// Checks every number.
    ///
    /// # Errors
    /// [`Error::BadOption`] names the first that makes no sense.
    pub fn validate(&self) -> Result<()> {
        let bad = |option, value: String, reason: &str| {
            Err(Error::BadOption { option, value, reason: reason.into() })
        };
        self.model.validate()?;
        self.masking.check()?;
        if self.max_cells == Some(0) {
            return bad("max-cells", "0".into(), "at least one cell is needed");
        }
        if self.epochs == 0 {
            return bad("epochs", "0".into(), "at least one is needed");
        }
        if self.batch_size == 0 {
            return bad("batch-size", "0".into(), "at least one cell is needed");
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return bad("learning-rate", self.learning_rate.to_string(), "it must be above 0");
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            return bad("weight-decay", self.weight_decay.to_string(), "it must not be negative");
        }
        if let Some(norm) = self.clip_norm
            && !(norm > 0.0 && norm.is_finite())
        {
            return bad("clip-norm", norm.to_string(), "it must be above 0; leave it out for no clipping");
        }
        if !(0.0..=self.learning_rate).contains(&self.min_learning_rate) {
            return bad(
                "min-learning-rate",
                self.min_learning_rate.to_string(),
                "it must lie between 0 and the learning rate",
            );
        }
        if !(self.validation.fraction > 0.0 && self.validation.fraction < 1.0) {
            return bad(
                "validation-fraction",
                self.validation.fraction.to_string(),
                "it must lie between 0 and 1",
            );
        }
        if self.patience == Some(0) {
            return bad(
                "patience",
                "0".into(),
                "at least one epoch is needed; leave it out to never stop early",
            );
        }
        Ok(())
    }
}
