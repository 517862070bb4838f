//! The kernels on a card against plain operations on the same card.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy takes only functions marked as tests for tests, and here the helpers are most of them"
)]

use std::panic::catch_unwind;

use burn::backend::{Autodiff, Wgpu};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Distribution, Tensor};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::without_kernels;
use super::*;
use crate::attention::ragged_attention;
use crate::config::Preset;
use crate::input::{GeneTargets, GeneValues};
use crate::lengths::GeneLengths;
use crate::model::CellPatch;
use crate::operation::primitive;

type Card = Wgpu;
type Learning = Autodiff<Card>;

/// Whether wgpu finds a device. With `CELLPATCH_REQUIRE=wgpu` a missing one fails the test.
fn device_is_there() -> bool {
    let works = catch_unwind(|| {
        let two = Tensor::<Card, 1>::from_floats([2.0], &Default::default());
        (two.clone() * two).into_data().iter::<f32>().next() == Some(4.0)
    });
    let works = works.unwrap_or(false);
    let required = std::env::var("CELLPATCH_REQUIRE").unwrap_or_default();
    assert!(works || required != "wgpu", "wgpu is required and finds no working device");
    if !works {
        println!("skipped: wgpu finds no working device here");
    }
    works
}

/// Largest difference, relative to the largest element, or to 1 where all are small.
fn apart(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(1.0_f32, |largest, element| largest.max(element.abs()));
    let differences = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs());
    differences.fold(0.0_f32, |most, difference| if difference <= most { most } else { difference }) / largest
}

fn numbers<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().to_vec().unwrap()
}

/// Output and gradients of query, key and value.
fn attend(
    tensors: &[Tensor<Learning, 3>; 3],
    cotangent: &Tensor<Card, 3>,
    spec: &AttentionSpec,
) -> [Vec<f32>; 4] {
    let [query, key, value] = tensors.clone();
    let output = ragged_attention(query, key, value, spec);
    let gradients = (output.clone() * Tensor::from_inner(cotangent.clone())).sum().backward();
    let gradient = |tensor: &Tensor<Learning, 3>| numbers(tensor.grad(&gradients).unwrap());
    let [query, key, value] = tensors;
    [numbers(output), gradient(query), gradient(key), gradient(value)]
}

fn batch(queries: &[usize], keys: &[usize]) -> ([Tensor<Learning, 3>; 3], Tensor<Card, 3>, AttentionSpec) {
    let shared = queries.len() != keys.len();
    let (query_lengths, key_lengths) = (GeneLengths::new(queries.to_vec()), GeneLengths::new(keys.to_vec()));
    let random = |cells, rows| {
        let shape = [cells, rows, 32];
        Tensor::random(shape, Distribution::Normal(0.0, 1.5), &Default::default())
    };
    let (n_queries, n_keys) = (query_lengths.longest(), key_lengths.longest());
    let tensors = [random(queries.len(), n_queries), random(keys.len(), n_keys), random(keys.len(), n_keys)];
    let cotangent = random(keys.len(), n_queries);
    let spec = AttentionSpec {
        n_heads: 2,
        query_lengths: (!shared).then_some(query_lengths),
        key_lengths: Some(key_lengths),
        dropout: 0.0,
    };
    (tensors.map(|tensor| Tensor::from_inner(tensor).require_grad()), cotangent, spec)
}

#[test]
fn attention_is_the_plain_attention_with_every_gradient() {
    if !device_is_there() {
        return;
    }
    Card::seed(&Default::default(), 1);
    for (queries, keys) in [(&[5, 0, 33][..], &[33, 0, 7][..]), (&[9], &[40, 1, 0])] {
        let (tensors, cotangent, spec) = batch(queries, keys);
        let inputs = tensors.clone().map(|tensor| primitive(tensor.inner()));
        assert!(Card::kernel(&ModelOperation::Attention(spec.clone()), &inputs).is_some());
        let found = attend(&tensors, &cotangent, &spec);
        let expected = without_kernels(|| attend(&tensors, &cotangent, &spec));
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let difference = apart(found, expected);
            assert!(difference < 1e-5, "tensor {index} of {queries:?} {keys:?}: {difference:e}");
        }
    }
}

#[test]
fn what_is_dropped_follows_from_the_devices_seed() {
    if !device_is_there() {
        return;
    }
    let (tensors, cotangent, mut spec) = batch(&[6, 3], &[40, 9]);
    spec.dropout = 0.3;
    let draw = |seed| {
        Card::seed(&Default::default(), seed);
        attend(&tensors, &cotangent, &spec)
    };
    assert_eq!(draw(3), draw(3));
    assert_ne!(draw(3), draw(4));
    // Outputs are linear in the values: where both passes drop the same, values and their gradients have the product that
    // outputs and theirs have.
    let [output, _, _, for_value] = draw(5);
    let value = numbers(tensors[2].clone());
    let gathered: f64 = output.iter().zip(numbers(cotangent)).map(|(a, b)| f64::from(a * b)).sum();
    let given: f64 = for_value.iter().zip(value).map(|(a, b)| f64::from(a * b)).sum();
    assert!((gathered - given).abs() < 1e-4 * (1.0 + gathered.abs()), "{gathered} {given}");
}

/// Predictions of a model at the targets of some cells, and the gradient of every parameter.
fn run(
    model: &CellPatch<Learning>,
    input: &GeneValues<Learning>,
    targets: &GeneTargets<Learning>,
) -> Vec<(String, Vec<f32>)> {
    let real = targets.lengths.real(&Default::default());
    let prediction = model.forward(input, targets) * real;
    let gradients = prediction.clone().powi_scalar(2).sum().backward();
    let mut collect = Collect { gradients: &gradients, path: Vec::new(), found: Vec::new() };
    model.visit(&mut collect);
    collect.found.push(("prediction".into(), numbers(prediction)));
    collect.found
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
            self.found.push((self.path.join("."), numbers(gradient)));
        }
    }
}

#[test]
fn the_model_is_that_of_plain_operations_with_every_gradient() {
    if !device_is_there() {
        return;
    }
    let device = Default::default();
    Card::seed(&device, 4);
    let config = Preset::Paper.config().with_gene_capacity(128).with_n_patches(8);
    let model: CellPatch<Learning> =
        config.with_attention_dropout(0.0).with_output_dropout(0.0).init(&device);
    let mut random = StdRng::seed_from_u64(1);
    let mut genes = |lengths: &[usize]| -> Vec<Vec<u32>> {
        lengths.iter().map(|&n| (0..n).map(|_| random.random_range(1..128)).collect()).collect()
    };
    let (tokens, targets) = (genes(&[37, 5, 1]), genes(&[6, 1, 17]));
    let values: Vec<Vec<f32>> =
        tokens.iter().map(|row| row.iter().map(|&token| token as f32 / 25.0).collect()).collect();
    fn rows<T>(rows: &[Vec<T>]) -> Vec<&[T]> {
        rows.iter().map(Vec::as_slice).collect()
    }
    let input = GeneValues::pad(&rows(&tokens), &rows(&values), &device).unwrap();
    let targets = GeneTargets::pad(&rows(&targets), &device);
    let found = run(&model, &input, &targets);
    let expected = without_kernels(|| run(&model, &input, &targets));
    assert_ne!(found, expected, "no kernel was used: kernels round in other places");
    assert_eq!(found.len(), expected.len());
    for ((name, found), (_, expected)) in found.iter().zip(&expected) {
        let difference = apart(found, expected);
        assert!(difference < 2e-5, "{name}: {difference:e}");
    }
}

#[test]
fn a_step_of_adam_is_that_of_plain_operations() {
    if !device_is_there() {
        return;
    }
    let device = Default::default();
    let random = || Tensor::<Card, 2>::random([7, 5], Distribution::Normal(0.0, 1.0), &device);
    let (parameter, gradient, mean) = (random(), random(), random());
    let square = random().powi_scalar(2);
    let step =
        AdamStep { learning_rate: 0.1, beta_1: 0.9, beta_2: 0.99, epsilon: 1e-8, weight_decay: 0.2, time: 3 };
    let mut tensors = AdamTensors::<Card> {
        parameter: primitive(parameter.clone()),
        gradient: primitive(gradient.clone()),
        moment_1: primitive(mean.clone()),
        moment_2: primitive(square.clone()),
    };
    assert!(Card::adam(&step, &mut tensors));
    let pull = gradient + parameter.clone() * 0.2;
    let mean = mean * 0.9 + pull.clone() * 0.1;
    let square = square * 0.99 + pull.powi_scalar(2) * 0.01;
    let root = (square.clone() / (1.0 - 0.99_f64.powi(3))).sqrt() + 1e-8;
    let moved = parameter - mean.clone() / (1.0 - 0.9_f64.powi(3)) / root * 0.1;
    let found = [tensors.parameter, tensors.moment_1, tensors.moment_2];
    for (found, expected) in found.into_iter().zip([moved, mean, square]) {
        assert!(apart(&numbers(crate::operation::tensor::<Card, 2>(found)), &numbers(expected)) < 1e-5);
    }
}
