use super::*;
use crate::noise::Noise;

/// Neighbours as the definition has them: every distance in double precision, sorted.
fn by_definition(queries: Cells<'_>, references: Cells<'_>, n: usize, metric: Metric) -> Vec<Vec<u32>> {
    let length = |x: &[f32]| x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let distance = |x: &[f32], y: &[f32]| match metric {
        Metric::Euclidean => {
            x.iter().zip(y).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2)).sum::<f64>()
        }
        Metric::Cosine => {
            let product: f64 = x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
            1.0 - product / (length(x) * length(y))
        }
    };
    let of_query = |query: &[f32]| {
        let mut all: Vec<_> =
            references.iter().enumerate().map(|(at, cell)| (distance(query, cell), at as u32)).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        all.into_iter().take(n).map(|(_, cell)| cell).collect()
    };
    queries.iter().map(of_query).collect()
}

#[test]
fn neighbours_are_those_of_the_definition_across_block_borders() {
    let mut noise = Noise::new(3);
    let (n_queries, n_references, n_features) = (150, 1_300, 19);
    let queries: Vec<f32> = (0..n_queries * n_features).map(|_| noise.normal() as f32).collect();
    let references: Vec<f32> = (0..n_references * n_features).map(|_| noise.normal() as f32).collect();
    let queries = Cells::new(&queries, n_queries, n_features).unwrap();
    let references = Cells::new(&references, n_references, n_features).unwrap();
    for metric in [Metric::Euclidean, Metric::Cosine] {
        let found = Neighbors::between(queries, references, 12, metric).unwrap();
        let expected = by_definition(queries, references, 12, metric);
        for (query, expected) in expected.iter().enumerate() {
            assert_eq!(found.of(query), expected, "query {query}, {metric:?}");
            assert!(found.distances(query).is_sorted());
        }
    }
}

#[test]
fn cells_far_from_the_origin_and_close_together_are_still_told_apart() {
    // In single precision the squares of these values differ by less than they are rounded.
    let mut noise = Noise::new(4);
    let values: Vec<f32> = (0..300 * 4).map(|_| 10_000.0 + noise.even() as f32).collect();
    let cells = Cells::new(&values, 300, 4).unwrap();
    let found = Neighbors::within(cells, 5, Metric::Euclidean).unwrap();
    let expected = by_definition(cells, cells, 6, Metric::Euclidean);
    for (cell, expected) in expected.iter().enumerate() {
        let others: Vec<u32> =
            expected.iter().copied().filter(|near| *near as usize != cell).take(5).collect();
        assert_eq!(found.of(cell), others);
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let mut noise = Noise::new(5);
    let values: Vec<f32> = (0..700 * 8).map(|_| (noise.normal() * 3.0).round() as f32).collect();
    let on = |n_threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        let cells = Cells::new(&values, 700, 8).unwrap();
        pool.install(|| Neighbors::within(cells, 15, Metric::Cosine).unwrap())
    };
    assert_eq!(on(1), on(3));
}

#[test]
fn equally_near_cells_come_in_the_order_of_their_numbers() {
    let cells = Cells::new(&[0.0, 1.0, -1.0, 1.0, 0.0], 5, 1).unwrap();
    let found = Neighbors::within(cells, 3, Metric::Euclidean).unwrap();
    assert_eq!(found.of(0), [4, 1, 2]);
    assert_eq!(found.distances(0), [0.0, 1.0, 1.0]);
    let equal = vec![0.3_f32; 2_000];
    let found = Neighbors::within(Cells::new(&equal, 1_000, 2).unwrap(), 2, Metric::Euclidean).unwrap();
    assert_eq!([found.of(0), found.of(1), found.of(999)], [[1, 2], [0, 2], [0, 1]]);
    assert_eq!(found.distances(500), [0.0, 0.0]);
}

#[test]
fn few_cells_have_as_many_neighbours_as_there_are() {
    let of = |n_cells: usize| {
        Neighbors::within(Cells::new(&[1.0, 2.0, 4.0][..n_cells], n_cells, 1).unwrap(), 15, Metric::Euclidean)
            .unwrap()
    };
    assert_eq!((of(0).n_neighbors(), of(1).n_neighbors(), of(3).n_neighbors()), (0, 0, 2));
    assert_eq!(of(3).of(2), [1, 0]);
    assert!(of(1).of(0).is_empty() && of(1).of(7).is_empty());
    let no_features = Neighbors::within(Cells::new(&[], 3, 0).unwrap(), 2, Metric::Cosine).unwrap();
    assert_eq!(no_features.of(2), [0, 1]);
}

#[test]
fn a_cell_of_zeros_is_at_a_right_angle_to_every_direction() {
    let cells = Cells::new(&[0.0, 0.0, 1.0, 0.0, -1.0, 0.1, 0.0, 0.0, 2.0, 0.0], 5, 2).unwrap();
    let found = Neighbors::within(cells, 4, Metric::Cosine).unwrap();
    assert_eq!(found.of(0), [3, 1, 2, 4]);
    assert_eq!(found.distances(0), [0.0, 1.0, 1.0, 1.0]);
    assert_eq!(found.of(1), [4, 0, 3, 2]);
    assert!(found.distances(1)[3] > 1.99);
}

#[test]
fn values_of_any_size_have_neighbours() {
    for size in [1e-30_f32, 1e30] {
        let values = [0.0, 1.0, 3.0, 7.0].map(|x| x * size);
        let found = Neighbors::within(Cells::new(&values, 4, 1).unwrap(), 1, Metric::Euclidean).unwrap();
        assert_eq!([0, 1, 2, 3].map(|cell| found.of(cell)[0]), [1, 0, 1, 2]);
    }
}

#[test]
fn shared_neighbours_and_labels_are_counted() {
    let line = Cells::new(&[0.0, 1.0, 10.0, 11.0], 4, 1).unwrap();
    let swapped = Cells::new(&[0.0, 10.0, 1.0, 11.0], 4, 1).unwrap();
    let of = |cells| Neighbors::within(cells, 1, Metric::Euclidean).unwrap();
    assert_eq!(of(line).shared_with(&of(line)), 1.0);
    assert_eq!(of(line).shared_with(&of(swapped)), 0.0);
    assert_eq!(of(line).label_purity(&[0, 0, 1, 1]).unwrap(), 1.0);
    assert_eq!(of(line).label_purity(&[0, 0, 1, 2]).unwrap(), 0.5);
    assert!(of(line).label_purity(&[0]).is_err());
}

#[test]
fn what_cannot_be_searched_is_refused() {
    let (two, three) = (Cells::new(&[0.0; 6], 3, 2).unwrap(), Cells::new(&[0.0; 6], 2, 3).unwrap());
    assert!(matches!(
        Neighbors::between(two, three, 1, Metric::Euclidean),
        Err(Error::OtherFeatures { expected: 3, found: 2 })
    ));
    assert!(matches!(Neighbors::within(two, 0, Metric::Euclidean), Err(Error::BadOption { .. })));
    assert!(matches!(Cells::new(&[0.0; 5], 3, 2), Err(Error::ShapeMismatch { .. })));
    assert!(matches!(
        Cells::new(&[0.0, 1.0, f32::NAN], 3, 1),
        Err(Error::NotFinite { cell: 2, feature: 0, .. })
    ));
}

#[test]
fn places_in_the_plane_have_the_neighbours_of_the_definition() {
    let mut noise = Noise::new(8);
    let scattered: Vec<f32> = (0..2 * 400).map(|_| noise.normal() as f32).collect();
    // A grid is full of ties, and every place of it holds two spots.
    let grid: Vec<f32> = (0..400).flat_map(|spot| [(spot / 2 % 20) as f32, (spot / 40) as f32]).collect();
    for values in [&scattered, &grid] {
        let cells = Cells::new(values, 400, 2).unwrap();
        let found = Neighbors::within(cells, 9, Metric::Euclidean).unwrap();
        let all = by_definition(cells, cells, 400, Metric::Euclidean);
        for (cell, all) in all.iter().enumerate() {
            let others: Vec<u32> =
                all.iter().copied().filter(|near| *near as usize != cell).take(9).collect();
            assert_eq!(found.of(cell), others, "cell {cell}");
        }
        let queries = Cells::new(&values[..60], 30, 2).unwrap();
        let found = Neighbors::between(queries, cells, 9, Metric::Euclidean).unwrap();
        for (query, all) in all.iter().take(30).enumerate() {
            assert_eq!(found.of(query), &all[..9]);
            let [x, y] = [0, 1].map(|axis| {
                let near = cells.cell(found.of(query)[8] as usize)[axis];
                f64::from(near) - f64::from(queries.cell(query)[axis])
            });
            assert_eq!(found.distances(query)[8], x.hypot(y) as f32);
        }
    }
}
