use serde::Deserialize;

use super::*;
use crate::cells::Cells;
use crate::metrics::adjusted_rand_index;
use crate::neighbors::{Metric, Neighbors};

/// What leidenalg makes of real cells: see `tests/expected/make_leiden.py`.
#[derive(Deserialize)]
struct Expected {
    name: String,
    n_features: usize,
    kind: String,
    resolution: f64,
    total_weight: f64,
    n_links: usize,
    qualities: Vec<f64>,
    agreement: f64,
    best: Vec<usize>,
}

fn graph(values: &[f32], n_features: usize, n_neighbors: usize) -> NeighborGraph {
    let cells = Cells::new(values, values.len() / n_features, n_features).unwrap();
    NeighborGraph::of(&Neighbors::within(cells, n_neighbors, Metric::Euclidean).unwrap())
}

fn real_cells(name: &str) -> Vec<f32> {
    let bytes: &[u8] = match name {
        "starmap" => include_bytes!("../../tests/expected/mixture/starmap.i16"),
        "baron_h1" => include_bytes!("../../tests/expected/mixture/baron_h1.i16"),
        other => panic!("no cells called {other}"),
    };
    let (pairs, _) = bytes.as_chunks::<2>();
    pairs.iter().map(|pair| f32::from(i16::from_le_bytes(*pair))).collect()
}

#[test]
fn groups_are_as_good_as_those_of_leidenalg_and_agree_with_them_as_they_do_with_each_other() {
    let expected: Vec<Expected> =
        serde_json::from_str(include_str!("../../tests/expected/leiden.json")).unwrap();
    for expected in expected {
        let graph = graph(&real_cells(&expected.name), expected.n_features, 14);
        let links = (0..graph.n_cells()).map(|cell| graph.of_cell(cell).count()).sum::<usize>() / 2;
        let total = graph.degrees().iter().sum::<f64>() / 2.0;
        // scanpy finds each cell's bandwidth to five digits, and so do we.
        assert!((total / expected.total_weight - 1.0).abs() < 1e-4, "{total} {}", expected.total_weight);
        assert!(links.abs_diff(expected.n_links) < 3, "{links} {}", expected.n_links);

        let quality = match expected.kind.as_str() {
            "modularity" => Quality::Modularity,
            _ => Quality::ConstantPotts,
        };
        let options = LeidenOptions { quality, resolution: expected.resolution, ..LeidenOptions::default() };
        let most = expected.qualities.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let same = Leiden::quality_of(&graph, &expected.best, &options).unwrap();
        assert!((same / most - 1.0).abs() < 1e-4, "{same} is not {most}");

        let n = expected.qualities.len() as f64;
        let mean = expected.qualities.iter().sum::<f64>() / n;
        let least = expected.qualities.iter().copied().fold(f64::INFINITY, f64::min);
        let (mut found, mut agreement) = (0.0, 0.0);
        for seed in 0..10 {
            let groups = Leiden::fit(&graph, &LeidenOptions { seed, ..options }).unwrap();
            found += groups.quality() / 10.0;
            agreement += adjusted_rand_index(groups.labels(), &expected.best).unwrap() / 10.0;
            assert!(
                groups.quality() > least - (most - least).max(1e-3 * least.abs()),
                "{}",
                groups.quality()
            );
        }
        println!(
            "{} {} {}: quality {found}, theirs {mean}; agreement {agreement}, theirs {}",
            expected.name, expected.kind, expected.resolution, expected.agreement
        );
        // Half a thousandth is less than what seeds differ by.
        assert!(found > mean - 5e-4 * mean.abs(), "{}: {found} is below {mean}", expected.name);
        assert!(agreement > expected.agreement - 0.05, "{agreement} is below {}", expected.agreement);
    }
}

/// Two groups of five cells each on a line, and one cell far from both.
fn line() -> Vec<f32> {
    vec![0.0, 1.0, 2.0, 3.0, 4.0, 100.0, 101.0, 102.0, 103.0, 104.0, 105.0]
}

#[test]
fn unconnected_groups_are_told_apart_and_the_largest_comes_first() {
    let graph = graph(&line(), 1, 3);
    for quality in [Quality::Modularity, Quality::ConstantPotts] {
        let options = LeidenOptions { quality, resolution: 0.1, ..LeidenOptions::default() };
        let groups = Leiden::fit(&graph, &options).unwrap();
        assert_eq!(groups.labels(), [1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0], "{quality:?}");
        assert_eq!(groups.n_groups(), 2);
    }
}

#[test]
fn a_higher_resolution_makes_more_groups() {
    let values = real_cells("starmap");
    let graph = graph(&values, 30, 14);
    let n_groups = |resolution| {
        Leiden::fit(&graph, &LeidenOptions { resolution, ..LeidenOptions::default() }).unwrap().n_groups()
    };
    assert!(n_groups(0.3) < n_groups(1.0) && n_groups(1.0) < n_groups(4.0));
}

#[test]
fn every_group_hangs_together() {
    let values = real_cells("baron_h1");
    let graph = graph(&values, 15, 14);
    let groups = Leiden::fit(&graph, &LeidenOptions { resolution: 3.0, ..LeidenOptions::default() }).unwrap();
    for group in 0..groups.n_groups() {
        let members: Vec<usize> =
            (0..graph.n_cells()).filter(|&cell| groups.labels()[cell] == group).collect();
        assert_eq!(graph.part(&members).components().len(), 1, "group {group}");
    }
}

#[test]
fn the_same_seed_gives_the_same_groups() {
    let values = real_cells("starmap");
    let graph = graph(&values, 30, 14);
    let fit = |seed| Leiden::fit(&graph, &LeidenOptions { seed, ..LeidenOptions::default() }).unwrap();
    assert_eq!(fit(4), fit(4));
    assert!((0..8).any(|seed| fit(seed).labels() != fit(4).labels()), "the seed has no effect");
}

#[test]
fn graphs_without_links_or_cells_have_groups_too() {
    for values in [vec![], vec![1.0]] {
        let graph = graph(&values, 1, 3);
        let groups = Leiden::fit(&graph, &LeidenOptions::default()).unwrap();
        assert_eq!((groups.n_groups(), groups.quality()), (values.len(), 0.0));
    }
    let graph = graph(&line(), 1, 3);
    for options in [
        LeidenOptions { resolution: 0.0, ..LeidenOptions::default() },
        LeidenOptions { resolution: f64::NAN, ..LeidenOptions::default() },
        LeidenOptions { most_passes: 0, ..LeidenOptions::default() },
    ] {
        assert!(matches!(Leiden::fit(&graph, &options), Err(Error::BadOption { .. })), "{options:?}");
    }
    let found = Leiden::quality_of(&graph, &[0], &LeidenOptions::default());
    assert!(matches!(found, Err(Error::LengthMismatch { n_found: 1, n_expected: 11, .. })));
}
