//! Adam in one pass over memory.

pub use cellpatch_kernels::adam::AdamStep;
use cubecl::prelude::*;

use crate::memory::Floats;

/// What a step of Adam works with: floats of one number.
#[derive(Debug, Clone)]
pub struct AdamTensors {
    /// The parameter.
    pub parameter: Floats,
    /// Mean of past gradients.
    pub moment_1: Floats,
    /// Mean of past squared gradients.
    pub moment_2: Floats,
}

/// A step of Adam with coupled L2 (`torch.optim.Adam(weight_decay)`; Kingma and Ba 2015). Every element is read once and
/// written once, to memory of its own: others may hold what was there before.
///
/// - n: elements of each
/// - gradient: of the parameter, stored as it is; moments may be stored otherwise
///
/// # Panics
/// When memory is smaller than stated.
pub fn adam<R: Runtime>(
    client: &ComputeClient<R>,
    step: &AdamStep,
    n: usize,
    tensors: &AdamTensors,
    gradient: &Floats,
) -> AdamTensors {
    let AdamTensors { parameter, moment_1, moment_2 } = tensors;
    let like = |floats: &Floats| Floats::empty(client, n, floats.storage);
    let updated =
        AdamTensors { parameter: like(parameter), moment_1: like(moment_1), moment_2: like(moment_2) };
    let vector = if n.is_multiple_of(4) { 4 } else { 1 };
    let units = n / vector;
    let dim = CubeDim::new(client, units);
    let correction = |beta: f64| 1.0 - beta.powf(step.time as f64);
    let numbers = NumbersLaunch::new(
        (step.learning_rate / correction(step.beta_1)) as f32,
        (1.0 / correction(step.beta_2).sqrt()) as f32,
        step.beta_1 as f32,
        (1.0 - step.beta_1) as f32,
        step.beta_2 as f32,
        (1.0 - step.beta_2) as f32,
        step.epsilon,
        step.weight_decay,
    );
    // SAFETY: sizes are checked against memory, and the kernel stays within them.
    unsafe {
        adam_kernel::launch_unchecked::<R>(
            client,
            cubecl::calculate_cube_count_elemwise(client, units, dim),
            dim,
            vector,
            parameter.argument(n),
            gradient.argument(n),
            moment_1.argument(n),
            moment_2.argument(n),
            updated.parameter.argument(n),
            updated.moment_1.argument(n),
            updated.moment_2.argument(n),
            numbers,
            units as u32,
            [parameter.storage, moment_1.storage],
        );
    }
    updated
}

#[derive(CubeType, CubeLaunch)]
struct Numbers {
    /// Step size over the first moment's correction.
    rate: f32,
    /// Inverse root of the second moment's correction.
    inverse_root: f32,
    old_1: f32,
    new_1: f32,
    old_2: f32,
    new_2: f32,
    epsilon: f32,
    weight_decay: f32,
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "a kernel's bindings")]
fn adam_kernel<F: Float, G: Float, N: Size>(
    parameter: &Array<Vector<F, N>>,
    gradient: &Array<Vector<F, N>>,
    moment_1: &Array<Vector<G, N>>,
    moment_2: &Array<Vector<G, N>>,
    new_parameter: &mut Array<Vector<F, N>>,
    new_moment_1: &mut Array<Vector<G, N>>,
    new_moment_2: &mut Array<Vector<G, N>>,
    numbers: &Numbers,
    n_units: u32,
    #[define(F, G)] _storage: [StorageType; 2],
) {
    let position = ABSOLUTE_POS;
    if position < n_units as usize {
        let weight = Vector::<f32, N>::cast_from(parameter[position]);
        let pull =
            Vector::<f32, N>::cast_from(gradient[position]) + weight * Vector::new(numbers.weight_decay);
        let mean = Vector::<f32, N>::cast_from(moment_1[position]) * Vector::new(numbers.old_1)
            + pull * Vector::new(numbers.new_1);
        let square = Vector::<f32, N>::cast_from(moment_2[position]) * Vector::new(numbers.old_2)
            + pull * pull * Vector::new(numbers.new_2);
        let root = square.sqrt() * Vector::new(numbers.inverse_root) + Vector::new(numbers.epsilon);
        let moved = weight - mean * Vector::new(numbers.rate) / root;
        new_parameter[position] = Vector::cast_from(moved);
        new_moment_1[position] = Vector::cast_from(mean);
        new_moment_2[position] = Vector::cast_from(square);
    }
}
