//! Labels by the nearest labelled cells.

use super::objective::check_labels;
use crate::error::Result;
use crate::neighbors::Neighbors;

/// What the neighbours of a cell say it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Vote {
    /// The class.
    pub class: usize,
    /// Share of the neighbours that are of it, above 0 to 1.
    pub share: f64,
}

/// The class that most neighbours of each cell have, `[n_cells]`. Of classes with equally many it is the one whose
/// members lie nearer in sum, of those the first..
///
/// - `neighbors`: of each cell, among labelled references
/// - `labels`: `[n_references]`, each below `n_classes`
///
/// # Errors
/// [`Error::Nothing`](crate::Error::Nothing) without references, [`Error::UnknownClass`](crate::Error::UnknownClass),
/// and [`Error::LengthMismatch`](crate::Error::LengthMismatch) where a neighbour has no label.
pub fn nearest_vote(neighbors: &Neighbors, labels: &[usize], n_classes: usize) -> Result<Vec<Vote>> {
    let n_named = (0..neighbors.n_cells()).flat_map(|cell| neighbors.of(cell)).max();
    let n_references = n_named.map_or(labels.len(), |last| labels.len().max(*last as usize + 1));
    check_labels(labels, n_references, n_classes)?;
    let mut votes = vec![(0_usize, 0.0_f64); n_classes];
    let vote = |cell: usize| {
        votes.fill((0, 0.0));
        for (near, distance) in neighbors.of(cell).iter().zip(neighbors.distances(cell)) {
            let (n, sum) = &mut votes[labels[*near as usize]];
            *n += 1;
            *sum += f64::from(*distance);
        }
        let wins = |&(n, sum): &(usize, f64), &(other_n, other_sum): &(usize, f64)| {
            n > other_n || (n == other_n && sum < other_sum)
        };
        let mut class = 0;
        for other in 1..n_classes {
            if wins(&votes[other], &votes[class]) {
                class = other;
            }
        }
        Vote { class, share: votes[class].0 as f64 / neighbors.n_neighbors().max(1) as f64 }
    };
    Ok((0..neighbors.n_cells()).map(vote).collect())
}
