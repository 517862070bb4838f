//! The seam between the model and the machine: the one operation a backend may answer with a kernel of its own.
//!
//! The model calls [`ModelBackend::ragged_attention`] and never asks who answers. A backend without kernels inherits a
//! body of plain tensor operations, which is also the reference the kernels are tested against. A backend with
//! kernels returns them from [`ModelBackend::attention_kernel`]; [`Autodiff`] then records one node whose
//! backward pass is the kernel's own, instead of differentiating seven primitive operations.

mod flex;

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Distribution, Int, Tensor, TensorPrimitive};

use crate::attention::plain;
use crate::lengths::GeneLengths;

/// What an attention call is, beside its three tensors.
#[derive(Debug, Clone)]
pub struct AttentionSpec {
    /// Heads; head `h` of `n` owns the `h`-th of `n` equal slices of the last dimension.
    pub n_heads: usize,
    /// Where queries are padded: the true number of each cell. Outputs beyond it are 0.
    pub query_lengths: Option<GeneLengths>,
    /// Where keys are padded: the true number of each cell. Keys beyond it are not attended.
    pub key_lengths: Option<GeneLengths>,
    /// Probability with which a softmax weight is dropped (and the others scaled up); 0 outside training.
    pub dropout: f64,
}

/// Query, key and value as the projections leave them, heads side by side.
#[derive(Debug, Clone)]
pub struct AttentionInputs<B: Backend> {
    /// [cells, queries, d], or [1, queries, d] where all cells ask the same.
    pub query: FloatTensor<B>,
    /// [cells, keys, d]
    pub key: FloatTensor<B>,
    /// [cells, keys, d]
    pub value: FloatTensor<B>,
}

/// What a kernel's forward pass leaves for its backward pass.
#[derive(Debug, Clone)]
pub struct AttentionOutput<B: Backend> {
    /// [cells, queries, d]
    pub output: FloatTensor<B>,
    /// Logarithm of each softmax's denominator: [cells, heads, queries].
    pub log_sum_exp: FloatTensor<B>,
}

/// A fused attention with its own backward pass.
pub trait AttentionKernel<B: Backend>: std::fmt::Debug + Send + Sync {
    /// `softmax(Q K^T / sqrt(d / heads)) V` per head, as [`plain::attention`](crate::attention::plain) defines it.
    ///
    /// - seed: of the call's dropout; the backward pass is given the same
    fn forward(&self, inputs: &AttentionInputs<B>, spec: &AttentionSpec, seed: u64) -> AttentionOutput<B>;

    /// Gradients of query, key and value, in their shapes.
    ///
    /// - gradient: of the output, [cells, queries, d]
    fn backward(
        &self,
        inputs: &AttentionInputs<B>,
        forward: &AttentionOutput<B>,
        gradient: FloatTensor<B>,
        spec: &AttentionSpec,
        seed: u64,
    ) -> AttentionInputs<B>;
}

/// A Burn backend the model runs on.
pub trait ModelBackend: Backend {
    /// Whether the backend differentiates `burn::tensor::activation::gelu` exactly. In Burn 0.21 only the Flex backend
    /// does; the others take the derivative of the tanh approximation, which is off by up to 8e-5.
    const EXACT_GELU_GRADIENT: bool = false;

    /// Multi-head scaled dot-product attention over projected queries, keys and values, without the output
    /// projection.
    ///
    /// - query: [cells or 1, queries, d]
    /// - key, value: [cells, keys, d]
    /// - output: [cells, queries, d]
    fn ragged_attention(inputs: AttentionInputs<Self>, spec: &AttentionSpec) -> FloatTensor<Self> {
        match Self::attention_kernel(&inputs, spec) {
            Some(kernel) => kernel.forward(&inputs, spec, draw_seed::<Self>(&inputs, spec)).output,
            None => attention_of_plain_operations(inputs, spec),
        }
    }

    /// The backend's kernel for this call, if it has one.
    fn attention_kernel(
        _inputs: &AttentionInputs<Self>,
        _spec: &AttentionSpec,
    ) -> Option<&'static dyn AttentionKernel<Self>> {
        None
    }
}

#[cfg(feature = "ndarray")]
impl ModelBackend for burn::backend::NdArray {}

#[cfg(feature = "wgpu")]
impl ModelBackend for burn::backend::Wgpu {}

#[cfg(feature = "cuda")]
impl ModelBackend for burn::backend::Cuda {}

impl<B: ModelBackend, C: CheckpointStrategy> ModelBackend for Autodiff<B, C> {
    const EXACT_GELU_GRADIENT: bool = B::EXACT_GELU_GRADIENT;

    fn ragged_attention(inputs: AttentionInputs<Self>, spec: &AttentionSpec) -> FloatTensor<Self> {
        let inner = AttentionInputs {
            query: inputs.query.primitive.clone(),
            key: inputs.key.primitive.clone(),
            value: inputs.value.primitive.clone(),
        };
        let Some(kernel) = B::attention_kernel(&inner, spec) else {
            return attention_of_plain_operations(inputs, spec);
        };
        let seed = draw_seed::<B>(&inner, spec);
        let forward = kernel.forward(&inner, spec, seed);
        let parents = [inputs.query.node, inputs.key.node, inputs.value.node];
        match KernelBackward.prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(step) => {
                let output = forward.output.clone();
                step.finish(
                    RecordedAttention { kernel, inputs: inner, forward, spec: spec.clone(), seed },
                    output,
                )
            }
            OpsKind::UnTracked(step) => step.finish(forward.output),
        }
    }
}

#[derive(Debug)]
struct KernelBackward;

#[derive(Debug, Clone)]
struct RecordedAttention<B: Backend> {
    kernel: &'static dyn AttentionKernel<B>,
    inputs: AttentionInputs<B>,
    forward: AttentionOutput<B>,
    spec: AttentionSpec,
    seed: u64,
}

impl<B: ModelBackend> Backward<B, 3> for KernelBackward {
    type State = RecordedAttention<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let RecordedAttention { kernel, inputs, forward, spec, seed } = ops.state;
        let gradients = kernel.backward(&inputs, &forward, gradient, &spec, seed);
        for (parent, gradient) in
            ops.parents.into_iter().zip([gradients.query, gradients.key, gradients.value])
        {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

fn attention_of_plain_operations<B: Backend>(
    inputs: AttentionInputs<B>,
    spec: &AttentionSpec,
) -> FloatTensor<B> {
    let tensor = |primitive| Tensor::<B, 3>::from_primitive(TensorPrimitive::Float(primitive));
    let attention = plain::attention(tensor(inputs.query), tensor(inputs.key), tensor(inputs.value), spec);
    attention.output.into_primitive().tensor()
}

/// A seed for one call's dropout from the device's random stream, so that `B::seed` fixes it.
fn draw_seed<B: Backend>(inputs: &AttentionInputs<B>, spec: &AttentionSpec) -> u64 {
    if spec.dropout == 0.0 {
        return 0;
    }
    let device = B::float_device(&inputs.query);
    let halves = Tensor::<B, 1, Int>::random([2], Distribution::Uniform(0.0, f64::from(1 << 24)), &device);
    halves.into_data().iter::<i64>().fold(0, |seed, half| (seed << 24) | half as u64)
}
