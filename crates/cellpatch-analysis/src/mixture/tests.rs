use std::collections::BTreeMap;

use serde::Deserialize;

use super::hierarchy::Hierarchy;
use super::*;
use crate::metrics::adjusted_rand_index;
use crate::noise::Noise;

/// What mclust makes of an embedding: see `tests/expected/mixture/make_mixture.R`.
#[derive(Deserialize)]
struct Expected {
    n_cells: usize,
    n_features: usize,
    fits: Vec<ExpectedFit>,
}

#[derive(Deserialize)]
struct ExpectedFit {
    n_components: usize,
    start: String,
    log_likelihood: f64,
    bic: f64,
    labels: String,
    converged_log_likelihood: f64,
}

/// The embeddings that mclust saw, with what it said.
fn embeddings() -> Vec<(&'static str, Vec<f32>, Expected)> {
    let text = include_str!("../../tests/expected/mixture/mixture.json");
    let mut expected: BTreeMap<String, Expected> = serde_json::from_str(text).unwrap();
    macro_rules! embedding {
        ($name:literal) => {{
            let bytes = include_bytes!(concat!("../../tests/expected/mixture/", $name, ".i16"));
            let (pairs, _) = bytes.as_chunks::<2>();
            let values: Vec<f32> = pairs.iter().map(|pair| f32::from(i16::from_le_bytes(*pair))).collect();
            ($name, values, expected.remove($name).unwrap())
        }};
    }
    vec![
        embedding!("dlpfc_151510"),
        embedding!("starmap"),
        embedding!("baron_h1"),
        embedding!("random"),
        embedding!("separated"),
    ]
}

fn groups(letters: &str) -> Vec<usize> {
    letters.chars().map(|letter| letter.to_digit(36).unwrap() as usize).collect()
}

fn cells<'a>(values: &'a [f32], expected: &Expected) -> Cells<'a> {
    Cells::new(values, expected.n_cells, expected.n_features).unwrap()
}

fn assert_close(found: f64, expected: f64, relative: f64) {
    assert!((found - expected).abs() <= relative * expected.abs(), "{found} is not {expected}");
}

/// Four clouds of three features each at its own corner.
fn clouds(n_cells: usize, seed: u64) -> (Vec<f32>, Vec<usize>) {
    let mut noise = Noise::new(seed);
    let groups: Vec<usize> = (0..n_cells).map(|cell| cell % 4).collect();
    let values = groups.iter().flat_map(|&group| {
        let shared = noise.normal();
        let corner = [(group & 1) as f64, (group >> 1) as f64, 0.5];
        corner.map(|x| (12.0 * x + shared + 0.7 * noise.normal()) as f32)
    });
    (values.collect(), groups)
}

#[test]
fn cells_are_agglomerated_as_mclust_does() {
    for (name, values, expected) in embeddings() {
        let cells = cells(&values, &expected);
        let space = Space::of(cells).unwrap();
        let scales = space.agglomeration_scales(expected.n_cells);
        let scaled: Vec<f64> =
            space.coordinates(cells).iter().zip(scales.iter().cycle()).map(|(x, scale)| x * scale).collect();
        let hierarchy = Hierarchy::of(&scaled, expected.n_cells, scales.len());
        for fit in expected.fits {
            let same = hierarchy.cut(fit.n_components) == groups(&fit.start);
            assert!(same, "{name} into {} groups", fit.n_components);
        }
    }
}

#[test]
fn likelihood_criterion_and_groups_are_those_of_mclust() {
    for (name, values, expected) in embeddings() {
        for fit in &expected.fits {
            let found =
                GaussianMixture::fit(cells(&values, &expected), fit.n_components, &MixtureOptions::default());
            let found = found.unwrap();
            assert_close(found.log_likelihood(), fit.log_likelihood, 1e-9);
            assert_close(found.bic(), fit.bic, 1e-9);
            let index = adjusted_rand_index(found.labels(), &groups(&fit.labels)).unwrap();
            assert_eq!(index, 1.0, "{name} into {} components", fit.n_components);
        }
    }
}

#[test]
fn with_patience_it_ends_where_mclust_does() {
    // mclust was told to go on as long; what is left is rounding along likelihoods that hardly rise.
    let options = MixtureOptions { tolerance: 1e-13, most_iterations: 10_000, ..MixtureOptions::default() };
    for (_, values, expected) in embeddings() {
        for fit in &expected.fits {
            let found = GaussianMixture::fit(cells(&values, &expected), fit.n_components, &options).unwrap();
            assert_close(found.log_likelihood(), fit.converged_log_likelihood, 1e-10);
            assert!(found.has_converged());
        }
    }
}

#[test]
fn the_criterion_finds_as_many_components_as_there_are() {
    let (_, values, expected) = embeddings().pop().unwrap();
    let choice =
        GaussianMixture::choose(cells(&values, &expected), 1..=8, &MixtureOptions::default()).unwrap();
    assert_eq!(choice.best.n_components(), 5);
    for (score, fit) in choice.scores.iter().zip(&expected.fits) {
        assert_eq!(score.n_components, fit.n_components);
        assert_close(score.bic.unwrap(), fit.bic, 1e-9);
    }
}

#[test]
fn components_are_described_in_the_unit_of_the_features_and_largest_first() {
    let (_, values, expected) = embeddings().pop().unwrap();
    let cells = cells(&values, &expected);
    let mixture = GaussianMixture::fit(cells, 5, &MixtureOptions::default()).unwrap();
    let sizes: Vec<f64> = mixture.weights().iter().map(|weight| weight * 400.0).collect();
    for (found, expected) in sizes.iter().zip([150.0, 120.0, 80.0, 40.0, 10.0]) {
        assert_close(*found, expected, 1e-9);
    }
    // The groups lie far apart, so means and scatter within are those of the groups.
    let means = mixture.means();
    let mut within = vec![0.0; 16];
    let mut sums = vec![0.0; 20];
    for (cell, &label) in cells.iter().zip(mixture.labels()) {
        let mean = &means[label * 4..][..4];
        for i in 0..4 {
            sums[label * 4 + i] += f64::from(cell[i]);
            for j in 0..4 {
                within[i * 4 + j] += (f64::from(cell[i]) - mean[i]) * (f64::from(cell[j]) - mean[j]) / 400.0;
            }
        }
    }
    for (found, expected) in mixture.covariance().iter().zip(within) {
        assert_close(*found, expected, 1e-9);
    }
    for (at, (found, sum)) in means.iter().zip(sums).enumerate() {
        assert!((found - sum / sizes[at / 4]).abs() < 1e-6, "{found}");
    }
    let memberships = mixture.memberships(cells).unwrap();
    assert!(memberships.chunks(5).zip(mixture.labels()).all(|(shares, &label)| shares[label] > 0.999));
    let other = Cells::new(&[1.0; 3], 1, 3).unwrap();
    assert!(matches!(mixture.memberships(other), Err(Error::OtherFeatures { expected: 4, found: 3 })));
}

#[test]
fn every_start_finds_clouds_that_lie_apart_also_from_a_sample() {
    let (values, groups) = clouds(3_000, 5);
    let cells = Cells::new(&values, 3_000, 3).unwrap();
    for start in [
        MixtureStart::Hierarchical { most_cells: 3_000, seed: 0 },
        MixtureStart::Hierarchical { most_cells: 400, seed: 1 },
        MixtureStart::KMeans { n_starts: 5, seed: 2 },
        MixtureStart::Likeliest { most_cells: 3_000, n_starts: 2, seed: 3 },
        MixtureStart::Likeliest { most_cells: 400, n_starts: 5, seed: 4 },
    ] {
        let options = MixtureOptions { start, ..MixtureOptions::default() };
        let mixture = GaussianMixture::fit(cells, 4, &options).unwrap();
        let index = adjusted_rand_index(mixture.labels(), &groups).unwrap();
        assert!(index > 0.99, "{start:?}: {index}");
        assert_eq!(mixture.labels().len(), 3_000);
    }
}

#[test]
fn of_several_starts_by_k_means_the_likeliest_counts() {
    let (_, values, expected) = embeddings().remove(1);
    let likelihood = |n_starts, seed| {
        let start = MixtureStart::KMeans { n_starts, seed };
        let options = MixtureOptions { start, ..MixtureOptions::default() };
        GaussianMixture::fit(cells(&values, &expected), 6, &options).unwrap().log_likelihood()
    };
    // The first start is the same each time.
    let of_seeds: Vec<_> = (0..4).map(|seed| [1, 3, 8].map(|n_starts| likelihood(n_starts, seed))).collect();
    assert!(of_seeds.iter().all(|rising| rising.is_sorted()), "{of_seeds:?}");
    assert!(of_seeds.iter().any(|[one, _, eight]| one < eight), "{of_seeds:?}");
}

#[test]
fn the_likeliest_of_both_starts_is_what_each_of_them_leads_to_or_better() {
    let mut n_better = 0;
    for (name, values, expected) in embeddings() {
        // Agglomerating a whole slice again and again would take a minute.
        if expected.n_cells > 2_000 {
            continue;
        }
        let cells = cells(&values, &expected);
        for n_components in [4, 7] {
            let likelihood = |start| {
                let options = MixtureOptions { start, ..MixtureOptions::default() };
                GaussianMixture::fit(cells, n_components, &options).unwrap().log_likelihood()
            };
            let by_agglomeration = likelihood(MixtureStart::default());
            let by_k_means = likelihood(MixtureStart::KMeans { n_starts: 5, seed: 0 });
            let both = likelihood(MixtureStart::Likeliest { most_cells: 5_000, n_starts: 5, seed: 0 });
            assert_eq!(both, by_agglomeration.max(by_k_means), "{name} into {n_components} components");
            n_better += usize::from(both > by_agglomeration + 10.0);
        }
    }
    assert!(n_better > 0, "no mixture is likelier than mclust's");
}

#[test]
fn a_mixture_is_the_same_to_the_last_bit_on_any_number_of_threads() {
    let (values, _) = clouds(5_000, 9);
    let cells = Cells::new(&values, 5_000, 3).unwrap();
    for start in [
        MixtureStart::Hierarchical { most_cells: 1_000, seed: 0 },
        MixtureStart::KMeans { n_starts: 2, seed: 0 },
        MixtureStart::Likeliest { most_cells: 1_000, n_starts: 2, seed: 0 },
    ] {
        let options = MixtureOptions { start, ..MixtureOptions::default() };
        let on = |n_threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
            pool.install(|| GaussianMixture::fit(cells, 6, &options).unwrap())
        };
        assert_eq!(on(1), on(3));
    }
}

#[test]
fn features_that_are_constant_or_follow_from_others_change_nothing() {
    let (values, _) = clouds(600, 2);
    let wider: Vec<f32> =
        values.chunks(3).flat_map(|row| [row[0], 4.0, row[1], row[2], row[0] - row[1]]).collect();
    let options = MixtureOptions::default();
    let plain = GaussianMixture::fit(Cells::new(&values, 600, 3).unwrap(), 4, &options).unwrap();
    let wider = GaussianMixture::fit(Cells::new(&wider, 600, 5).unwrap(), 4, &options).unwrap();
    assert_eq!(wider.labels(), plain.labels());
    let means = wider.means();
    assert!(means.chunks(5).all(|mean| mean[1] == 4.0));
    for (wide, narrow) in means.chunks(5).zip(plain.means().chunks(3)) {
        assert!((wide[4] - (narrow[0] - narrow[1])).abs() < 1e-5);
    }
    assert!((wider.bic() - plain.bic()).is_finite());
}

#[test]
fn what_has_no_mixture_is_refused_with_the_reason() {
    let options = MixtureOptions::default();
    let fit = |values: &[f32], n_cells: usize, k: usize, options: &MixtureOptions| {
        GaussianMixture::fit(Cells::new(values, n_cells, values.len() / n_cells).unwrap(), k, options)
    };
    let four = [0.0, 1.0, 5.0, 7.0];
    assert!(matches!(fit(&four, 4, 0, &options), Err(Error::BadOption { option: "n_components", .. })));
    assert!(matches!(fit(&four, 4, 5, &options), Err(Error::BadOption { option: "n_components", .. })));
    assert!(matches!(fit(&four, 4, 4, &options), Err(Error::SingularMixture { n_components: 4 })));
    assert!(matches!(fit(&[3.0; 4], 4, 1, &options), Err(Error::NoVariance { n_cells: 4 })));
    assert!(matches!(fit(&[3.0], 1, 1, &options), Err(Error::TooFewCells { n_cells: 1 })));
    for options in [
        MixtureOptions { tolerance: f64::NAN, ..options },
        MixtureOptions { tolerance: -1.0, ..options },
        MixtureOptions { most_iterations: 0, ..options },
        MixtureOptions { start: MixtureStart::KMeans { n_starts: 0, seed: 0 }, ..options },
        MixtureOptions { start: MixtureStart::Hierarchical { most_cells: 1, seed: 0 }, ..options },
    ] {
        assert!(matches!(fit(&four, 4, 2, &options), Err(Error::BadOption { .. })), "{options:?}");
    }
    // Two places only: one component has a spread, two have none.
    let places = [0.0, 0.0, 1.0, 1.0, 1.0];
    let choice = GaussianMixture::choose(Cells::new(&places, 5, 1).unwrap(), 1..=2, &options).unwrap();
    assert_eq!((choice.best.n_components(), choice.scores[1].bic), (1, None));
    let none = GaussianMixture::choose(Cells::new(&places, 5, 1).unwrap(), 2..=3, &options);
    assert!(matches!(none, Err(Error::SingularMixture { n_components: 3 })));
}
