//! k-means, to start a mixture from.

use rayon::prelude::*;

use super::expectation::Points;
use crate::distance::squared_distance;
use crate::noise::Noise;
use crate::parallel::sum_over;
use crate::sums::Sums;

/// The groups of k-means: `n_groups` centres drawn far apart (Arthur and Vassilvitskii 2007), then moved to the means of
/// their cells until no cell changes sides, `most_rounds` times at most.
pub(super) fn k_means(
    points: Points<'_>,
    n_groups: usize,
    most_rounds: usize,
    noise: &mut Noise,
) -> Vec<usize> {
    let (n_cells, n) = (points.n_cells(), points.n);
    let row = |cell: usize| &points.values[cell * n..(cell + 1) * n];
    let mut centres = row(noise.below(n_cells as u32) as usize).to_vec();
    let mut nearest = vec![f64::INFINITY; n_cells];
    while centres.len() < n_groups * n {
        let newest = &centres[centres.len() - n..];
        nearest.par_iter_mut().enumerate().for_each(|(cell, nearest)| {
            *nearest = nearest.min(squared_distance(row(cell), newest));
        });
        let total = sum_over(n_cells, |cells| nearest[cells].iter().sum::<f64>());
        let mut left = noise.even() * total;
        let drawn = nearest.iter().position(|distance| {
            left -= distance;
            left < 0.0
        });
        centres.extend_from_slice(row(drawn.unwrap_or(n_cells - 1)));
    }
    let mut groups = vec![usize::MAX; n_cells];
    for _ in 0..most_rounds {
        let nearest_centre = |cell: usize| {
            let distances = centres.chunks(n).map(|centre| squared_distance(row(cell), centre)).enumerate();
            distances.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(group, _)| group)
        };
        let next: Vec<usize> = (0..n_cells).into_par_iter().map(nearest_centre).collect();
        if next == groups {
            break;
        }
        groups = next;
        let sums = sum_over(n_cells, |cells| {
            let mut sums = Sums::of(n_groups * (n + 1));
            for cell in cells {
                let sums = &mut sums.values_mut()[groups[cell] * (n + 1)..][..n + 1];
                crate::sparse::add(sums, 1.0, row(cell));
                sums[n] += 1.0;
            }
            sums
        });
        for (centre, sums) in centres.chunks_mut(n).zip(sums.into_values(n_groups * (n + 1)).chunks(n + 1)) {
            if sums[n] > 0.0 {
                centre.iter_mut().zip(sums).for_each(|(x, sum)| *x = sum / sums[n]);
            }
        }
    }
    groups
}
