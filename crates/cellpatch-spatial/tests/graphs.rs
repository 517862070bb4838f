//! Graphs against brute force, on random positions and on Visium slices.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests")]

use std::io::Read;
use std::path::PathBuf;

use cellpatch_spatial::Error;
use cellpatch_spatial::graph::{
    GraphWarning, Neighborhood, Position, SpatialGraph, build, build_sections, stack,
};
use flate2::read::GzDecoder;
use proptest::prelude::*;

fn squared(a: Position, b: Position) -> f64 {
    (a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2)
}

/// Every pair looked at.
fn within_by_brute_force(positions: &[Position], radius: f64) -> Vec<Vec<u32>> {
    let near = |a: Position| {
        let close = move |&b: &usize| squared(a, positions[b]) <= radius * radius;
        (0..positions.len()).filter(close).map(|b| b as u32).collect()
    };
    positions.iter().map(|&a| near(a)).collect()
}

fn nearest_by_brute_force(positions: &[Position], k: usize) -> Vec<Vec<u32>> {
    let nearest = |spot: usize| {
        let mut others: Vec<usize> = (0..positions.len()).filter(|&other| other != spot).collect();
        let distance = |other: usize| squared(positions[spot], positions[other]);
        others.sort_by(|&a, &b| distance(a).total_cmp(&distance(b)).then(a.cmp(&b)));
        let mut list: Vec<u32> = others[..k].iter().map(|&other| other as u32).chain([spot as u32]).collect();
        list.sort_unstable();
        list
    };
    (0..positions.len()).map(nearest).collect()
}

fn lists(graph: &SpatialGraph) -> Vec<Vec<u32>> {
    (0..graph.n_spots()).map(|spot| graph.neighbors(spot).to_vec()).collect()
}

/// Positions on a coarse grid, so that ties and duplicates are common, or anywhere.
fn positions() -> impl Strategy<Value = Vec<Position>> {
    let anywhere = prop::collection::vec([-50.0..50.0, -50.0..50.0_f64], 2..300);
    let grid = prop::collection::vec([0..12_u8, 0..12_u8], 2..300)
        .prop_map(|cells| cells.into_iter().map(|cell| cell.map(f64::from)).collect());
    prop_oneof![anywhere, grid]
}

proptest! {
    #[test]
    fn the_radius_graph_is_brute_forces(positions in positions(), radius in prop_oneof![0.5..8.0, Just(1.0), Just(2.0)]) {
        let expected = within_by_brute_force(&positions, radius);
        match build(&positions, Neighborhood::Radius(radius)) {
            Ok(built) => prop_assert_eq!(lists(&built.graph), expected),
            Err(Error::NoNeighbors { .. }) => prop_assert!(expected.iter().all(|list| list.len() == 1)),
            Err(Error::TooManyNeighbors { statistics, .. }) => {
                let n: usize = expected.iter().map(|list| list.len() - 1).sum();
                prop_assert!((statistics.mean - n as f64 / positions.len() as f64).abs() < 1e-9);
            }
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn the_nearest_spots_are_brute_forces(positions in positions(), k in 1..9_usize) {
        prop_assume!(k < positions.len());
        let built = build(&positions, Neighborhood::Nearest(k)).unwrap();
        prop_assert_eq!(lists(&built.graph), nearest_by_brute_force(&positions, k));
    }

    #[test]
    fn stacked_slices_are_joined_to_the_next_ones_only(
        slices in prop::collection::vec(prop::collection::vec([0.0..9.0, 0.0..9.0_f64], 1..60), 2..5),
    ) {
        let positions: Vec<(usize, Position)> = slices
            .iter()
            .enumerate()
            .flat_map(|(slice, positions)| positions.iter().map(move |&position| (slice, position)))
            .collect();
        let radius = |a: usize, b: usize| [1.5, 0.8, -1.0][a.abs_diff(b).min(2)];
        let expected: Vec<Vec<u32>> = (0..positions.len())
            .map(|a| {
                let near = |&b: &usize| {
                    let radius: f64 = radius(positions[a].0, positions[b].0);
                    a == b || (radius > 0.0 && squared(positions[a].1, positions[b].1) <= radius * radius)
                };
                (0..positions.len()).filter(near).map(|b| b as u32).collect()
            })
            .collect();
        let slices: Vec<&[Position]> = slices.iter().map(Vec::as_slice).collect();
        match stack(&slices, Neighborhood::Radius(1.5), Some(0.8)) {
            Ok(built) => prop_assert_eq!(lists(&built.graph), expected),
            Err(Error::NoNeighbors { .. }) => prop_assert!(expected.iter().all(|list| list.len() == 1)),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}

proptest! {
    #[test]
    fn sections_of_one_table_are_the_stack_of_their_slices(
        spots in proptest::collection::vec((0_u32..3, 0_u32..6, 0_u32..6), 2..40),
        radius in 0.5_f64..2.5,
        between in proptest::option::of(0.5_f64..2.5),
    ) {
        let positions: Vec<Position> =
            spots.iter().map(|&(_, x, y)| [f64::from(x), f64::from(y)]).collect();
        let section_of: Vec<u32> = spots.iter().map(|spot| 2 * spot.0).collect();
        let mut heights = section_of.clone();
        heights.sort_unstable();
        heights.dedup();
        let height = |spot: usize| heights.partition_point(|&level| level < section_of[spot]);
        let expected: Vec<Vec<u32>> = (0..spots.len())
            .map(|a| {
                let near = |&b: &usize| {
                    let radius = match height(a).abs_diff(height(b)) {
                        0 => radius,
                        1 => between.unwrap_or(-1.0),
                        _ => -1.0,
                    };
                    a == b || (radius > 0.0 && squared(positions[a], positions[b]) <= radius * radius)
                };
                (0..spots.len()).filter(near).map(|b| b as u32).collect()
            })
            .collect();
        match build_sections(&positions, &section_of, Neighborhood::Radius(radius), between) {
            Ok(built) => prop_assert_eq!(lists(&built.graph), expected),
            Err(Error::NoNeighbors { .. }) => prop_assert!(expected.iter().all(|list| list.len() == 1)),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}

#[test]
fn a_bad_place_in_a_table_of_sections_has_its_number_there() {
    let mut positions = hexagons(4, 5, 1.0);
    positions[3] = [f64::NAN, 0.0];
    let section_of: Vec<u32> = (0..20).map(|spot| 1 - spot % 2).collect();
    let found = build_sections(&positions, &section_of, Neighborhood::Nearest(2), None);
    assert!(matches!(found, Err(Error::NonFinitePosition { spot: 3, .. })), "{found:?}");
    let found = build_sections(&positions, &section_of[1..], Neighborhood::Nearest(2), None);
    assert!(matches!(found, Err(Error::Disagreement { .. })), "{found:?}");
}

/// A hexagonal grid of a given distance.
fn hexagons(n_rows: usize, n_columns: usize, distance: f64) -> Vec<Position> {
    (0..n_rows * n_columns)
        .map(|index| {
            let (row, column) = (index / n_columns, index % n_columns);
            let x = column as f64 + 0.5 * (row % 2) as f64;
            [x * distance, row as f64 * distance * 0.75_f64.sqrt()]
        })
        .collect()
}

#[test]
fn what_is_no_slice_is_refused_with_the_reason() {
    let grid = hexagons(20, 20, 100.0);
    let radius = |radius| build(&grid, Neighborhood::Radius(radius)).unwrap_err();
    assert!(matches!(
        build(&grid[..1], Neighborhood::Radius(1.0)),
        Err(Error::TooFewSpots { n_spots: 1, .. })
    ));
    assert!(matches!(build(&grid[..4], Neighborhood::Nearest(4)), Err(Error::TooFewSpots { needed: 5, .. })));
    assert!(matches!(radius(0.0), Error::BadNeighborhood { .. }));
    assert!(matches!(radius(f64::NAN), Error::BadNeighborhood { .. }));
    let mut holey = grid.clone();
    holey[7][1] = f64::NAN;
    assert!(matches!(build(&holey, Neighborhood::Nearest(6)), Err(Error::NonFinitePosition { spot: 7, .. })));
    // A radius in the wrong unit: too small, or too large; the suggestion is right both times.
    let suggested = match (radius(0.1), radius(5_000.0)) {
        (
            Error::NoNeighbors { suggested_radius, .. },
            Error::TooManyNeighbors { suggested_radius: other, statistics, .. },
        ) => {
            assert_eq!(suggested_radius, other);
            assert_eq!(statistics.max, 399);
            assert_eq!(statistics.distribution.iter().sum::<usize>(), 400);
            suggested_radius
        }
        other => unreachable!("{other:?}"),
    };
    let statistics = build(&grid, Neighborhood::Radius(suggested)).unwrap().graph.statistics();
    assert_eq!((statistics.max, statistics.n_isolated), (6, 0));
}

#[test]
fn what_is_odd_is_told() {
    let mut positions = hexagons(4, 4, 1.0);
    let far = hexagons(3, 3, 1.0).into_iter().map(|[x, y]| [x + 100.0, y]);
    positions.extend(far);
    positions.extend([[-50.0, 0.0], positions[3], positions[3]]);
    let built = build(&positions, Neighborhood::Radius(1.05)).unwrap();
    let parts = built.graph.components();
    assert_eq!(parts.sizes, [18, 9, 1]);
    assert_eq!(parts.of_spot[25], 2);
    assert_eq!(built.graph.statistics().n_isolated, 1);
    assert_eq!(
        built.warnings,
        [
            GraphWarning::IsolatedSpots { n_spots: 1 },
            GraphWarning::Disconnected { n_components: 3, largest: 18 },
            GraphWarning::DuplicatePositions { n_spots: 2 },
        ]
    );
    assert_eq!(built.graph.neighbors(26), built.graph.neighbors(27), "spots at one place have one list");
}

#[test]
fn pruning_keeps_edges_of_one_label_and_self_loops() {
    let graph = SpatialGraph::from_edges(4, [(0, 1), (1, 0), (2, 1), (3, 2)]).unwrap();
    let kept = graph.edges_within(&[0, 0, 1, 1]).unwrap();
    let edges: Vec<(u32, u32)> =
        graph.edges().zip(kept.iter()).filter(|edge| *edge.1).map(|edge| edge.0).collect();
    assert_eq!(edges, [(0, 0), (1, 0), (0, 1), (1, 1), (2, 2), (3, 2), (3, 3)]);
    assert!(graph.edges_within(&[0]).is_err());
    assert!(SpatialGraph::from_edges(2, [(0, 2)]).is_err());
    assert!(SpatialGraph::from_edges(2, [(2, 0)]).is_err());
}

#[test]
fn a_neighbourhoods_mean_is_over_a_spot_and_those_it_reads() {
    let graph = SpatialGraph::from_edges(4, [(0, 1), (2, 1), (1, 0)]).unwrap();
    let means = graph.neighborhood_means(&[1.0, 10.0, 2.0, 20.0, 6.0, 60.0, 5.0, -5.0], 2).unwrap();
    assert_eq!(means, [1.5, 15.0, 3.0, 30.0, 6.0, 60.0, 5.0, -5.0]);
    assert!(matches!(
        graph.neighborhood_means(&[1.0], 2),
        Err(Error::Disagreement { found: 1, expected: 8, .. })
    ));
}

/// Where the real slices are, if they are here.
fn layers() -> Option<PathBuf> {
    let root = std::env::var_os("CELLPATCH_DATA")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"));
    Some(root.join("spatial/dlpfc_layers")).filter(|folder| folder.is_dir())
}

/// Positions of a slice's spots in full-resolution pixels.
fn pixels(file: &std::path::Path) -> Vec<Position> {
    let mut text = String::new();
    GzDecoder::new(std::fs::File::open(file).unwrap()).read_to_string(&mut text).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let header = lines.next().unwrap();
    let column = |name: &str| header.iter().position(|column| *column == name).unwrap();
    let (row, col) = (column("pxl_row_in_fullres"), column("pxl_col_in_fullres"));
    lines.map(|fields| [fields[col].parse().unwrap(), fields[row].parse().unwrap()]).collect()
}

#[test]
fn visium_slices_have_the_neighbours_that_brute_force_finds() {
    let Some(folder) = layers() else {
        println!("skipped: no dlpfc_layers (CELLPATCH_DATA)");
        return;
    };
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "gz"));
    files.sort();
    assert_eq!(files.len(), 12);
    for file in files {
        let positions = pixels(&file);
        let graph = build(&positions, Neighborhood::Radius(150.0)).unwrap().graph;
        assert_eq!(lists(&graph), within_by_brute_force(&positions, 150.0), "{}", file.display());
        let statistics = graph.statistics();
        println!("{}: {} spots, {statistics:?}", file.display(), positions.len());
        if file.ends_with("151510.csv.gz") {
            assert!((5.8..5.9).contains(&statistics.mean), "{}", statistics.mean);
        }
        let nearest = build(&positions, Neighborhood::Nearest(6)).unwrap().graph;
        assert_eq!(lists(&nearest), nearest_by_brute_force(&positions, 6), "{}", file.display());
    }
}
