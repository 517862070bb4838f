use serde::Deserialize;

use super::*;
use crate::cells::Cells;
use crate::error::Error;
use crate::metrics::LabelAgreement;

/// What the definitions say in numpy: see `tests/expected/make_spatial.py`.
#[derive(Deserialize)]
struct Expected {
    places: Vec<f32>,
    domains: Vec<usize>,
    labels: Vec<Option<usize>>,
    refined_by_8: Vec<usize>,
    refined_by_50: Vec<usize>,
    chaos: f64,
    abnormal: f64,
    adjusted_rand_index: f64,
    normalized_mutual_information: f64,
}

fn expected() -> Expected {
    serde_json::from_str(include_str!("../../tests/expected/spatial.json")).unwrap()
}

#[test]
fn refined_domains_are_those_of_the_majority_around() {
    let expected = expected();
    let places = Cells::new(&expected.places, expected.domains.len(), 2).unwrap();
    let refined = |n| refined_domains(&expected.domains, places, n).unwrap();
    assert_eq!(refined(8), expected.refined_by_8);
    assert_eq!(refined(50), expected.refined_by_50);
    let before = percentage_of_abnormal_spots(&expected.domains, places).unwrap();
    assert!(percentage_of_abnormal_spots(&refined(50), places).unwrap() < before);
}

#[test]
fn continuity_is_that_of_the_definitions() {
    let expected = expected();
    let places = Cells::new(&expected.places, expected.domains.len(), 2).unwrap();
    // Distances come in single precision.
    assert!((chaos(&expected.domains, places).unwrap() / expected.chaos - 1.0).abs() < 1e-6);
    let abnormal = percentage_of_abnormal_spots(&expected.domains, places).unwrap();
    assert!((abnormal - expected.abnormal).abs() < 1e-12);
}

#[test]
fn spots_without_a_label_do_not_count() {
    let expected = expected();
    let found = LabelAgreement::of(&expected.domains, &expected.labels).unwrap();
    assert_eq!(found.n_labelled, expected.labels.iter().flatten().count());
    assert!((found.adjusted_rand_index - expected.adjusted_rand_index).abs() < 1e-12);
    let information = found.normalized_mutual_information;
    assert!((information - expected.normalized_mutual_information).abs() < 1e-12);
    assert!(matches!(LabelAgreement::of(&[1, 2], &[None, None]), Err(Error::Nothing { what: "labels" })));
    assert!(matches!(LabelAgreement::of(&[1, 2], &[None]), Err(Error::LengthMismatch { .. })));
}

#[test]
fn few_spots_and_spots_at_one_place_have_scores_too() {
    let line = Cells::new(&[0.0, 0.0, 1.0, 0.0, 2.0, 0.0, 3.0, 0.0], 4, 2).unwrap();
    assert_eq!(refined_domains(&[0, 0, 0, 1], line, 50).unwrap(), [0, 0, 0, 0]);
    // Three others at most are never more than half of ten.
    assert_eq!(percentage_of_abnormal_spots(&[0, 1, 2, 3], line).unwrap(), 0.0);
    assert_eq!(chaos(&[0, 0, 1, 1], line).unwrap(), 0.0);
    // Steps of one in coordinates with the variance 5 / 4.
    let step = (4.0_f64 / 5.0).sqrt();
    assert!((chaos(&[0; 4], line).unwrap() - step).abs() < 1e-6);
    let one = Cells::new(&[5.0; 6], 3, 2).unwrap();
    assert_eq!(chaos(&[0; 3], one).unwrap(), 0.0);
    let alone = Cells::new(&[5.0, 1.0], 1, 2).unwrap();
    assert_eq!(refined_domains(&[4], alone, 50).unwrap(), [4]);
    let none = Cells::new(&[], 0, 2).unwrap();
    assert_eq!(refined_domains(&[], none, 50).unwrap(), [0; 0]);
    for found in [chaos(&[], none), percentage_of_abnormal_spots(&[], none)] {
        assert!(matches!(found, Err(Error::Nothing { what: "spots" })));
    }
    assert!(matches!(chaos(&[0], line), Err(Error::LengthMismatch { what: "places", .. })));
    assert!(matches!(refined_domains(&[0; 4], line, 0), Err(Error::BadOption { .. })));
}
