//! Products of matrices with 32-bit floats throughout, whatever tensor cores a card has.

use burn::tensor::{DType, Shape, TensorMetadata};
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::{Strategy, launch_ref};
use cubek::matmul::routines::BlueprintStrategy;
use cubek::std::InputBinding;

use super::{CubeInputs, CubeKernel};

/// Matrices of the last two dimensions; those before them are alike.
#[derive(Debug)]
pub(super) struct CubeProduct;

/// A matrix, or its transpose, as a factor.
struct Factor<'a, R: CubeRuntime> {
    tensor: &'a CubeTensor<R>,
    transposed: bool,
}

impl<R: CubeRuntime> Factor<'_, R> {
    fn shape(&self) -> Vec<usize> {
        let mut shape = self.tensor.shape().to_vec();
        if self.transposed {
            let rank = shape.len();
            shape.swap(rank - 2, rank - 1);
        }
        shape
    }

    fn binding(&self) -> InputBinding<R> {
        let rank = self.tensor.shape().num_dims();
        let mut binding = InputBinding::new(self.tensor.clone().binding(), DType::F32.into());
        if self.transposed {
            binding.swap_dims(rank - 2, rank - 1);
        }
        binding
    }
}

fn multiply<R: CubeRuntime>(left: &Factor<'_, R>, right: &Factor<'_, R>) -> CubeTensor<R> {
    let CubeTensor { client, device, .. } = left.tensor;
    let shape = product_shape(&left.shape(), &right.shape());
    let bytes = shape.num_elements().max(1) * size_of::<f32>();
    let output =
        CubeTensor::new_contiguous(client.clone(), device.clone(), shape, client.empty(bytes), DType::F32);
    if output.shape().num_elements() == 0 {
        return output;
    }
    let float = DType::F32.into();
    let floats = MatmulGlobalElems { lhs: float, rhs: float, out: float };
    let launch = |strategy: &Strategy| {
        let mut floats = MatmulElems::from_globals(&floats);
        launch_ref(strategy, client, left.binding(), right.binding(), output.clone().binding(), &mut floats)
    };
    // Both compute by units, not by tensor cores; the second serves every shape.
    let launched = launch(&Strategy::SimpleUnit(BlueprintStrategy::Inferred(Default::default())))
        .or_else(|_| launch(&Strategy::Naive));
    assert!(launched.is_ok(), "no product of {:?} and {:?}: {launched:?}", left.shape(), right.shape());
    output
}

fn product_shape(left: &[usize], right: &[usize]) -> Shape {
    let (mut shape, rank) = (left.to_vec(), left.len());
    shape[rank - 1] = right[rank - 1];
    Shape::from(shape)
}

impl<R: CubeRuntime> CubeKernel<R> for CubeProduct {
    fn shapes(&self, inputs: &[Shape], _keep: bool) -> Vec<Shape> {
        vec![product_shape(&inputs[0], &inputs[1])]
    }

    fn forward(&self, inputs: &CubeInputs<R>, _keep: bool) -> Vec<CubeTensor<R>> {
        let [left, right] = [0, 1].map(|index| Factor { tensor: &inputs.floats[index], transposed: false });
        vec![multiply(&left, &right)]
    }

    fn backward(
        &self,
        inputs: &CubeInputs<R>,
        _computed: &[CubeTensor<R>],
        gradient: CubeTensor<R>,
        wanted: &[bool],
    ) -> Vec<CubeTensor<R>> {
        let [left, right] = [0, 1].map(|index| Factor { tensor: &inputs.floats[index], transposed: true });
        let gradient = Factor { tensor: &gradient, transposed: false };
        let computed = |index: usize, multiply: &dyn Fn() -> CubeTensor<R>| {
            if wanted[index] { multiply() } else { inputs.floats[index].clone() }
        };
        vec![computed(0, &|| multiply(&gradient, &right)), computed(1, &|| multiply(&left, &gradient))]
    }
}
