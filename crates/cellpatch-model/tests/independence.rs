//! What a cell's numbers must not depend on: its batch, its padding, the number of threads.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy takes only functions marked as tests for tests, and here the helpers are most of them"
)]

use burn::backend::{Autodiff, Flex};
use burn::module::AutodiffModule;
use burn::optim::{AdamConfig, GradientsParams, Optimizer};
use burn::tensor::backend::Backend;
use cellpatch_model::weights::named_tensors;
use cellpatch_model::{
    CellPatch, Checkpoint, GeneTargets, GeneValues, Preset, masked_squared_error, pad_values,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

struct Cell {
    genes: Vec<u32>,
    values: Vec<f32>,
    targets: Vec<u32>,
    expected: Vec<f32>,
}

fn random_cells(n: usize, longest: usize, seed: u64) -> Vec<Cell> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut cell = |_| {
        let (n_genes, n_targets) = (random.random_range(0..=longest), random.random_range(1..=longest));
        let genes = (0..n_genes).map(|_| random.random_range(1..512)).collect();
        let values = (0..n_genes).map(|_| random.random_range(0.0..6.0)).collect();
        let targets = (0..n_targets).map(|_| random.random_range(1..512)).collect();
        let expected = (0..n_targets).map(|_| random.random_range(0.0..6.0)).collect();
        Cell { genes, values, targets, expected }
    };
    (0..n).map(&mut cell).collect()
}

fn input<B: Backend>(cells: &[&Cell], device: &B::Device) -> GeneValues<B> {
    let genes: Vec<&[u32]> = cells.iter().map(|cell| cell.genes.as_slice()).collect();
    let values: Vec<&[f32]> = cells.iter().map(|cell| cell.values.as_slice()).collect();
    GeneValues::pad(&genes, &values, device).unwrap()
}

fn targets<B: Backend>(cells: &[&Cell], device: &B::Device) -> GeneTargets<B> {
    let genes: Vec<&[u32]> = cells.iter().map(|cell| cell.targets.as_slice()).collect();
    GeneTargets::pad(&genes, device)
}

fn in_pool<T: Send>(n_threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap().install(work)
}

#[test]
fn a_cell_embeds_and_predicts_the_same_whatever_its_batch() {
    let config = Preset::Paper.config().with_gene_capacity(512);
    let fresh = config.init::<Flex>(&Default::default());
    check_independence(&fresh);
    let weights = Checkpoint { tensors: named_tensors(&fresh), ..Default::default() };
    check_independence(&weights.load_into(config.init(&Default::default())).unwrap().0);
    check_independence(&train(2).1);
}

fn check_independence(model: &CellPatch<Flex>) {
    let device = Default::default();
    let cells = random_cells(200, 900, 1);
    let alone: Vec<(Vec<f32>, Vec<f32>)> = cells
        .iter()
        .map(|cell| {
            let patches = model.patches(&input(&[cell], &device));
            let prediction = model.predict(model.latent(patches.clone()), &targets(&[cell], &device));
            (patches.into_data().to_vec().unwrap(), prediction.into_data().to_vec().unwrap())
        })
        .collect();
    assert!(alone.iter().all(|(patches, _)| patches.iter().all(|element| element.is_finite())));

    let mut random = StdRng::seed_from_u64(2);
    let (mut of_patches, mut of_predictions) = (0.0_f32, 0.0_f32);
    for _ in 0..40 {
        let chosen: Vec<usize> =
            (0..random.random_range(2..20)).map(|_| random.random_range(0..cells.len())).collect();
        let batch: Vec<&Cell> = chosen.iter().map(|&index| &cells[index]).collect();
        let patches = model.patches(&input(&batch, &device));
        let prediction = model.predict(model.latent(patches.clone()), &targets(&batch, &device));
        let [_, n_patches, d] = patches.dims();
        let [_, width] = prediction.dims();
        let patches: Vec<f32> = patches.into_data().to_vec().unwrap();
        let prediction: Vec<f32> = prediction.into_data().to_vec().unwrap();
        let largest = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        for ((found, row), &index) in patches.chunks(n_patches * d).zip(prediction.chunks(width)).zip(&chosen)
        {
            of_patches = of_patches.max(largest(found, &alone[index].0));
            of_predictions = of_predictions.max(largest(row, &alone[index].1));
        }
    }
    println!("largest difference: patches {of_patches:e}, predictions {of_predictions:e}");
    assert_eq!((of_patches, of_predictions), (0.0, 0.0));
}

#[test]
fn a_cell_without_genes_is_a_cell_like_any_other() {
    let device = Default::default();
    let model = Preset::Tiny.config().init::<Flex>(&device);
    let empty = Cell { genes: vec![], values: vec![], targets: vec![], expected: vec![] };
    let full = &random_cells(1, 50, 3)[0];
    for batch in [vec![&empty], vec![&empty, full], vec![full, &empty, &empty]] {
        let prediction = model.forward(&input(&batch, &device), &targets(&batch, &device));
        assert!(prediction.into_data().iter::<f32>().all(f32::is_finite));
        let scores = model.attention_scores(&input(&batch, &device)).cross;
        assert!(scores.into_data().iter::<f32>().all(f32::is_finite));
    }
}

#[test]
fn training_gives_the_same_bits_on_any_number_of_threads() {
    let run = |n_threads: usize| in_pool(n_threads, || train(3));
    let one = run(1);
    for n_threads in [1, 2, 5] {
        let many = run(n_threads);
        assert_eq!(one.0, many.0, "losses on {n_threads} threads");
        let (one, many) = (named_tensors(&one.1), named_tensors(&many.1));
        for (name, weights) in &one {
            assert_eq!(weights, &many[name], "{name} on {n_threads} threads");
        }
    }
}

/// Losses of a few steps and the model after them, with dropout on, from one seed.
fn train(n_steps: usize) -> (Vec<f32>, CellPatch<Flex>) {
    type Learning = Autodiff<Flex>;
    let device = Default::default();
    Learning::seed(&device, 5);
    let mut model = Preset::Paper.config().with_gene_capacity(512).init::<Learning>(&device);
    let mut adam = AdamConfig::new().with_epsilon(1e-8).init();
    let cells = random_cells(24, 600, 6);
    let batch: Vec<&Cell> = cells.iter().collect();
    let (input, targets) = (input(&batch, &device), targets(&batch, &device));
    let expected: Vec<&[f32]> = batch.iter().map(|cell| cell.expected.as_slice()).collect();
    let expected = pad_values(&expected, &targets.lengths, &device);
    let mut losses = Vec::new();
    for _ in 0..n_steps {
        let (sum, n) =
            masked_squared_error(model.forward(&input, &targets), expected.clone(), &targets.lengths);
        let loss = sum / n as f64;
        losses.extend(loss.clone().into_data().iter::<f32>());
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = adam.step(1e-3, model, gradients);
    }
    (losses, model.valid())
}
