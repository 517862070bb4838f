use serde::Deserialize;

use super::*;
use crate::error::Error;

/// What scikit-learn says: see `tests/expected/make_metrics.py`.
#[derive(Deserialize)]
struct Expected {
    truth: Vec<usize>,
    predicted: Vec<usize>,
    logits: Vec<f32>,
    accuracy: f64,
    precision: Vec<f64>,
    recall: Vec<f64>,
    f1: Vec<f64>,
    support: Vec<u64>,
    macro_f1: f64,
    weighted_f1: f64,
    balanced_accuracy: f64,
    adjusted_rand_index: f64,
    normalized_mutual_information: f64,
    expected_error: f64,
    bin_counts: Vec<u64>,
    temperature: f64,
    loss_before: f64,
    loss_after: f64,
    repeats: Vec<f64>,
    half_width_of_40: f64,
    half_width_of_5: f64,
}

const N_CLASSES: usize = 7;

fn expected() -> Expected {
    serde_json::from_str(include_str!("../../tests/expected/metrics.json")).unwrap()
}

fn names(n: usize) -> Vec<String> {
    (0..n).map(|class| format!("type {class}")).collect()
}

fn assert_close(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{found} is not {expected}");
}

/// The largest class probability of each cell and whether it is the right class's.
fn confidences(expected: &Expected, temperature: f64) -> (Vec<f64>, Vec<bool>) {
    let at = Temperature { value: temperature, loss_before: 0.0, loss_after: 0.0 };
    let largest = |logits| at.probabilities(logits).into_iter().fold(0.0, f64::max);
    let correct = expected.truth.iter().zip(&expected.predicted).map(|(truth, predicted)| truth == predicted);
    (expected.logits.chunks(N_CLASSES).map(largest).collect(), correct.collect())
}

#[test]
fn scores_are_those_of_scikit_learn() {
    let expected = expected();
    let matrix = ConfusionMatrix::new(&names(N_CLASSES), &expected.truth, &expected.predicted).unwrap();
    assert_close(matrix.accuracy(), expected.accuracy, 1e-14);
    assert_close(matrix.macro_f1(), expected.macro_f1, 1e-14);
    assert_close(matrix.weighted_f1(), expected.weighted_f1, 1e-14);
    assert_close(matrix.balanced_accuracy(), expected.balanced_accuracy, 1e-14);
    for (class, scores) in matrix.classes().iter().enumerate() {
        assert_close(scores.precision, expected.precision[class], 1e-14);
        assert_close(scores.recall, expected.recall[class], 1e-14);
        assert_close(scores.f1, expected.f1[class], 1e-14);
        assert_eq!(scores.support, expected.support[class]);
    }
}

#[test]
fn classes_that_occur_nowhere_do_not_count_and_predicted_ones_do() {
    // Of three classes that occur, two are right throughout: the third is only ever predicted, wrongly.
    let matrix = ConfusionMatrix::new(&names(9), &[0, 0, 1, 1], &[0, 0, 1, 2]).unwrap();
    assert_close(matrix.macro_f1(), (1.0 + 2.0 / 3.0 + 0.0) / 3.0, 1e-15);
    assert_close(matrix.balanced_accuracy(), 0.75, 1e-15);
    assert_eq!(matrix.count(1, 2), 1);
    assert_eq!(matrix.row_shares()[9..12], [0.0, 0.5, 0.5]);
    assert!(matrix.row_shares()[80].is_nan());
    let nothing = ConfusionMatrix::new(&[], &[], &[]).unwrap();
    assert_eq!([nothing.accuracy(), nothing.macro_f1(), nothing.weighted_f1()], [0.0; 3]);
}

#[test]
fn a_class_beyond_the_names_is_refused_with_its_cell() {
    let found = ConfusionMatrix::new(&names(2), &[0, 1], &[0, 2]).unwrap_err();
    assert!(
        matches!(found, Error::UnknownClass { what: "prediction", cell: 1, class: 2, n_classes: 2 }),
        "{found}"
    );
    assert!(matches!(
        ConfusionMatrix::new(&names(2), &[0, 1], &[0]),
        Err(Error::LengthMismatch { n_found: 1, n_expected: 2, .. })
    ));
}

#[test]
fn groupings_agree_as_scikit_learn_says() {
    let Expected { truth, predicted, .. } = expected();
    let (rand, information) = (adjusted_rand_index, normalized_mutual_information);
    assert_close(rand(&truth, &predicted).unwrap(), expected().adjusted_rand_index, 1e-12);
    assert_close(information(&truth, &predicted).unwrap(), expected().normalized_mutual_information, 1e-12);
    let renamed: Vec<_> = truth.iter().map(|group| 90 - group).collect();
    assert_close(rand(&truth, &renamed).unwrap(), 1.0, 1e-12);
    assert_close(information(&truth, &renamed).unwrap(), 1.0, 1e-12);
    // The last of these are what scikit-learn's documentation gives.
    for (a, b, index, shared) in [
        (vec![3, 3, 3], vec![7, 7, 7], 1.0, 1.0),
        (vec![0], vec![4], 1.0, 1.0),
        (vec![], vec![], 1.0, 1.0),
        (vec![0, 0, 0, 0], vec![0, 1, 2, 3], 0.0, 0.0),
        (vec![0, 0, 1, 2], vec![0, 0, 1, 1], 0.571_428_571_428_571_4, 0.8),
        (vec![0, 0, 1, 1], vec![0, 1, 0, 1], -0.5, 0.0),
    ] {
        assert_close(rand(&a, &b).unwrap(), index, 1e-12);
        assert_close(information(&a, &b).unwrap(), shared, 1e-12);
    }
    assert!(rand(&[0], &[0, 1]).is_err() && information(&[0], &[]).is_err());
}

#[test]
fn the_calibration_error_is_the_mean_gap_over_fifteen_bins() {
    let expected = expected();
    let (confidences, correct) = confidences(&expected, 1.0);
    let calibration = Calibration::new(&confidences, &correct).unwrap();
    assert_close(calibration.expected_error(), expected.expected_error, 1e-12);
    let counts: Vec<_> = calibration.bins.iter().map(|bin| bin.n_cells).collect();
    assert_eq!(counts, expected.bin_counts);
    // 0 and 1 have bins, and a bin's upper end is its own.
    let ends = Calibration::new(&[0.0, 1.0, 1.0 / 15.0], &[false, true, false]).unwrap();
    assert_eq!([ends.bins[0].n_cells, ends.bins[1].n_cells, ends.bins[14].n_cells], [2, 0, 1]);
    assert_eq!(Calibration::new(&[], &[]).unwrap().expected_error(), 0.0);
    for value in [f64::NAN, -0.1, 1.1] {
        assert!(matches!(Calibration::new(&[value], &[true]), Err(Error::BadConfidence { cell: 0, .. })));
    }
}

#[test]
fn temperature_scaling_finds_the_minimum_that_scipy_finds_and_lowers_the_calibration_error() {
    let expected = expected();
    let temperature = Temperature::fit(&expected.logits, N_CLASSES, &expected.truth).unwrap();
    assert_close(temperature.value, expected.temperature, 1e-6 * expected.temperature);
    assert_close(temperature.loss_before, expected.loss_before, 1e-9);
    assert_close(temperature.loss_after, expected.loss_after, 1e-9);
    let error = |at| {
        let (confidences, correct) = confidences(&expected, at);
        Calibration::new(&confidences, &correct).unwrap().expected_error()
    };
    assert!(error(temperature.value) < error(1.0), "{} to {}", error(1.0), error(temperature.value));
}

#[test]
fn a_temperature_without_a_minimum_stays_within_its_range() {
    let fit = |logits: &[f32], labels: &[usize]| Temperature::fit(logits, 2, labels).unwrap();
    assert_eq!(fit(&[5.0, 0.0, 0.0, 5.0], &[0, 1]).value, 0.01);
    assert_eq!(fit(&[5.0, 0.0, 0.0, 5.0], &[1, 0]).value, 100.0);
    assert_eq!(fit(&[2.0, 2.0, 2.0, 2.0], &[0, 1]).value, 1.0);
    let extreme = fit(&[3e38, -3e38, -3e38, 3e38], &[0, 1]);
    assert!(extreme.value.is_finite() && extreme.loss_after == 0.0);
    assert!(matches!(Temperature::fit(&[], 2, &[]), Err(Error::Nothing { what: "cells" })));
    assert!(matches!(Temperature::fit(&[1.0, 2.0], 2, &[2]), Err(Error::UnknownClass { class: 2, .. })));
    assert!(matches!(Temperature::fit(&[1.0; 3], 2, &[0]), Err(Error::ShapeMismatch { .. })));
    let found = Temperature::fit(&[1.0, f32::NAN], 2, &[0]);
    assert!(matches!(found, Err(Error::NotFinite { cell: 0, feature: 1, .. })));
}

#[test]
fn the_unknown_threshold_keeps_the_asked_share_of_correct_cells_and_no_more() {
    // Twenty correct cells at 0.50, 0.52, ... 0.88; 0.95 of them are nineteen, so the lowest is given up.
    let mut confidences: Vec<f64> = (0..20).map(|at| 0.5 + 0.02 * f64::from(at)).collect();
    let mut correct = vec![true; 20];
    confidences.extend([0.3, 0.51, 0.6]);
    correct.extend([false; 3]);
    let threshold = UnknownThreshold::choose(&confidences, &correct, KEPT_SHARE).unwrap();
    assert_close(threshold.confidence, 0.52, 1e-12);
    assert_close(threshold.coverage, 20.0 / 23.0, 1e-12);
    assert_close(threshold.kept_accuracy, 0.95, 1e-12);
    assert_close(threshold.rejected_errors, 2.0 / 3.0, 1e-12);
    assert!(threshold.keeps(threshold.confidence) && !threshold.keeps(0.51));
    assert_close(UnknownThreshold::choose(&confidences, &correct, 1.0).unwrap().confidence, 0.5, 1e-12);
    assert!(matches!(UnknownThreshold::choose(&[0.4], &[false], 0.95), Err(Error::Nothing { .. })));
    assert!(matches!(UnknownThreshold::choose(&[0.4], &[true], 0.0), Err(Error::BadOption { .. })));
}

#[test]
fn the_interval_over_repeats_is_students() {
    let Expected { repeats, half_width_of_40, half_width_of_5, .. } = expected();
    assert_close(MeanInterval::of(&repeats).unwrap().half_width.unwrap(), half_width_of_40, 1e-8);
    assert_close(MeanInterval::of(&repeats[..5]).unwrap().half_width.unwrap(), half_width_of_5, 1e-8);
    let one = MeanInterval::of(&[0.912_3]).unwrap();
    assert_eq!((one.half_width, one.to_text(3).as_str()), (None, "0.912"));
    assert_eq!(MeanInterval::of(&[0.0, 1.0]).unwrap().to_text(1), "0.5 ± 6.4");
    assert!(matches!(MeanInterval::of(&[]), Err(Error::Nothing { what: "repeats" })));
}
