use serde::Deserialize;

use super::*;
use crate::noise::Noise;

fn map(values: &[f32], n_features: usize, options: &UmapOptions) -> Vec<[f32; 2]> {
    let cells = Cells::new(values, values.len().checked_div(n_features).unwrap_or(0), n_features).unwrap();
    let map = Umap::fit(cells, options).unwrap();
    assert_eq!(map.coordinates().len(), cells.n_cells());
    assert!(map.coordinates().iter().flatten().all(|x| x.is_finite()), "{map:?}");
    map.coordinates
}

fn near(values: &[f32], n_features: usize, n: usize) -> Neighbors {
    let cells = Cells::new(values, values.len() / n_features, n_features).unwrap();
    Neighbors::within(cells, n, Metric::Euclidean).unwrap()
}

/// How umap-learn maps the same cells: see `tests/expected/make_umap.py`.
#[derive(Deserialize)]
struct Expected {
    n_features: usize,
    values: Vec<f32>,
    labels: Vec<usize>,
    kept: f64,
    kept_deviation: f64,
    purity: f64,
    purity_deviation: f64,
}

#[test]
fn as_many_neighbours_and_labels_stay_together_as_with_umap_learn() {
    let expected: Expected = serde_json::from_str(include_str!("../../tests/expected/umap.json")).unwrap();
    let before = near(&expected.values, expected.n_features, 10);
    for start in [Start::Spectral, Start::PrincipalComponents] {
        let (mut kept, mut purity) = (0.0, 0.0);
        for seed in 0..5 {
            let options = UmapOptions { seed, start, ..UmapOptions::default() };
            let after = near(map(&expected.values, expected.n_features, &options).as_flattened(), 2, 10);
            kept += before.shared_with(&after) / 5.0;
            purity += after.label_purity(&expected.labels).unwrap() / 5.0;
        }
        // Two deviations of a single map of umap-learn's: the mean of five varies less than half as much.
        let (least_kept, least_pure) = (
            expected.kept - 2.0 * expected.kept_deviation,
            expected.purity - 2.0 * expected.purity_deviation,
        );
        assert!(kept >= least_kept, "{start:?}: {kept} of neighbours, not {least_kept}");
        assert!(purity >= least_pure, "{start:?}: {purity} of labels, not {least_pure}");
    }
}

#[test]
fn a_ring_is_a_ring_on_the_map() {
    let mut noise = Noise::new(1);
    let n_cells = 400;
    let mut values = Vec::new();
    for cell in 0..n_cells {
        let (sine, cosine) = (std::f64::consts::TAU * f64::from(cell) / f64::from(n_cells)).sin_cos();
        values.extend([sine, cosine, 0.7 * sine, -0.3 * cosine].map(|x| (x + 0.003 * noise.normal()) as f32));
    }
    let coordinates = map(&values, 4, &UmapOptions::default());
    let mean = |axis: usize| coordinates.iter().map(|place| place[axis]).sum::<f32>() / n_cells as f32;
    let middle = [mean(0), mean(1)];
    let turns: Vec<f32> = coordinates.iter().map(|[x, y]| (y - middle[1]).atan2(x - middle[0])).collect();
    // Going around the ring in the data goes around the middle of the map once, mostly in one direction.
    let steps = (0..turns.len()).map(|at| {
        let step = turns[(at + 5) % turns.len()] - turns[at];
        (step + 3.0 * std::f32::consts::PI).rem_euclid(std::f32::consts::TAU) - std::f32::consts::PI
    });
    let turned = steps.sum::<f32>() / 5.0 / std::f32::consts::TAU;
    assert!((turned.abs() - 1.0).abs() < 1e-3, "went around {turned} times");
    assert!(near(&values, 4, 10).shared_with(&near(coordinates.as_flattened(), 2, 10)) > 0.7);
}

#[test]
fn groups_that_share_no_neighbour_stay_apart() {
    let mut noise = Noise::new(2);
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    for (group, size) in [80, 60, 40, 30, 17].into_iter().enumerate() {
        for _ in 0..size {
            let middle = |axis| if axis == group { 100.0 } else { 0.0 };
            values.extend((0..5).map(|axis| (middle(axis) + noise.normal()) as f32));
            labels.push(group);
        }
    }
    assert_eq!(NeighborGraph::of(&near(&values, 5, 7)).components().len(), 5);
    let coordinates = map(&values, 5, &UmapOptions { n_neighbors: 8, ..UmapOptions::default() });
    assert_eq!(near(coordinates.as_flattened(), 2, 5).label_purity(&labels).unwrap(), 1.0);
    // Single neighbours tear the groups into components of two and three cells.
    assert!(NeighborGraph::of(&near(&values, 5, 1)).components().len() > 30);
    let coordinates = map(&values, 5, &UmapOptions { n_neighbors: 2, ..UmapOptions::default() });
    assert!(near(coordinates.as_flattened(), 2, 1).label_purity(&labels).unwrap() > 0.9);
}

#[test]
fn equal_cells_lie_together_and_not_on_one_point() {
    let mut noise = Noise::new(3);
    let mut values: Vec<f32> = (0..120 * 3).map(|_| 5.0 * noise.normal() as f32).collect();
    // Forty more copies of the first cell than a neighbourhood has room for.
    for _ in 0..40 {
        values.extend_from_within(..3);
    }
    let coordinates = map(&values, 3, &UmapOptions::default());
    let labels: Vec<usize> = (0..160).map(|cell| usize::from(cell >= 120)).collect();
    let near = near(coordinates.as_flattened(), 2, 10);
    let alike =
        (120..160).flat_map(|cell| near.of(cell)).filter(|other| labels[**other as usize] == 1).count();
    assert!(alike >= 320, "{alike} of 400 neighbours");
    assert!(coordinates[120..].windows(2).any(|pair| pair[0] != pair[1]));
}

#[test]
fn any_number_of_cells_and_even_equal_ones_have_a_map() {
    assert_eq!(map(&[], 3, &UmapOptions::default()), [[0.0; 2]; 0]);
    assert_eq!(map(&[1.0, 2.0, 3.0], 3, &UmapOptions::default()), [[0.0; 2]]);
    for n_cells in 2..=30 {
        let values: Vec<f32> = (0..n_cells * 2).map(|x| (x * x % 17) as f32).collect();
        map(&values, 2, &UmapOptions::default());
        map(&vec![4.0; n_cells * 2], 2, &UmapOptions::default());
        map(&vec![0.0; n_cells * 2], 2, &UmapOptions { metric: Metric::Cosine, ..UmapOptions::default() });
        let start = Start::PrincipalComponents;
        map(&vec![4.0; n_cells * 2], 2, &UmapOptions { start, ..UmapOptions::default() });
        map(&values[..n_cells], 1, &UmapOptions { start, ..UmapOptions::default() });
    }
    map(&[0.5; 700], 1, &UmapOptions { n_epochs: Some(20), ..UmapOptions::default() });
}

#[test]
fn a_map_depends_on_the_seed_and_not_on_the_threads() {
    let mut noise = Noise::new(6);
    let values: Vec<f32> = (0..500 * 6).map(|_| noise.normal() as f32).collect();
    let on = |n_threads, seed| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        let options = UmapOptions { seed, n_epochs: Some(30), ..UmapOptions::default() };
        pool.install(|| map(&values, 6, &options))
    };
    assert_eq!(on(1, 4), on(3, 4));
    assert_ne!(on(1, 4), on(1, 5));
}

#[test]
fn settings_without_meaning_are_refused() {
    let cells = Cells::new(&[1.0, 2.0], 2, 1).unwrap();
    for options in [
        UmapOptions { n_neighbors: 1, ..UmapOptions::default() },
        UmapOptions { spread: 0.0, ..UmapOptions::default() },
        UmapOptions { min_distance: -0.1, ..UmapOptions::default() },
        UmapOptions { min_distance: f64::NAN, ..UmapOptions::default() },
    ] {
        assert!(matches!(Umap::fit(cells, &options), Err(Error::BadOption { .. })), "{options:?}");
    }
    let of_three = Neighbors::within(Cells::new(&[0.0; 3], 3, 1).unwrap(), 1, Metric::Euclidean).unwrap();
    assert!(matches!(
        Umap::from_neighbors(cells, &of_three, &UmapOptions::default()),
        Err(Error::LengthMismatch { .. })
    ));
}
