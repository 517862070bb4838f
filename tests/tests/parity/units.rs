//! The parts by themselves.

use burn::backend::Autodiff;
use burn::module::Module;
use burn::module::Param;
use burn::nn::LayerNormConfig;
use burn::optim::{GradientsParams, Optimizer};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use cellpatch_model::activation::gelu;
use cellpatch_model::attention::{plain, ragged_attention};
use cellpatch_model::operation::AttentionSpec;
use cellpatch_model::product::product;
use cellpatch_model::{GeneLengths, ModelBackend};
use cellpatch_train::{clip_global_norm, coupled_adam};

use crate::golden::{Golden, assert_within, largest_difference};

/// The manifest's for this file.
const TOLERANCE: f64 = 2e-6;

pub(crate) fn check_elementwise<B: ModelBackend>(device: &B::Device, slack: f64) {
    let golden = Golden::read("units.safetensors");
    let compare = |what: &str, found: burn::tensor::TensorData, expected: &str| {
        let difference = largest_difference(&found, golden.data(expected), |_| true);
        assert_within(what, difference, TOLERANCE * slack);
    };
    compare("gelu", gelu(golden.tensor::<B, 1>("gelu/x", device)).into_data(), "gelu/y");

    let mut norm = LayerNormConfig::new(32).with_epsilon(1e-5).init::<B>(device);
    norm.gamma = Param::from_tensor(golden.tensor("layernorm/weight", device));
    norm.beta = Some(Param::from_tensor(golden.tensor("layernorm/bias", device)));
    compare(
        "layer norm",
        norm.forward(golden.tensor::<B, 2>("layernorm/x", device)).into_data(),
        "layernorm/y",
    );

    let bins: Tensor<B, 1, Int> = golden.tensor::<B, 1>("bin/x", device).clamp(0.0, 5.0).round().int();
    compare("bins", bins.float().into_data(), "bin/round_half_even");
}

/// Rows times a weight, plus a bias, with 32 bits.
fn affine<B: ModelBackend>(rows: Tensor<B, 3>, weight: Tensor<B, 2>, bias: Tensor<B, 1>) -> Tensor<B, 3> {
    let ([cells, length, d], [_, width]) = (rows.dims(), weight.dims());
    let product = product(rows.reshape([cells * length, d]), weight);
    (product + bias.unsqueeze()).reshape([cells, length, width])
}

/// The packed projection, the operation behind the seam and the output projection, masked, with every gradient; and
/// the plain operations, which also give the attention map.
pub(crate) fn check_attention<B: ModelBackend>(device: &B::Device, slack: f64) {
    let golden = Golden::read("units.safetensors");
    let [n_cells, _, d] = golden.data("mha/q").shape.dims();
    let n_keys = golden.data("mha/kv").shape.dims::<3>()[1];
    let real = golden.values("mha/valid").chunks(n_keys);
    let lengths = real.map(|row| row.iter().take_while(|&&valid| valid == 1.0).count()).collect::<Vec<_>>();
    let n_real: usize = lengths.iter().sum();
    assert_eq!(
        n_real as f32,
        golden.values("mha/valid").iter().sum::<f32>(),
        "the reference pads at the end"
    );
    let lengths = GeneLengths::new(lengths).padded_to(n_keys);
    assert_eq!(lengths.n_cells(), n_cells);
    let spec = AttentionSpec { n_heads: 2, query_lengths: None, key_lengths: Some(lengths), dropout: 0.0 };

    let leaf = |name: &str| golden.tensor::<Autodiff<B>, 2>(name, device).require_grad();
    let leaf_1d = |name: &str| golden.tensor::<Autodiff<B>, 1>(name, device).require_grad();
    let leaf_3d = |name: &str| golden.tensor::<Autodiff<B>, 3>(name, device).require_grad();
    let (in_weight, in_bias) = (leaf("mha/in_proj_weight"), leaf_1d("mha/in_proj_bias"));
    let (out_weight, out_bias) = (leaf("mha/out_proj.weight"), leaf_1d("mha/out_proj.bias"));
    let (query, memory) = (leaf_3d("mha/q"), leaf_3d("mha/kv"));

    let project = |input: &Tensor<Autodiff<B>, 3>, part: usize| {
        let rows = part * d..(part + 1) * d;
        let weight = in_weight.clone().slice([rows.clone(), 0..d]).transpose();
        affine(input.clone(), weight, in_bias.clone().slice([rows]))
    };
    let [q, k, v] = [project(&query, 0), project(&memory, 1), project(&memory, 2)];
    let weights = plain::attention(q.clone(), k.clone(), v.clone(), &spec).weights;
    let gathered = ragged_attention(q, k, v, &spec);
    let output = affine(gathered, out_weight.clone().transpose(), out_bias.clone());

    let compare = |found: burn::tensor::TensorData, expected: &str| {
        let difference = largest_difference(&found, golden.data(expected), |_| true);
        assert_within(expected, difference, TOLERANCE * slack);
    };
    compare(weights.mean_dim(1).squeeze_dim::<3>(1).into_data(), "mha/weights_mean");
    compare(output.clone().into_data(), "mha/y");
    let gradients = (output * golden.tensor("mha/cotangent", device)).sum().backward();
    compare(in_weight.grad(&gradients).unwrap().into_data(), "mha/grad_in_proj_weight");
    compare(in_bias.grad(&gradients).unwrap().into_data(), "mha/grad_in_proj_bias");
    compare(out_weight.grad(&gradients).unwrap().into_data(), "mha/grad_out_proj.weight");
    compare(out_bias.grad(&gradients).unwrap().into_data(), "mha/grad_out_proj.bias");
    compare(query.grad(&gradients).unwrap().into_data(), "mha/grad_q");
    compare(memory.grad(&gradients).unwrap().into_data(), "mha/grad_kv");
}

#[derive(Module, Debug)]
struct Parameter<B: Backend> {
    value: Param<Tensor<B, 1>>,
}

pub(crate) fn check_adam<B: ModelBackend>(device: &B::Device, slack: f64) {
    let golden = Golden::read("units.safetensors");
    for (group, decay) in [("adam_wd0", 0.0), ("adam_wd", 5e-2)] {
        let start = golden.tensor::<Autodiff<B>, 1>(&format!("{group}/p0"), device);
        let mut parameter = Parameter { value: Param::from_tensor(start) };
        let mut adam = coupled_adam(decay);
        let gradients = golden.tensor::<Autodiff<B>, 2>(&format!("{group}/grads"), device);
        let [n_steps, n] = gradients.dims();
        let mut trace = Vec::new();
        for step in 0..n_steps {
            // A loss whose gradient is the one wanted.
            let wanted = gradients.clone().slice([step..step + 1, 0..n]).reshape([n]);
            let loss = (parameter.value.val() * wanted).sum();
            let gradients = GradientsParams::from_grads(loss.backward(), &parameter);
            parameter = adam.step(1e-2, parameter, gradients);
            trace.extend(parameter.value.val().into_data().iter::<f32>());
        }
        let found = burn::tensor::TensorData::new(trace, [n_steps, n]);
        let difference = largest_difference(&found, golden.data(&format!("{group}/params")), |_| true);
        assert_within(group, difference, TOLERANCE * slack);
    }
}

/// Two parameters whose gradients are the golden file's.
#[derive(Module, Debug)]
struct Pair<B: Backend> {
    a: Param<Tensor<B, 2>>,
    b: Param<Tensor<B, 1>>,
}

pub(crate) fn check_clipping<B: ModelBackend>(device: &B::Device, slack: f64) {
    let golden = Golden::read("units.safetensors");
    let (a, b) = (golden.tensor::<Autodiff<B>, 2>("clip/a", device), golden.tensor("clip/b", device));
    let pair: Pair<Autodiff<B>> = Pair {
        a: Param::from_tensor(Tensor::zeros(a.dims(), device)),
        b: Param::from_tensor(Tensor::zeros(b.dims(), device)),
    };
    let loss = (pair.a.val() * a).sum() + (pair.b.val() * b).sum();
    let gradients = GradientsParams::from_grads(loss.backward(), &pair);
    let gradients = clip_global_norm(&pair, gradients, golden.values("clip/max_norm")[0]);
    let compare = |what: &str, found: burn::tensor::TensorData| {
        let difference = largest_difference(&found, golden.data(what), |_| true);
        assert_within(what, difference, TOLERANCE * slack);
    };
    compare("clip/a_clipped", gradients.get::<B, 2>(pair.a.id).unwrap().into_data());
    compare("clip/b_clipped", gradients.get::<B, 1>(pair.b.id).unwrap().into_data());
}

#[test]
fn normalisation_is_scanpys() {
    let golden = Golden::read("units.safetensors");
    let n_genes = golden.data("norm/raw").shape.dims::<2>()[1];
    let cells = golden.values("norm/raw").chunks(n_genes).zip(golden.values("norm/log1p").chunks(n_genes));
    let mut normalized = Vec::new();
    for (raw, expected) in cells {
        cellpatch_data::normalize(raw, raw.iter().sum(), &mut normalized);
        for (found, expected) in normalized.iter().zip(expected) {
            assert!(f64::from((found - expected).abs()) <= TOLERANCE, "{found} {expected}");
        }
        assert_eq!(normalized.len(), expected.len());
    }
}
