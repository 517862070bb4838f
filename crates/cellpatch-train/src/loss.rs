//! The loss of a batch, on its way from the device to the log.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use burn::train::ItemLazy;
use cellpatch_model::Held;

/// What a batch's loss is made of; sums are still on the device.
#[derive(Debug, Clone)]
pub struct BatchLoss<B: Backend> {
    /// Sums of losses over the parts of the batch: `[1]` each.
    pub sums: Vec<Tensor<B, 1>>,
    /// What their total is divided by: how many targets, or the weights of the cells.
    pub weight: f64,
    /// Of each cell its class and the one it was given, where cells are classified to validate.
    pub classified: Vec<(u32, u32)>,
    /// What the device still reads until the sums have come back: it is let go with the loss.
    pub held: Held,
}

impl<B: Backend> BatchLoss<B> {
    /// The sum over the batch. Waits for the device.
    pub fn sum(&self) -> f64 {
        let read = |sum: &Tensor<B, 1>| sum.to_data().iter::<f64>().next().unwrap_or(f64::NAN);
        self.sums.iter().map(read).sum()
    }

    /// The batch's loss; 0 for a batch without any target.
    pub fn mean(&self) -> f64 {
        mean(self.sum(), self.weight)
    }
}

/// A sum over its weight, 0 where there is nothing.
pub(crate) fn mean(sum: f64, weight: f64) -> f64 {
    if weight > 0.0 { sum / weight } else { sum }
}

impl<B: Backend> ItemLazy for BatchLoss<B> {
    type ItemSync = Self;

    fn sync(self) -> Self {
        self
    }
}
