//! The shortcuts against what they are short for: kernels against plain operations, the error of the decoder against that of the
//! reconstruction, shared zeros against every gene read, batches against the slice.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;

use burn::backend::{Autodiff, Flex};
use burn::module::AutodiffModule;
use burn::tensor::backend::Backend;
use burn::tensor::{ElementConversion, Tensor, TensorData};
use cellpatch_model::weights::named_tensors;
use cellpatch_model::{CellPatchConfig, Checkpoint, ExpressionEmbedding, Preset};
use cellpatch_spatial::graph::{Neighborhood, Position, SpatialGraph, build};
use cellpatch_spatial::{
    CellPatchInput, CellPatchStagate, CellPatchStagateConfig, Error, Expression, GenesRead, SpatialInput,
    Stagate, StagateConfig, Tiles, Tying, plain,
};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

type Learning = Autodiff<Flex>;

const N_GENES: usize = 41;

struct Slice {
    positions: Vec<Position>,
    graph: SpatialGraph,
    expression: Expression,
}

impl Slice {
    fn random(n_spots: usize, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut number = |high: f64| random.random_range(0.0..high);
        let side = (n_spots as f64).sqrt();
        let positions: Vec<Position> = (0..n_spots).map(|_| [number(side), number(side)]).collect();
        let values: Vec<f32> = (0..n_spots * N_GENES)
            .map(|_| if number(1.0) < 0.3 { number(3.0) as f32 + 0.1 } else { 0.0 })
            .collect();
        let graph = build(&positions, Neighborhood::Radius(1.4)).unwrap().graph;
        Self { positions, graph, expression: Expression::from_dense(&values, N_GENES).unwrap() }
    }

    fn input<B: Backend>(&self) -> SpatialInput<B> {
        SpatialInput::new(self.graph.clone(), self.expression.clone(), &Default::default()).unwrap()
    }

    fn labels(&self) -> Vec<u32> {
        self.positions.iter().map(|position| (position[0] * 0.7) as u32 % 3).collect()
    }

    fn pruned<B: Backend>(&self) -> SpatialInput<B> {
        self.input().with_pruned(self.graph.edges_within(&self.labels()).unwrap()).unwrap()
    }
}

fn stagate(tying: Tying, pruned_share: f64) -> Stagate<Learning> {
    let config = StagateConfig::new(N_GENES).with_hidden_dim(37).with_latent_dim(5).with_tying(tying);
    Flex::seed(&Default::default(), 4);
    config.with_pruned_share(pruned_share).init(&Default::default())
}

fn cell_patch() -> CellPatchConfig {
    Preset::Tiny.config().with_attention_dropout(0.0)
}

fn cellpatch_stagate(genes_read: GenesRead, cell_patch: CellPatchConfig) -> CellPatchStagate<Learning> {
    Flex::seed(&Default::default(), 5);
    let config = CellPatchStagateConfig::new(cell_patch, N_GENES).with_hidden_dim(24).with_latent_dim(6);
    config.with_genes_read(genes_read).init(&Default::default())
}

fn with_tokens<B: Backend>(slice: SpatialInput<B>) -> CellPatchInput<B> {
    CellPatchInput::new(slice, (0..N_GENES as u32).map(|gene| 3 * gene + 1).collect::<Vec<_>>(), 512).unwrap()
}

/// The loss, and gradients by name.
fn learn<M: AutodiffModule<Learning>>(
    model: &M,
    loss: Tensor<Learning, 1>,
) -> (f64, BTreeMap<String, TensorData>) {
    let value = loss.clone().into_scalar().elem();
    (value, gradients(model, &loss.backward()))
}

fn gradients<M: AutodiffModule<Learning>>(
    model: &M,
    gradients: &<Learning as burn::tensor::backend::AutodiffBackend>::Gradients,
) -> BTreeMap<String, TensorData> {
    use burn::module::{ModuleMapper, Param};
    struct ToGradients<'a>(&'a <Learning as burn::tensor::backend::AutodiffBackend>::Gradients);
    impl ModuleMapper<Learning> for ToGradients<'_> {
        fn map_float<const D: usize>(
            &mut self,
            parameter: Param<Tensor<Learning, D>>,
        ) -> Param<Tensor<Learning, D>> {
            parameter.map(|weight| match weight.grad(self.0) {
                Some(gradient) => Tensor::from_inner(gradient),
                None => weight.zeros_like(),
            })
        }
    }
    named_tensors(&model.clone().map(&mut ToGradients(gradients)))
}

fn assert_same(
    (loss, gradients): &(f64, BTreeMap<String, TensorData>),
    (expected_loss, expected): &(f64, BTreeMap<String, TensorData>),
) {
    assert!((loss - expected_loss).abs() < 1e-5 * expected_loss.abs(), "{loss} {expected_loss}");
    let names: Vec<_> = gradients.keys().collect();
    assert_eq!(names, expected.keys().collect::<Vec<_>>());
    for (name, gradient) in gradients {
        let expected: Vec<f32> = expected[name].iter().collect();
        let largest = expected.iter().fold(1e-3_f32, |largest, element| largest.max(element.abs()));
        for (found, expected) in gradient.iter::<f32>().zip(expected) {
            assert!((found - expected).abs() < 2e-4 * largest, "{name}: {found} {expected} of {largest}");
        }
    }
}

fn mean_squared_error(found: Tensor<Learning, 2>, expression: &Expression) -> Tensor<Learning, 1> {
    let shape = [expression.n_spots(), expression.n_genes()];
    let expected = TensorData::new(expression.to_dense(), shape);
    (found - Tensor::from_data(expected, &Default::default())).powi_scalar(2).mean()
}

#[test]
fn the_error_of_the_decoder_is_that_of_the_reconstruction() {
    let slice = Slice::random(70, 1);
    for tying in [Tying::Tied, Tying::Released] {
        let (model, input) = (stagate(tying, 0.0), slice.input());
        let expected = mean_squared_error(model.forward(&input).reconstruction, &slice.expression);
        assert_same(&learn(&model, model.loss(&input)), &learn(&model, expected));
    }
}

#[test]
fn two_linear_maps_fold_into_one() {
    let slice = Slice::random(50, 2);
    let (model, input) = (cellpatch_stagate(GenesRead::NonZero, cell_patch()), with_tokens(slice.input()));
    // One map after the other, the features of every spot in between.
    let weights = named_tensors(&model);
    let [weight, bias] = ["decoder_lin.weight", "decoder_lin.bias"].map(|name| weights[name].clone());
    let weight = Tensor::<Learning, 2>::from_data(weight, &Default::default()).transpose();
    let bias = Tensor::<Learning, 1>::from_data(bias, &Default::default());
    let features = model.reconstructed_features(&input);
    let by_two = mean_squared_error(features.matmul(weight) + bias.unsqueeze(), &slice.expression);
    let by_one = mean_squared_error(model.forward(&input).reconstruction, &slice.expression);
    let found = learn(&model, model.loss(&input));
    assert_same(&found, &learn(&model, by_one));
    let by_two: f64 = by_two.into_scalar().elem();
    assert!((found.0 - by_two).abs() < 1e-5 * by_two, "{} {by_two}", found.0);
}

/// Kernels against the plain operations of the same backend.
#[test]
fn attention_among_neighbours_is_what_plain_operations_give() {
    let slice = Slice::random(90, 3);
    let d = 37;
    let random = |shape: [usize; 2]| {
        let normal = burn::tensor::Distribution::Normal(0.0, 1.0);
        Tensor::<Learning, 2>::random(shape, normal, &Default::default()).require_grad()
    };
    Flex::seed(&Default::default(), 9);
    let (rows, source, target) = (random([90, d]), random([1, d]), random([1, d]));
    let cotangent = random([90, d]).detach();
    for pruned in [false, true] {
        let input = slice.pruned::<Learning>();
        let weights = plain::attention_weights(
            &input,
            rows.clone(),
            source.clone().reshape([d]),
            target.clone().reshape([d]),
            pruned,
        );
        let gathered = plain::gather(&input, rows.clone(), weights.clone());
        let sums: Vec<f32> = {
            let weights: Vec<f32> = weights.clone().into_data().to_vec().unwrap();
            (0..90).map(|spot| weights[slice.graph.adjacency().edges(spot)].iter().sum()).collect()
        };
        assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-5), "weights of a spot sum to 1");
        let expected = (gathered.clone() * cotangent.clone()).sum().backward();
        let kept = input.pruned().filter(|_| pruned).map(|kept| &kept[..]);
        let [row_data, source_data, target_data, cotangent_data] =
            [&rows, &source, &target, &cotangent].map(|tensor| tensor.to_data().to_vec::<f32>().unwrap());
        use cellpatch_kernels::{Instructions, graph};
        let instructions = Instructions::detect();
        let vectors = graph::AttentionVectors { source: &source_data, target: &target_data, kept };
        let (found, products) =
            graph::attention_weights(slice.graph.adjacency(), &row_data, &vectors, instructions);
        let output = graph::gather(slice.graph.adjacency(), &row_data, &found, d, instructions);
        let back = graph::gather_backward(
            slice.graph.adjacency(),
            &row_data,
            &found,
            &output,
            &cotangent_data,
            d,
            instructions,
        );
        let more = graph::attention_weights_backward(
            slice.graph.adjacency(),
            &row_data,
            &vectors,
            (&found, &products),
            &back.weights,
            instructions,
        );
        let for_rows: Vec<f32> = back.rows.iter().zip(&more.rows).map(|(a, b)| a + b).collect();
        let close = |found: &[f32], expected: TensorData| {
            let expected: Vec<f32> = expected.to_vec().unwrap();
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 2e-5 * (1.0 + expected.abs()), "{found} {expected}");
            }
        };
        close(&found, weights.into_data());
        close(&output, gathered.into_data());
        close(&for_rows, rows.grad(&expected).unwrap().into_data());
        close(&more.source, source.grad(&expected).unwrap().into_data());
        close(&more.target, target.grad(&expected).unwrap().into_data());
    }
}

#[test]
fn a_share_of_nothing_pruned_is_no_pruning() {
    let slice = Slice::random(60, 6);
    let model = stagate(Tying::Tied, 0.5);
    let all = SpatialInput::with_pruned(slice.input(), vec![true; slice.graph.n_edges()].into()).unwrap();
    let (pruned, unpruned) = (model.loss(&slice.pruned()), model.loss(&all));
    assert_ne!(pruned.into_scalar(), unpruned.into_scalar());
    let weights: Vec<f32> = model.attention(&slice.pruned()).into_data().to_vec().unwrap();
    for spot in 0..60 {
        let sum: f32 = weights[slice.graph.adjacency().edges(spot)].iter().sum();
        assert!((sum - 1.0).abs() < 1e-5);
    }
}

/// The patches of all genes by shared zeros, and of non-zeros by tables, against the model's own block over padded rows.
#[test]
fn patches_read_by_tables_are_those_of_the_models_own_block() {
    let slice = Slice::random(40, 7);
    for genes_read in [GenesRead::NonZero, GenesRead::All] {
        let (model, input) = (cellpatch_stagate(genes_read, cell_patch()), with_tokens(slice.input()));
        let cotangent = Tensor::<Learning, 2>::random(
            [40, 256],
            burn::tensor::Distribution::Default,
            &Default::default(),
        );
        let loss = |patches: Tensor<Learning, 2>| (patches * cotangent.clone()).sum();
        let plain = model.patches_by_model(&input).reshape([40, 256]);
        assert_same(&learn(&model, loss(model.patches(&input))), &learn(&model, loss(plain)));
    }
}

#[test]
fn binned_expression_and_dropout_train_too() {
    let slice = Slice::random(30, 8);
    let binned = cell_patch().with_expression(ExpressionEmbedding::Binned { max_value: 5 });
    for (config, genes_read) in [
        (binned.clone(), GenesRead::NonZero),
        (binned, GenesRead::All),
        (cell_patch().with_attention_dropout(0.2), GenesRead::NonZero),
        (cell_patch().with_attention_dropout(0.2), GenesRead::All),
    ] {
        let (model, input) = (cellpatch_stagate(genes_read, config), with_tokens(slice.input()));
        let (loss, gradients) = learn(&model, model.loss(&input));
        assert!(loss.is_finite());
        let table: Vec<f32> = gradients["model_head.gene2vector.weight"].iter().collect();
        assert!(
            table.iter().any(|&element| element != 0.0) && table.iter().all(|element| element.is_finite())
        );
    }
}

#[test]
fn a_pretrained_checkpoint_gives_the_patches() {
    let slice = Slice::random(30, 9);
    Flex::seed(&Default::default(), 77);
    let pretrained = cell_patch().init::<Learning>(&Default::default());
    let checkpoint = Checkpoint { tensors: named_tensors(&pretrained), ..Default::default() };
    let (model, report) =
        cellpatch_stagate(GenesRead::NonZero, cell_patch()).with_pretrained(&checkpoint).unwrap();
    assert!(report.skipped.iter().all(|name| !name.starts_with("cross_extract")), "{:?}", report.skipped);
    let input = with_tokens(slice.input::<Learning>());
    let (genes, values): (Vec<Vec<u32>>, Vec<Vec<f32>>) = (0..30)
        .map(|spot| {
            let (genes, values) = slice.expression.matrix().row(spot);
            (genes.iter().map(|gene| 3 * gene + 1).collect(), values.to_vec())
        })
        .unzip();
    let (genes, values): (Vec<&[u32]>, Vec<&[f32]>) =
        genes.iter().zip(&values).map(|(genes, values)| (&genes[..], &values[..])).unzip();
    let cells = cellpatch_model::GeneValues::pad(&genes, &values, &Default::default()).unwrap();
    let expected = pretrained.encoder().cross_patches(&cells).reshape([30, 256]).into_data();
    model
        .patches(&input)
        .into_data()
        .assert_approx_eq::<f32>(&expected, burn::tensor::Tolerance::absolute(2e-5));
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let slice = Slice::random(30, 10);
    let disagrees = |result: Result<_, Error>| matches!(result, Err(Error::Disagreement { .. }));
    let other = Slice::random(31, 10);
    let device = Default::default();
    assert!(disagrees(
        SpatialInput::<Flex>::new(slice.graph.clone(), other.expression.clone(), &device).map(|_| ())
    ));
    assert!(disagrees(slice.input::<Flex>().with_pruned(vec![true].into()).map(|_| ())));
    let tokens = |tokens: Vec<u32>| CellPatchInput::new(slice.input::<Flex>(), tokens, 100).map(|_| ());
    assert!(disagrees(tokens(vec![1, 2])));
    let some = |first: u32| tokens((0..N_GENES as u32).map(|gene| gene + first).collect());
    assert!(matches!(some(0), Err(Error::BadExpression { .. })));
    assert!(some(1).is_ok());
    assert!(matches!(some(90), Err(Error::BadExpression { .. })));
    assert!(matches!(tokens(vec![5; N_GENES]), Err(Error::BadExpression { .. })));
    assert!(Expression::from_dense(&[1.0, f32::NAN], 2).is_err());
    assert!(Expression::from_dense(&[1.0, 2.0, 3.0], 2).is_err());
    assert!(StagateConfig::new(0).validate().is_err());
    assert!(StagateConfig::new(3).with_pruned_share(1.5).validate().is_err());
    assert!(CellPatchStagateConfig::new(cell_patch().with_n_heads(3), 4).validate().is_err());
}

#[test]
fn batches_of_an_epoch_add_up_to_the_slice() {
    let slice = Slice::random(160, 11);
    let kept = slice.graph.edges_within(&slice.labels()).unwrap();
    let tiles = Tiles::new(slice.graph.clone(), slice.expression.clone(), &slice.positions, 20, 2).unwrap();
    let tiles = tiles.with_pruned(kept).unwrap();
    let model = stagate(Tying::Tied, 0.3);
    let whole = learn(&model, model.loss(&slice.pruned()));
    let batches = tiles.epoch(3, 0);
    assert_eq!(batches.len(), tiles.n_batches());
    assert!(batches.len() > 3);
    let mut sum: (f64, BTreeMap<String, Vec<f32>>) = Default::default();
    for own in &batches {
        let batch = tiles.batch(own).unwrap();
        let input = SpatialInput::<Learning>::of_slice(batch.slice.clone(), &Default::default());
        assert!(batch.spots.len() < 160 && batch.spots.starts_with(own));
        let (loss, gradients) = learn(&model, model.loss(&input));
        let share = own.len() as f64 / 160.0;
        sum.0 += loss * share;
        for (name, gradient) in gradients {
            let scaled = gradient.iter::<f32>().map(|element| element * share as f32);
            match sum.1.get_mut(&name) {
                Some(sum) => sum.iter_mut().zip(scaled).for_each(|(sum, element)| *sum += element),
                None => {
                    sum.1.insert(name, scaled.collect());
                }
            }
        }
    }
    let summed = |(name, values): (String, Vec<f32>)| {
        let shape = whole.1[&name].shape.clone();
        (name, TensorData::new(values, shape))
    };
    assert_same(&(sum.0, sum.1.into_iter().map(summed).collect()), &whole);
    assert_eq!(tiles.epoch(3, 0), batches);
    assert_ne!(tiles.epoch(3, 1), batches);
    assert_ne!(tiles.epoch(4, 0), batches);
}

proptest! {
    #[test]
    fn every_spot_is_in_one_batch_of_an_epoch(n_spots in 2..400_usize, per_tile in 1..50_usize, per_batch in 1..5_usize) {
        let positions: Vec<Position> = (0..n_spots).map(|spot| [(spot % 17) as f64, (spot / 17) as f64]).collect();
        let graph = build(&positions, Neighborhood::Nearest(1)).unwrap().graph;
        let expression = Expression::from_dense(&vec![1.0; n_spots], 1).unwrap();
        let tiles = Tiles::new(graph, expression, &positions, per_tile, per_batch).unwrap();
        let batches = tiles.epoch(1, 2);
        prop_assert!(batches.iter().all(|own| own.len() <= per_tile * per_batch));
        let mut all: Vec<u32> = batches.concat();
        all.sort_unstable();
        prop_assert_eq!(all, (0..n_spots as u32).collect::<Vec<_>>());
    }
}
