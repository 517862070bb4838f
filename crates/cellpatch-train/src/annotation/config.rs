//! What a finetuning is asked to do.

use cellpatch_model::AnnotatorConfig;
use serde::{Deserialize, Serialize};

use crate::config::Schedule;
use crate::schedule::LearningRate;
use crate::{Error, Result};

/// How much a cell of each class counts in the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClassWeights {
    /// All cells alike, so classes by their frequency.
    None,
    /// All classes alike: each cell by one over its class's frequency.
    Balanced,
    /// In between: by one over the square root of the frequency.
    #[default]
    SquareRoot,
}

impl ClassWeights {
    /// The weight of each class, of mean 1 over the cells; none for equal weights.
    ///
    /// - n_cells: training cells of each class, at least one
    pub fn of(self, n_cells: &[usize]) -> Option<Vec<f32>> {
        let raw = |n: usize| match self {
            Self::None => 1.0,
            Self::Balanced => 1.0 / n.max(1) as f64,
            Self::SquareRoot => 1.0 / (n.max(1) as f64).sqrt(),
        };
        let total: f64 = n_cells.iter().map(|&n| n as f64).sum();
        let sum: f64 = n_cells.iter().map(|&n| n as f64 * raw(n)).sum();
        (self != Self::None).then(|| n_cells.iter().map(|&n| (raw(n) * total / sum) as f32).collect())
    }
}

/// Epochs of the paper.
const EPOCHS: usize = 50;
/// Fewest steps of a training whose epochs nobody set.
const FEWEST_STEPS: usize = 1_000;

/// Epochs of so many steps each where nobody set them.
pub(super) fn usual_epochs(n_batches: usize) -> usize {
    EPOCHS.max(FEWEST_STEPS.div_ceil(n_batches.max(1)))
}

/// Everything that decides what a finetuning computes.
///
/// Adam at 1e-3 with coupled L2 5e-4, 50 epochs and all gradients clipped at norm 5 are the paper's. Batches of 32 instead of
/// 256, the feature norm, the mean over steps, warm-up and cosine, and genes left out are ours: with the few thousand cells
/// that are usually labelled, the paper's settings end before they have learnt much (docs/benchmarks.md).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnnotationConfig {
    /// The model.
    pub model: AnnotatorConfig,
    /// Whether the encoder stays as it is and only the head learns.
    pub freeze_encoder: bool,
    /// Whether the head is trained on features of mean 0 and deviation 1; the model that is written computes the same
    /// without. See `Annotator::with_feature_norm`.
    pub normalize_features: bool,
    /// Steps over which the kept weights are a running mean; 1 for the weights of the last step alone.
    pub average_over: usize,
    /// How much a cell of each class counts.
    pub class_weights: ClassWeights,
    /// Share of the wanted probability that is spread over all classes.
    pub label_smoothing: f32,
    /// Genes by which each class is told from the others, and to which cells are reduced; none for all genes.
    pub genes_per_class: Option<usize>,
    /// Share of a training cell's genes that are left out, others each time it is seen.
    pub gene_dropout: f32,
    /// Most genes of a cell that go in.
    pub max_input: usize,
    /// Passes over the training cells; for few cells more than the default are better: see `AnnotationData::usual_epochs`.
    pub epochs: usize,
    /// Cells per optimizer step.
    pub batch_size: usize,
    /// See `PretrainingConfig::max_scores`.
    pub max_scores: usize,
    /// Adam's step size.
    pub learning_rate: f64,
    /// Coupled L2, added to the gradient as PyTorch's `Adam(weight_decay)` does.
    pub weight_decay: f32,
    /// Largest allowed norm over all gradients together.
    pub clip_norm: Option<f32>,
    /// Steps over which the learning rate rises linearly from 0.
    pub warmup_steps: usize,
    /// What follows the warm-up.
    pub schedule: Schedule,
    /// Where the cosine ends.
    pub min_learning_rate: f64,
    /// Epochs without a better validation macro-F1 after which training ends early.
    pub patience: Option<usize>,
    /// Decides the initial weights, the order of cells, which genes are left out and the dropout.
    pub seed: u64,
}

impl AnnotationConfig {
    /// The default settings for a model.
    pub fn new(model: AnnotatorConfig) -> Self {
        Self {
            model,
            freeze_encoder: false,
            normalize_features: true,
            average_over: 100,
            class_weights: ClassWeights::SquareRoot,
            label_smoothing: 0.0,
            genes_per_class: Some(50),
            gene_dropout: 0.3,
            max_input: 3_000,
            epochs: EPOCHS,
            batch_size: 32,
            max_scores: 64 << 20,
            learning_rate: 1e-3,
            weight_decay: 5e-4,
            clip_norm: Some(5.0),
            warmup_steps: 50,
            schedule: Schedule::Cosine,
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
        for (option, value) in
            [("epochs", self.epochs), ("batch-size", self.batch_size), ("max-input", self.max_input)]
        {
            if value == 0 {
                return bad(option, "0".into(), "at least one is needed");
            }
        }
        for (option, value) in
            [("label-smoothing", self.label_smoothing), ("gene-dropout", self.gene_dropout)]
        {
            if !(0.0..1.0).contains(&value) {
                return bad(option, value.to_string(), "it must be 0 or more and below 1");
            }
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
            return bad("clip-norm", norm.to_string(), "it must be above 0");
        }
        if !(0.0..=self.learning_rate).contains(&self.min_learning_rate) {
            let value = self.min_learning_rate.to_string();
            return bad("min-learning-rate", value, "it must lie between 0 and the learning rate");
        }
        if self.patience == Some(0) {
            return bad("patience", "0".into(), "at least one epoch is needed");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_have_mean_one_over_cells_and_balance_classes() {
        let n_cells = [900, 90, 10];
        assert_eq!(ClassWeights::None.of(&n_cells), None);
        for kind in [ClassWeights::Balanced, ClassWeights::SquareRoot] {
            let weights = kind.of(&n_cells).unwrap();
            let mean: f32 = weights.iter().zip(n_cells).map(|(w, n)| w * n as f32).sum::<f32>() / 1000.0;
            assert!((mean - 1.0).abs() < 1e-5, "{mean}");
        }
        let balanced = ClassWeights::Balanced.of(&n_cells).unwrap();
        assert!((balanced[0] * 900.0 - balanced[2] * 10.0).abs() < 1e-3);
    }

    #[test]
    fn few_batches_are_seen_more_often() {
        assert_eq!([0, 3, 19, 20, 21, 5_000].map(usual_epochs), [1_000, 334, 53, 50, 50, 50]);
    }
}
