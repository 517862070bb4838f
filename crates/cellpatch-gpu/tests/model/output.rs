//! The output layer, forward and backward.

use cellpatch_gpu::dropout::Seed;
use cellpatch_gpu::memory::{Floats, PaddedRows};
use cellpatch_gpu::output::{OutputLayer, output_backward, output_forward};
use cellpatch_kernels::block::PaddedRows as HostRows;
use cellpatch_kernels::output as cpu;

use crate::device::{apart, client, numbers, read};

#[test]
fn numbers_and_every_gradient_are_the_cpus() {
    let Some(client) = client() else { return };
    for (lengths, padded, width) in
        [(&[1][..], 1, 32), (&[7, 1, 33, 12], 33, 32), (&[5, 40], 41, 12), (&[90; 60], 90, 64)]
    {
        for dropout in [0.0, 0.1, 0.5] {
            let (n_cells, seed) = (lengths.len(), 0x1234_5678_9abc);
            let rows = numbers(n_cells * padded * width, 1, 2.0);
            let (weight, bias) = (numbers(width, 2, 1.0), 0.7);
            let for_output = numbers(n_cells * padded, 3, 1.0);
            let layer = cpu::OutputLayer {
                rows: &rows,
                lengths: HostRows { padded, lengths: Some(lengths) },
                weight: &weight,
                bias,
                dropout,
                seed,
            };
            let mut expected = [vec![0.0; n_cells * padded], vec![0.0; rows.len()], Vec::new(), Vec::new()];
            layer.forward(&mut expected[0]);
            let (for_weight, for_bias) = layer.backward(&for_output, &mut expected[1]);
            (expected[2], expected[3]) = (for_weight, vec![for_bias]);

            let [rows, weight, bias, for_output] =
                [&rows[..], &weight, &[bias], &for_output].map(|floats| Floats::from_slice(&client, floats));
            let layer = OutputLayer {
                n_cells,
                width,
                rows: &rows,
                lengths: &PaddedRows::new(&client, n_cells, padded, Some(lengths)),
                weight: &weight,
                bias: &bias,
                dropout,
                seed: &Seed::new(&client, seed),
            };
            let output = output_forward(&client, &layer);
            let gradients = output_backward(&client, &layer, &for_output);
            let found = [output, gradients.for_rows, gradients.for_weight, gradients.for_bias];
            let names = ["output", "row gradient", "weight gradient", "bias gradient"];
            for ((found, expected), name) in found.iter().zip(&expected).zip(names) {
                let difference = apart(&read(&client, found), expected);
                assert!(difference < 1e-5, "{name} of {lengths:?} without {dropout}: {difference:e}");
            }
        }
    }
}
