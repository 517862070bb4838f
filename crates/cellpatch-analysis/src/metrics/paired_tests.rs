use serde::Deserialize;

use super::*;
use crate::error::Error;

/// What scipy says: see `tests/expected/make_spatial.py`.
#[derive(Deserialize)]
struct Pair {
    name: String,
    first: Vec<f64>,
    second: Vec<f64>,
    statistic: f64,
    wilcoxon_p: f64,
    t: f64,
    degrees_of_freedom: usize,
    t_p: f64,
}

fn assert_close(found: f64, expected: f64, name: &str) {
    assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{name}: {found} is not {expected}");
}

#[test]
fn both_tests_say_what_scipy_says() {
    let pairs: Vec<Pair> = serde_json::from_str(include_str!("../../tests/expected/paired.json")).unwrap();
    for pair in pairs {
        let found = PairedComparison::of(&pair.first, &pair.second).unwrap();
        let ranks = found.signed_rank;
        assert_eq!(ranks.positive_ranks.min(ranks.negative_ranks), pair.statistic, "{}", pair.name);
        assert_close(ranks.p_value, pair.wilcoxon_p, &pair.name);
        assert_eq!(ranks.is_exact, pair.first.len() <= 50);
        let t_test = found.t_test.unwrap();
        assert_close(t_test.t, pair.t, &pair.name);
        assert_eq!(t_test.degrees_of_freedom, pair.degrees_of_freedom);
        assert_close(t_test.p_value, pair.t_p, &pair.name);
    }
}

#[test]
fn a_comparison_says_how_much_and_how_often_one_is_higher() {
    let found = PairedComparison::of(&[0.5, 0.6, 0.7, 0.2], &[0.4, 0.6, 0.4, 0.4]).unwrap();
    assert!((found.difference.mean - 0.05).abs() < 1e-12 && (found.median_difference - 0.05).abs() < 1e-12);
    assert_eq!((found.n_higher, found.n_lower, found.difference.n_repeats), (2, 1, 4));
    // Magnitudes 0.1, 0.3 and 0.2 without the slice that does not differ.
    assert_eq!((found.signed_rank.positive_ranks, found.signed_rank.negative_ranks), (4.0, 2.0));
    assert_eq!(found.signed_rank.p_value, 0.75);
    let turned = PairedComparison::of(&[0.4, 0.6, 0.4, 0.4], &[0.5, 0.6, 0.7, 0.2]).unwrap();
    assert_eq!(turned.signed_rank.p_value, found.signed_rank.p_value);
}

#[test]
fn methods_that_do_not_differ_have_no_evidence_against_them() {
    let same = PairedComparison::of(&[0.5, 0.6], &[0.5, 0.6]).unwrap();
    assert_eq!((same.signed_rank.p_value, same.t_test), (1.0, None));
    let shifted = PairedComparison::of(&[0.75, 1.0], &[0.5, 0.75]).unwrap();
    assert_eq!((shifted.signed_rank.p_value, shifted.t_test), (0.5, None));
    assert_eq!(PairedComparison::of(&[0.75], &[0.5]).unwrap().t_test, None);
    assert!(matches!(PairedComparison::of(&[], &[]), Err(Error::Nothing { what: "slices" })));
    assert!(matches!(PairedComparison::of(&[1.0], &[]), Err(Error::LengthMismatch { .. })));
    let found = PairedComparison::of(&[1.0, 1.0], &[1.0, f64::NAN]);
    assert!(matches!(found, Err(Error::NotFinite { cell: 1, feature: 1, .. })));
}
