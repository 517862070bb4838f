//! Attention among neighbours.

use std::sync::Arc;

use burn::backend::Flex;
use burn_flex::FlexTensor;
use cellpatch_kernels::Instructions;
use cellpatch_kernels::graph::{
    Adjacency, AttentionVectors, attention_weights, attention_weights_backward, gather, gather_backward,
};
use cellpatch_model::backend::flex::{Elements, dimensions, like, tensor};
use cellpatch_model::operation::{Computed, Kernel};

use crate::resident::Resident;

#[derive(Debug)]
pub(super) struct FlexWeights {
    pub(super) adjacency: Arc<Resident<Adjacency>>,
    pub(super) kept: Option<Arc<Resident<Arc<[bool]>>>>,
}

impl FlexWeights {
    fn vectors<'a>(&'a self, source: &'a Elements, target: &'a Elements) -> AttentionVectors<'a> {
        AttentionVectors {
            source: source.slice(),
            target: target.slice(),
            kept: self.kept.as_deref().map(|kept| &kept[..]),
        }
    }
}

impl Kernel<Flex> for FlexWeights {
    fn forward(&self, inputs: &[FlexTensor], _seed: u64, _keep: bool) -> Computed<Flex> {
        let [rows, source, target] = [0, 1, 2].map(|index| Elements::of(&inputs[index]));
        let vectors = self.vectors(&source, &target);
        let (weights, products) =
            attention_weights(&self.adjacency, rows.slice(), &vectors, Instructions::detect());
        let kept = vec![tensor(products, [self.adjacency.n_spots(), 2])];
        Computed { output: tensor(weights, [self.adjacency.n_edges()]), kept }
    }

    fn backward(
        &self,
        inputs: &[FlexTensor],
        computed: &Computed<Flex>,
        gradient: FlexTensor,
        _seed: u64,
        _wanted: &[bool],
    ) -> Vec<FlexTensor> {
        let [rows, source, target] = [0, 1, 2].map(|index| Elements::of(&inputs[index]));
        let [weights, products] = [&computed.output, &computed.kept[0]].map(Elements::of);
        let gradients = attention_weights_backward(
            &self.adjacency,
            rows.slice(),
            &self.vectors(&source, &target),
            (weights.slice(), products.slice()),
            Elements::of(&gradient).slice(),
            Instructions::detect(),
        );
        vec![
            like(gradients.rows, &inputs[0]),
            like(gradients.source, &inputs[1]),
            like(gradients.target, &inputs[2]),
        ]
    }
}

#[derive(Debug)]
pub(super) struct FlexGather {
    pub(super) adjacency: Arc<Resident<Adjacency>>,
}

impl Kernel<Flex> for FlexGather {
    fn forward(&self, inputs: &[FlexTensor], _seed: u64, _keep: bool) -> Computed<Flex> {
        let [_, d] = dimensions(&inputs[0]);
        let [rows, weights] = [0, 1].map(|index| Elements::of(&inputs[index]));
        let output = gather(&self.adjacency, rows.slice(), weights.slice(), d, Instructions::detect());
        Computed { output: like(output, &inputs[0]), kept: Vec::new() }
    }

    fn backward(
        &self,
        inputs: &[FlexTensor],
        computed: &Computed<Flex>,
        gradient: FlexTensor,
        _seed: u64,
        _wanted: &[bool],
    ) -> Vec<FlexTensor> {
        let [_, d] = dimensions(&inputs[0]);
        let [rows, weights] = [0, 1].map(|index| Elements::of(&inputs[index]));
        let gradients = gather_backward(
            &self.adjacency,
            rows.slice(),
            weights.slice(),
            Elements::of(&computed.output).slice(),
            Elements::of(&gradient).slice(),
            d,
            Instructions::detect(),
        );
        vec![like(gradients.rows, &inputs[0]), like(gradients.weights, &inputs[1])]
    }
}
