//! The pretraining model, in every precision that the device has.

use std::collections::BTreeMap;

use burn::backend::Autodiff;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Distribution, Int, Tensor, TensorData};
use cellpatch_model::backend::without_kernels;
use cellpatch_model::operation::{Genes, Operation, primitive, tensor as tensor_of};
use cellpatch_model::{
    CellPatch, CellPatchConfig, Error, ExpressionEmbedding, GeneLengths, GeneTargets, GeneTokens, GeneValues,
    Held, HostTokens, ModelBackend, Padding, Precision, Preset, TokenUse, with_precision,
};

/// Tokens of each cell, of a table of 128: cells without genes and without targets among them.
const SHORT: Lengths = Lengths { inputs: [37, 0, 5, 1], targets: [6, 1, 0, 40] };
/// Around the tiles of kernels, whose rows go by 64.
const LONG: Lengths = Lengths { inputs: [130, 64, 65, 1], targets: [70, 129, 3, 66] };

/// Genes of each cell.
#[derive(Clone, Copy)]
struct Lengths {
    inputs: [usize; 4],
    targets: [usize; 4],
}

fn tokens(lengths: &[usize]) -> Vec<Vec<u32>> {
    let token = |cell: usize, slot: usize| (7 + 31 * cell + 13 * slot * (cell + 1)) as u32 % 127 + 1;
    lengths.iter().enumerate().map(|(cell, &n)| (0..n).map(|slot| token(cell, slot)).collect()).collect()
}

fn batch<B: ModelBackend>(lengths: Lengths) -> (GeneValues<B>, GeneTargets<B>) {
    let (inputs, targets) = (tokens(&lengths.inputs), tokens(&lengths.targets));
    let values: Vec<Vec<f32>> =
        inputs.iter().map(|cell| cell.iter().map(|&token| token as f32 / 30.0).collect()).collect();
    let inputs: Vec<&[u32]> = inputs.iter().map(Vec::as_slice).collect();
    let values: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
    let targets: Vec<&[u32]> = targets.iter().map(Vec::as_slice).collect();
    let device = Default::default();
    (GeneValues::pad(&inputs, &values, &device).unwrap(), GeneTargets::pad(&targets, &device))
}

/// The prediction, and the gradient of every parameter by its place in the model.
fn learn<B: ModelBackend>(model: &CellPatch<Autodiff<B>>, lengths: Lengths) -> BTreeMap<String, Vec<f32>> {
    let (input, targets) = batch::<Autodiff<B>>(lengths);
    // Dropout is the same in every call.
    B::seed(&Default::default(), 5);
    let prediction = model.forward(&input, &targets) * targets.lengths.real(&Default::default());
    let gradients = prediction.clone().powi_scalar(2).sum().backward();
    struct Collect<'a, B: ModelBackend> {
        gradients: &'a <Autodiff<B> as AutodiffBackend>::Gradients,
        path: Vec<String>,
        found: BTreeMap<String, Vec<f32>>,
    }
    impl<B: ModelBackend> ModuleVisitor<Autodiff<B>> for Collect<'_, B> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.into());
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<Autodiff<B>, D>>) {
            if let Some(gradient) = parameter.val().grad(self.gradients) {
                self.found.insert(self.path.join("."), gradient.into_data().to_vec().unwrap());
            }
        }
    }
    let mut collect = Collect { gradients: &gradients, path: Vec::new(), found: BTreeMap::new() };
    model.visit(&mut collect);
    collect.found.insert("prediction".into(), prediction.into_data().to_vec().unwrap());
    collect.found
}

fn numbers<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().to_vec().unwrap()
}

fn model<B: ModelBackend>(config: &CellPatchConfig) -> CellPatch<Autodiff<B>> {
    B::seed(&Default::default(), 4);
    config.clone().with_attention_dropout(0.0).with_output_dropout(0.0).init(&Default::default())
}

fn small() -> CellPatchConfig {
    Preset::Paper.config().with_gene_capacity(128).with_n_patches(8)
}

/// Relative to the largest element of each tensor, or to 1 where all are small.
fn compare(found: &BTreeMap<String, Vec<f32>>, expected: &BTreeMap<String, Vec<f32>>, tolerance: f32) {
    assert!(found.keys().eq(expected.keys()));
    for ((name, found), expected) in found.iter().zip(expected.values()) {
        let largest = expected.iter().fold(1.0_f32, |largest, element| largest.max(element.abs()));
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() <= tolerance * largest, "{name}: {found} {expected}");
        }
    }
}

pub(crate) fn check_gradients<B: ModelBackend>() {
    let binned = ExpressionEmbedding::Binned { max_value: 5 };
    for config in [small(), small().with_padding(Padding::Attended), small().with_expression(binned)] {
        let model = model::<B>(&config);
        let found = learn(&model, SHORT);
        let expected = without_kernels(|| learn(&model, SHORT));
        assert_ne!(found, expected, "no kernel was used: kernels round in other places");
        compare(&found, &expected, 2e-5);
    }
}

/// The first block is one kernel, and expression has a gradient through it.
pub(crate) fn check_values<B: ModelBackend>() {
    let model = model::<B>(&small());
    let mut input = batch::<Autodiff<B>>(SHORT).0;
    input.values = input.values.require_grad();
    let gradient = || {
        let patches = model.encoder().cross_patches(&input);
        let gradients = (patches.clone() * patches.detach().sin()).sum().backward();
        numbers(input.values.grad(&gradients).unwrap())
    };
    let (found, expected) = (gradient(), without_kernels(gradient));
    assert_ne!(found, expected, "no kernel was used: kernels round in other places");
    let largest = expected.iter().fold(1.0_f32, |largest, element| largest.max(element.abs()));
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() <= 2e-5 * largest, "{found} {expected}");
    }
}

/// The host's tokens are others than the device's here: had the device been asked, its tokens had got the gradient.
pub(crate) fn check_tokens<B: ModelBackend>() {
    let device = Default::default();
    let table = Tensor::<Autodiff<B>, 2>::random([9, 32], Distribution::Default, &device).require_grad();
    let tensor = Tensor::<Autodiff<B>, 2, Int>::from_ints([[3, 7, 3], [0, 0, 7]], &device).into_primitive();
    let of_gene = |host: Option<[u32; 6]>| -> Vec<f32> {
        let host = host.map(|tokens| HostTokens::new(tokens.to_vec(), [2, 3]));
        let operation = Operation::EmbedGenes { genes: Genes { tensor: tensor.clone(), host } };
        let rows = Autodiff::<B>::fused(&operation, [primitive(table.clone())]).unwrap();
        let gradients = tensor_of::<Autodiff<B>, 3>(rows).sum().backward();
        numbers(table.grad(&gradients).unwrap()).into_iter().step_by(32).collect()
    };
    assert_eq!(of_gene(None), [2.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 2.0, 0.0]);
    assert_eq!(of_gene(Some([3, 7, 3, 0, 0, 7])), of_gene(None));
    assert_eq!(of_gene(Some([1, 1, 1, 1, 1, 8])), [0.0, 5.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);

    let model = model::<B>(&small());
    let (mut input, targets) = batch::<Autodiff<B>>(SHORT);
    let predict = |input: &GeneValues<Autodiff<B>>| numbers(model.forward(input, &targets));
    let found = predict(&input);
    input.genes = input.genes.tensor().into();
    assert_eq!(predict(&input), found, "tokens that are read back are the same tokens");
}

/// What one thread sends ahead is what another takes, batch after batch, though memory is used again once it is let go.
pub(crate) fn check_ahead<B: ModelBackend>() {
    const SHAPE: [usize; 2] = [4, 60];
    let device = Default::default();
    let table = Tensor::<Autodiff<B>, 2>::random([128, 32], Distribution::Default, &device).require_grad();
    let tokens = |batch: u32| (0..240).map(|slot| slot * (batch + 3) % 127 + 1).collect::<Vec<u32>>();
    let values = |batch: u32| {
        let values: Vec<f32> = (0..240).map(|slot| ((slot + batch) % 9) as f32 / 4.0).collect();
        TensorData::new(values, SHAPE)
    };
    let gradient = |genes: &GeneTokens<Autodiff<B>>, values: Tensor<Autodiff<B>, 2>| {
        let genes = Genes { tensor: genes.tensor().into_primitive(), host: genes.host().cloned() };
        let rows =
            Autodiff::<B>::fused(&Operation::EmbedGenes { genes }, [primitive(table.clone())]).unwrap();
        let rows = tensor_of::<Autodiff<B>, 3>(rows) * values.unsqueeze_dim::<3>(2);
        table.grad(&rows.sum().backward()).unwrap()
    };
    let mut found = Vec::new();
    std::thread::scope(|scope| {
        let (sender, batches) = std::sync::mpsc::sync_channel(2);
        scope.spawn(|| {
            let sender = sender;
            for batch in 0..20 {
                let tokens = HostTokens::new(tokens(batch), SHAPE);
                B::index_ahead(&tokens, TokenUse::Embedded, 128, &Default::default());
                let sent = [tokens.data(), values(batch)].map(|data| B::send(data, &Default::default()));
                sender.send((tokens, sent)).unwrap();
            }
        });
        let (mut held, mut unread) = (Held::default(), Vec::new());
        for (host, [sent, values]) in batches {
            held.hold(&sent, Some(&host));
            held.hold(&values, None);
            let genes = GeneTokens::taken(host, sent, &device);
            unread.push(gradient(&genes, values.floats(&device)));
            if unread.len() == 4 {
                found.extend(unread.drain(..).map(numbers));
                held = Held::default();
            }
        }
    });
    assert_eq!(found.len(), 20);
    for (batch, found) in (0..).zip(found) {
        let genes = GeneTokens::new(tokens(batch), SHAPE, &device);
        assert_eq!(found, numbers(gradient(&genes, Tensor::from_data(values(batch), &device))), "{batch}");
    }
}

/// The output layer drops the same in both passes.
pub(crate) fn check_output_layer<B: ModelBackend>() {
    let device = Default::default();
    let random = |shape: [usize; 3]| {
        Tensor::<Autodiff<B>, 3>::random(shape, Distribution::Normal(0.0, 1.0), &device).require_grad()
    };
    let (rows, weight, bias) = (random([3, 9, 32]), random([1, 32, 1]), random([1, 1, 1]));
    let lengths = GeneLengths::new([9, 1, 4]);
    let run = |dropout: f64| {
        B::seed(&device, 2);
        let operation = Operation::OutputLayer { lengths: Some(lengths.clone()), dropout };
        let (weights, shift) = (weight.clone().reshape([32, 1]), bias.clone().reshape([1]));
        let inputs = [primitive(rows.clone()), primitive::<_, 2>(weights), primitive::<_, 1>(shift)];
        let output = tensor_of::<Autodiff<B>, 2>(Autodiff::<B>::fused(&operation, inputs).unwrap());
        let gradients = (output.clone() * output.clone().detach()).sum().backward();
        let gradient = |leaf: &Tensor<Autodiff<B>, 3>| numbers(leaf.grad(&gradients).unwrap());
        [numbers(output), gradient(&rows), gradient(&weight)]
    };
    let plain = (rows.clone() * weight.clone().reshape([1, 1, 32])).sum_dim(2) + bias.clone();
    let plain = numbers(plain.squeeze_dim::<2>(2) * lengths.real(&device));
    let [kept, ..] = run(0.0);
    assert!(kept.iter().zip(&plain).all(|(found, expected)| (found - expected).abs() < 1e-4));
    let [output, for_rows, for_weight] = run(0.4);
    assert_ne!(output, kept);
    // But for its bias the output is linear in rows and in weights: their products with their gradients are the output's.
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    let sum: f64 = output.iter().map(|&number| f64::from(number)).sum();
    let expected = product(&output, &output) - f64::from(numbers(bias)[0]) * sum;
    for (tensor, gradient) in [(numbers(rows), for_rows), (numbers(weight), for_weight)] {
        let found = product(&tensor, &gradient);
        assert!((found - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{found} {expected}");
    }
}

pub(crate) fn check_precision<B: ModelBackend>() {
    let device = Default::default();
    for (lengths, dropout) in [(SHORT, 0.0), (LONG, 0.0), (LONG, 0.3)] {
        B::seed(&device, 4);
        let config = small().with_attention_dropout(dropout).with_output_dropout(0.0);
        let model: CellPatch<Autodiff<B>> = config.init(&device);
        let wide = learn(&model, lengths);
        // Some units in the last place of 11 and of 8 binary digits.
        for (precision, tolerance) in [(Precision::F16, 1e-2), (Precision::Bf16, 8e-2)] {
            match with_precision::<Autodiff<B>, _>(precision, &device, || learn(&model, lengths)) {
                Ok(narrow) => {
                    assert!(B::offers(precision, &device));
                    assert_ne!(narrow, wide, "{precision} was not used");
                    compare(&narrow, &wide, tolerance);
                }
                Err(error) => {
                    assert!(matches!(error, Error::NoSuchPrecision { .. }) && !B::offers(precision, &device));
                    println!("skipped: {error}");
                }
            }
        }
        assert_eq!(learn(&model, lengths), wide, "the precision was left behind");
    }
    without_kernels(|| assert!(!B::offers(Precision::F16, &device)));
}
