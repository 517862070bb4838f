//! Forward, loss, gradients, clipping and Adam of the annotation heads.

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::optim::{GradientsParams, Optimizer};
use burn::tensor::backend::Backend;
use burn::tensor::{ElementConversion, TensorData};
use cellpatch_model::{
    AnnotationHead, Annotator, AnnotatorConfig, Checkpoint, GeneLengths, GeneValues, ModelBackend, Padding,
    weighted_cross_entropy,
};
use cellpatch_train::{clip_global_norm, coupled_adam};

use crate::golden::{Case, Golden, assert_within, largest_difference, path};
use crate::training::{check_gradients, check_weights};

/// What the manifest allows the outputs of a checkpoint with attended padding.
const CHECKPOINT_TOLERANCE: f64 = 4e-5;

fn config(case: &Case) -> AnnotatorConfig {
    let head = match case.flag("/config/project_out") {
        true => AnnotationHead::Projected,
        false => AnnotationHead::Direct,
    };
    AnnotatorConfig::new(case.config(), case.number("/config/n_classes") as usize)
        .with_head(head)
        .with_dropout(case.number("/config/head_dropout"))
}

fn input<B: Backend>(golden: &Golden, lengths: GeneLengths, device: &B::Device) -> GeneValues<B> {
    let (genes, values) = (golden.ints("in/genes", device), golden.tensor("in/counts", device));
    GeneValues::from_padded(genes, values, lengths).unwrap()
}

pub(crate) fn check<B: ModelBackend>(name: &str, device: &B::Device, slack: f64) {
    let case = Case::read(name);
    let golden = Golden::read(&format!("{name}.safetensors"));
    let weights = Checkpoint { tensors: golden.group("weights"), ..Default::default() };
    let config = config(&case);
    let told = weights.annotator_config().unwrap();
    assert_eq!(
        (told.n_classes, told.hidden),
        (config.n_classes, config.hidden),
        "shapes tell the head's sizes"
    );
    let (model, report) = weights.load_into(config.init::<Autodiff<B>>(device)).unwrap();
    assert_eq!(report.skipped, Vec::<String>::new());

    let [_, width] = golden.data("in/valid").shape.dims();
    let real = golden.values("in/valid").chunks(width);
    let lengths: Vec<usize> = real.map(|row| row.iter().filter(|&&valid| valid == 1.0).count()).collect();
    let lengths = GeneLengths::new(lengths).padded_to(width);
    check_outputs(&model.valid(), &config, &case, &golden, &lengths, device, slack);
    check_training(model, &case, &golden, &lengths, device, slack);
}

fn check_outputs<B: ModelBackend>(
    model: &Annotator<B>,
    config: &AnnotatorConfig,
    case: &Case,
    golden: &Golden,
    lengths: &GeneLengths,
    device: &B::Device,
    slack: f64,
) {
    let tolerance = case.number("/abs_tolerance/out") * slack;
    let input = input::<B>(golden, lengths.clone(), device);
    let check = |what: &str, found: TensorData| {
        let difference = largest_difference(&found, golden.data(&format!("out/{what}")), |_| true);
        assert_within(what, difference, tolerance);
    };
    let patches = model.encoder().patches(&input);
    check("attn_enc_cross", model.encoder().cross_scores(&input).into_data());
    check(
        "patch",
        match config.head {
            AnnotationHead::Direct => patches.into_data(),
            AnnotationHead::Projected => model.encoder().latent(patches).into_data(),
        },
    );
    check("logits", model.forward(&input).into_data());
}

fn check_training<B: ModelBackend>(
    mut model: Annotator<Autodiff<B>>,
    case: &Case,
    golden: &Golden,
    lengths: &GeneLengths,
    device: &B::Device,
    slack: f64,
) {
    let input = input::<Autodiff<B>>(golden, lengths.clone(), device);
    let classes: Vec<u32> = golden.values("in/labels").iter().map(|&class| class as u32).collect();
    let learning_rate = case.number("/optimizer/lr");
    let clip_norm = case.number("/optimizer/clip_global_norm") as f32;
    let mut adam = coupled_adam(case.number("/optimizer/weight_decay") as f32);
    for (step, expected) in case.losses().into_iter().enumerate() {
        let sum = weighted_cross_entropy(model.forward(&input), &classes, None, 0.0);
        let loss = sum / classes.len() as f64;
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
        let gradients = clip_global_norm(&model, gradients, clip_norm);
        model = adam.step(learning_rate, model, gradients);
        if step == 0 || step == 4 {
            check_weights(&model, &format!("step{}", step + 1), case, golden, slack);
        }
    }
}

/// A bare state dict of the authors' annotation model.
pub(crate) fn check_checkpoint<B: ModelBackend>(device: &B::Device, slack: f64) {
    let golden = Golden::read("cache_best_small.expected.safetensors");
    let checkpoint = Checkpoint::read(path("cache_best_small.pth")).unwrap();
    assert_eq!(checkpoint.tensors, golden.group("weights"));
    let config = checkpoint.annotator_config().unwrap();
    assert_eq!((config.n_classes, config.model.padding), (7, Padding::Attended));
    let (model, report) = checkpoint.load_into(config.init::<B>(device)).unwrap();
    assert_eq!((report.n_loaded, report.skipped.len()), (checkpoint.tensors.len(), 0));
    // Padding is attended, so every slot counts as a gene.
    let [n_cells, width] = golden.data("in/genes").shape.dims();
    let input = input::<B>(&golden, GeneLengths::new(vec![width; n_cells]), device);
    let difference =
        largest_difference(&model.forward(&input).into_data(), golden.data("out/logits_nomask"), |_| true);
    assert_within("logits of the PyTorch checkpoint", difference, CHECKPOINT_TOLERANCE * slack);
}
