//! The pretraining objective: mean squared error over the masked genes.

use burn::module::{AutodiffModule, Module, ModuleMapper, Param, ParamId};
use burn::optim::{GradientsAccumulator, GradientsParams, Optimizer};
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::train::{InferenceStep, TrainOutput, TrainStep};
use cellpatch_data::{LoaderOptions, Masking};
use cellpatch_model::{
    CellPatch, CellPatchConfig, Computation, Held, ModelBackend, PassShape, TrainingMemory,
    masked_squared_error, precision,
};

use crate::batches::{MaskedCells, PretrainingBatch, mix};
use crate::clipping::clip_global_norm;
use crate::config::PretrainingConfig;
use crate::loss::BatchLoss;
use crate::prepared::{Cost, PreparedCells, PreparedPart};
use crate::setup::Trainee;
use crate::strategy::STEPS_PER_READ;
use crate::{Error, Result};

/// A model with what a training step needs to know beside it.
///
/// A step takes a whole batch, which [`Preparation`](crate::Preparation) has cut into parts of similar length, each within
/// [`PretrainingConfig::max_scores`]; the gradients add up to those of the batch's mean.
#[derive(Module, Debug)]
pub struct Pretrainer<B: Backend> {
    /// The model.
    pub model: CellPatch<B>,
    clip_norm: Option<f32>,
}

/// The memory that a pretraining takes on a device: that of its largest part, and of the batches that come and go.
#[derive(Debug, Clone)]
pub struct PretrainingMemory {
    model: CellPatchConfig,
    cost: Cost,
    /// Of one cell, as long as cells can be.
    longest: PassShape,
    /// Cells of the largest part.
    n_cells: usize,
    computation: Computation,
    /// Of batches that wait for their turn, and of those whose losses have not come back.
    batches: usize,
}

/// Bytes of a gene of a batch on a device: token and value, the gene's number among those of the batch, and the slot's place in
/// their order.
const BYTES_OF_A_SLOT: usize = 16;

impl PretrainingMemory {
    /// Of a pretraining on a backend, in the [`precision()`] of this process.
    ///
    /// - n_genes: of the vocabulary; no cell has more
    pub fn new<B: ModelBackend>(config: &PretrainingConfig, n_genes: usize) -> Self {
        let cost = Cost::new::<B>(config);
        let Masking { max_input, max_targets, .. } = config.masking;
        let longest = PassShape {
            n_cells: 1,
            longest_input: max_input.min(n_genes),
            longest_target: max_targets.min(n_genes),
        };
        let n_cells = (config.max_scores / cost.of_cell(longest)).clamp(1, config.batch_size);
        let computation =
            if cost.stores_scores { Computation::Plain } else { Computation::Kernels(precision()) };
        let at_once = STEPS_PER_READ + LoaderOptions::default().prefetch + 1;
        let slots = config.batch_size * (longest.longest_input + longest.longest_target);
        let batches = at_once * slots * BYTES_OF_A_SLOT;
        Self { model: config.model.clone(), cost, longest, n_cells, computation, batches }
    }

    /// Bytes held at once, if all cells of a part are as long as cells can be.
    pub fn peak(&self) -> usize {
        let shape = PassShape { n_cells: self.n_cells, ..self.longest };
        self.batches + TrainingMemory::new(&self.model, shape, self.computation).peak()
    }

    /// The largest [`PretrainingConfig::max_scores`] that fits into so many bytes; none if not even one cell does.
    pub fn max_scores_that_fit(&self, bytes: usize) -> Option<usize> {
        let left = bytes.saturating_sub(self.batches);
        let n_cells = TrainingMemory::cells_that_fit(&self.model, self.longest, self.computation, left);
        (n_cells > 0).then(|| n_cells * self.cost.of_cell(self.longest))
    }
}

impl<B: ModelBackend> Pretrainer<B> {
    /// A model with fresh weights, drawn from the device's random stream.
    ///
    /// # Errors
    /// [`Error::Model`] when the model's configuration makes no sense.
    pub fn new(config: &PretrainingConfig, device: &B::Device) -> Result<Self> {
        config.model.validate().map_err(Error::Model)?;
        Ok(Self { model: numbered(config.model.init(device)), clip_norm: config.clip_norm })
    }

    /// Sum of squared errors over a part's targets: `[1]`.
    fn squared_error(&self, part: PreparedPart, device: &B::Device) -> Tensor<B, 1> {
        let (input, targets, expected) = part.on(device);
        let prediction = self.model.forward(&input, &targets);
        masked_squared_error(prediction, expected, &targets.lengths).0
    }

    fn device(&self) -> B::Device {
        self.model.devices().into_iter().next().unwrap_or_default()
    }
}

/// The same model, each parameter's id its place in the model, so that equal runs write equal checkpoints; Burn's ids are
/// random.
pub fn numbered<B: Backend, M: Module<B>>(model: M) -> M {
    model.map(&mut Numbering(0))
}

/// Numbers parameters on from a number.
pub(crate) struct Numbering(pub u64);

impl<B: Backend> ModuleMapper<B> for Numbering {
    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (_, value, mapper) = parameter.consume();
        self.0 += 1;
        Param::from_mapped_value(ParamId::from(self.0), value, mapper)
    }
}

impl<B> TrainStep for Pretrainer<B>
where
    B: AutodiffBackend + ModelBackend,
    B::InnerBackend: ModelBackend,
{
    type Input = PretrainingBatch;
    type Output = BatchLoss<B::InnerBackend>;

    fn step(&self, batch: PretrainingBatch) -> TrainOutput<Self::Output> {
        let device = self.device();
        let n_targets = batch.cells.n_targets;
        let mut gradients = GradientsAccumulator::new();
        let (mut sums, mut held) = (Vec::new(), Held::default());
        let mut seed = batch.dropout_seed;
        for part in batch.cells.parts {
            part.hold(&mut held);
            B::seed(&device, seed);
            seed = mix(seed);
            let squared_error = self.squared_error(part, &device);
            sums.push(squared_error.clone().inner());
            let loss = squared_error.div_scalar(n_targets as f32);
            gradients.accumulate(self, GradientsParams::from_grads(loss.backward(), self));
        }
        TrainOutput { grads: gradients.grads(), item: pretraining_loss(sums, n_targets, held) }
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
        optimizer.step(learning_rate, self, gradients)
    }
}

impl<B: ModelBackend> InferenceStep for Pretrainer<B> {
    type Input = PretrainingBatch;
    type Output = BatchLoss<B>;

    fn step(&self, batch: PretrainingBatch) -> BatchLoss<B> {
        let device = self.device();
        let PreparedCells { n_targets, parts, .. } = batch.cells;
        let mut held = Held::default();
        parts.iter().for_each(|part| part.hold(&mut held));
        let sums = parts.into_iter().map(|part| self.squared_error(part, &device)).collect();
        pretraining_loss(sums, n_targets, held)
    }
}

impl<B> Trainee<B> for Pretrainer<B>
where
    B: AutodiffBackend + ModelBackend,
    B::InnerBackend: ModelBackend,
{
    type Source = MaskedCells;
    type Frozen = Pretrainer<B::InnerBackend>;
}

/// Sums of squared errors over targets, in squared log1p units.
fn pretraining_loss<B: Backend>(sums: Vec<Tensor<B, 1>>, n_targets: usize, held: Held) -> BatchLoss<B> {
    BatchLoss { sums, weight: n_targets as f64, classified: Vec::new(), held }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex};
    use burn::module::ModuleVisitor;
    use cellpatch_data::MaskedBatch;
    use cellpatch_model::Preset;

    use crate::prepared::Preparation;

    type B = Autodiff<Flex>;

    /// Cells of many lengths, the shortest without targets.
    fn cells() -> MaskedBatch {
        let mut batch = MaskedBatch { input_offsets: vec![0], target_offsets: vec![0], ..Default::default() };
        for (row, (input, target)) in
            [(1, 0), (40, 21), (3, 1), (17, 9), (90, 40), (8, 4)].into_iter().enumerate()
        {
            let gene = |index: usize| 1 + ((row * 131 + index * 7) % 500) as u32;
            batch.rows.push(row as u64);
            batch.input_genes.extend((0..input).map(gene));
            batch.input_values.extend((0..input).map(|index| 0.3 + (index % 5) as f32));
            batch.target_genes.extend((0..target).map(|index| gene(index + 200)));
            batch.target_values.extend((0..target).map(|index| (index % 3) as f32));
            batch.input_offsets.push(batch.input_genes.len());
            batch.target_offsets.push(batch.target_genes.len());
        }
        batch
    }

    fn config(max_scores: usize) -> PretrainingConfig {
        let model = Preset::Tiny.config().with_attention_dropout(0.0).with_output_dropout(0.0);
        PretrainingConfig { max_scores, clip_norm: None, ..PretrainingConfig::new(model) }
    }

    fn pretrainer() -> Pretrainer<B> {
        B::seed(&Default::default(), 3);
        Pretrainer::new(&config(usize::MAX), &Default::default()).unwrap()
    }

    fn batch(cells: &MaskedBatch, max_scores: usize) -> PretrainingBatch {
        PretrainingBatch {
            cells: Preparation::new::<B>(&config(max_scores), &Default::default()).prepare(cells),
            dropout_seed: 1,
        }
    }

    /// All gradients of a module, one after the other.
    struct Flat<'a>(&'a GradientsParams, Vec<f32>);

    impl ModuleVisitor<B> for Flat<'_> {
        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<B, D>>) {
            if let Some(gradient) = self.0.get::<Flex, D>(parameter.id) {
                self.1.extend(gradient.into_data().iter::<f32>());
            }
        }
    }

    fn gradients(pretrainer: &Pretrainer<B>, gradients: &GradientsParams) -> Vec<f32> {
        let mut flat = Flat(gradients, Vec::new());
        pretrainer.visit(&mut flat);
        flat.1
    }

    #[test]
    fn a_batch_in_parts_has_the_gradient_and_loss_of_the_whole() {
        let pretrainer = pretrainer();
        let (whole, parts) = (batch(&cells(), usize::MAX), batch(&cells(), 20_000));
        assert_eq!(whole.cells.parts.len(), 1);
        assert!(parts.cells.parts.len() > 2, "the batch is cut");
        let (a, b) = (TrainStep::step(&pretrainer, whole), TrainStep::step(&pretrainer, parts));
        let (loss_a, loss_b) = (a.item.sum(), b.item.sum());
        assert!((loss_a / loss_b - 1.0).abs() < 1e-6, "{loss_a} {loss_b}");
        let (a, b) = (gradients(&pretrainer, &a.grads), gradients(&pretrainer, &b.grads));
        let largest = a.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        let apart = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(a.len() == b.len() && apart < 1e-5 * largest, "{apart} of {largest}");
    }

    #[test]
    fn the_loss_is_the_mean_over_all_targets() {
        let pretrainer = pretrainer().valid();
        let output = InferenceStep::step(&pretrainer, batch(&cells(), usize::MAX));
        assert_eq!(output.weight, 75.0);
        let by_cell: f64 = (0..6)
            .map(|cell| InferenceStep::step(&pretrainer, batch(&cells().select(&[cell]), usize::MAX)).sum())
            .sum();
        assert!((output.sum() / by_cell - 1.0).abs() < 1e-6);
    }

    #[test]
    fn clipping_scales_all_gradients_by_their_common_norm() {
        let pretrainer = pretrainer();
        let output = TrainStep::step(&pretrainer, batch(&cells(), usize::MAX));
        let before = gradients(&pretrainer, &output.grads);
        let norm = before.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        let limit = (norm / 3.0) as f32;
        let clipped = clip_global_norm::<B, _>(&pretrainer, output.grads, limit);
        let after = gradients(&pretrainer, &clipped);
        for (before, after) in before.iter().zip(&after) {
            assert!((before / 3.0 - after).abs() <= 1e-5 * before.abs().max(1e-6), "{before} {after}");
        }
        let untouched = clip_global_norm::<B, _>(&pretrainer, clipped, 2.0 * limit);
        assert_eq!(gradients(&pretrainer, &untouched), after);
    }

    #[test]
    fn equal_models_have_equal_parameter_ids() {
        struct Ids(Vec<ParamId>);
        impl ModuleVisitor<B> for Ids {
            fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<B, D>>) {
                self.0.push(parameter.id);
            }
        }
        let ids = |pretrainer: &Pretrainer<B>| {
            let mut ids = Ids(Vec::new());
            pretrainer.visit(&mut ids);
            ids.0
        };
        let first = ids(&pretrainer());
        assert_eq!(first, ids(&pretrainer()));
        let mut distinct = first.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), first.len());
    }
}
