//! The spatial models.

pub(crate) mod cellpatch_stagate;
pub(crate) mod stagate;

use std::collections::BTreeMap;

use burn::backend::Autodiff;
use burn::module::AutodiffModule;
use burn::optim::GradientsParams;
use burn::tensor::{ElementConversion, Tensor, TensorData};
use cellpatch_model::Checkpoint;
use cellpatch_spatial::graph::SpatialGraph;
use cellpatch_spatial::{Expression, SharedStorage, SpatialBackend, Tying, step};
use cellpatch_train::{clip_global_norm, coupled_adam};

use crate::golden::{Case, Golden, assert_within, largest_difference};
use crate::training::{check_gradients, check_weights, gradients_by_name};

/// A slice, a model's weights, and what PyTorch made of both.
struct SpatialGolden {
    golden: Golden,
    case: Case,
    slack: f64,
}

impl SpatialGolden {
    fn read(case: &str, slack: f64) -> Self {
        Self { golden: Golden::read(&format!("{case}.safetensors")), case: Case::read(case), slack }
    }

    fn size(&self, pointer: &str) -> usize {
        self.case.number(pointer) as usize
    }

    fn tying(&self) -> Tying {
        match self.case.text("/config/tie") {
            "shared" => Tying::Released,
            _ => Tying::Tied,
        }
    }

    fn weights(&self) -> Checkpoint {
        Checkpoint { tensors: self.golden.group("weights"), ..Default::default() }
    }

    fn edges(&self) -> Vec<(u32, u32)> {
        let (sources, targets) =
            self.golden.values("in/edges").split_at(self.golden.values("in/edges").len() / 2);
        sources.iter().zip(targets).map(|(&source, &target)| (source as u32, target as u32)).collect()
    }

    fn graph(&self) -> SpatialGraph {
        let n_spots = self.golden.data("in/coords").shape.dims::<2>()[0];
        let graph = SpatialGraph::from_edges(n_spots, self.edges()).unwrap();
        assert_eq!(graph.n_edges(), self.edges().len());
        graph
    }

    fn expression(&self, name: &str) -> Expression {
        let [_, n_genes] = self.golden.data(name).shape.dims();
        Expression::from_dense(self.golden.values(name), n_genes).unwrap()
    }

    fn assert_output(&self, name: &str, found: &TensorData) {
        self.assert_close(name, found, self.golden.data(&format!("out/{name}")));
    }

    /// - found: weights of edges, in the order of the graph's own
    fn assert_edge_weights(&self, graph: &SpatialGraph, found: &TensorData) {
        let by_edge: BTreeMap<_, _> = self.edges().into_iter().zip(self.golden.values("out/alpha")).collect();
        let weights: Vec<f32> = graph.edges().map(|edge| *by_edge[&edge]).collect();
        let n = weights.len();
        self.assert_close("alpha", found, &TensorData::new(weights, [n]));
    }

    fn assert_close(&self, name: &str, found: &TensorData, expected: &TensorData) {
        let difference = largest_difference(found, expected, |_| true);
        assert_within(name, difference, self.case.number("/abs_tolerance/out") * self.slack);
    }

    /// Losses, gradients and five steps of Adam with a clipped global norm.
    fn check_training<B, M>(&self, mut model: M, loss: impl Fn(&M) -> Tensor<Autodiff<B>, 1>)
    where
        B: SpatialBackend,
        M: AutodiffModule<Autodiff<B>> + SharedStorage,
    {
        let Self { golden, case, slack } = self;
        let learning_rate = case.number("/optimizer/lr");
        let max_norm = case.number("/optimizer/clip_global_norm") as f32;
        let mut adam = coupled_adam(case.number("/optimizer/weight_decay") as f32);
        let norms = case.numbers("clip_norm_seen");
        for (time, expected) in case.losses().into_iter().enumerate() {
            let loss = loss(&model);
            let found: f64 = loss.clone().into_scalar().elem();
            let difference = (found - expected).abs() / expected;
            assert_within(
                &format!("loss {time}"),
                difference,
                case.number("/abs_tolerance/loss_rel") * slack,
            );
            let Some(norm) = norms.get(time) else { break };
            let gradients = loss.backward();
            let named = gradients_by_name(&model, &gradients);
            let found: f64 = named.values().flat_map(|gradient| gradient.iter::<f64>()).map(|g| g * g).sum();
            assert_within("norm", (found.sqrt() - norm).abs() / norm, 1e-5 * slack);
            if time == 0 {
                check_gradients(&model, &gradients, case, golden, *slack);
            }
            let gradients = GradientsParams::from_grads(gradients, &model);
            let gradients = clip_global_norm(&model, gradients, max_norm);
            model = step(&mut adam, learning_rate, model, gradients);
            if time == 0 || time == 4 {
                check_weights(&model, &format!("step{}", time + 1), case, golden, *slack);
            }
        }
    }
}
