//! An optimizer whose state can be read and replaced while Burn's `Learner` owns it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::module::AutodiffModule;
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::{Adam, AdamConfig, GradientsParams, MultiGradientsParams, Optimizer};
use burn::tensor::backend::AutodiffBackend;

/// Adam as PyTorch computes it: eps 1e-8 outside the root, L2 coupled into the gradient.
pub type CoupledAdam<M, B> = OptimizerAdaptor<Adam, M, B>;

/// Makes [`CoupledAdam`].
pub fn coupled_adam<M, B>(weight_decay: f32) -> CoupledAdam<M, B>
where
    B: AutodiffBackend,
    M: AutodiffModule<B>,
{
    let decay = (weight_decay > 0.0).then(|| WeightDecayConfig::new(weight_decay));
    AdamConfig::new().with_epsilon(1e-8).with_weight_decay(decay).init()
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
