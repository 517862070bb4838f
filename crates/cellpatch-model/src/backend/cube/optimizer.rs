//! Adam in one pass over memory.

use burn::tensor::{Shape, TensorMetadata};
use burn_cubecl::CubeRuntime;
use burn_cubecl::tensor::CubeTensor;
use cellpatch_gpu::adam::{AdamTensors, adam};

use super::floats::{floats, tensor};
use super::{CubeInputs, CubeKernel};
use crate::operation::AdamStep;

/// Of a parameter, its gradient and both moments; to the parameter and both moments. It has no backward pass.
#[derive(Debug)]
pub(super) struct CubeAdam {
    pub(super) step: AdamStep,
}

impl<R: CubeRuntime> CubeKernel<R> for CubeAdam {
    fn shapes(&self, inputs: &[Shape], _keep: bool) -> Vec<Shape> {
        vec![inputs[0].clone(); 3]
    }

    fn forward(&self, inputs: &CubeInputs<R>, _keep: bool) -> Vec<CubeTensor<R>> {
        let parameter = &inputs.floats[0];
        let [before, gradient, moment_1, moment_2] = [0, 1, 2, 3].map(|index| floats(&inputs.floats[index]));
        let tensors = AdamTensors { parameter: before, moment_1, moment_2 };
        let n = parameter.meta.num_elements();
        let updated = adam(&parameter.client, &self.step, n, &tensors, &gradient);
        let floats = [updated.parameter, updated.moment_1, updated.moment_2];
        floats.map(|floats| tensor(parameter, floats, parameter.shape())).into()
    }

    fn backward(
        &self,
        inputs: &CubeInputs<R>,
        _computed: &[CubeTensor<R>],
        _gradient: CubeTensor<R>,
        _wanted: &[bool],
    ) -> Vec<CubeTensor<R>> {
        inputs.floats.clone()
    }
}
