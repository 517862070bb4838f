//! Losses, gradients and five steps of Adam with a clipped global norm.

use std::collections::BTreeMap;

use burn::backend::Autodiff;
use burn::module::{AutodiffModule, Module, ModuleMapper, Param};
use burn::optim::GradientsParams;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{ElementConversion, Tensor, TensorData};
use cellpatch_model::weights::named_tensors;
use cellpatch_spatial::{SharedStorage, SpatialBackend, step};
use cellpatch_train::{clip_global_norm, coupled_adam};

use crate::golden::{Golden, assert_within, largest_difference};

pub(crate) fn check_training<B, M>(
    mut model: M,
    loss: impl Fn(&M) -> Tensor<Autodiff<B>, 1>,
    golden: &Golden,
    slack: f64,
) where
    B: SpatialBackend,
    M: AutodiffModule<Autodiff<B>> + SharedStorage,
{
    let learning_rate = golden.number("/optimizer/lr");
    let max_norm = golden.number("/optimizer/clip_global_norm") as f32;
    let mut adam = coupled_adam(golden.number("/optimizer/weight_decay") as f32);
    for (time, expected) in golden.losses().into_iter().enumerate() {
        let loss = loss(&model);
        let found: f64 = loss.clone().into_scalar().elem();
        let difference = (found - expected).abs() / expected;
        assert_within(&format!("loss {time}"), difference, golden.number("/abs_tolerance/loss_rel") * slack);
        let Some(norm) = golden.clip_norms().get(time).copied() else { break };
        let gradients = loss.backward();
        let named = gradients_by_name(&model, &gradients);
        let found = named.values().flat_map(|gradient| gradient.iter::<f64>().map(|g| g * g)).sum::<f64>();
        assert_within("norm", (found.sqrt() - norm).abs() / norm, 1e-5 * slack);
        if time == 0 {
            check_gradients(&named, golden, slack);
        }
        let gradients = GradientsParams::from_grads(gradients, &model);
        let gradients = clip_global_norm(&model, gradients, max_norm);
        model = step(&mut adam, learning_rate, model, gradients);
        if time == 0 || time == 4 {
            check_weights(&model, &format!("step{}", time + 1), golden, slack);
        }
    }
}

fn check_gradients(found: &BTreeMap<String, TensorData>, golden: &Golden, slack: f64) {
    let expected = golden.group("grad");
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, gradient) in found {
        let difference = largest_difference(gradient, &expected[name]);
        assert_within(name, difference, golden.number("/abs_tolerance/grad") * slack);
    }
}

fn check_weights<B: SpatialBackend, M: Module<Autodiff<B>>>(
    model: &M,
    group: &str,
    golden: &Golden,
    slack: f64,
) {
    let (expected, found) = (golden.group(group), named_tensors(model));
    let within = golden.number(&format!("/abs_tolerance/{group}/at_least_99.9_percent_within")) * slack;
    let at_most = golden.number(&format!("/abs_tolerance/{group}/every_element_within"));
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
fn gradients_by_name<B: AutodiffBackend, M: AutodiffModule<B>>(
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
