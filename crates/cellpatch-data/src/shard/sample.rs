//! Samples of cells: each has a random number, and those with the smallest stay.

use std::collections::HashMap;

/// Random numbers of all cells that could stay, by their label in the column to stratify by.
#[derive(Debug, Default)]
pub(super) struct Strata {
    positions: Positions,
    keys: Vec<Vec<u64>>,
}

/// Where each stratum is in a list; cells without a label are one too.
#[derive(Debug, Default)]
struct Positions {
    by_label: HashMap<String, usize>,
    unlabelled: Option<usize>,
}

impl Positions {
    fn get(&self, label: Option<&str>) -> Option<usize> {
        match label {
            Some(label) => self.by_label.get(label).copied(),
            None => self.unlabelled,
        }
    }

    fn insert(&mut self, label: Option<&str>, position: usize) {
        match label {
            Some(label) => drop(self.by_label.insert(label.to_owned(), position)),
            None => self.unlabelled = Some(position),
        }
    }

    /// Positions by label, that of cells without one first: shares must not depend on the order of the inputs.
    fn sorted(&self) -> Vec<usize> {
        let mut labels: Vec<(&String, usize)> =
            self.by_label.iter().map(|(label, &position)| (label, position)).collect();
        labels.sort();
        self.unlabelled.into_iter().chain(labels.into_iter().map(|(_, position)| position)).collect()
    }
}

/// What stays of every stratum.
#[derive(Debug)]
pub(super) struct SampleBounds {
    positions: Positions,
    /// The first random number that is out, if any is.
    first_out: Vec<Option<u64>>,
}

impl Strata {
    /// Adds a cell.
    pub(super) fn add(&mut self, label: Option<&str>, key: u64) {
        let position = self.positions.get(label).unwrap_or_else(|| {
            self.positions.insert(label, self.keys.len());
            self.keys.push(Vec::new());
            self.keys.len() - 1
        });
        self.keys[position].push(key);
    }

    /// How many cells were added.
    pub(super) fn n_cells(&self) -> usize {
        self.keys.iter().map(Vec::len).sum()
    }

    /// Bounds that let `n_cells` cells stay, from each stratum its share.
    pub(super) fn bounds(mut self, n_cells: usize) -> SampleBounds {
        let positions = self.positions.sorted();
        let sizes: Vec<usize> = positions.iter().map(|&position| self.keys[position].len()).collect();
        let mut first_out = vec![None; self.keys.len()];
        for (position, n_kept) in positions.into_iter().zip(shares(&sizes, n_cells)) {
            let keys = &mut self.keys[position];
            if n_kept < keys.len() {
                first_out[position] = Some(*keys.select_nth_unstable(n_kept).1);
            }
        }
        SampleBounds { positions: self.positions, first_out }
    }
}

impl SampleBounds {
    /// Whether a cell with this label and random number stays.
    pub(super) fn keeps(&self, label: Option<&str>, key: u64) -> bool {
        let Some(position) = self.positions.get(label) else { return false };
        self.first_out[position].is_none_or(|first_out| key < first_out)
    }
}

/// Divides `n` among strata in proportion to their sizes, by largest remainders. Where `n` is enough for it, every
/// stratum that is not empty gets at least one.
fn shares(sizes: &[usize], n: usize) -> Vec<usize> {
    let mut total: u128 = sizes.iter().map(|&size| size as u128).sum();
    if n as u128 >= total {
        return sizes.to_vec();
    }
    let mut shares = vec![0; sizes.len()];
    let mut strata: Vec<usize> = (0..sizes.len()).filter(|&stratum| sizes[stratum] > 0).collect();
    let (mut n_left, mut is_settled) = (n as u128, n < strata.len());
    // Strata with less than one cell by proportion get one. That lowers the others' shares, so they are looked at again.
    while !is_settled {
        let is_small = |stratum: &usize| sizes[*stratum] as u128 * n_left < total;
        let (small, large): (Vec<usize>, Vec<usize>) = strata.iter().partition(|stratum| is_small(stratum));
        is_settled = small.is_empty();
        for stratum in small {
            shares[stratum] = 1;
            n_left -= 1;
            total -= sizes[stratum] as u128;
        }
        strata = large;
    }
    let exact = |stratum: usize| sizes[stratum] as u128 * n_left;
    for &stratum in &strata {
        shares[stratum] = (exact(stratum) / total) as usize;
    }
    let n_missing = n - shares.iter().sum::<usize>();
    strata.sort_by_key(|&stratum| std::cmp::Reverse(exact(stratum) % total));
    strata.into_iter().take(n_missing).for_each(|stratum| shares[stratum] += 1);
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shares_add_up_and_follow_the_sizes(
            sizes in proptest::collection::vec(0usize..5_000, 1..30),
            n in 0usize..80_000,
        ) {
            let total: usize = sizes.iter().sum();
            let shares = shares(&sizes, n);
            prop_assert_eq!(shares.iter().sum::<usize>(), n.min(total));
            let n_strata = sizes.iter().filter(|&&size| size > 0).count();
            for (&share, &size) in shares.iter().zip(&sizes) {
                prop_assert!(share <= size);
                prop_assert!(size == 0 || n < n_strata || share >= 1);
                let exact = n.min(total) as f64 * size as f64 / total.max(1) as f64;
                prop_assert!((share as f64 - exact).abs() <= 1.0 + n_strata as f64 * size as f64 / total.max(1) as f64);
            }
        }
    }

    #[test]
    fn the_smallest_keys_of_each_stratum_stay() {
        let mut strata = Strata::default();
        for key in 0..90u64 {
            strata.add(Some("common"), key * 31 % 97);
        }
        (0..9).for_each(|key| strata.add(None, key));
        strata.add(Some("rare"), u64::MAX);
        assert_eq!(strata.n_cells(), 100);
        let bounds = strata.bounds(10);
        let n_common = (0..90u64).filter(|key| bounds.keeps(Some("common"), key * 31 % 97)).count();
        assert_eq!((n_common, (0..9).filter(|&key| bounds.keeps(None, key)).count()), (8, 1));
        assert!(bounds.keeps(Some("rare"), u64::MAX), "one of each stays");
        assert!(!bounds.keeps(Some("unknown"), 0));
    }
}
