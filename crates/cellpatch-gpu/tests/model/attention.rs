//! Attention, forward and backward.

use cellpatch_gpu::attention::{AttentionGradient, AttentionInput, attention_backward, attention_forward};
use cellpatch_gpu::dropout::Seed;
use cellpatch_gpu::memory::{Floats, PaddedRows};
use cellpatch_kernels::Instructions;
use cellpatch_kernels::attention as cpu;
use cellpatch_kernels::block::PaddedRows as HostRows;
use cubecl::prelude::*;
use half::{bf16, f16};

use crate::device::{Client, apart, client, numbers, read};

/// One batch on the host.
struct Batch {
    n_heads: usize,
    width: usize,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    for_output: Vec<f32>,
    query_lengths: Option<Vec<usize>>,
    key_lengths: Vec<usize>,
    dropout: f64,
    seed: u64,
}

fn longest(lengths: &[usize]) -> usize {
    lengths.iter().copied().max().unwrap_or(0).max(1)
}

impl Batch {
    /// `query_lengths` of one number: all cells ask the same queries.
    fn new(query_lengths: &[usize], key_lengths: &[usize], n_heads: usize, head_dim: usize) -> Self {
        let (n_cells, width) = (key_lengths.len(), n_heads * head_dim);
        let shared = query_lengths.len() == 1 && n_cells > 1;
        let (n_queries, n_keys) = (longest(query_lengths), longest(key_lengths));
        Self {
            n_heads,
            width,
            queries: numbers(query_lengths.len() * n_queries * width, 1, 3.0),
            keys: numbers(n_cells * n_keys * width, 2, 3.0),
            values: numbers(n_cells * n_keys * width, 3, 2.0),
            for_output: numbers(n_cells * n_queries * width, 4, 2.0),
            query_lengths: (!shared).then(|| query_lengths.to_vec()),
            key_lengths: key_lengths.to_vec(),
            dropout: 0.0,
            seed: 0x5678_9abc_def1,
        }
    }

    fn n_cells(&self) -> usize {
        self.key_lengths.len()
    }

    fn n_keys(&self) -> usize {
        longest(&self.key_lengths)
    }

    fn n_queries(&self) -> usize {
        self.for_output.len() / self.n_cells() / self.width
    }

    /// Output, and gradients of queries, keys and values, on the CPU.
    fn on_the_cpu(&self) -> [Vec<f32>; 4] {
        let input = cpu::AttentionInput {
            n_cells: self.n_cells(),
            n_heads: self.n_heads,
            width: self.width,
            queries: &self.queries,
            query_rows: HostRows { padded: self.n_queries(), lengths: self.query_lengths.as_deref() },
            keys: &self.keys,
            values: &self.values,
            key_rows: HostRows { padded: self.n_keys(), lengths: Some(&self.key_lengths) },
            dropout: self.dropout,
            seed: self.seed,
        };
        let instructions =
            Instructions::available().into_iter().find(|&found| input.is_served_by(found)).unwrap();
        let mut output = vec![0.0; self.for_output.len()];
        let mut log_sum_exp = vec![0.0; self.n_cells() * self.n_heads * self.n_queries()];
        cpu::attention_forward(&input, &mut output, &mut log_sum_exp, instructions);
        let mut for_queries = vec![0.0; self.queries.len()];
        let [mut for_keys, mut for_values] = [0; 2].map(|_| vec![0.0; self.keys.len()]);
        let gradient = cpu::AttentionGradient {
            output: &output,
            log_sum_exp: &log_sum_exp,
            for_output: &self.for_output,
            for_queries: &mut for_queries,
            for_keys: &mut for_keys,
            for_values: &mut for_values,
        };
        cpu::attention_backward(&input, gradient, instructions);
        [output, for_queries, for_keys, for_values]
    }

    /// The same on the device.
    fn on_the_device(&self, client: &Client) -> [Vec<f32>; 4] {
        self.stored(client, &|floats| Floats::from_slice(client, floats)).map(|floats| read(client, &floats))
    }

    /// The same on the device, stored there as one likes.
    fn stored(&self, client: &Client, store: &dyn Fn(&[f32]) -> Floats) -> [Floats; 4] {
        let [queries, keys, values, for_output] =
            [&self.queries, &self.keys, &self.values, &self.for_output].map(|floats| store(floats));
        let input = AttentionInput {
            n_cells: self.n_cells(),
            n_heads: self.n_heads,
            width: self.width,
            queries: &queries,
            queries_are_shared: self.query_lengths.is_none(),
            query_rows: &PaddedRows::new(
                client,
                self.n_cells(),
                self.n_queries(),
                self.query_lengths.as_deref(),
            ),
            keys: &keys,
            values: &values,
            genes: None,
            key_rows: &PaddedRows::new(client, self.n_cells(), self.n_keys(), Some(&self.key_lengths)),
            dropout: self.dropout,
            seed: &Seed::new(client, self.seed),
        };
        let computed = attention_forward(client, &input);
        let gradient = AttentionGradient { computed: &computed, for_output: &for_output };
        let gradients = attention_backward(client, &input, &gradient);
        [computed.output, gradients.for_queries, gradients.for_keys, gradients.for_values]
    }

    fn check(&self, client: &Client, what: &str) {
        self.check_within(client, what, 2e-5);
    }

    fn check_within(&self, client: &Client, what: &str, tolerance: f32) {
        let names = ["output", "query gradient", "key gradient", "value gradient"];
        let (found, expected) = (self.on_the_device(client), self.on_the_cpu());
        for ((found, expected), name) in found.iter().zip(&expected).zip(names) {
            let difference = apart(found, expected);
            assert!(difference < tolerance, "{name}, {what}: {difference:e}");
        }
    }
}

/// Queries and keys of each cell; one number of queries for all cells that ask the same.
const RAGGED: [(&[usize], &[usize]); 5] = [
    (&[1], &[1]),
    (&[5, 1, 33, 32], &[1, 32, 33, 97]),
    (&[3, 0, 7], &[0, 1, 129]),
    (&[40], &[70, 0, 128, 9]),
    (&[65, 12], &[65, 12]),
];

#[test]
fn attention_is_the_cpus_with_every_gradient() {
    let Some(client) = client() else { return };
    for (queries, keys) in RAGGED {
        Batch::new(queries, keys, 2, 16).check(&client, &format!("{queries:?} {keys:?}"));
    }
}

#[test]
fn other_heads_are_served_too() {
    let Some(client) = client() else { return };
    for (n_heads, head_dim) in [(4, 8), (1, 32), (3, 16)] {
        let batch = Batch::new(&[3, 34], &[35, 2], n_heads, head_dim);
        batch.check(&client, &format!("{n_heads} heads of {head_dim}"));
    }
}

#[test]
fn what_is_dropped_is_what_the_cpu_drops() {
    let Some(client) = client() else { return };
    for (queries, keys) in RAGGED {
        let mut batch = Batch::new(queries, keys, 2, 16);
        for dropout in [0.1, 0.5] {
            batch.dropout = dropout;
            batch.check(&client, &format!("{queries:?} {keys:?} without {dropout}"));
        }
    }
}

#[test]
fn a_cell_attends_the_same_whatever_its_batch() {
    let Some(client) = client() else { return };
    let alone = Batch::new(&[7], &[50], 2, 16);
    let mut crowd = Batch::new(&[7, 90], &[50, 131], 2, 16);
    let copy = |from: &[f32], into: &mut [f32]| into[..from.len()].copy_from_slice(from);
    copy(&alone.queries, &mut crowd.queries);
    copy(&alone.keys, &mut crowd.keys);
    copy(&alone.values, &mut crowd.values);
    copy(&alone.for_output, &mut crowd.for_output);
    for (alone, crowd) in alone.on_the_device(&client).iter().zip(crowd.on_the_device(&client)) {
        assert_eq!(alone[..], crowd[..alone.len()]);
    }
}

#[test]
fn padding_has_no_output_and_no_gradient_even_where_it_is_no_number() {
    let Some(client) = client() else { return };
    let mut batch = Batch::new(&[3, 5], &[2, 40], 2, 16);
    let width = batch.width;
    batch.queries[3 * width..5 * width].fill(f32::NAN);
    batch.for_output[3 * width..5 * width].fill(f32::NAN);
    batch.keys[2 * width..40 * width].fill(f32::NAN);
    batch.values[2 * width..40 * width].fill(f32::NAN);
    let [output, for_queries, for_keys, for_values] = batch.on_the_device(&client);
    for (rows, n, padded) in [(output, 3, 5), (for_queries, 3, 5), (for_keys, 2, 40), (for_values, 2, 40)] {
        assert!(rows.iter().all(|element| element.is_finite()));
        assert!(rows[n * width..padded * width].iter().all(|&element| element == 0.0));
    }
}

#[test]
fn high_scores_do_not_overflow_and_no_number_stays_visible() {
    let Some(client) = client() else { return };
    let mut batch = Batch::new(&[4], &[70], 2, 16);
    batch.queries.iter_mut().for_each(|element| *element *= 30.0);
    // A score of 500 is rounded by 3e-5, and so is the logarithm of its weight.
    batch.check_within(&client, "scores of hundreds", 2e-4);
    batch.values.fill(f32::NAN);
    assert!(batch.on_the_device(&client)[0].iter().all(|element| element.is_nan()));
}

#[test]
fn the_same_call_gives_the_same_bits() {
    let Some(client) = client() else { return };
    let mut batch = Batch::new(&[40], &[70, 0, 128, 9], 2, 16);
    batch.dropout = 0.2;
    assert_eq!(batch.on_the_device(&client), batch.on_the_device(&client));
}

/// Attention over inputs that a type of 16 bits holds exactly.
fn check_narrow<T: CubeElement + CubePrimitive>(
    client: &Client,
    narrow: fn(f32) -> T,
    wide: fn(&T) -> f32,
    tolerance: f32,
) {
    let storage = T::as_type_native_unchecked().storage_type();
    if !client.properties().supports_type(storage) {
        eprintln!("skipped: {storage} is unknown to this device");
        return;
    }
    let mut batch = Batch::new(&[5, 40], &[33, 70], 2, 16);
    for floats in [&mut batch.queries, &mut batch.keys, &mut batch.values, &mut batch.for_output] {
        for float in floats.iter_mut() {
            *float = wide(&narrow(*float));
        }
    }
    let store = |floats: &[f32]| {
        let floats: Vec<T> = floats.iter().map(|&float| narrow(float)).collect();
        Floats { handle: client.create_from_slice(T::as_bytes(&floats)), storage }
    };
    let found = batch.stored(client, &store).map(|floats| {
        T::from_bytes(&client.read_one_unchecked(floats.handle)).iter().map(wide).collect::<Vec<f32>>()
    });
    for (found, expected) in found.iter().zip(&batch.on_the_cpu()) {
        assert!(apart(found, expected) < tolerance, "{storage}: {:e}", apart(found, expected));
    }
}

#[test]
fn floats_of_sixteen_bits_are_summed_in_thirty_two() {
    let Some(client) = client() else { return };
    // Half a unit in the last place of the largest element, and as much of the output in the backward pass.
    check_narrow::<f16>(&client, f16::from_f32, |float| float.to_f32(), 2e-3);
    check_narrow::<bf16>(&client, bf16::from_f32, |float| float.to_f32(), 1.6e-2);
}
