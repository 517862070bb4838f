//! Graph attention and products with expression.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::backend::Autodiff;
use burn::module::{AutodiffModule, Module, ModuleVisitor, Param};
use burn::tensor::{Distribution, Tensor};
use cellpatch_model::backend::without_kernels;
use cellpatch_model::operation::primitive;
use cellpatch_spatial::graph::SpatialGraph;
use cellpatch_spatial::operation::SpatialOperation;
use cellpatch_spatial::{Expression, SpatialBackend, SpatialInput, Stagate, StagateConfig, Tying};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// A slice in which some spots read themselves alone, some read many, and some express nothing.
#[derive(Debug, Clone)]
struct Case {
    neighbors: Vec<Vec<u32>>,
    expression: Vec<f32>,
    labels: Vec<u32>,
    n_genes: usize,
    hidden_dim: usize,
    tying: Tying,
}

fn cases() -> impl Strategy<Value = Case> {
    let sizes = (2..60_usize, 1..40_usize, prop::sample::select(vec![1, 7, 30, 64]), any::<bool>());
    sizes.prop_flat_map(|(n_spots, n_genes, hidden_dim, tied)| {
        let spot = 0..n_spots as u32;
        let list = prop_oneof![
            1 => Just(Vec::new()),
            6 => prop::collection::vec(spot.clone(), 1..8),
            1 => prop::collection::vec(spot, n_spots),
        ];
        let value = prop_oneof![3 => Just(0.0_f32), 1 => 0.1..3.0_f32];
        let tying = if tied { Tying::Tied } else { Tying::Released };
        (
            prop::collection::vec(list, n_spots),
            prop::collection::vec(value, n_spots * n_genes),
            prop::collection::vec(0..3_u32, n_spots),
        )
            .prop_map(move |(neighbors, expression, labels)| Case {
                neighbors,
                expression,
                labels,
                n_genes,
                hidden_dim,
                tying,
            })
    })
}

impl Case {
    fn input<B: SpatialBackend>(&self) -> SpatialInput<B> {
        let graph = SpatialGraph::from_lists(self.neighbors.clone()).unwrap();
        let kept = graph.edges_within(&self.labels).unwrap();
        let expression = Expression::from_dense(&self.expression, self.n_genes).unwrap();
        SpatialInput::new(graph, expression, &Default::default()).unwrap().with_pruned(kept).unwrap()
    }

    fn model<B: SpatialBackend>(&self) -> Stagate<Autodiff<B>> {
        let config = StagateConfig::new(self.n_genes).with_hidden_dim(self.hidden_dim).with_latent_dim(5);
        config.with_tying(self.tying).with_pruned_share(0.3).init(&Default::default())
    }
}

/// Loss, embedding, weights of edges and gradients by their place in the model.
fn learn<B: SpatialBackend>(case: &Case, model: &Stagate<Autodiff<B>>) -> BTreeMap<String, Vec<f32>> {
    let input = case.input::<Autodiff<B>>();
    let loss = model.loss(&input);
    let gradients = loss.backward();
    struct Gradients<'a, B: SpatialBackend> {
        gradients: &'a <Autodiff<B> as burn::tensor::backend::AutodiffBackend>::Gradients,
        found: BTreeMap<String, Vec<f32>>,
    }
    impl<B: SpatialBackend> ModuleVisitor<Autodiff<B>> for Gradients<'_, B> {
        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<Autodiff<B>, D>>) {
            if let Some(gradient) = parameter.val().grad(self.gradients) {
                let name = format!("gradient {}", self.found.len());
                self.found.insert(name, gradient.into_data().iter().collect());
            }
        }
    }
    let mut visitor = Gradients::<B> { gradients: &gradients, found: BTreeMap::new() };
    model.visit(&mut visitor);
    let mut found = visitor.found;
    let (model, input) = (model.valid(), case.input::<B>());
    found.insert("loss".to_owned(), loss.into_data().iter().collect());
    found.insert("latent".to_owned(), model.latent(&input).into_data().iter().collect());
    found.insert("attention".to_owned(), model.attention(&input).into_data().iter().collect());
    found
}

pub(crate) fn check_stagate<B: SpatialBackend>() {
    // Each case compiles kernels of its own widths: few cases.
    let config = Config { cases: 8, failure_persistence: None, max_shrink_iters: 20, ..Config::default() };
    let test = |case: Case| {
        let model = case.model::<B>();
        let expected = without_kernels(|| learn(&case, &model));
        let found = learn(&case, &model);
        prop_assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (name, found) in found {
            let expected = &expected[&name];
            prop_assert_eq!(found.len(), expected.len());
            // Sums in another order: what single precision does to them.
            let largest = expected.iter().fold(1e-2_f32, |largest, element| largest.max(element.abs()));
            for (found, expected) in found.iter().zip(expected) {
                prop_assert!(
                    (found - expected).abs() < 1e-4 * largest,
                    "{name}: {found} {expected} of {largest}"
                );
            }
        }
        Ok(())
    };
    TestRunner::new(config).run(&cases(), test).unwrap();
}

pub(crate) fn check_switch<B: SpatialBackend>() {
    let graph = SpatialGraph::from_edges(3, [(0, 1), (1, 2)]).unwrap();
    let expression = Expression::from_dense(&[1.0, 0.0, 2.0], 1).unwrap();
    let random = |shape: [usize; 2]| {
        primitive(Tensor::<B, 2>::random(shape, Distribution::Default, &Default::default()))
    };
    let vector =
        |n: usize| primitive(Tensor::<B, 1>::random([n], Distribution::Default, &Default::default()));
    let adjacency = || Arc::clone(graph.adjacency());
    let product = SpatialOperation::ExpressionProduct { expression: Arc::clone(expression.matrix()) };
    let weights = SpatialOperation::AttentionWeights { adjacency: adjacency(), kept: None };
    let gather = SpatialOperation::Gather { adjacency: adjacency() };
    for (operation, inputs) in [
        (product, vec![random([1, 4])]),
        (weights, vec![random([3, 4]), vector(4), vector(4)]),
        (gather, vec![random([3, 4]), vector(5)]),
    ] {
        assert!(B::spatial_kernel(&operation, &inputs).is_some(), "{operation:?}");
        assert!(without_kernels(|| B::spatial_kernel(&operation, &inputs)).is_none(), "{operation:?}");
    }
}
