//! What several groupings of the same cells agree on.

use crate::error::{Error, Result};
use crate::metrics::adjusted_rand_index;

/// One grouping of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consensus {
    groups: Vec<usize>,
    medoid: usize,
}

impl Consensus {
    /// Gives every cell the group that most groupings give it (voting after relabelling: Dudoit and Fridlyand 2003).
    ///
    /// Groups are numbered as in the medoid, the grouping with the largest adjusted Rand index with the others in the mean. Each
    /// other grouping's groups become those of the medoid that they share most cells with: one to one, the largest shares
    /// first; groups that are left over join the one they share most with. Where votes are equal the medoid's counts.
    ///
    /// - groupings: of each, the group of every cell
    ///
    /// # Errors
    /// [`Error::Nothing`] without groupings; [`Error::LengthMismatch`] where one has not as many cells as the first.
    pub fn of(groupings: &[&[usize]]) -> Result<Self> {
        let Some(first) = groupings.first() else { return Err(Error::Nothing { what: "groupings" }) };
        let n_cells = first.len();
        if let Some(other) = groupings.iter().find(|grouping| grouping.len() != n_cells) {
            let (n_found, n_expected) = (other.len(), n_cells);
            return Err(Error::LengthMismatch { what: "groups", n_found, n_expected });
        }
        let medoid = medoid(groupings)?;
        let reference = groupings[medoid];
        let n_groups = n_groups(reference);
        let mut votes = vec![0_u32; n_cells * n_groups];
        // Half a vote more for the medoid: it decides between equals.
        for (index, grouping) in groupings.iter().enumerate() {
            let names = relabelled(grouping, reference, n_groups);
            let weight = 2 + u32::from(index == medoid);
            for (cell, &group) in grouping.iter().enumerate() {
                votes[cell * n_groups + names[group]] += weight;
            }
        }
        let most = |votes: &[u32]| {
            let first = (0..n_groups).rev().max_by_key(|&group| votes[group]);
            first.unwrap_or(0)
        };
        let groups = (0..n_cells).map(|cell| most(&votes[cell * n_groups..(cell + 1) * n_groups])).collect();
        Ok(Self { groups, medoid })
    }

    /// The group of every cell, numbered as in the medoid.
    pub fn groups(&self) -> &[usize] {
        &self.groups
    }

    /// Which of the groupings agrees best with the others.
    pub fn medoid(&self) -> usize {
        self.medoid
    }
}

fn n_groups(grouping: &[usize]) -> usize {
    grouping.iter().max().map_or(0, |most| most + 1)
}

fn medoid(groupings: &[&[usize]]) -> Result<usize> {
    let mut agreement = vec![0.0; groupings.len()];
    for second in 1..groupings.len() {
        for first in 0..second {
            let index = adjusted_rand_index(groupings[first], groupings[second])?;
            agreement[first] += index;
            agreement[second] += index;
        }
    }
    let best = (0..groupings.len()).rev().max_by(|&a, &b| agreement[a].total_cmp(&agreement[b]));
    Ok(best.unwrap_or(0))
}

/// The reference's group that each group of a grouping stands for.
fn relabelled(grouping: &[usize], reference: &[usize], n_groups_of_reference: usize) -> Vec<usize> {
    let n = n_groups(grouping);
    let mut shared = vec![0_usize; n * n_groups_of_reference];
    for (&group, &of_reference) in grouping.iter().zip(reference) {
        shared[group * n_groups_of_reference + of_reference] += 1;
    }
    let names_of = |group: usize| (0..n_groups_of_reference).map(move |name| (group, name));
    let share = |(group, name): (usize, usize)| shared[group * n_groups_of_reference + name];
    let mut pairs: Vec<(usize, usize)> = (0..n).flat_map(names_of).collect();
    // Stable: of equal shares the lower numbers come first.
    pairs.sort_by_key(|&pair| std::cmp::Reverse(share(pair)));
    let mut names: Vec<Option<usize>> = vec![None; n];
    let mut is_taken = vec![false; n_groups_of_reference];
    for &(group, name) in &pairs {
        if names[group].is_none() && !is_taken[name] && share((group, name)) > 0 {
            names[group] = Some(name);
            is_taken[name] = true;
        }
    }
    // Who found none that was free has the likeliest.
    for (group, name) in pairs {
        names[group].get_or_insert(name);
    }
    names.into_iter().map(|name| name.unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_votes_count_whatever_groups_are_called() {
        let truth = [0, 0, 0, 1, 1, 1, 2, 2, 2];
        // The same by other names, and each with one cell elsewhere.
        let others: [[usize; 9]; 3] =
            [[2, 2, 2, 0, 0, 1, 1, 1, 1], [1, 1, 2, 2, 2, 2, 0, 0, 0], [0, 0, 0, 1, 1, 1, 2, 2, 0]];
        let consensus = Consensus::of(&[&others[0], &others[1], &others[2]]).unwrap();
        assert!(
            (adjusted_rand_index(consensus.groups(), &truth).unwrap() - 1.0).abs() < 1e-12,
            "{consensus:?}"
        );
    }

    #[test]
    fn what_agrees_with_none_has_no_say() {
        let good = [0, 0, 0, 0, 1, 1, 1, 1];
        let consensus = Consensus::of(&[&[0, 1, 0, 1, 0, 1, 0, 1], &good, &good]).unwrap();
        assert_eq!((consensus.groups(), consensus.medoid()), (&good[..], 1));
    }

    #[test]
    fn between_equal_votes_the_medoid_decides() {
        let (first, second) = ([0, 0, 1, 1, 1], [0, 0, 0, 1, 1]);
        let consensus = Consensus::of(&[&first, &second]).unwrap();
        assert_eq!((consensus.groups(), consensus.medoid()), (&first[..], 0));
    }

    #[test]
    fn more_groups_than_the_medoid_has_join_its_groups() {
        let coarse = [0, 0, 0, 0, 1, 1, 1, 1];
        let consensus = Consensus::of(&[&coarse, &coarse, &[0, 0, 1, 2, 3, 3, 4, 4]]).unwrap();
        assert_eq!(consensus.groups(), coarse);
    }

    #[test]
    fn groupings_must_be_of_the_same_cells() {
        assert!(matches!(Consensus::of(&[]), Err(Error::Nothing { .. })));
        let uneven = Consensus::of(&[&[0, 1], &[0]]);
        assert!(matches!(uneven, Err(Error::LengthMismatch { n_found: 1, n_expected: 2, .. })));
        assert_eq!(Consensus::of(&[&[], &[]]).unwrap().groups(), [0_usize; 0]);
    }

    #[test]
    fn of_one_grouping_or_of_copies_it_is_that_one() {
        for n_groups in 1..6 {
            let grouping: Vec<usize> = (0..40).map(|cell| cell * cell * 7 % 11 % n_groups).collect();
            for n in 1..4 {
                let consensus = Consensus::of(&vec![grouping.as_slice(); n]).unwrap();
                assert_eq!((consensus.groups(), consensus.medoid()), (grouping.as_slice(), 0));
            }
        }
    }
}
