//! The kernels against plain operations, and against themselves: attention alone here, the whole model in `model`.

use burn::backend::Autodiff;
use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, Tensor};
use cellpatch_kernels::Instructions;

use super::*;
use crate::attention::{plain, ragged_attention};
use crate::operation::AttentionSpec;

mod model;

type Learning = Autodiff<Flex>;

/// Random query, key, value and gradient of the output, of one batch.
struct Batch {
    tensors: [Tensor<Learning, 3>; 3],
    cotangent: Tensor<Learning, 3>,
    spec: AttentionSpec,
}

impl Batch {
    fn random(queries: &[usize], keys: &[usize], head_dim: usize, shared_query: bool) -> Self {
        let (query_lengths, key_lengths) =
            (GeneLengths::new(queries.to_vec()), GeneLengths::new(keys.to_vec()));
        let (n_cells, d) = (keys.len(), 2 * head_dim);
        let random = |cells, rows, spread| {
            let shape = [cells, rows, d];
            Tensor::random(shape, Distribution::Normal(0.0, spread), &Default::default()).require_grad()
        };
        let n_query_cells = if shared_query { 1 } else { n_cells };
        let (n_queries, n_keys) = (query_lengths.longest(), key_lengths.longest());
        Self {
            tensors: [
                random(n_query_cells, n_queries, 2.0),
                random(n_cells, n_keys, 2.0),
                random(n_cells, n_keys, 1.0),
            ],
            cotangent: random(n_cells, n_queries, 1.0).detach(),
            spec: AttentionSpec {
                n_heads: 2,
                query_lengths: (!shared_query).then_some(query_lengths),
                key_lengths: Some(key_lengths),
                dropout: 0.0,
            },
        }
    }

    /// Output, and gradients of query, key and value.
    fn run(
        &self,
        attention: impl Fn([Tensor<Learning, 3>; 3], &AttentionSpec) -> Tensor<Learning, 3>,
    ) -> [Vec<f32>; 4] {
        let output = attention(self.tensors.clone(), &self.spec);
        let gradients = (output.clone() * self.cotangent.clone()).sum().backward();
        let [query, key, value] = &self.tensors;
        let gradient =
            |tensor: &Tensor<Learning, 3>| tensor.grad(&gradients).unwrap().into_data().to_vec().unwrap();
        [output.into_data().to_vec().unwrap(), gradient(query), gradient(key), gradient(value)]
    }
}

fn fused([query, key, value]: [Tensor<Learning, 3>; 3], spec: &AttentionSpec) -> Tensor<Learning, 3> {
    ragged_attention(query, key, value, spec)
}

fn plain_operations(
    [query, key, value]: [Tensor<Learning, 3>; 3],
    spec: &AttentionSpec,
) -> Tensor<Learning, 3> {
    plain::attention(query, key, value, spec).output
}

/// Largest difference, relative to the largest element, or to 1, the spread of what goes in, where all are small: the
/// gradient of a softmax over one key is 0, and rounding leaves what it will.
fn relative_difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(1.0_f32, |largest, element| largest.max(element.abs()));
    let differences = found.iter().zip(expected).map(|(found, expected)| (found - expected).abs());
    differences.fold(0.0_f32, |most, difference| if difference <= most { most } else { difference }) / largest
}

fn in_pool<T: Send>(n_threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap().install(work)
}

#[test]
fn it_is_the_plain_attention_with_every_gradient() {
    Flex::seed(&Default::default(), 1);
    let ragged: [(&[usize], &[usize]); 6] = [
        (&[1], &[1]),
        (&[5, 1, 64, 63], &[1, 64, 65, 200]),
        (&[3, 0, 7], &[0, 1, 129]),
        (&[17; 3], &[128; 3]),
        (&[300, 12], &[300, 12]),
        (&[64; 5], &[1000, 1, 999, 500, 3]),
    ];
    for (queries, keys) in ragged {
        for head_dim in [8, 16, 32] {
            for shared_query in [false, true] {
                let batch = Batch::random(queries, keys, head_dim, shared_query);
                let names = ["output", "query gradient", "key gradient", "value gradient"];
                for ((found, expected), name) in
                    batch.run(fused).iter().zip(&batch.run(plain_operations)).zip(names)
                {
                    let difference = relative_difference(found, expected);
                    assert!(difference < 1e-5, "{name} {queries:?} {keys:?} {head_dim}: {difference:e}");
                }
            }
        }
    }
}

#[test]
fn head_dimensions_without_a_kernel_are_left_to_plain_operations() {
    let batch = Batch::random(&[3, 2], &[4, 9], 5, false);
    assert_eq!(batch.run(fused), batch.run(plain_operations));
}

#[test]
fn every_processor_computes_it() {
    let batch = Batch::random(&[40, 7], &[130, 64], 16, false);
    let inputs = batch.tensors.clone().map(|tensor| tensor.inner().into_primitive().tensor());
    let cotangent: FlexTensor = batch.cotangent.clone().inner().into_primitive().tensor();
    let run = |instructions| {
        let spec = AttentionSpec { dropout: 0.2, ..batch.spec.clone() };
        let kernel = attention::FlexAttention { spec, instructions };
        let computed = kernel.forward(&inputs, 5, true);
        let mut results = kernel.backward(&inputs, &computed, cotangent.clone(), 5, &[true; 3]);
        results.push(computed.output);
        results.into_iter().map(|tensor| tensor.storage().to_vec()).collect::<Vec<Vec<f32>>>()
    };
    let widest = run(Instructions::detect());
    for instructions in Instructions::available() {
        for (found, expected) in run(instructions).iter().zip(&widest) {
            assert!(relative_difference(found, expected) < 1e-5, "{instructions:?}");
        }
    }
}

#[test]
fn a_slice_of_a_wider_tensor_is_taken_as_it_is() {
    let wide = Tensor::<Flex, 3>::random([3, 50, 96], Distribution::Default, &Default::default());
    let part = |index: usize| wide.clone().slice([0..3, 0..50, 32 * index..32 * (index + 1)]);
    let spec = AttentionSpec { n_heads: 2, query_lengths: None, key_lengths: None, dropout: 0.0 };
    let attention =
        |[query, key, value]: [Tensor<Flex, 3>; 3]| ragged_attention(query, key, value, &spec).into_data();
    let copied = |index| Tensor::<Flex, 3>::from_data(part(index).into_data(), &Default::default());
    assert_eq!(attention([part(0), part(1), part(2)]), attention([copied(0), copied(1), copied(2)]));
}

#[test]
fn the_number_of_threads_changes_no_bit_even_with_dropout() {
    let mut batch = Batch::random(&[64; 9], &[300, 5, 64, 1, 77, 128, 200, 0, 250], 16, true);
    batch.spec.dropout = 0.1;
    let run = |n_threads| {
        Flex::seed(&Default::default(), 11);
        in_pool(n_threads, || batch.run(fused))
    };
    let one = run(1);
    for n_threads in [2, 3, 7] {
        assert_eq!(one, run(n_threads), "{n_threads} threads");
    }
    Flex::seed(&Default::default(), 12);
    assert_ne!(one, batch.run(fused), "another seed drops other weights");
}

#[test]
fn gradients_under_dropout_are_those_of_the_function_that_was_computed() {
    let mut batch = Batch::random(&[6, 3], &[70, 9], 16, false);
    batch.spec.dropout = 0.3;
    let loss = |tensors: [Tensor<Learning, 3>; 3]| -> f64 {
        Flex::seed(&Default::default(), 3);
        let output = fused(tensors, &batch.spec) * batch.cotangent.clone();
        output.into_data().iter::<f32>().map(f64::from).sum()
    };
    Flex::seed(&Default::default(), 3);
    let [_, for_query, for_key, for_value] = batch.run(fused);
    for (which, gradient) in [for_query, for_key, for_value].iter().enumerate() {
        let shape = batch.tensors[which].dims();
        let direction =
            Tensor::<Learning, 3>::random(shape, Distribution::Normal(0.0, 1.0), &Default::default());
        let step = 1e-3;
        let moved = |sign: f64| {
            let mut tensors = batch.tensors.clone();
            tensors[which] = tensors[which].clone() + direction.clone() * (sign * step);
            loss(tensors)
        };
        let slope = (moved(1.0) - moved(-1.0)) / (2.0 * step);
        let direction: Vec<f32> = direction.into_data().to_vec().unwrap();
        let expected: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
        // Single precision leaves about 1e-6 / step of noise in the difference quotient.
        assert!(
            (slope - expected).abs() < 5e-3 * (1.0 + expected.abs()),
            "tensor {which}: {slope} {expected}"
        );
    }
}

#[test]
fn dropout_keeps_the_expected_output() {
    let mut batch = Batch::random(&[8; 2], &[50; 2], 16, false);
    let expected = batch.run(fused)[0].clone();
    batch.spec.dropout = 0.1;
    let n_draws = 4000;
    let mut mean = vec![0.0; expected.len()];
    Flex::seed(&Default::default(), 21);
    for _ in 0..n_draws {
        let output: Vec<f32> = fused(batch.tensors.clone(), &batch.spec).into_data().to_vec().unwrap();
        for (mean, element) in mean.iter_mut().zip(output) {
            *mean += element / n_draws as f32;
        }
    }
    // An output's standard deviation is at most sqrt(0.1 / 0.9) times the largest value, about 1.2 here.
    let largest = expected.iter().zip(&mean).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(largest < 5.0 * 1.2 / (n_draws as f32).sqrt(), "{largest}");
}

#[test]
fn what_is_not_a_number_stays_visible() {
    for poisoned in 0..3 {
        let mut batch = Batch::random(&[4], &[70], 16, false);
        batch.tensors[poisoned] = batch.tensors[poisoned].clone() * f32::NAN;
        let output = fused(batch.tensors, &batch.spec).into_data();
        assert!(output.iter::<f32>().all(|element| element.is_nan()));
    }
}
