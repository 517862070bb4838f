//! Adam in one pass over memory.

use burn::backend::Flex;
use burn::tensor::DType;
use cellpatch_kernels::adam::adam as update;

use super::Elements;
use crate::operation::{AdamStep, AdamTensors};

/// Updates in place what nobody else holds.
pub(super) fn adam(
    step: &AdamStep,
    tensors: AdamTensors<Flex>,
) -> Result<AdamTensors<Flex>, AdamTensors<Flex>> {
    let AdamTensors { parameter, gradient, moment_1, moment_2 } = &tensors;
    if [parameter, gradient, moment_1, moment_2].iter().any(|tensor| tensor.dtype() != DType::F32) {
        return Err(tensors);
    }
    let gradient = Elements::of(gradient);
    let AdamTensors { parameter, moment_1, moment_2, .. } = tensors;
    let whole = |tensor: burn_flex::FlexTensor| {
        let n = tensor.layout().shape().num_elements();
        // A contiguous part of a larger storage is copied, too: what is updated must be the whole storage.
        if tensor.is_contiguous() && tensor.storage::<f32>().len() == n {
            tensor
        } else {
            let elements = Elements::of(&tensor).slice().to_vec();
            super::like(elements, &tensor)
        }
    };
    let (mut parameter, mut moment_1, mut moment_2) = (whole(parameter), whole(moment_1), whole(moment_2));
    update(&step, parameter.storage_mut(), gradient.slice(), moment_1.storage_mut(), moment_2.storage_mut());
    Ok(AdamTensors { parameter, gradient: gradient.0, moment_1, moment_2 })
}
