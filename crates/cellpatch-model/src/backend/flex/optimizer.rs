//! Adam in one pass over memory.

use burn::backend::Flex;
use burn::tensor::DType;
use burn_flex::FlexTensor;
use cellpatch_kernels::adam::adam as update;

use super::{Elements, like};
use crate::operation::{AdamStep, AdamTensors};

/// Updates in place what nobody else holds.
pub(super) fn adam(step: &AdamStep, tensors: &mut AdamTensors<Flex>) -> bool {
    let AdamTensors { parameter, gradient, moment_1, moment_2 } = tensors;
    if [&*parameter, gradient, moment_1, moment_2].iter().any(|tensor| tensor.dtype() != DType::F32) {
        return false;
    }
    for tensor in [&mut *parameter, moment_1, moment_2] {
        own_whole_storage(tensor);
    }
    let gradient = Elements::of(gradient);
    update(step, parameter.storage_mut(), gradient.slice(), moment_1.storage_mut(), moment_2.storage_mut());
    true
}

/// Copies a tensor that is a view: what is updated must be all of its storage, in order.
fn own_whole_storage(tensor: &mut FlexTensor) {
    let n = tensor.layout().shape().num_elements();
    if !tensor.is_contiguous() || tensor.storage::<f32>().len() != n {
        let elements = Elements::of(tensor).slice().to_vec();
        *tensor = like(elements, tensor);
    }
}
