use serde::Deserialize;

use super::*;
use crate::cells::Cells;
use crate::error::Error;
use crate::neighbors::{Metric, Neighbors};
use crate::noise::Noise;
use crate::sparse::SparseCells;

/// What scikit-learn finds: see `tests/expected/make_baseline.py`.
#[derive(Deserialize)]
struct Expected {
    n_training: usize,
    n_features: usize,
    n_classes: usize,
    row_pointers: Vec<usize>,
    features: Vec<u32>,
    values: Vec<f32>,
    labels: Vec<usize>,
    fits: Vec<ExpectedFit>,
    binary_probabilities: Vec<f64>,
}

#[derive(Deserialize)]
struct ExpectedFit {
    l1: bool,
    c: f64,
    objective: f64,
    probabilities: Vec<f64>,
    predicted: Vec<usize>,
    n_used_features: usize,
}

/// Some cells of a matrix as a matrix of their own.
#[derive(Default)]
struct Rows {
    pointers: Vec<usize>,
    features: Vec<u32>,
    values: Vec<f32>,
    labels: Vec<usize>,
}

impl Rows {
    fn view(&self, n_features: usize) -> SparseCells<'_> {
        SparseCells::new(&self.pointers, &self.features, &self.values, n_features).unwrap()
    }
}

impl Expected {
    fn read() -> Self {
        serde_json::from_str(include_str!("../../tests/expected/baseline.json")).unwrap()
    }

    fn rows(&self, cells: impl Iterator<Item = usize>) -> Rows {
        let mut rows = Rows { pointers: vec![0], ..Rows::default() };
        for cell in cells {
            let row = self.row_pointers[cell]..self.row_pointers[cell + 1];
            rows.features.extend(&self.features[row.clone()]);
            rows.values.extend(&self.values[row]);
            rows.pointers.push(rows.values.len());
            rows.labels.push(self.labels[cell]);
        }
        rows
    }

    fn training(&self) -> Rows {
        self.rows(0..self.n_training)
    }

    fn new_cells(&self) -> Rows {
        self.rows(self.n_training..self.labels.len())
    }
}

fn exact(penalty: Penalty, c: f64) -> LogisticOptions {
    LogisticOptions { penalty, c, tolerance: 1e-6, most_iterations: 20_000 }
}

#[test]
fn logistic_regression_reaches_the_optimum_of_scikit_learn_and_its_predictions() {
    let expected = Expected::read();
    let (training, new) = (expected.training(), expected.new_cells());
    for fit in &expected.fits {
        let penalty = if fit.l1 { Penalty::L1 } else { Penalty::L2 };
        let cells = training.view(expected.n_features);
        let options = exact(penalty, fit.c);
        let model = LogisticRegression::fit(cells, &training.labels, expected.n_classes, &options).unwrap();
        let place = format!("{penalty:?}, C = {}", fit.c);
        assert!(model.has_converged(), "{place}: {} iterations", model.n_iterations());
        let relative = model.objective() / fit.objective - 1.0;
        assert!(relative.abs() < 1e-6, "{place}: {} is not {}", model.objective(), fit.objective);
        assert_eq!(model.n_used_features(), fit.n_used_features, "{place}");
        assert_eq!(model.predict(new.view(expected.n_features)).unwrap(), fit.predicted, "{place}");
        let probabilities = model.probabilities(new.view(expected.n_features)).unwrap();
        for (found, expected) in probabilities.iter().zip(&fit.probabilities) {
            assert!((found - expected).abs() < 1e-3, "{place}: {found} is not {expected}");
        }
    }
}

#[test]
fn with_two_classes_an_l2_penalty_counts_half() {
    let expected = Expected::read();
    let training = expected.rows((0..expected.n_training).filter(|cell| expected.labels[*cell] < 2));
    let options = exact(Penalty::L2, 0.5);
    let cells = training.view(expected.n_features);
    let model = LogisticRegression::fit(cells, &training.labels, 2, &options).unwrap();
    let found = model.probabilities(expected.new_cells().view(expected.n_features)).unwrap();
    for (found, expected) in found.chunks(2).zip(&expected.binary_probabilities) {
        assert!((found[1] - expected).abs() < 1e-5, "{} is not {expected}", found[1]);
    }
}

#[test]
fn a_fit_is_the_same_on_any_number_of_threads() {
    let expected = Expected::read();
    let training = expected.training();
    let on = |n_threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        let cells = training.view(expected.n_features);
        let options = LogisticOptions::default();
        pool.install(|| LogisticRegression::fit(cells, &training.labels, 4, &options).unwrap())
    };
    assert_eq!(on(1), on(3));
}

#[test]
fn classes_without_cells_are_never_predicted_and_a_single_one_always() {
    let rows = Rows {
        pointers: vec![0, 1, 2, 3, 4],
        features: vec![0, 0, 1, 1],
        values: vec![1.0, 1.2, 1.0, 0.8],
        labels: vec![1, 1, 4, 4],
    };
    let options = LogisticOptions { c: 10.0, ..LogisticOptions::default() };
    let model = LogisticRegression::fit(rows.view(2), &rows.labels, 6, &options).unwrap();
    let probabilities = model.probabilities(rows.view(2)).unwrap();
    assert_eq!(model.predict(rows.view(2)).unwrap(), rows.labels);
    for row in probabilities.chunks(6) {
        assert_eq!([row[0], row[2], row[3], row[5]], [0.0; 4]);
        assert!((row[1] + row[4] - 1.0).abs() < 1e-12);
    }
    assert!(model.weight(0, 1) > 0.0 && model.weight(0, 4) <= 0.0);
    assert_eq!([model.weight(0, 0), model.weight(2, 1), model.weight(0, 9)], [0.0; 3]);
    let single = LogisticRegression::fit(rows.view(2), &[3; 4], 6, &options).unwrap();
    assert!(single.has_converged());
    assert_eq!(single.predict(rows.view(2)).unwrap(), [3; 4]);
}

#[test]
fn what_cannot_be_fitted_is_refused() {
    let rows = Rows { pointers: vec![0, 1], features: vec![0], values: vec![1.0], labels: vec![0] };
    let fit = |labels: &[usize], options| LogisticRegression::fit(rows.view(1), labels, 2, &options);
    let options = LogisticOptions::default();
    assert!(matches!(fit(&[0, 1], options), Err(Error::LengthMismatch { .. })));
    assert!(matches!(fit(&[2], options), Err(Error::UnknownClass { class: 2, .. })));
    for c in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(fit(&[0], LogisticOptions { c, ..options }), Err(Error::BadOption { .. })), "{c}");
    }
    let none = Rows { pointers: vec![0], ..Rows::default() };
    let found = LogisticRegression::fit(none.view(3), &[], 2, &options);
    assert!(matches!(found, Err(Error::Nothing { what: "cells" })));
    let model = fit(&[0], options).unwrap();
    assert!(matches!(model.predict(none.view(3)), Err(Error::OtherFeatures { expected: 1, found: 3 })));
}

#[test]
fn selection_keeps_the_c_that_validates_best_and_warm_starts_do_not_change_it() {
    let expected = Expected::read();
    let (training, new) = (expected.training(), expected.new_cells());
    let (cells, new_cells) = (training.view(expected.n_features), new.view(expected.n_features));
    let options = exact(Penalty::L1, 1.0);
    let (training, new) = ((cells, &*training.labels), (new_cells, &*new.labels));
    let selection = Selection::by_validation(training, new, 4, &[1.0, 0.001, 0.1], &options).unwrap();
    let tried: Vec<f64> = selection.tried.iter().map(|tried| tried.c).collect();
    assert_eq!(tried, [0.001, 0.1, 1.0]);
    assert_eq!(selection.tried[0].n_used_features, 0);
    let best = selection.tried.iter().map(|tried| tried.macro_f1).fold(0.0, f64::max);
    let chosen = selection.tried.iter().find(|tried| tried.c == selection.c).unwrap();
    assert!(chosen.macro_f1 == best && best > selection.tried[0].macro_f1);
    let alone =
        LogisticRegression::fit(training.0, training.1, 4, &LogisticOptions { c: selection.c, ..options });
    let difference = alone.unwrap().objective() / selection.model.objective() - 1.0;
    assert!(difference.abs() < 1e-9, "{difference}");
    let found = Selection::by_validation(training, new, 4, &[], &options);
    assert!(matches!(found, Err(Error::Nothing { what: "values of C" })));
}

#[test]
fn the_majority_of_neighbours_wins_and_the_nearer_half_of_a_tie() {
    let references = Cells::new(&[0.0, 1.0, 2.0, 10.0, 11.0, 12.0], 6, 1).unwrap();
    let labels = [0, 0, 0, 2, 2, 1];
    let queries = Cells::new(&[0.5, 11.1, 5.9, 6.1], 4, 1).unwrap();
    let vote = |n| {
        let near = Neighbors::between(queries, references, n, Metric::Euclidean).unwrap();
        nearest_vote(&near, &labels, 3).unwrap()
    };
    let classes: Vec<_> = vote(3).iter().map(|vote| vote.class).collect();
    assert_eq!(classes[..2], [0, 2]);
    assert!((vote(3)[1].share - 2.0 / 3.0).abs() < 1e-12);
    // Two votes each: 5.9 lies nearer to 1 and 2 than to 10 and 11, and 6.1 the other way round.
    let classes: Vec<_> = vote(4).iter().map(|vote| vote.class).collect();
    assert_eq!(classes[2..], [0, 2]);
    let near = Neighbors::between(queries, references, 3, Metric::Euclidean).unwrap();
    assert!(matches!(nearest_vote(&near, &labels[..5], 3), Err(Error::LengthMismatch { .. })));
    assert!(matches!(nearest_vote(&near, &labels, 2), Err(Error::UnknownClass { class: 2, .. })));
}

#[test]
fn neighbours_in_the_components_of_sparse_cells_find_groups() {
    let mut noise = Noise::new(5);
    let (n_cells, n_features) = (700, 400);
    let mut rows = Rows { pointers: vec![0], ..Rows::default() };
    for cell in 0..n_cells {
        let label = cell % 3;
        for feature in 0..n_features {
            let chance = if feature % 3 == label { 0.12 } else { 0.05 };
            if noise.even() < chance {
                rows.features.push(feature as u32);
                rows.values.push(1.0 + noise.even() as f32);
            }
        }
        rows.pointers.push(rows.values.len());
        rows.labels.push(label);
    }
    let pca = crate::SparsePca::fit(rows.view(n_features), 5, 0).unwrap();
    let scores = pca.project(rows.view(n_features)).unwrap();
    let cells = Cells::new(&scores, n_cells, 5).unwrap();
    let (training, new) = (500, 200);
    let [references, queries] = [(0, training), (training, new)]
        .map(|(from, n)| Cells::new(&cells.values()[from * 5..(from + n) * 5], n, 5).unwrap());
    let near = Neighbors::between(queries, references, 15, Metric::Euclidean).unwrap();
    let votes = nearest_vote(&near, &rows.labels[..training], 3).unwrap();
    let right = votes.iter().zip(&rows.labels[training..]).filter(|(vote, label)| vote.class == **label);
    assert!(right.count() > 180);
}
