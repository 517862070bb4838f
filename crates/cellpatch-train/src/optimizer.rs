//! An optimizer whose state can be read and replaced while Burn's `Learner` owns it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::module::AutodiffModule;
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::{
    Adam, AdamConfig, AdamState, AdaptiveMomentumState, GradientsParams, LearningRate, MultiGradientsParams,
    Optimizer, SimpleOptimizer,
};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Device, Tensor};
use cellpatch_model::ModelBackend;
use cellpatch_model::operation::{AdamStep, AdamTensors, primitive, tensor};

/// Adam as PyTorch computes it: eps 1e-8 outside the root, L2 coupled into the gradient.
pub type CoupledAdam<M, B> = OptimizerAdaptor<OnePassAdam, M, B>;

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPSILON: f32 = 1e-8;

/// Makes [`CoupledAdam`].
pub fn coupled_adam<M, B>(weight_decay: f32) -> CoupledAdam<M, B>
where
    B: AutodiffBackend,
    B::InnerBackend: ModelBackend,
    M: AutodiffModule<B>,
{
    let decay = (weight_decay > 0.0).then(|| WeightDecayConfig::new(weight_decay));
    let config = AdamConfig::new()
        .with_beta_1(BETA_1 as f32)
        .with_beta_2(BETA_2 as f32)
        .with_epsilon(EPSILON)
        .with_weight_decay(decay);
    OptimizerAdaptor::from(OnePassAdam { plain: config.build(), weight_decay })
}

/// Adam that reads and writes every element once, where the backend can; Burn's own elsewhere. The state is Burn's.
///
/// Dense also for the gene table: a gene that a batch does not have decays and moves on by its momentum, as in PyTorch.
#[derive(Clone)]
pub struct OnePassAdam {
    plain: Adam,
    weight_decay: f32,
}

impl<B: ModelBackend> SimpleOptimizer<B> for OnePassAdam {
    type State<const D: usize> = AdamState<B, D>;

    fn step<const D: usize>(
        &self,
        learning_rate: LearningRate,
        parameter: Tensor<B, D>,
        gradient: Tensor<B, D>,
        state: Option<AdamState<B, D>>,
    ) -> (Tensor<B, D>, Option<AdamState<B, D>>) {
        let first = state.is_none();
        let momentum = match state {
            Some(state) => state.momentum,
            None => AdaptiveMomentumState::new(0, parameter.zeros_like(), parameter.zeros_like()),
        };
        let time = momentum.time + 1;
        let step = AdamStep {
            learning_rate,
            beta_1: BETA_1,
            beta_2: BETA_2,
            epsilon: EPSILON,
            weight_decay: self.weight_decay,
            time,
        };
        let mut tensors = AdamTensors {
            parameter: primitive(parameter),
            gradient: primitive(gradient),
            moment_1: primitive(momentum.moment_1),
            moment_2: primitive(momentum.moment_2),
        };
        let done = B::adam(&step, &mut tensors);
        let AdamTensors { parameter, gradient, moment_1, moment_2 } = tensors;
        let state =
            |time| AdamState::new(AdaptiveMomentumState::new(time, tensor(moment_1), tensor(moment_2)));
        if done {
            return (tensor(parameter), Some(state(time)));
        }
        let before = (!first).then(|| state(time - 1));
        SimpleOptimizer::<B>::step(&self.plain, learning_rate, tensor(parameter), tensor(gradient), before)
    }

    fn to_device<const D: usize>(state: AdamState<B, D>, device: &Device<B>) -> AdamState<B, D> {
        <Adam as SimpleOptimizer<B>>::to_device(state, device)
    }
}

/// A handle to one optimizer: clones share its state.
///
/// Burn's `Learner` keeps its optimizer to itself, and a checkpoint needs the moments between two steps.
#[derive(Debug)]
pub struct SharedOptimizer<O>(Arc<Mutex<O>>);

impl<O> SharedOptimizer<O> {
    /// Shares an optimizer.
    pub fn new(optimizer: O) -> Self {
        Self(Arc::new(Mutex::new(optimizer)))
    }

    fn lock(&self) -> MutexGuard<'_, O> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<O> Clone for SharedOptimizer<O> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<O, M, B> Optimizer<M, B> for SharedOptimizer<O>
where
    O: Optimizer<M, B>,
    M: AutodiffModule<B>,
    B: AutodiffBackend,
{
    type Record = O::Record;

    fn step(&mut self, learning_rate: f64, module: M, gradients: GradientsParams) -> M {
        self.lock().step(learning_rate, module, gradients)
    }

    fn step_multi(&mut self, learning_rate: f64, module: M, gradients: MultiGradientsParams) -> M {
        self.lock().step_multi(learning_rate, module, gradients)
    }

    fn to_record(&self) -> Self::Record {
        self.lock().to_record()
    }

    fn load_record(self, record: Self::Record) -> Self {
        {
            let mut optimizer = self.lock();
            *optimizer = optimizer.clone().load_record(record);
        }
        self
    }
}
