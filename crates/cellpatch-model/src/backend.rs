//! The seam between the model and the machine: the operations a backend may answer with kernels of its own.
//!
//! The model calls [`ModelBackend::fused`] and never asks who answers. A backend without kernels answers nothing, and the
//! model does with plain tensor operations. A backend with kernels returns one from [`ModelBackend::kernel`];
//! [`Autodiff`] then records one node whose backward pass is the kernel's own, instead of differentiating the primitive
//! operations of which it is made.

#[cfg(feature = "cube")]
pub mod cube;
pub mod flex;

use std::any::Any;
use std::cell::Cell;
use std::sync::{Arc, OnceLock};

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::ops::{FloatTensor, IntTensor};
use burn::tensor::{Distribution, Int, Tensor, TensorData};

use crate::config::CellPatchConfig;
use crate::operation::{AdamStep, AdamTensors, Computed, Kernel, Operation};
use crate::precision::Precision;
use crate::sent::Sent;
use crate::tokens::{HostTokens, TokenUse};

/// A Burn backend the model runs on.
pub trait ModelBackend: Backend {
    /// Whether the backend differentiates `burn::tensor::activation::gelu` exactly. In Burn 0.21 only the Flex backend
    /// does; the others take the derivative of the tanh approximation, which is off by up to 8e-5.
    const EXACT_GELU_GRADIENT: bool = false;

    /// Whether a block of these sizes writes its attention scores to memory, so that a batch's memory grows with the
    /// square of its lengths. A kernel need not.
    fn stores_scores(_config: &CellPatchConfig) -> bool {
        true
    }

    /// Whether the backend's kernels can store what lies inside a block with this precision on this device.
    fn offers(precision: Precision, _device: &Self::Device) -> bool {
        precision == Precision::F32
    }

    /// The backend's kernel for this call, if it has one.
    ///
    /// - inputs: as the operation says
    fn kernel(
        _operation: &Operation<IntTensor<Self>>,
        _inputs: &[FloatTensor<Self>],
    ) -> Option<Arc<dyn Kernel<Self>>> {
        None
    }

    /// The operation by the backend's kernel; `None` where plain operations must do.
    fn fused<const N: usize>(
        operation: &Operation<IntTensor<Self>>,
        inputs: [FloatTensor<Self>; N],
    ) -> Option<FloatTensor<Self>> {
        let kernel = Self::kernel(operation, &inputs)?;
        let seed = if kernel.takes_seed() { draw_seed::<Self, _>(operation, &inputs) } else { 0 };
        Some(kernel.forward(&inputs, seed, false).output)
    }

    /// Sends numbers to a device ahead of their use, from any thread.
    ///
    /// Until the device has computed all that reads them, somebody must hold them ([`Held`](crate::Held)).
    fn send(numbers: TensorData, _device: &Self::Device) -> Sent {
        Sent::on_host(numbers)
    }

    /// The floats in what [`ModelBackend::send`] put on a device; `None` if another backend did.
    fn take_floats(_sent: &(dyn Any + Send + Sync)) -> Option<FloatTensor<Self>> {
        None
    }

    /// The integers in what [`ModelBackend::send`] put on a device; `None` if another backend did.
    fn take_integers(_sent: &(dyn Any + Send + Sync)) -> Option<IntTensor<Self>> {
        None
    }

    /// Does ahead of its use, on any thread, what the backend's kernels will ask of a batch's tokens. To be held as what is sent.
    ///
    /// - capacity: rows of the gene table
    fn index_ahead(_tokens: &HostTokens, _use: TokenUse<'_>, _capacity: usize, _device: &Self::Device) {}

    /// A step of Adam in one pass over memory: replaces the parameter and its moments. False where plain operations must
    /// do; then nothing is changed.
    fn adam(_step: &AdamStep, _tensors: &mut AdamTensors<Self>) -> bool {
        false
    }
}

#[cfg(feature = "ndarray")]
impl ModelBackend for burn::backend::NdArray {}

impl<B: ModelBackend, C: CheckpointStrategy> ModelBackend for Autodiff<B, C> {
    const EXACT_GELU_GRADIENT: bool = B::EXACT_GELU_GRADIENT;

    fn stores_scores(config: &CellPatchConfig) -> bool {
        B::stores_scores(config)
    }

    fn offers(precision: Precision, device: &Self::Device) -> bool {
        B::offers(precision, device)
    }

    fn send(numbers: TensorData, device: &Self::Device) -> Sent {
        B::send(numbers, device)
    }

    fn take_floats(sent: &(dyn Any + Send + Sync)) -> Option<FloatTensor<Self>> {
        B::take_floats(sent).map(<Self as AutodiffBackend>::from_inner)
    }

    fn take_integers(sent: &(dyn Any + Send + Sync)) -> Option<IntTensor<Self>> {
        B::take_integers(sent)
    }

    fn index_ahead(tokens: &HostTokens, tokens_use: TokenUse<'_>, capacity: usize, device: &Self::Device) {
        B::index_ahead(tokens, tokens_use, capacity, device);
    }

    fn fused<const N: usize>(
        operation: &Operation<IntTensor<Self>>,
        inputs: [FloatTensor<Self>; N],
    ) -> Option<FloatTensor<Self>> {
        let inner = inputs.each_ref().map(|input| input.primitive.clone());
        let kernel = B::kernel(operation, &inner)?;
        let seed = if kernel.takes_seed() { draw_seed::<B, _>(operation, &inner) } else { 0 };
        Some(recorded::<B, C, N>(kernel, inputs, seed))
    }
}

thread_local! {
    static PLAIN: Cell<bool> = const { Cell::new(false) };
}

/// Whether plain operations are asked for: by the environment (`CELLPATCH_KERNELS=off`), to see whether a result is a
/// kernel's, or by [`without_kernels`].
pub fn kernels_are_off() -> bool {
    static OFF: OnceLock<bool> = OnceLock::new();
    PLAIN.get() || *OFF.get_or_init(|| std::env::var("CELLPATCH_KERNELS").is_ok_and(|value| value == "off"))
}

/// What a closure computes by plain operations alone, on this thread: to hold kernels and plain operations together.
///
/// What it records for autodiff is differentiated by plain operations, too, whenever that happens.
pub fn without_kernels<T>(compute: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            PLAIN.set(self.0);
        }
    }
    let _restore = Restore(PLAIN.replace(true));
    compute()
}

/// Runs a kernel and records it as one node, whose backward pass is the kernel's own: for operations that other crates
/// add to the model's.
///
/// - seed: of the call's dropout
pub fn recorded<B: Backend, C: CheckpointStrategy, const N: usize>(
    kernel: Arc<dyn Kernel<B>>,
    inputs: [FloatTensor<Autodiff<B, C>>; N],
    seed: u64,
) -> FloatTensor<Autodiff<B, C>> {
    let inner = inputs.each_ref().map(|input| input.primitive.clone());
    let parents = inputs.map(|input| input.node);
    match KernelBackward.prepare::<C>(parents).compute_bound().stateful() {
        OpsKind::Tracked(step) => {
            let computed = kernel.forward(&inner, seed, true);
            let output = computed.output.clone();
            step.finish(Recorded { kernel, inputs: inner, computed, seed }, output)
        }
        OpsKind::UnTracked(step) => step.finish(kernel.forward(&inner, seed, false).output),
    }
}

#[derive(Debug)]
struct KernelBackward;

#[derive(Debug, Clone)]
struct Recorded<B: Backend, const N: usize> {
    kernel: Arc<dyn Kernel<B>>,
    inputs: [FloatTensor<B>; N],
    computed: Computed<B>,
    seed: u64,
}

impl<B: Backend, const N: usize> Backward<B, N> for KernelBackward {
    type State = Recorded<B, N>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let Recorded { kernel, inputs, computed, seed } = ops.state;
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let gradients = kernel.backward(&inputs, &computed, gradient, seed, &wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

/// A seed for one call's dropout from the device's random stream, so that `B::seed` fixes it.
fn draw_seed<B: Backend, I>(operation: &Operation<I>, inputs: &[FloatTensor<B>]) -> u64 {
    let Some(input) = inputs.first().filter(|_| operation.dropout() > 0.0) else { return 0 };
    let device = B::float_device(input);
    let halves = Tensor::<B, 1, Int>::random([2], Distribution::Uniform(0.0, f64::from(1 << 24)), &device);
    halves.into_data().iter::<i64>().fold(0, |seed, half| (seed << 24) | half as u64)
}
