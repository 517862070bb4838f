//! Reading `tests/golden`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use cellpatch_model::{CellPatchConfig, ExpressionEmbedding, GeneLengths, GeneTargets, GeneValues, Padding};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// A file of `tests/golden`.
pub(crate) fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(file)
}

/// The tensors of one golden file by group and name (`out/patch`).
pub(crate) struct Golden {
    tensors: BTreeMap<String, TensorData>,
}

impl Golden {
    pub(crate) fn read(file: &str) -> Self {
        let bytes = std::fs::read(path(file)).unwrap();
        let tensors = SafeTensors::deserialize(&bytes)
            .unwrap()
            .tensors()
            .into_iter()
            .map(|(name, view)| {
                let values: Vec<f32> = match view.dtype() {
                    Dtype::F32 => view
                        .data()
                        .chunks_exact(4)
                        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                        .collect(),
                    Dtype::I64 => view
                        .data()
                        .chunks_exact(8)
                        .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f32)
                        .collect(),
                    Dtype::U8 => view.data().iter().map(|&b| f32::from(b)).collect(),
                    other => panic!("{name} is {other:?}"),
                };
                (name, TensorData::new(values, view.shape().to_vec()))
            })
            .collect();
        Self { tensors }
    }

    pub(crate) fn data(&self, name: &str) -> &TensorData {
        self.tensors.get(name).unwrap_or_else(|| panic!("no golden tensor {name}"))
    }

    pub(crate) fn values(&self, name: &str) -> &[f32] {
        self.data(name).as_slice().unwrap()
    }

    pub(crate) fn tensor<B: Backend, const D: usize>(&self, name: &str, device: &B::Device) -> Tensor<B, D> {
        Tensor::from_data(self.data(name).clone(), device)
    }

    pub(crate) fn ints<B: Backend>(&self, name: &str, device: &B::Device) -> Tensor<B, 2, Int> {
        let data = self.data(name);
        let values: Vec<i32> = data.iter::<f32>().map(|value| value as i32).collect();
        Tensor::from_data(TensorData::new(values, data.shape.clone()), device)
    }

    pub(crate) fn lengths(&self, name: &str) -> GeneLengths {
        GeneLengths::new(self.values(name).iter().map(|&n| n as usize).collect::<Vec<_>>())
    }

    pub(crate) fn input<B: Backend>(&self, device: &B::Device) -> GeneValues<B> {
        let (genes, values) = (self.ints("in/genes_e", device), self.tensor("in/counts_e", device));
        GeneValues::from_padded(genes, values, self.lengths("in/lengths_e")).unwrap()
    }

    pub(crate) fn targets<B: Backend>(&self, device: &B::Device) -> GeneTargets<B> {
        GeneTargets::from_padded(self.ints("in/genes_d", device), self.lengths("in/lengths_d")).unwrap()
    }

    /// The tensors of one group, the group's name taken off.
    pub(crate) fn group(&self, group: &str) -> BTreeMap<String, TensorData> {
        let prefix = format!("{group}/");
        let named = |(name, data): (&String, &TensorData)| {
            Some((name.strip_prefix(&prefix)?.to_string(), data.clone()))
        };
        self.tensors.iter().filter_map(named).collect()
    }
}

/// What `manifest.json` says about one case.
pub(crate) struct Case {
    entry: Value,
}

impl Case {
    pub(crate) fn read(name: &str) -> Self {
        let manifest: Value = serde_json::from_slice(&std::fs::read(path("manifest.json")).unwrap()).unwrap();
        Self { entry: manifest["cases"][name].clone() }
    }

    pub(crate) fn number(&self, pointer: &str) -> f64 {
        self.entry
            .pointer(pointer)
            .and_then(Value::as_f64)
            .unwrap_or_else(|| panic!("no {pointer} in the manifest"))
    }

    pub(crate) fn numbers(&self, field: &str) -> Vec<f64> {
        let numbers = self.entry[field].as_array().unwrap();
        numbers.iter().map(|number| number.as_f64().unwrap()).collect()
    }

    pub(crate) fn losses(&self) -> Vec<f64> {
        self.numbers("loss_before_each_step_then_final")
    }

    pub(crate) fn unused_parameters(&self) -> Vec<String> {
        let names = self.entry["unused_parameters"].as_array().unwrap();
        names.iter().map(|name| name.as_str().unwrap().to_string()).collect()
    }

    pub(crate) fn text(&self, pointer: &str) -> &str {
        self.entry
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("no {pointer} in the manifest"))
    }

    pub(crate) fn flag(&self, pointer: &str) -> bool {
        self.entry
            .pointer(pointer)
            .and_then(Value::as_bool)
            .unwrap_or_else(|| panic!("no {pointer} in the manifest"))
    }

    /// The case's model, dropout off as the reference was computed.
    pub(crate) fn config(&self) -> CellPatchConfig {
        let size = |field: &str| self.number(&format!("/config/{field}")) as usize;
        let config = &self.entry["config"];
        CellPatchConfig::new()
            .with_gene_capacity(size("max_gene_num"))
            .with_embedding_dim(size("embedding_dim"))
            .with_n_patches(size("n_patches"))
            .with_n_heads(size("n_heads"))
            .with_mlp_dim(2 * size("embedding_dim"))
            .with_encoder_self_blocks(size("encoder_self_depth"))
            .with_latent_dim(size("latent_dim"))
            .with_decoder_self_blocks(size("decoder_self_depth"))
            .with_attention_dropout(0.0)
            .with_output_dropout(0.0)
            .with_expression(match config["expression"].as_str().unwrap() {
                "binned" => ExpressionEmbedding::Binned { max_value: size("clip_max") },
                _ => ExpressionEmbedding::Continuous,
            })
            .with_padding(match config["padding_mask"].as_bool().unwrap() {
                true => Padding::Masked,
                false => Padding::Attended,
            })
    }
}

/// The largest absolute difference, over the elements that `counts` (by flat index) says matter.
pub(crate) fn largest_difference(
    found: &TensorData,
    expected: &TensorData,
    counts: impl Fn(usize) -> bool,
) -> f64 {
    assert_eq!(found.shape, expected.shape);
    let pairs = found.iter::<f32>().zip(expected.iter::<f32>()).enumerate();
    pairs.filter(|&(index, _)| counts(index)).fold(0.0, |largest, (_, (found, expected))| {
        let difference = f64::from((found - expected).abs());
        assert!(!difference.is_nan(), "not a number");
        difference.max(largest)
    })
}

pub(crate) fn assert_within(what: &str, difference: f64, tolerance: f64) {
    println!("{what}: off by {difference:.2e} of {tolerance:.2e}");
    assert!(difference <= tolerance, "{what} is off by {difference:e}, more than {tolerance:e}");
}
