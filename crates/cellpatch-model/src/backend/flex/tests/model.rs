//! The whole model by kernels against the whole model of plain operations.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Int, TensorData, TensorPrimitive};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::config::{CellPatchConfig, ExpressionEmbedding, Padding, Preset};
use crate::input::{GeneTargets, GeneValues};
use crate::model::CellPatch;
use crate::operation::{Genes, Operation, primitive};

/// Cells of given numbers of genes and targets, and a weight for each prediction.
struct Cells {
    input: GeneValues<Learning>,
    targets: GeneTargets<Learning>,
    cotangent: Tensor<Learning, 2>,
}

fn cells(n_genes: &[usize], n_targets: &[usize], seed: u64) -> Cells {
    let mut random = StdRng::seed_from_u64(seed);
    let mut genes = |lengths: &[usize]| -> Vec<Vec<u32>> {
        lengths.iter().map(|&n| (0..n).map(|_| random.random_range(1..512)).collect()).collect()
    };
    let (inputs, targets) = (genes(n_genes), genes(n_targets));
    let values: Vec<Vec<f32>> =
        n_genes.iter().map(|&n| (0..n).map(|_| random.random_range(0.0..6.0)).collect()).collect();
    let device = Default::default();
    fn rows<T>(rows: &[Vec<T>]) -> Vec<&[T]> {
        rows.iter().map(Vec::as_slice).collect()
    }
    let input = GeneValues::pad(&rows(&inputs), &rows(&values), &device).unwrap();
    let targets = GeneTargets::pad(&rows(&targets), &device);
    let shape = [targets.n_cells(), targets.lengths.longest()];
    let cotangent = Tensor::<Learning, 2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
    let cotangent = cotangent * targets.lengths.real(&device);
    Cells { input, targets, cotangent }
}

fn model(config: CellPatchConfig) -> CellPatch<Learning> {
    Flex::seed(&Default::default(), 4);
    config.with_gene_capacity(512).init(&Default::default())
}

fn without_dropout(config: CellPatchConfig) -> CellPatchConfig {
    config.with_attention_dropout(0.0).with_output_dropout(0.0)
}

/// Predictions at targets, and the gradient of every parameter with its path.
fn run(
    model: &CellPatch<Learning>,
    cells: &Cells,
    predict: impl Fn(&CellPatch<Learning>, &Cells) -> Tensor<Learning, 2>,
) -> Vec<(String, Vec<f32>)> {
    let weighted = predict(model, cells) * cells.cotangent.clone();
    let gradients = weighted.clone().sum().backward();
    let mut collected = Collect { gradients: &gradients, path: Vec::new(), found: Vec::new() };
    model.visit(&mut collected);
    collected.found.push(("prediction".into(), weighted.into_data().to_vec().unwrap()));
    collected.found
}

struct Collect<'a> {
    gradients: &'a <Learning as AutodiffBackend>::Gradients,
    path: Vec<String>,
    found: Vec<(String, Vec<f32>)>,
}

impl ModuleVisitor<Learning> for Collect<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<Learning, D>>) {
        if let Some(gradient) = parameter.val().grad(self.gradients) {
            self.found.push((self.path.join("."), gradient.into_data().to_vec().unwrap()));
        }
    }
}

fn by_kernels(model: &CellPatch<Learning>, cells: &Cells) -> Tensor<Learning, 2> {
    model.forward(&cells.input, &cells.targets)
}

/// The way that also gives attention maps has no kernels but for the embedding of targets and the output layer.
fn by_plain_operations(model: &CellPatch<Learning>, cells: &Cells) -> Tensor<Learning, 2> {
    let (patches, _, _) = model.encoder().patches_with_scores(&cells.input);
    model.predict_with_scores(model.latent(patches), &cells.targets).0
}

#[test]
fn it_is_the_plain_model_with_every_gradient() {
    let paper = || without_dropout(Preset::Paper.config());
    let configs = [
        paper(),
        paper().with_expression(ExpressionEmbedding::Binned { max_value: 5 }),
        paper().with_padding(Padding::Attended),
        // Heads of 8 and of 32, a wider model, no block of its own.
        paper().with_n_heads(4),
        paper().with_n_heads(1).with_mlp_dim(48).with_n_patches(5),
        paper().with_embedding_dim(64).with_n_heads(4).with_decoder_self_blocks(0),
    ];
    let ragged: [(&[usize], &[usize]); 5] = [
        (&[1], &[1]),
        (&[7, 300, 64, 1], &[65, 1, 33, 9]),
        (&[0, 31, 32, 33, 3000], &[5, 1000, 0, 31, 32]),
        (&[129; 3], &[64; 3]),
        (&[2; 19], &[3; 19]),
    ];
    for config in configs {
        // Padding that is attended is one gene thousands of times: sums of terms that cancel each other, which the plain
        // operations take in single precision. Rows of a fresh table are small, and the norms behind them make their rounding
        // as much larger as they make them.
        let tolerance = if config.padding == Padding::Attended { 2e-4 } else { 3e-5 };
        let model = model(config.clone());
        for (seed, (n_genes, n_targets)) in ragged.into_iter().enumerate() {
            let cells = cells(n_genes, n_targets, seed as u64);
            let (found, expected) =
                (run(&model, &cells, by_kernels), run(&model, &cells, by_plain_operations));
            assert_eq!(found.len(), expected.len());
            for ((name, found), (_, expected)) in found.iter().zip(&expected) {
                let difference = relative_difference(found, expected);
                assert!(
                    difference < tolerance,
                    "{name} of {n_genes:?} {n_targets:?} in {config}: {difference:e}"
                );
            }
        }
    }
}

/// The gradient of each of an operation's inputs, by kernel and by plain operations.
fn check<const D: usize>(
    name: &str,
    leaves: &[Vec<f32>],
    outputs: [Tensor<Learning, D>; 2],
    gradients: impl Fn(&<Learning as AutodiffBackend>::Gradients) -> Vec<Vec<f32>>,
) {
    let shape = outputs[0].dims();
    let cotangent = Tensor::<Learning, D>::random(shape, Distribution::Normal(0.0, 1.0), &Default::default());
    let [found, expected] = outputs.map(|output| {
        let all = gradients(&(output.clone() * cotangent.clone()).sum().backward());
        (output.into_data().to_vec::<f32>().unwrap(), all)
    });
    assert!(relative_difference(&found.0, &expected.0) < 1e-6, "{name}");
    assert_eq!((found.1.len(), expected.1.len()), (leaves.len(), leaves.len()));
    for (found, expected) in found.1.iter().zip(&expected.1) {
        assert!(relative_difference(found, expected) < 1e-6, "{name}");
    }
}

#[test]
fn genes_are_embedded_as_rows_of_the_table() {
    let device = Default::default();
    let table = Tensor::<Learning, 2>::random([50, 32], Distribution::Default, &device).require_grad();
    let genes = Tensor::<Learning, 2, Int>::from_ints([[3, 7, 3, 49], [0, 0, 7, 3]], &device);
    let tokens = Genes { tensor: genes.clone().into_primitive(), host: None };
    let operation = Operation::EmbedGenes { genes: tokens };
    let fused = Learning::fused(&operation, [primitive(table.clone())]).unwrap();
    let fused = Tensor::<Learning, 3>::from_primitive(TensorPrimitive::Float(fused));
    let plain = table.clone().select(0, genes.reshape([8])).reshape([2, 4, 32]);
    check("embedding", &[Vec::new()], [fused, plain], |gradients| {
        vec![table.grad(gradients).unwrap().into_data().to_vec().unwrap()]
    });
}

#[test]
fn the_output_layer_is_a_linear_layer_with_one_output() {
    let device = Default::default();
    let leaf = |shape: [usize; 3]| {
        Tensor::<Learning, 3>::random(shape, Distribution::Normal(0.0, 1.0), &device).require_grad()
    };
    let (rows, weight, bias) = (leaf([3, 9, 32]), leaf([1, 32, 1]), leaf([1, 1, 1]));
    let lengths = GeneLengths::new([9, 1, 4]);
    let operation = Operation::OutputLayer { lengths: Some(lengths.clone()), dropout: 0.0 };
    let inputs = [rows.clone(), weight.clone().reshape([1, 32, 1]), bias.clone()].map(primitive);
    let fused = Learning::fused(&operation, inputs).unwrap();
    let fused = Tensor::<Learning, 2>::from_primitive(TensorPrimitive::Float(fused));
    let plain = (rows.clone() * weight.clone().reshape([1, 1, 32])).sum_dim(2) + bias.clone();
    let plain = plain.squeeze_dim::<2>(2) * lengths.real(&device);
    check("output layer", &[Vec::new(), Vec::new(), Vec::new()], [fused, plain], |gradients| {
        let of = |leaf: &Tensor<Learning, 3>| leaf.grad(gradients).unwrap().into_data().to_vec().unwrap();
        vec![of(&rows), of(&weight), of(&bias)]
    });
}

#[test]
fn values_have_a_gradient_too() {
    let model = model(without_dropout(Preset::Paper.config()));
    let mut cells = cells(&[40, 7], &[3, 2], 9);
    cells.input.values = cells.input.values.require_grad();
    let gradient = |patches: Tensor<Learning, 3>| -> Vec<f32> {
        let gradients = (patches.clone() * patches.detach().sin()).sum().backward();
        cells.input.values.grad(&gradients).unwrap().into_data().to_vec().unwrap()
    };
    let found = gradient(model.patches(&cells.input));
    let expected = gradient(model.encoder().patches_with_scores(&cells.input).0);
    assert!(relative_difference(&found, &expected) < 1e-5);
}

#[test]
fn gradients_under_dropout_are_those_of_the_model_that_was_computed() {
    let config = Preset::Paper.config().with_attention_dropout(0.3).with_output_dropout(0.3);
    let model = model(config.with_decoder_self_blocks(1));
    let cells = cells(&[40, 7, 90], &[33, 2, 70], 3);
    let predict = |model: &CellPatch<Learning>, cells: &Cells| {
        Flex::seed(&Default::default(), 3);
        by_kernels(model, cells)
    };
    let gradients = run(&model, &cells, predict);
    let loss = |model: &CellPatch<Learning>| -> f64 {
        let weighted = predict(model, &cells) * cells.cotangent.clone();
        weighted.into_data().iter::<f32>().map(f64::from).sum()
    };
    let n = gradients.len() - 1;
    for (name, gradient) in &gradients[..n] {
        let step = 2e-3;
        let moved = |sign: f64| {
            let path = Vec::new();
            loss(&model.clone().map(&mut Move { name, path, gradient, by: sign * step }))
        };
        let slope = (moved(1.0) - moved(-1.0)) / (2.0 * step);
        let norm = gradient.iter().map(|element| f64::from(*element).powi(2)).sum::<f64>().sqrt();
        // Moving along the gradient's own direction changes the loss by its norm. Single precision leaves about 1e-6 of the
        // loss's terms, over the step, as noise.
        assert!((slope - norm).abs() < 2e-2 * norm + 2e-2, "{name}: {slope} {norm}");
    }
}

/// Moves one parameter along its gradient's direction.
struct Move<'a> {
    name: &'a str,
    path: Vec<String>,
    gradient: &'a [f32],
    by: f64,
}

impl ModuleMapper<Learning> for Move<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(
        &mut self,
        parameter: Param<Tensor<Learning, D>>,
    ) -> Param<Tensor<Learning, D>> {
        if self.path.join(".") != self.name {
            return parameter;
        }
        let norm = self.gradient.iter().map(|element| f64::from(*element).powi(2)).sum::<f64>().sqrt();
        let data = TensorData::new(self.gradient.to_vec(), parameter.val().shape());
        let direction = Tensor::from_data(data, &Default::default()) * (self.by / norm.max(1e-30));
        parameter.map(|value| Tensor::from_inner(value.inner() + direction).require_grad())
    }
}
