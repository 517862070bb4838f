//! Forward, loss, gradients and Adam of the pretraining model.

use std::collections::BTreeMap;

use burn::backend::Autodiff;
use burn::module::{AutodiffModule, Module, ModuleMapper, Param};
use burn::optim::{GradientsParams, Optimizer};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{ElementConversion, Tensor, TensorData};
use cellpatch_model::weights::named_tensors;
use cellpatch_model::{CellPatch, Checkpoint, ModelBackend, masked_squared_error};
use cellpatch_train::coupled_adam;

use crate::golden::{Case, Golden, assert_within, largest_difference};

pub(crate) fn check<B: ModelBackend>(name: &str, device: &B::Device, slack: f64) {
    let case = Case::read(name);
    let golden = Golden::read(&format!("{name}.safetensors"));
    let model = case.config().init::<Autodiff<B>>(device);
    let weights = Checkpoint { tensors: golden.group("weights"), ..Default::default() };
    let (model, report) = weights.load_into(model).unwrap();
    assert_eq!(report.skipped, Vec::<String>::new());

    check_outputs(&model.valid(), &case, &golden, device, slack);
    check_training(model, &case, &golden, device, slack);
}

fn check_outputs<B: ModelBackend>(
    model: &CellPatch<B>,
    case: &Case,
    golden: &Golden,
    device: &B::Device,
    slack: f64,
) {
    let (input, targets) = (golden.input::<B>(device), golden.targets::<B>(device));
    let tolerance = case.number("/abs_tolerance/out") * slack;
    let valid_d = golden.values("in/valid_d");
    let (n_patches, n_targets) = (case.config().n_patches, targets.lengths.longest());
    let everything = |_: usize| true;
    let real_target = |index: usize| valid_d[index] == 1.0;
    let of_real_target = |width: usize| move |index: usize| valid_d[index / width] == 1.0;

    let check = |what: &str, found: TensorData, counts: &dyn Fn(usize) -> bool| {
        let difference = largest_difference(&found, golden.data(&format!("out/{what}")), counts);
        assert_within(what, difference, tolerance);
    };
    let patches = model.patches(&input);
    let latent = model.latent(patches.clone());
    check("patch", patches.into_data(), &everything);
    check("latent", latent.clone().into_data(), &everything);
    check("pred", model.predict(latent.clone(), &targets).into_data(), &real_target);
    check("pred", model.forward(&input, &targets).into_data(), &real_target);

    let maps = model.attention_scores(&input);
    check("attn_enc_cross", maps.cross.into_data(), &everything);
    for (index, map) in maps.self_blocks.into_iter().enumerate() {
        check(&format!("attn_enc_self_{index}"), map.into_data(), &everything);
    }
    let (prediction, maps) = model.predict_with_scores(latent, &targets);
    check("pred", prediction.into_data(), &real_target);
    check("attn_dec_cross", maps.cross.into_data(), &of_real_target(n_patches));
    for (index, map) in maps.self_blocks.into_iter().enumerate() {
        check(&format!("attn_dec_self_{index}"), map.into_data(), &of_real_target(n_targets));
    }
}

fn check_training<B: ModelBackend>(
    mut model: CellPatch<Autodiff<B>>,
    case: &Case,
    golden: &Golden,
    device: &B::Device,
    slack: f64,
) {
    let (input, targets) = (golden.input(device), golden.targets(device));
    let values: Tensor<Autodiff<B>, 2> = golden.tensor("in/counts_d", device);
    let learning_rate = case.number("/optimizer/lr");
    let mut adam = coupled_adam(case.number("/optimizer/weight_decay") as f32);

    for (step, expected) in case.losses().into_iter().enumerate() {
        let (sum, n) =
            masked_squared_error(model.forward(&input, &targets), values.clone(), &targets.lengths);
        let loss = sum / n as f64;
        let found: f64 = loss.clone().into_scalar().elem();
        let difference = (found - expected).abs() / expected;
        assert_within(&format!("loss {step}"), difference, case.number("/abs_tolerance/loss_rel") * slack);
        if step == 5 {
            break;
        }
        let gradients = loss.backward();
        if step == 0 {
            check_gradients(&model, &gradients, case, golden, slack);
        }
        let gradients = GradientsParams::from_grads(gradients, &model);
        model = adam.step(learning_rate, model, gradients);
        if step == 0 || step == 4 {
            check_weights(&model, &format!("step{}", step + 1), case, golden, slack);
        }
    }
}

fn check_gradients<B: AutodiffBackend>(
    model: &CellPatch<B>,
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

fn check_weights<B: ModelBackend>(
    model: &CellPatch<B>,
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
fn gradients_by_name<B: AutodiffBackend>(
    model: &CellPatch<B>,
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
