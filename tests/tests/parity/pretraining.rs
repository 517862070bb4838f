//! Forward, loss, gradients and Adam of the pretraining model.

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::optim::{GradientsParams, Optimizer};
use burn::tensor::{ElementConversion, Tensor, TensorData};
use cellpatch_model::{CellPatch, Checkpoint, ModelBackend, masked_squared_error};
use cellpatch_train::coupled_adam;

use crate::golden::{Case, Golden, assert_within, largest_difference};
use crate::training::{check_gradients, check_weights};

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
