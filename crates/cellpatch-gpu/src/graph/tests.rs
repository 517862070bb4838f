use cellpatch_kernels::{Instructions, graph, sparse};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::buffer::Buffer;
use crate::device::{client, read};

/// Of a row's width: a vector of four, of two, of one, and the models' own.
const WIDTHS: [usize; 4] = [512, 30, 7, 1];

fn numbers(random: &mut StdRng, n: usize) -> Vec<f32> {
    (0..n).map(|_| random.random_range(-1.0..1.0)).collect()
}

#[track_caller]
fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1.0_f32, |largest, element| largest.max(element.abs()));
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (found - expected).abs();
        assert!(difference < 1e-5 * largest, "{what} {index}: {found} {expected} of {largest}");
    }
}

/// A matrix in which each row and column may be empty.
fn random_matrix(random: &mut StdRng, n_rows: usize, n_columns: usize) -> sparse::SparseMatrix {
    let (mut starts, mut columns) = (vec![0], Vec::new());
    for _ in 0..n_rows {
        let share = random.random_range(-0.2..0.8);
        columns.extend(
            (0..n_columns as u32)
                .filter(|column| column % 5 != 3 && random.random_bool(f64::max(share, 0.0))),
        );
        starts.push(columns.len());
    }
    let values = numbers(random, columns.len());
    sparse::SparseMatrix::new(starts, columns, values, n_columns).unwrap()
}

#[test]
fn products_with_a_sparse_matrix_are_those_of_the_cpu() {
    let Some(client) = client() else { return };
    let (mut random, instructions) = (StdRng::seed_from_u64(1), Instructions::detect());
    for (n_rows, n_columns) in [(1, 1), (70, 41), (33, 300)] {
        let matrix = random_matrix(&mut random, n_rows, n_columns);
        let on_device = SparseMatrix::new(&client, &matrix);
        for width in WIDTHS {
            let (right, left) =
                (numbers(&mut random, n_columns * width), numbers(&mut random, n_rows * width));
            let product = on_device.multiply(&client, &Buffer::of(&client, &right), width);
            let back = on_device.transposed_multiply(&client, &Buffer::of(&client, &left), width);
            assert_close("product", &read(&client, product), &matrix.multiply(&right, width, instructions));
            let expected = matrix.transposed_multiply(&left, width, instructions);
            assert_close("product of the transpose", &read(&client, back), &expected);
        }
    }
}

/// Lists in which some spots read none but themselves, some many, and the last one all.
fn random_graph(random: &mut StdRng, n_spots: usize) -> graph::Adjacency {
    let (mut starts, mut sources) = (vec![0], Vec::new());
    for spot in 0..n_spots {
        let share = match spot % 5 {
            0 => 0.0,
            1 => 0.5,
            _ if spot + 1 == n_spots => 1.0,
            _ => 6.0 / n_spots as f64,
        };
        let reads = |&source: &usize| source == spot || random.random_bool(f64::min(share, 1.0));
        sources.extend((0..n_spots).filter(reads).map(|source| source as u32));
        starts.push(sources.len());
    }
    graph::Adjacency::new(starts, sources).unwrap()
}

struct Case {
    adjacency: graph::Adjacency,
    rows: Vec<f32>,
    source: Vec<f32>,
    target: Vec<f32>,
    kept: Option<Vec<bool>>,
    d: usize,
}

impl Case {
    /// - pruned: leave out half of the edges, and all of spot 2
    fn random(random: &mut StdRng, n_spots: usize, d: usize, pruned: bool) -> Self {
        let adjacency = random_graph(random, n_spots);
        let none = adjacency.edges(2);
        let kept =
            (0..adjacency.n_edges()).map(|edge| !none.contains(&edge) && random.random_bool(0.5)).collect();
        let [rows, source, target] = [n_spots * d, d, d].map(|n| numbers(random, n));
        Self { adjacency, rows, source, target, kept: pruned.then_some(kept), d }
    }

    fn vectors(&self) -> graph::AttentionVectors<'_> {
        graph::AttentionVectors { source: &self.source, target: &self.target, kept: self.kept.as_deref() }
    }
}

fn cases() -> Vec<Case> {
    let mut random = StdRng::seed_from_u64(2);
    let mut cases = Vec::new();
    for d in WIDTHS {
        for (n_spots, pruned) in [(3, false), (90, true), (333, false)] {
            cases.push(Case::random(&mut random, n_spots, d, pruned));
        }
    }
    cases
}

#[test]
fn weights_of_edges_and_their_gradients_are_those_of_the_cpu() {
    let Some(client) = client() else { return };
    let (mut random, instructions) = (StdRng::seed_from_u64(3), Instructions::detect());
    for case in cases() {
        let adjacency = Adjacency::new(&client, &case.adjacency);
        let [rows, source, target] =
            [&case.rows, &case.source, &case.target].map(|numbers| Buffer::of(&client, numbers));
        let kept = case.kept.as_ref().map(|kept| Edges::new(&client, kept));
        let kept = kept.as_ref().unwrap_or(adjacency.all());
        let vectors = AttentionVectors { source: &source, target: &target, kept };
        let gradient = numbers(&mut random, case.adjacency.n_edges());
        let (weights, products) =
            graph::attention_weights(&case.adjacency, &case.rows, &case.vectors(), instructions);
        let expected = graph::attention_weights_backward(
            &case.adjacency,
            &case.rows,
            &case.vectors(),
            (&weights, &products),
            &gradient,
            instructions,
        );
        let computed = attention_weights(&client, &adjacency, &rows, vectors);
        let gradient = Buffer::of(&client, &gradient);
        let found = attention_weights_backward(&client, &adjacency, &rows, vectors, &computed, &gradient);
        assert_close("weights", &read(&client, computed.weights), &weights);
        assert_close("rows", &read(&client, found.rows), &expected.rows);
        assert_close("source", &read(&client, found.source), &expected.source);
        assert_close("target", &read(&client, found.target), &expected.target);
    }
}

#[test]
fn what_is_gathered_and_its_gradients_are_those_of_the_cpu() {
    let Some(client) = client() else { return };
    let (mut random, instructions) = (StdRng::seed_from_u64(4), Instructions::detect());
    for Case { adjacency, rows, d, .. } in cases() {
        let on_device = Adjacency::new(&client, &adjacency);
        let (weights, gradient) =
            (numbers(&mut random, adjacency.n_edges()), numbers(&mut random, rows.len()));
        let output = graph::gather(&adjacency, &rows, &weights, d, instructions);
        let expected =
            graph::gather_backward(&adjacency, &rows, &weights, &output, &gradient, d, instructions);
        let [rows, weights, gradient] =
            [&rows, &weights, &gradient].map(|numbers| Buffer::of(&client, numbers));
        let found = gather(&client, &on_device, &rows, &weights, d);
        let gradients = gather_backward(&client, &on_device, &rows, &weights, (&found, &gradient), d);
        assert_close("gathered", &read(&client, found), &output);
        assert_close("rows", &read(&client, gradients.rows), &expected.rows);
        assert_close("weights", &read(&client, gradients.weights), &expected.weights);
    }
}

#[test]
fn gradients_repeat_to_the_last_bit() {
    let Some(client) = client() else { return };
    let mut random = StdRng::seed_from_u64(5);
    let case = Case::random(&mut random, 200, 30, false);
    let adjacency = Adjacency::new(&client, &case.adjacency);
    let [rows, source, target] =
        [&case.rows, &case.source, &case.target].map(|numbers| Buffer::of(&client, numbers));
    let vectors = AttentionVectors { source: &source, target: &target, kept: adjacency.all() };
    let gradient = Buffer::of(&client, &numbers(&mut random, case.adjacency.n_edges()));
    let run = || {
        let computed = attention_weights(&client, &adjacency, &rows, vectors);
        let found = attention_weights_backward(&client, &adjacency, &rows, vectors, &computed, &gradient);
        [found.rows, found.source, found.target].map(|numbers| read(&client, numbers))
    };
    assert_eq!(run(), run());
}
