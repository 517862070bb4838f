//! The optimizer.

use cellpatch_gpu::adam::{AdamStep, AdamTensors, adam};
use cellpatch_gpu::memory::Floats;
use cellpatch_kernels::adam::adam as on_the_cpu;

use crate::device::{apart, client, numbers, read};

#[test]
fn ten_steps_are_the_cpus() {
    let Some(client) = client() else { return };
    for n in [1, 3, 64, 1021, 4096] {
        let mut expected = [numbers(n, 1, 1.0), vec![0.0; n], vec![0.0; n]];
        let [parameter, moment_1, moment_2] =
            expected.each_ref().map(|floats| Floats::from_slice(&client, floats));
        let mut tensors = AdamTensors { parameter, moment_1, moment_2 };
        for time in 1..=10 {
            let step = AdamStep {
                learning_rate: 1e-2,
                beta_1: 0.9,
                beta_2: 0.999,
                epsilon: 1e-8,
                weight_decay: 5e-2,
                time,
            };
            let gradient = numbers(n, 10 + time as u64, 1.0);
            let [parameter, moment_1, moment_2] = &mut expected;
            on_the_cpu(&step, parameter, &gradient, moment_1, moment_2);
            tensors = adam(&client, &step, n, &tensors, &Floats::from_slice(&client, &gradient));
        }
        let found = [&tensors.parameter, &tensors.moment_1, &tensors.moment_2];
        for (found, expected) in found.map(|floats| read(&client, floats)).iter().zip(&expected) {
            assert!(apart(found, expected) < 1e-6, "{n} elements");
        }
    }
}
