//! The annotation objective: cross-entropy of the classes.

use std::sync::Arc;

use burn::module::{AutodiffModule, Module};
use burn::optim::{GradientsAccumulator, GradientsParams, Optimizer};
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::train::{InferenceStep, TrainOutput, TrainStep};
use cellpatch_data::{ExpressionBatch, PaddedShape};
use cellpatch_model::{Annotator, Held, ModelBackend, weighted_cross_entropy};

use super::average::approach;
use super::cells::{LabelledBatch, LabelledCells, SeededBatch};
use super::config::AnnotationConfig;
use crate::Result;
use crate::batches::mix;
use crate::clipping::clip_global_norm;
use crate::features::padded;
use crate::loss::BatchLoss;
use crate::objective::Numbering;
use crate::setup::Trainee;

/// A model with what a finetuning step needs to know beside it.
#[derive(Module, Debug)]
pub struct AnnotationTrainer<B: Backend> {
    /// The model.
    pub model: Annotator<B>,
    /// The running mean of its weights over the last steps, which is what is validated and kept: it labels better than
    /// the weights of any one step.
    average: Option<Annotator<B>>,
    average_over: usize,
    /// Steps taken.
    #[module(skip)]
    n_steps: u64,
    /// Parameters of one model.
    n_parameters: u64,
    clip_norm: Option<f32>,
    label_smoothing: f32,
    #[module(skip)]
    class_weights: Option<Arc<Vec<f32>>>,
    #[module(skip)]
    cost: Cost,
}

/// Cells whose features give the norm's mean and deviation, where there are so many.
const CELLS_OF_NORM: usize = 1024;

/// What a batch holds in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    max_scores: usize,
    n_heads: usize,
    n_patches: usize,
    embedding_dim: usize,
    stores_scores: bool,
}

impl Cost {
    pub(super) fn new<B: ModelBackend>(config: &AnnotationConfig) -> Self {
        let model = &config.model.model;
        Self {
            max_scores: config.max_scores,
            n_heads: model.n_heads,
            n_patches: model.n_patches,
            embedding_dim: model.embedding_dim,
            stores_scores: B::stores_scores(model),
        }
    }

    /// Numbers that a padded part holds at once: see `Pretrainer`.
    fn of(&self, shape: PaddedShape) -> usize {
        let PaddedShape { n_cells, longest_input, .. } = shape;
        if !self.stores_scores {
            // Keys and values of the input; about six rows a patch in each block.
            return n_cells * self.embedding_dim * (2 * longest_input + 18 * self.n_patches);
        }
        n_cells * self.n_heads * self.n_patches * longest_input.max(self.n_patches)
    }

    pub(super) fn parts(&self, cells: &ExpressionBatch) -> Vec<ExpressionBatch> {
        cells.micro_batches(self.max_scores, |shape| self.of(shape))
    }
}

impl<B: ModelBackend> AnnotationTrainer<B> {
    /// A model with what it is trained by.
    ///
    /// - `n_cells`: training cells of each class
    pub fn new(model: Annotator<B>, config: &AnnotationConfig, n_cells: &[usize]) -> Self {
        let model = if config.normalize_features { model.with_feature_norm() } else { model };
        let mut numbering = Numbering(0);
        let model = model.map(&mut numbering);
        let n_parameters = numbering.0;
        let average = (config.average_over > 1).then(|| model.clone().no_grad().map(&mut numbering));
        Self {
            model: if config.freeze_encoder { model.freeze_encoder() } else { model },
            average,
            average_over: config.average_over,
            n_steps: 0,
            n_parameters,
            clip_norm: config.clip_norm,
            label_smoothing: config.label_smoothing,
            class_weights: config.class_weights.of(n_cells).map(Arc::new),
            cost: Cost::new::<B>(config),
        }
    }

    /// The model to keep: the mean of the last steps' weights if there is one, the feature norm folded away.
    pub fn kept(&self) -> Annotator<B> {
        self.average.as_ref().unwrap_or(&self.model).clone().fold_feature_norm()
    }

    fn device(&self) -> B::Device {
        self.model.devices().into_iter().next().unwrap_or_default()
    }

    /// The batch in parts of similar length, each with its classes.
    fn parts(&self, batch: &LabelledBatch) -> Vec<LabelledBatch> {
        let of_row: std::collections::HashMap<u64, u32> =
            batch.cells.rows.iter().copied().zip(batch.classes.iter().copied()).collect();
        let classes = |cells: &ExpressionBatch| cells.rows.iter().map(|row| of_row[row]).collect();
        let labelled = |cells| LabelledBatch { classes: classes(&cells), cells };
        self.cost.parts(&batch.cells).into_iter().map(labelled).collect()
    }
}

/// Logits of a part: [cells, classes].
fn logits<B: ModelBackend>(
    model: &Annotator<B>,
    part: &LabelledBatch,
    device: &B::Device,
) -> Option<Tensor<B, 2>> {
    // Genes and values of a batch always agree in number: there is no other error.
    padded(&part.cells, device).ok().map(|input| model.forward(&input))
}

impl<B> TrainStep for AnnotationTrainer<B>
where
    B: AutodiffBackend + ModelBackend,
    B::InnerBackend: ModelBackend,
{
    type Input = SeededBatch;
    type Output = BatchLoss<B::InnerBackend>;

    fn step(&self, batch: SeededBatch) -> TrainOutput<Self::Output> {
        let device = self.device();
        let class_weights = self.class_weights.as_ref().map(|weights| weights.as_slice());
        let weight_of =
            |&class: &u32| class_weights.map_or(1.0, |weights| f64::from(weights[class as usize]));
        let weight: f64 = batch.cells.classes.iter().map(weight_of).sum();
        let mut gradients = GradientsAccumulator::new();
        let mut sums = Vec::new();
        let mut seed = batch.dropout_seed;
        for part in self.parts(&batch.cells) {
            B::seed(&device, seed);
            seed = mix(seed);
            let Some(logits) = logits(&self.model, &part, &device) else { continue };
            let sum = weighted_cross_entropy(logits, &part.classes, class_weights, self.label_smoothing);
            sums.push(sum.clone().inner());
            let loss = sum.div_scalar(weight as f32);
            gradients.accumulate(self, GradientsParams::from_grads(loss.backward(), self));
        }
        let item = BatchLoss { sums, weight, classified: Vec::new(), held: Held::default() };
        TrainOutput { grads: gradients.grads(), item }
    }

    fn optimize<B1, O>(self, optimizer: &mut O, learning_rate: f64, gradients: GradientsParams) -> Self
    where
        B1: AutodiffBackend,
        O: Optimizer<Self, B1>,
        Self: AutodiffModule<B1>,
    {
        let gradients = match self.clip_norm {
            Some(norm) => clip_global_norm::<B1, Self>(&self, gradients, norm),
            None => gradients,
        };
        let (averages, n_parameters) = (self.average.is_some(), self.n_parameters);
        let n_steps = self.n_steps + 1;
        // A mean over about the last n weights, and before the n-th step over all that there were.
        let share = 1.0 / n_steps.min(self.average_over as u64) as f64;
        let trainer = Self { n_steps, ..optimizer.step(learning_rate, self, gradients) };
        if averages { approach::<B1, Self>(trainer, share, n_parameters) } else { trainer }
    }
}

impl<B: ModelBackend> InferenceStep for AnnotationTrainer<B> {
    type Input = SeededBatch;
    type Output = BatchLoss<B>;

    /// The plain cross-entropy, without weights and smoothing, and what each cell was taken for.
    fn step(&self, batch: SeededBatch) -> BatchLoss<B> {
        let device = self.device();
        let model = self.average.as_ref().unwrap_or(&self.model);
        let (mut sums, mut classified) = (Vec::new(), Vec::new());
        for part in self.parts(&batch.cells) {
            let Some(logits) = logits(model, &part, &device) else { continue };
            let given = logits.clone().argmax(1).into_data();
            classified.extend(part.classes.iter().copied().zip(given.iter::<u32>()));
            sums.push(weighted_cross_entropy(logits, &part.classes, None, 0.0));
        }
        BatchLoss { sums, weight: batch.cells.classes.len() as f64, classified, held: Held::default() }
    }
}

impl<B> Trainee<B> for AnnotationTrainer<B>
where
    B: AutodiffBackend + ModelBackend,
    B::InnerBackend: ModelBackend,
{
    type Source = LabelledCells;
    type Frozen = AnnotationTrainer<B::InnerBackend>;

    fn resumed(self, n_steps: u64) -> Self {
        Self { n_steps, ..self }
    }

    /// Takes mean and deviation of the features from cells with all their genes, as the averaged encoder sees them.
    fn before_validation(
        frozen: Self::Frozen,
        cells: &mut dyn Iterator<Item = Result<LabelledBatch>>,
    ) -> Result<Self::Frozen> {
        let device = frozen.device();
        let model = frozen.average.as_ref().unwrap_or(&frozen.model);
        if !model.has_feature_norm() {
            return Ok(frozen);
        }
        let mut features = Vec::new();
        let mut n_cells = 0;
        while n_cells < CELLS_OF_NORM
            && let Some(batch) = cells.next().transpose()?
        {
            n_cells += batch.classes.len();
            for part in frozen.cost.parts(&batch.cells) {
                let input = padded(&part, &device)?;
                features.push(model.features(model.encoder().patches(&input)));
            }
        }
        if features.is_empty() {
            return Ok(frozen);
        }
        let features = Tensor::cat(features, 0);
        let AnnotationTrainer { model, average, .. } = frozen.clone();
        let (model, average) = match average {
            Some(average) => (model, Some(average.with_norm_of(features))),
            None => (model.with_norm_of(features), None),
        };
        Ok(AnnotationTrainer { model, average, ..frozen })
    }
}
