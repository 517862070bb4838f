use super::*;
use crate::simd::Instructions;

/// A ring in which every third spot also reads one far away, and spot 4 reads itself alone.
fn ring(n: usize) -> Adjacency {
    let (mut starts, mut sources) = (vec![0], Vec::new());
    for spot in 0..n {
        let mut list = vec![spot, (spot + 1) % n, (spot + n - 1) % n];
        if spot % 3 == 0 {
            list.push((spot + n / 2) % n);
        }
        if spot == 4 {
            list.truncate(1);
        }
        list.sort_unstable();
        list.dedup();
        sources.extend(list.into_iter().map(|source| source as u32));
        starts.push(sources.len());
    }
    Adjacency::new(starts, sources).unwrap()
}

fn numbers(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 500.0 - 1.0).collect()
}

struct Case {
    adjacency: Adjacency,
    rows: Vec<f32>,
    source: Vec<f32>,
    target: Vec<f32>,
    kept: Option<Vec<bool>>,
    d: usize,
}

impl Case {
    fn new(n: usize, d: usize, pruned: bool) -> Self {
        let adjacency = ring(n);
        let kept = pruned.then(|| {
            let own = |edge: usize, spot: usize| adjacency.sources()[edge] as usize == spot;
            (0..n)
                .flat_map(|spot| adjacency.edges(spot).map(move |edge| (edge, spot)))
                .map(|(edge, spot)| own(edge, spot) || edge % 2 == 0)
                .collect()
        });
        let (rows, source, target) = (numbers(n * d, 1), numbers(d, 2), numbers(d, 3));
        Self { adjacency, rows, source, target, kept, d }
    }

    fn vectors(&self) -> AttentionVectors<'_> {
        AttentionVectors { source: &self.source, target: &self.target, kept: self.kept.as_deref() }
    }

    /// Weights and what is gathered, in double precision, as the formulas say.
    fn exact(&self, rows: &[f64], source: &[f64], target: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let d = self.d;
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let row = |spot: usize| &rows[spot * d..][..d];
        let mut weights = vec![0.0; self.adjacency.n_edges()];
        let mut gathered = vec![0.0; rows.len()];
        for spot in 0..self.adjacency.n_spots() {
            let edges = self.adjacency.edges(spot);
            for edge in edges.clone() {
                let j = self.adjacency.sources()[edge] as usize;
                let score = dot(row(j), source) + dot(row(spot), target);
                let counts = self.kept.as_ref().is_none_or(|kept| kept[edge]);
                weights[edge] = if counts { (1.0 / (1.0 + (-score).exp())).exp() } else { 0.0 };
            }
            let sum: f64 = weights[edges.clone()].iter().sum();
            for edge in edges {
                weights[edge] /= sum;
                let j = self.adjacency.sources()[edge] as usize;
                for c in 0..d {
                    gathered[spot * d + c] += weights[edge] * row(j)[c];
                }
            }
        }
        let elu = |x: f64| if x > 0.0 { x } else { x.exp_m1() };
        (weights, gathered.into_iter().map(elu).collect())
    }

    fn in_double(&self) -> [Vec<f64>; 3] {
        [&self.rows, &self.source, &self.target].map(|values| values.iter().map(|&v| f64::from(v)).collect())
    }
}

fn assert_close(what: &str, found: &[f32], exact: &[f64]) {
    assert_eq!(found.len(), exact.len());
    for (found, exact) in found.iter().zip(exact) {
        assert!((f64::from(*found) - exact).abs() < 2e-5 * (1.0 + exact.abs()), "{what}: {found} {exact}");
    }
}

#[test]
fn weights_and_what_is_gathered_are_the_formulas() {
    for (n, d, pruned) in [(9, 5, false), (70, 30, true), (65, 64, false)] {
        let case = Case::new(n, d, pruned);
        let [rows, source, target] = case.in_double();
        let (weights, gathered) = case.exact(&rows, &source, &target);
        for instructions in Instructions::available() {
            let (found, _) = attention_weights(&case.adjacency, &case.rows, &case.vectors(), instructions);
            assert_close("weights", &found, &weights);
            let found = gather(&case.adjacency, &case.rows, &found, d, instructions);
            assert_close("gathered", &found, &gathered);
        }
    }
}

/// Against difference quotients of the formulas in double precision.
#[test]
fn gradients_are_slopes() {
    for (n, d, pruned) in [(9, 5, true), (40, 20, false)] {
        let case = Case::new(n, d, pruned);
        let cotangent = numbers(n * d, 5);
        let [rows, source, target] = case.in_double();
        let loss = |rows: &[f64], source: &[f64], target: &[f64]| -> f64 {
            let (_, gathered) = case.exact(rows, source, target);
            gathered.iter().zip(&cotangent).map(|(a, b)| a * f64::from(*b)).sum()
        };
        let slopes = |which: usize| -> Vec<f64> {
            let inputs = [&rows, &source, &target];
            (0..inputs[which].len())
                .map(|index| {
                    let moved = |by: f64| {
                        let mut inputs = inputs.map(Clone::clone);
                        inputs[which][index] += by;
                        loss(&inputs[0], &inputs[1], &inputs[2])
                    };
                    (moved(1e-5) - moved(-1e-5)) / 2e-5
                })
                .collect()
        };
        for instructions in Instructions::available() {
            let vectors = case.vectors();
            let (weights, products) = attention_weights(&case.adjacency, &case.rows, &vectors, instructions);
            let output = gather(&case.adjacency, &case.rows, &weights, d, instructions);
            let gathered =
                gather_backward(&case.adjacency, &case.rows, &weights, &output, &cotangent, d, instructions);
            let back = attention_weights_backward(
                &case.adjacency,
                &case.rows,
                &vectors,
                (&weights, &products),
                &gathered.weights,
                instructions,
            );
            let for_rows: Vec<f32> = gathered.rows.iter().zip(&back.rows).map(|(a, b)| a + b).collect();
            assert_close("rows", &for_rows, &slopes(0));
            assert_close("source", &back.source, &slopes(1));
            assert_close("target", &back.target, &slopes(2));
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let case = Case::new(300, 70, false);
    let run = |n_threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| {
            let (instructions, vectors) = (Instructions::detect(), case.vectors());
            let (weights, products) = attention_weights(&case.adjacency, &case.rows, &vectors, instructions);
            let output = gather(&case.adjacency, &case.rows, &weights, 70, instructions);
            let gathered =
                gather_backward(&case.adjacency, &case.rows, &weights, &output, &case.rows, 70, instructions);
            let kept = (&weights[..], &products[..]);
            let back = attention_weights_backward(
                &case.adjacency,
                &case.rows,
                &vectors,
                kept,
                &gathered.weights,
                instructions,
            );
            [output, gathered.rows, gathered.weights, back.rows, back.source, back.target]
        })
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(5));
}

#[test]
fn lists_that_are_not_in_order_are_no_graph() {
    assert!(Adjacency::new(vec![0, 2, 3], vec![0, 1, 1]).is_some());
    assert!(Adjacency::new(vec![0, 2, 3], vec![1, 0, 1]).is_none());
    assert!(Adjacency::new(vec![0, 2, 3], vec![0, 2, 1]).is_none());
    assert!(Adjacency::new(vec![0, 2], vec![0, 1]).is_none());
    assert!(Adjacency::new(vec![], vec![]).is_none());
}
