//! A running mean of a model's weights.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

/// Moves the second half of a module's parameters towards the first by a share of the way.
///
/// - `n_parameters`: in each half; identities count from 1, so that of a mean is that much higher than its parameter's
pub(super) fn approach<B, M>(module: M, share: f64, n_parameters: u64) -> M
where
    B: AutodiffBackend,
    M: Module<B>,
{
    let mut weights = Weights { tensors: GradientsParams::new(), n_parameters };
    Module::<B>::visit(&module, &mut weights);
    Module::<B>::map(module, &mut Approach { weights: &weights.tensors, share, n_parameters })
}

/// Tensors by the identity of their parameter: any container of tensors of all ranks would do.
struct Weights {
    tensors: GradientsParams,
    n_parameters: u64,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Weights {
    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<B, D>>) {
        if parameter.id.val() <= self.n_parameters {
            self.tensors.register::<B::InnerBackend, D>(parameter.id, parameter.val().inner());
        }
    }
}

struct Approach<'a> {
    weights: &'a GradientsParams,
    share: f64,
    n_parameters: u64,
}

impl<B: AutodiffBackend> ModuleMapper<B> for Approach<'_> {
    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let counterpart = parameter.id.val().checked_sub(self.n_parameters).map(ParamId::from);
        let target = counterpart.and_then(|id| self.weights.get::<B::InnerBackend, D>(id));
        let Some(target) = target else { return parameter };
        parameter.map(|mean| {
            let mean = mean.inner();
            Tensor::from_inner(mean.clone() + (target - mean) * self.share)
        })
    }
}
