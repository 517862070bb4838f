//! A step of a spatial training.

use burn::module::{AutodiffModule, Module, ParamId};
use burn::optim::{GradientsParams, Optimizer};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::train::{InferenceStep, TrainOutput, TrainStep};
use cellpatch_model::Held;
use cellpatch_train::{Batch, BatchLoss, Trainee, clip_global_norm};

use super::batches::{SliceBatch, SliceBatches};
use super::model::SpatialModel;
use crate::backend::SpatialBackend;
use crate::step::{SharedStorage, step};

/// A model with what a step needs to know beside it.
#[derive(Module, Debug)]
pub struct SpatialTrainer<B: Backend> {
    /// The model.
    pub model: SpatialModel<B>,
    clip_norm: Option<f32>,
}

impl<B: SpatialBackend> SpatialTrainer<B> {
    /// - clip_norm: largest allowed norm over all gradients together
    pub fn new(model: SpatialModel<B>, clip_norm: Option<f32>) -> Self {
        cellpatch_train::numbered(Self { model, clip_norm })
    }

    fn device(&self) -> B::Device {
        self.model.devices().into_iter().next().unwrap_or_default()
    }
}

impl<B> TrainStep for SpatialTrainer<B>
where
    B: AutodiffBackend + SpatialBackend,
    B::InnerBackend: SpatialBackend,
{
    type Input = Batch<SliceBatch>;
    type Output = BatchLoss<B::InnerBackend>;

    fn step(&self, batch: Batch<SliceBatch>) -> TrainOutput<Self::Output> {
        let device = self.device();
        B::seed(&device, batch.dropout_seed);
        let weight = batch.cells.slice().n_core() as f64;
        // Whether there are genes for patches was found out before the first step.
        let Ok(loss) = self.model.loss(&batch.cells, &device) else {
            let item = BatchLoss { sums: Vec::new(), weight, classified: Vec::new(), held: Held::default() };
            return TrainOutput { grads: GradientsParams::new(), item };
        };
        let sums = vec![loss.clone().inner().mul_scalar(weight)];
        let item = BatchLoss { sums, weight, classified: Vec::new(), held: Held::default() };
        TrainOutput { grads: GradientsParams::from_grads(loss.backward(), self), item }
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
        step::<B1, Self, O>(optimizer, learning_rate, self, gradients)
    }
}

impl<B: SpatialBackend> InferenceStep for SpatialTrainer<B> {
    type Input = Batch<SliceBatch>;
    type Output = BatchLoss<B>;

    fn step(&self, batch: Batch<SliceBatch>) -> BatchLoss<B> {
        let weight = batch.cells.slice().n_core() as f64;
        let loss = self.model.loss(&batch.cells, &self.device());
        let sums = loss.into_iter().map(|loss| loss.mul_scalar(weight)).collect();
        BatchLoss { sums, weight, classified: Vec::new(), held: Held::default() }
    }
}

impl<B> Trainee<B> for SpatialTrainer<B>
where
    B: AutodiffBackend + SpatialBackend,
    B::InnerBackend: SpatialBackend,
{
    type Source = SliceBatches;
    type Frozen = SpatialTrainer<B::InnerBackend>;
}

impl<B: SpatialBackend> SharedStorage for SpatialTrainer<B> {
    fn decoder_parameters(&self) -> Vec<ParamId> {
        self.model.decoder_parameters()
    }

    fn with_decoder_of_encoder(self) -> Self {
        Self { model: self.model.with_decoder_of_encoder(), ..self }
    }

    fn with_encoder_of_decoder(self) -> Self {
        Self { model: self.model.with_encoder_of_decoder(), ..self }
    }
}
