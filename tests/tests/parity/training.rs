//! What all objectives are held to: gradients and the weights that follow from them.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Tensor, TensorData};
use cellpatch_model::weights::named_tensors;

use crate::golden::{Case, Golden, assert_within, largest_difference};

/// Every gradient, under its parameter's released name, and none where PyTorch has none.
pub(crate) fn check_gradients<B: AutodiffBackend, M: Module<B>>(
    model: &M,
    gradients: &B::Gradients,
    case: &Case,
    golden: &Golden,
    slack: f64,
) {
    let found = gradients_by_name(model, gradients);
    let expected = golden.group("grad");
    for name in case.unused_parameters() {
        assert!(!found.contains_key(&name), "{name} has a gradient");
    }
    let names: Vec<_> = found.keys().collect();
    assert_eq!(names, expected.keys().collect::<Vec<_>>());
    let largest = found
        .iter()
        .map(|(name, gradient)| largest_difference(gradient, &expected[name], |_| true))
        .fold(0.0, f64::max);
    assert_within("gradients", largest, case.number("/abs_tolerance/grad") * slack);
}

/// The weights after some steps.
pub(crate) fn check_weights<B: Backend, M: Module<B>>(
    model: &M,
    group: &str,
    case: &Case,
    golden: &Golden,
    slack: f64,
) {
    let expected = golden.group(group);
    let found = named_tensors(model);
    let within = case.number(&format!("/abs_tolerance/{group}/at_least_99.9_percent_within")) * slack;
    let at_most = case.number(&format!("/abs_tolerance/{group}/every_element_within"));
    let (mut n, mut n_beyond, mut largest) = (0, 0, 0.0_f64);
    for (name, expected) in &expected {
        let found = &found[name];
        assert_eq!(found.shape, expected.shape, "{name}");
        for (found, expected) in found.iter::<f32>().zip(expected.iter::<f32>()) {
            let difference = f64::from((found - expected).abs());
            n += 1;
            n_beyond += usize::from(difference > within);
            largest = largest.max(difference);
        }
    }
    println!("{group}: {n_beyond} of {n} weights beyond {within:.1e}, largest {largest:.2e}");
    assert!(n_beyond * 1000 <= n, "{group}: {n_beyond} of {n} weights are off by more than {within:e}");
    assert!(largest <= at_most, "{group}: a weight is off by {largest:e}");
}

/// Gradients under their parameters' released names; a parameter without one is left out.
pub(crate) fn gradients_by_name<B: AutodiffBackend, M: Module<B>>(
    model: &M,
    gradients: &B::Gradients,
) -> BTreeMap<String, TensorData> {
    let model_of_gradients = model.clone().map(&mut ToGradients { gradients });
    let mut named = named_tensors(&model_of_gradients);
    named.retain(|_, gradient| gradient.iter::<f32>().all(|element| !element.is_nan()));
    named
}

/// Replaces every parameter by its gradient, and by NaN where it has none.
struct ToGradients<'a, B: AutodiffBackend> {
    gradients: &'a B::Gradients,
}

impl<B: AutodiffBackend> ModuleMapper<B> for ToGradients<'_, B> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        param.map(|weight| match weight.grad(self.gradients) {
            Some(gradient) => Tensor::from_inner(gradient),
            None => Tensor::full(weight.shape(), f32::NAN, &weight.device()),
        })
    }
}
