//! Burn's GPU backends with the kernels of `cellpatch-gpu`.
//!
//! Burn's `Wgpu` and `Cuda` are `Fusion<CubeBackend<..>>`: what is called is queued, and runs of element-wise operations
//! become one when the queue is worked off, on another thread. A [`CubeKernel`] works with the tensors below, which are memory
//! on the card; [`Queued`] puts its calls into the queue, so that kernels stand among Burn's own operations and the
//! host never waits. One source serves wgpu and CUDA.
//!
//! To add a kernel: write it in `cellpatch-gpu` over [`Buffer`]s, implement [`CubeKernel`] for a struct that holds the call's
//! settings, and return a [`Queued`] of it from [`ModelBackend::kernel`] (or its like in another crate) for calls
//! that [`serves`] allows.

mod attention;
mod block;
mod floats;
mod genes;
mod optimizer;

use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use burn::tensor::ops::{FloatTensor, IntTensor};
use burn::tensor::{DType, Distribution, Int, Shape, Tensor, TensorMetadata};
use burn_cubecl::fusion::FusionCubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement};
use burn_fusion::stream::{Operation, OperationStreams};
use burn_fusion::{Fusion, FusionHandle, FusionTensor};
use burn_ir::{CustomOpIr, HandleContainer, OperationIr, TensorIr};
use cellpatch_gpu::buffer::Buffer;

use self::attention::CubeAttention;
use self::block::{CubeBlock, EXPAND, Reads};
use self::genes::{CubeEmbedding, Tokens};
use self::optimizer::CubeAdam;
use super::{ModelBackend, kernels_are_off};
use crate::config::CellPatchConfig;
use crate::operation::{
    AdamStep, AdamTensors, AttentionSpec, Computed, Genes, Kernel, Operation as ModelOperation,
};

impl<R: CubeRuntime, F: FloatElement, I: IntElement, BT: BoolElement> ModelBackend
    for Fusion<CubeBackend<R, F, I, BT>>
{
    fn stores_scores(config: &CellPatchConfig) -> bool {
        kernels_are_off() || !cellpatch_gpu::attention::is_known(config.embedding_dim, config.n_heads)
    }

    fn kernel(
        operation: &ModelOperation<IntTensor<Self>>,
        inputs: &[FloatTensor<Self>],
    ) -> Option<Arc<dyn Kernel<Self>>> {
        if !serves(inputs) {
            return None;
        }
        let device = inputs[0].client.device();
        let seeds = |spec: &AttentionSpec| {
            let seed = (spec.dropout > 0.0).then(|| seed_on_device::<Self>(device));
            seed.into_iter().collect()
        };
        let block = |spec: &AttentionSpec, reads: Reads| {
            let [d, mlp] = inputs[reads.n_inputs() + EXPAND].shape.dims();
            let served = cellpatch_gpu::block::serves(&R::client(device), d, spec.n_heads, mlp);
            let kernel = CubeBlock { spec: spec.clone(), reads };
            served.then(|| Arc::new(Queued::new(kernel, seeds(spec))) as Arc<dyn Kernel<Self>>)
        };
        match operation {
            ModelOperation::Attention(spec) => {
                let [_, _, width] = inputs[1].shape.dims();
                let served = cellpatch_gpu::attention::serves(&R::client(device), width, spec.n_heads);
                let kernel = CubeAttention { spec: spec.clone() };
                served.then(|| Arc::new(Queued::new(kernel, seeds(spec))) as Arc<dyn Kernel<Self>>)
            }
            ModelOperation::CrossBlock(spec) => block(spec, Reads::Memory),
            ModelOperation::SelfBlock(spec) => block(spec, Reads::Itself),
            ModelOperation::EmbedGenes { genes } => {
                let [_, d] = inputs[0].shape.dims();
                let served = genes.tensor.dtype == DType::I32 && d.is_multiple_of(4);
                let kernel = CubeEmbedding { tokens: tokens(genes), index: OnceLock::new() };
                let integers = vec![genes.tensor.clone()];
                served.then(|| Arc::new(Queued::new(kernel, integers)) as Arc<dyn Kernel<Self>>)
            }
            // Composed of the above and Burn's own operations.
            ModelOperation::GeneBlock { .. } | ModelOperation::OutputLayer { .. } => None,
        }
    }

    fn adam(step: &AdamStep, tensors: &mut AdamTensors<Self>) -> bool {
        let AdamTensors { parameter, gradient, moment_1, moment_2 } = tensors;
        let inputs = [&*parameter, &*gradient, &*moment_1, &*moment_2].map(Clone::clone);
        if !serves(&inputs) {
            return false;
        }
        let kernel = Queued::new(CubeAdam { step: *step }, Vec::new());
        let updated: Computed<Self> = kernel.forward(&inputs, 0, false);
        let mut moments = updated.kept.into_iter();
        *parameter = updated.output;
        for (moment, updated) in [moment_1, moment_2].into_iter().zip(&mut moments) {
            *moment = updated;
        }
        true
    }
}

/// A tensor of [`Fusion`]: a promise of one on the card.
pub type Promise<R> = FusionTensor<FusionCubeRuntime<R>>;

/// A batch's tokens as kernels index them.
fn tokens<R: CubeRuntime>(genes: &Genes<Promise<R>>) -> Tokens {
    let [n_cells, n_genes] = genes.tensor.shape.dims();
    Tokens { n_cells, n_genes, host: genes.host.clone() }
}

/// Whether kernels may serve a call: they are not switched off, and its floats have 32 bits.
pub fn serves<R: CubeRuntime>(inputs: &[Promise<R>]) -> bool {
    !kernels_are_off() && inputs.iter().all(|input| input.dtype == DType::F32)
}

/// What a kernel on a card is called with, all in row-major order.
#[derive(Debug)]
pub struct CubeInputs<R: CubeRuntime> {
    /// The operation's inputs, in its order; 32-bit floats, at least one.
    pub floats: Vec<CubeTensor<R>>,
    /// Tensors of 32-bit integers given to [`Queued`], in their order.
    pub integers: Vec<CubeTensor<R>>,
}

impl<R: CubeRuntime> CubeInputs<R> {
    /// The input's numbers.
    pub fn buffer(&self, index: usize) -> Buffer<f32> {
        buffer(&self.floats[index])
    }

    /// The input's shape.
    pub fn dims<const D: usize>(&self, index: usize) -> [usize; D] {
        self.floats[index].shape().dims()
    }

    /// Numbers that a kernel has computed, as a tensor on the inputs' device.
    pub fn tensor<const D: usize>(&self, numbers: Buffer<f32>, shape: [usize; D]) -> CubeTensor<R> {
        let CubeTensor { client, device, .. } = &self.floats[0];
        let handle = numbers.into_handle();
        CubeTensor::new_contiguous(client.clone(), device.clone(), Shape::new(shape), handle, DType::F32)
    }

    /// The same in the shape of an input, whose gradient they are.
    pub fn like(&self, numbers: Buffer<f32>, index: usize) -> CubeTensor<R> {
        let CubeTensor { client, device, .. } = &self.floats[index];
        let (shape, handle) = (self.floats[index].shape(), numbers.into_handle());
        CubeTensor::new_contiguous(client.clone(), device.clone(), shape, handle, DType::F32)
    }
}

/// The numbers of a tensor in row-major order.
pub fn buffer<R: CubeRuntime>(tensor: &CubeTensor<R>) -> Buffer<f32> {
    Buffer::new(tensor.handle.clone(), tensor.meta.num_elements())
}

/// One call of an operation on a card, computed in one go, with a backward pass of its own: what [`Kernel`] is to a
/// backend. It is called when the queue is worked off; shapes are asked for when a call is queued.
pub trait CubeKernel<R: CubeRuntime>: Debug + Send + Sync {
    /// Shapes of what [`forward`](Self::forward) computes.
    ///
    /// - inputs: of the operation's inputs
    /// - keep: whether there will be a backward pass
    fn shapes(&self, inputs: &[Shape], keep: bool) -> Vec<Shape>;

    /// The output and, if there will be a backward pass, what that needs beside inputs and output: 32-bit floats in
    /// row-major order.
    fn forward(&self, inputs: &CubeInputs<R>, keep: bool) -> Vec<CubeTensor<R>>;

    /// The gradient of each input, in its shape.
    ///
    /// - computed: as [`forward`](Self::forward) gave it, in row-major order
    /// - gradient: of the output, in row-major order
    /// - wanted: for each input, whether its gradient will be used; what stands in place of one that is not is undefined,
    ///   such as the input itself
    fn backward(
        &self,
        inputs: &CubeInputs<R>,
        computed: &[CubeTensor<R>],
        gradient: CubeTensor<R>,
        wanted: &[bool],
    ) -> Vec<CubeTensor<R>>;
}

/// A kernel whose calls are queued among Burn's own operations.
#[derive(Debug, Clone)]
pub struct Queued<R: CubeRuntime> {
    kernel: Arc<dyn CubeKernel<R>>,
    integers: Vec<Promise<R>>,
}

impl<R: CubeRuntime> Queued<R> {
    /// - integers: tensors the kernel reads beside its float inputs
    pub fn new(kernel: impl CubeKernel<R> + 'static, integers: Vec<Promise<R>>) -> Self {
        Self { kernel: Arc::new(kernel), integers }
    }
}

/// A seed for one call's dropout, drawn on the device from its random stream, so that `B::seed` fixes it and the host need
/// not wait: two numbers below 2^24, for [`Queued::new`].
pub fn seed_on_device<B: ModelBackend>(device: &B::Device) -> IntTensor<B> {
    Tensor::<B, 1, Int>::random([2], Distribution::Uniform(0.0, f64::from(1 << 24)), device).into_primitive()
}

impl<R: CubeRuntime, F: FloatElement, I: IntElement, BT: BoolElement> Kernel<Fusion<CubeBackend<R, F, I, BT>>>
    for Queued<R>
{
    fn takes_seed(&self) -> bool {
        false
    }

    fn forward(
        &self,
        inputs: &[Promise<R>],
        _seed: u64,
        keep: bool,
    ) -> Computed<Fusion<CubeBackend<R, F, I, BT>>> {
        let shapes: Vec<Shape> = inputs.iter().map(|input| input.shape.clone()).collect();
        let shapes = self.kernel.shapes(&shapes, keep);
        let mut computed = self.queue::<F, I, BT>(inputs, Vec::new(), Pass::Forward { keep }, shapes);
        let kept = computed.split_off(1);
        Computed { output: computed.swap_remove(0), kept }
    }

    fn backward(
        &self,
        inputs: &[Promise<R>],
        computed: &Computed<Fusion<CubeBackend<R, F, I, BT>>>,
        gradient: Promise<R>,
        _seed: u64,
        wanted: &[bool],
    ) -> Vec<Promise<R>> {
        let mut further = vec![computed.output.clone()];
        further.extend(computed.kept.iter().cloned());
        further.push(gradient);
        let chosen = inputs.iter().zip(wanted).filter(|(_, wanted)| **wanted);
        let shapes = chosen.map(|(input, _)| input.shape.clone()).collect();
        let pass = Pass::Backward { wanted: wanted.to_vec() };
        let mut gradients = self.queue::<F, I, BT>(inputs, further, pass, shapes).into_iter();
        let gradient = |(input, &wanted): (&Promise<R>, &bool)| {
            let computed = wanted.then(|| gradients.next()).flatten();
            computed.unwrap_or_else(|| input.clone())
        };
        inputs.iter().zip(wanted).map(gradient).collect()
    }
}

impl<R: CubeRuntime> Queued<R> {
    /// - further: what the pass reads beside the operation's inputs
    /// - shapes: of what it computes
    fn queue<F: FloatElement, I: IntElement, BT: BoolElement>(
        &self,
        inputs: &[Promise<R>],
        further: Vec<Promise<R>>,
        pass: Pass,
        shapes: Vec<Shape>,
    ) -> Vec<Promise<R>> {
        let client = inputs[0].client.clone();
        let (n_floats, n_integers) = (inputs.len(), self.integers.len());
        let mut read: Vec<Promise<R>> = inputs.iter().chain(&self.integers).cloned().collect();
        read.extend(further);
        let streams = OperationStreams::with_inputs(&read);
        let read: Vec<TensorIr> = read.into_iter().map(FusionTensor::into_ir).collect();
        let written: Vec<TensorIr> = shapes
            .into_iter()
            .map(|shape| TensorIr::uninit(client.create_empty_handle(), shape, DType::F32))
            .collect();
        let tensors = CustomOpIr::new("cellpatch", &read, &written);
        let kernel = Arc::clone(&self.kernel);
        let call: Call<R, CubeBackend<R, F, I, BT>> =
            Call { kernel, tensors: tensors.clone(), n_floats, n_integers, pass, backend: PhantomData };
        client.register(streams, OperationIr::Custom(tensors), call)
    }
}

#[derive(Debug, Clone)]
enum Pass {
    Forward { keep: bool },
    Backward { wanted: Vec<bool> },
}

/// A pass of a kernel in the queue.
#[derive(Debug)]
struct Call<R: CubeRuntime, B> {
    kernel: Arc<dyn CubeKernel<R>>,
    tensors: CustomOpIr,
    n_floats: usize,
    n_integers: usize,
    pass: Pass,
    backend: PhantomData<B>,
}

impl<R: CubeRuntime, F: FloatElement, I: IntElement, BT: BoolElement> Operation<FusionCubeRuntime<R>>
    for Call<R, CubeBackend<R, F, I, BT>>
{
    fn execute(&self, handles: &mut HandleContainer<FusionHandle<FusionCubeRuntime<R>>>) {
        let mut read = self.tensors.inputs.iter();
        let mut floats = |n: usize| -> Vec<CubeTensor<R>> {
            let float = |tensor| handles.get_float_tensor::<CubeBackend<R, F, I, BT>>(tensor);
            read.by_ref().take(n).map(float).map(into_contiguous).collect()
        };
        let inputs = CubeInputs { floats: floats(self.n_floats), integers: floats(self.n_integers) };
        let written = match &self.pass {
            Pass::Forward { keep } => self.kernel.forward(&inputs, *keep),
            Pass::Backward { wanted } => {
                let mut computed = floats(usize::MAX);
                let Some(gradient) = computed.pop() else { return };
                let gradients = self.kernel.backward(&inputs, &computed, gradient, wanted);
                gradients
                    .into_iter()
                    .zip(wanted)
                    .filter_map(|(gradient, wanted)| wanted.then_some(gradient))
                    .collect()
            }
        };
        for (promise, tensor) in self.tensors.outputs.iter().zip(written) {
            debug_assert_eq!(promise.shape, tensor.shape(), "{:?}", self.kernel);
            handles.register_float_tensor::<CubeBackend<R, F, I, BT>>(&promise.id, tensor);
        }
    }
}

#[cfg(all(test, feature = "wgpu"))]
mod tests;
