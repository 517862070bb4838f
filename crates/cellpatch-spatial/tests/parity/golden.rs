//! Reading `tests/golden`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::tensor::TensorData;
use cellpatch_model::Checkpoint;
use cellpatch_spatial::graph::SpatialGraph;
use cellpatch_spatial::{Expression, Tying};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(file)
}

/// One case: its tensors by group and name (`out/latent`), and what the manifest says about it.
pub(crate) struct Golden {
    tensors: BTreeMap<String, TensorData>,
    entry: Value,
}

impl Golden {
    pub(crate) fn read(case: &str) -> Self {
        let bytes = std::fs::read(path(&format!("{case}.safetensors"))).unwrap();
        let tensors = SafeTensors::deserialize(&bytes)
            .unwrap()
            .tensors()
            .into_iter()
            .map(|(name, view)| {
                let data = view.data();
                let values: Vec<f32> = match view.dtype() {
                    Dtype::F32 => data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
                    Dtype::I64 => {
                        data.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes) as f32).collect()
                    }
                    other => panic!("{name} is {other:?}"),
                };
                (name, TensorData::new(values, view.shape().to_vec()))
            })
            .collect();
        let manifest: Value = serde_json::from_slice(&std::fs::read(path("manifest.json")).unwrap()).unwrap();
        Self { tensors, entry: manifest["cases"][case].clone() }
    }

    pub(crate) fn data(&self, name: &str) -> &TensorData {
        self.tensors.get(name).unwrap_or_else(|| panic!("no golden tensor {name}"))
    }

    pub(crate) fn values(&self, name: &str) -> &[f32] {
        self.data(name).as_slice().unwrap()
    }

    /// The tensors of one group, the group's name taken off.
    pub(crate) fn group(&self, group: &str) -> BTreeMap<String, TensorData> {
        let prefix = format!("{group}/");
        let named = |(name, data): (&String, &TensorData)| {
            Some((name.strip_prefix(&prefix)?.to_string(), data.clone()))
        };
        self.tensors.iter().filter_map(named).collect()
    }

    pub(crate) fn weights(&self) -> Checkpoint {
        Checkpoint { tensors: self.group("weights"), ..Default::default() }
    }

    pub(crate) fn number(&self, pointer: &str) -> f64 {
        let number = self.entry.pointer(pointer).and_then(Value::as_f64);
        number.unwrap_or_else(|| panic!("no {pointer} in the manifest"))
    }

    pub(crate) fn size(&self, pointer: &str) -> usize {
        self.number(pointer) as usize
    }

    pub(crate) fn losses(&self) -> Vec<f64> {
        let losses = self.entry["loss_before_each_step_then_final"].as_array().unwrap();
        losses.iter().map(|loss| loss.as_f64().unwrap()).collect()
    }

    pub(crate) fn clip_norms(&self) -> Vec<f64> {
        let norms = self.entry["clip_norm_seen"].as_array().unwrap();
        norms.iter().map(|norm| norm.as_f64().unwrap()).collect()
    }

    pub(crate) fn tying(&self) -> Tying {
        match self.entry["config"]["tie"].as_str().unwrap() {
            "shared" => Tying::Released,
            _ => Tying::Tied,
        }
    }

    fn edges(&self) -> Vec<(u32, u32)> {
        let (sources, targets) = self.values("in/edges").split_at(self.values("in/edges").len() / 2);
        sources.iter().zip(targets).map(|(&source, &target)| (source as u32, target as u32)).collect()
    }

    pub(crate) fn graph(&self) -> SpatialGraph {
        let n_spots = self.data("in/coords").shape.dims::<2>()[0];
        let graph = SpatialGraph::from_edges(n_spots, self.edges()).unwrap();
        assert_eq!(graph.n_edges(), self.edges().len());
        graph
    }

    pub(crate) fn expression(&self, name: &str) -> Expression {
        let [_, n_genes] = self.data(name).shape.dims();
        Expression::from_dense(self.values(name), n_genes).unwrap()
    }

    /// Weights of edges, in the order of a graph's own edges.
    pub(crate) fn edge_weights(&self, graph: &SpatialGraph) -> TensorData {
        let by_edge: BTreeMap<_, _> = self.edges().into_iter().zip(self.values("out/alpha")).collect();
        let weights: Vec<f32> = graph.edges().map(|edge| *by_edge[&edge]).collect();
        let n = weights.len();
        TensorData::new(weights, [n])
    }

    pub(crate) fn assert_output(&self, name: &str, found: &TensorData, slack: f64) {
        let difference = largest_difference(found, self.data(&format!("out/{name}")));
        assert_within(name, difference, self.number("/abs_tolerance/out") * slack);
    }
}

pub(crate) fn largest_difference(found: &TensorData, expected: &TensorData) -> f64 {
    assert_eq!(found.shape, expected.shape);
    found.iter::<f32>().zip(expected.iter::<f32>()).fold(0.0, |largest, (found, expected)| {
        let difference = f64::from((found - expected).abs());
        assert!(!difference.is_nan(), "not a number");
        difference.max(largest)
    })
}

pub(crate) fn assert_within(what: &str, difference: f64, tolerance: f64) {
    println!("{what}: off by {difference:.2e} of {tolerance:.2e}");
    assert!(difference <= tolerance, "{what} is off by {difference:e}, more than {tolerance:e}");
}
