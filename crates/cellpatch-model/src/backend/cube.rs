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
mod output;
mod product;

use std::any::Any;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use burn::tensor::ops::{FloatTensor, FloatTensorOps, IntTensor, IntTensorOps};
use burn::tensor::{DType, Distribution, Int, Shape, Tensor, TensorData, TensorMetadata};
use burn_cubecl::fusion::FusionCubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement};
use burn_fusion::stream::{Operation, OperationStreams};
use burn_fusion::{Fusion, FusionHandle, FusionTensor, NoOp, get_client};
use burn_ir::{BackendIr, CustomOpIr, HandleContainer, InitOperationIr, OperationIr, TensorIr};
use cellpatch_gpu::ahead::on_stream_of_copies;
use cellpatch_gpu::buffer::Buffer;

use self::attention::CubeAttention;
use self::block::{CubeBlock, EXPAND, Reads};
use self::genes::{CubeEmbedding, Tokens, index_ahead};
use self::optimizer::CubeAdam;
use self::output::CubeOutputLayer;
use self::product::CubeProduct;
use super::{ModelBackend, kernels_are_off};
use crate::config::{CellPatchConfig, ExpressionEmbedding};
use crate::operation::{AdamStep, AdamTensors, AttentionSpec, Computed, Kernel, Operation as ModelOperation};
use crate::precision::{Precision, precision};
use crate::sent::Sent;
use crate::tokens::{HostTokens, TokenUse};

impl<R: CubeRuntime, F: FloatElement, I: IntElement, BT: BoolElement> ModelBackend
    for Fusion<CubeBackend<R, F, I, BT>>
{
    fn stores_scores(config: &CellPatchConfig) -> bool {
        kernels_are_off() || !cellpatch_gpu::attention::is_known(config.embedding_dim, config.n_heads)
    }

    fn offers(precision: Precision, device: &Self::Device) -> bool {
        let stores = || cellpatch_gpu::memory::stores(&R::client(device), stored(precision).into());
        precision == Precision::F32 || (!kernels_are_off() && stores())
    }

    fn kernel(
        operation: &ModelOperation<IntTensor<Self>>,
        inputs: &[FloatTensor<Self>],
    ) -> Option<Arc<dyn Kernel<Self>>> {
        // Not a kernel of the model's: plain operations use it, too.
        if matches!(operation, ModelOperation::Product) {
            let float = |input: &Promise<R>| input.dtype == DType::F32;
            let kernel = || Arc::new(Queued::new(CubeProduct, Vec::new())) as Arc<dyn Kernel<Self>>;
            return inputs.iter().all(float).then(kernel);
        }
        if !serves(inputs) {
            return None;
        }
        let device = inputs[0].client.device();
        // Behind the integers a kernel reads beside its seed.
        let seeded = |mut integers: Vec<Promise<R>>| {
            integers.extend((operation.dropout() > 0.0).then(|| seed_on_device::<Self>(device)));
            integers
        };
        let client = R::client(device);
        let block = |spec: &AttentionSpec, reads: Reads, integers: Vec<Promise<R>>| {
            let [d, mlp] = inputs[reads.n_inputs() + EXPAND].shape.dims();
            let kernel = CubeBlock { spec: spec.clone(), reads, between: stored(precision()) };
            cellpatch_gpu::block::serves(&client, d, spec.n_heads, mlp)
                .then(|| Queued::new(kernel, seeded(integers)))
        };
        let queued = match operation {
            ModelOperation::Attention(spec) => {
                let [_, _, width] = inputs[1].shape.dims();
                cellpatch_gpu::attention::serves(&client, width, spec.n_heads)
                    .then(|| Queued::new(CubeAttention { spec: spec.clone() }, seeded(Vec::new())))
            }
            ModelOperation::CrossBlock(spec) => block(spec, Reads::Memory, Vec::new()),
            ModelOperation::SelfBlock(spec) => block(spec, Reads::Itself, Vec::new()),
            ModelOperation::GeneBlock { attention, genes, expression: ExpressionEmbedding::Continuous }
                if genes.tensor.dtype == DType::I32 =>
            {
                block(attention, Reads::Genes(Tokens::of(genes)), vec![genes.tensor.clone()])
            }
            // Bins are embedded by Burn's own operations.
            ModelOperation::GeneBlock { .. } | ModelOperation::Product => None,
            ModelOperation::EmbedGenes { genes } => {
                let [_, d] = inputs[0].shape.dims();
                let kernel = CubeEmbedding { tokens: Tokens::of(genes) };
                (genes.tensor.dtype == DType::I32 && d.is_multiple_of(4))
                    .then(|| Queued::new(kernel, vec![genes.tensor.clone()]))
            }
            ModelOperation::OutputLayer { lengths, dropout } => {
                let [_, _, width] = inputs[0].shape.dims();
                let kernel = CubeOutputLayer { lengths: lengths.clone(), dropout: *dropout };
                cellpatch_gpu::output::serves(&client, width).then(|| Queued::new(kernel, seeded(Vec::new())))
            }
        };
        queued.map(|queued| Arc::new(queued) as Arc<dyn Kernel<Self>>)
    }

    fn send(numbers: TensorData, device: &Self::Device) -> Sent {
        Sent::on_device(on_stream_of_copies(|| match numbers.dtype {
            DType::I32 => CubeBackend::<R, F, I, BT>::int_from_data(numbers, device),
            _ => CubeBackend::<R, F, I, BT>::float_from_data(numbers, device),
        }))
    }

    fn take_floats(sent: &(dyn Any + Send + Sync)) -> Option<FloatTensor<Self>> {
        taken::<R, F, I, BT>(sent)
    }

    fn take_integers(sent: &(dyn Any + Send + Sync)) -> Option<IntTensor<Self>> {
        taken::<R, F, I, BT>(sent)
    }

    fn index_ahead(tokens: &HostTokens, tokens_use: TokenUse<'_>, capacity: usize, device: &Self::Device) {
        index_ahead::<R>(tokens, tokens_use, capacity, device);
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

/// What was sent, as a tensor of the thread that takes it.
fn taken<R: CubeRuntime, F: FloatElement, I: IntElement, BT: BoolElement>(
    sent: &(dyn Any + Send + Sync),
) -> Option<Promise<R>> {
    let tensor = sent.downcast_ref::<CubeTensor<R>>()?;
    let client = get_client::<CubeBackend<R, F, I, BT>>(&tensor.device);
    let handle = CubeBackend::<R, F, I, BT>::float_tensor_handle(tensor.clone());
    let new = || client.register_tensor_handle(handle);
    let operation = OperationIr::Init(InitOperationIr::create(tensor.shape(), tensor.dtype, new));
    let nothing = NoOp::<CubeBackend<R, F, I, BT>>::new();
    client.register(OperationStreams::default(), operation, nothing).pop()
}

/// The floats of a precision.
fn stored(precision: Precision) -> DType {
    match precision {
        Precision::F32 => DType::F32,
        Precision::Bf16 => DType::BF16,
        Precision::F16 => DType::F16,
    }
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

    /// How what [`forward`](Self::forward) computes is stored; the output has 32 bits.
    ///
    /// - computed: which of them
    fn dtype(&self, _computed: usize) -> DType {
        DType::F32
    }

    /// The output and, if there will be a backward pass, what that needs beside inputs and output, in row-major order.
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
        let shapes = self.kernel.shapes(&shapes, keep).into_iter().enumerate();
        let results = shapes.map(|(index, shape)| (shape, self.kernel.dtype(index))).collect();
        let mut computed = self.queue::<F, I, BT>(inputs, Vec::new(), Pass::Forward { keep }, results);
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
        let results = chosen.map(|(input, _)| (input.shape.clone(), DType::F32)).collect();
        let pass = Pass::Backward { wanted: wanted.to_vec() };
        let mut gradients = self.queue::<F, I, BT>(inputs, further, pass, results).into_iter();
        let gradient = |(input, &wanted): (&Promise<R>, &bool)| {
            let computed = wanted.then(|| gradients.next()).flatten();
            computed.unwrap_or_else(|| input.clone())
        };
        inputs.iter().zip(wanted).map(gradient).collect()
    }
}

impl<R: CubeRuntime> Queued<R> {
    /// - further: what the pass reads beside the operation's inputs
    /// - results: shapes of what it computes, and how that is stored
    fn queue<F: FloatElement, I: IntElement, BT: BoolElement>(
        &self,
        inputs: &[Promise<R>],
        further: Vec<Promise<R>>,
        pass: Pass,
        results: Vec<(Shape, DType)>,
    ) -> Vec<Promise<R>> {
        let client = inputs[0].client.clone();
        let (n_floats, n_integers) = (inputs.len(), self.integers.len());
        let mut read: Vec<Promise<R>> = inputs.iter().chain(&self.integers).cloned().collect();
        read.extend(further);
        let streams = OperationStreams::with_inputs(&read);
        let read: Vec<TensorIr> = read.into_iter().map(FusionTensor::into_ir).collect();
        let written: Vec<TensorIr> = results
            .into_iter()
            .map(|(shape, dtype)| TensorIr::uninit(client.create_empty_handle(), shape, dtype))
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
            debug_assert_eq!(
                (&promise.shape, promise.dtype),
                (&tensor.shape(), tensor.dtype),
                "{:?}",
                self.kernel
            );
            handles.register_float_tensor::<CubeBackend<R, F, I, BT>>(&promise.id, tensor);
        }
    }
}

#[cfg(all(test, feature = "wgpu"))]
mod tests;
