//! Training and validation cells.

use crate::{
    RowSelection,
    error::{Error, Result},
    random::{Purpose, stream},
    shard::ShardSet,
};

/// Cells to train on and cells to validate on: every cell is in one of the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Rows to train on.
    pub train: RowSelection,
    /// Rows to validate on.
    pub validation: RowSelection,
}

impl Split {
    /// A uniform sample of `fraction` of the cells, rounded but at least one, for validation.
    ///
    /// Each row draws its own random number from `seed`, and the smallest are taken: the same shard set and seed give
    /// the same split on any machine.
    ///
    /// # Errors
    /// [`Error::BadOption`] if `fraction` is not between 0 and 1, [`Error::CannotSplit`] if a side would be empty.
    pub fn random(shards: &ShardSet, fraction: f64, seed: u64) -> Result<Self> {
        check_fraction(fraction)?;
        let n_rows = shards.n_cells() as u64;
        let n_validation = ((fraction * n_rows as f64).round() as usize).max(1);
        let mut keys: Vec<(u64, u64)> =
            (0..n_rows).map(|row| (stream(seed, Purpose::Split, 0, row).bits(), row)).collect();
        if n_validation < keys.len() {
            keys.select_nth_unstable(n_validation);
            keys.truncate(n_validation);
        }
        Self::from_validation(shards, keys.into_iter().map(|(_, row)| row))
    }

    /// Whole groups of cells for validation, such as donors, so that no donor is on both sides.
    ///
    /// Groups are visited in a random order fixed by `seed`; one joins the validation cells if that brings them closer
    /// to `fraction` of all cells. If every group is too large for that, the smallest is taken. Cells without a label
    /// are trained on.
    ///
    /// # Errors
    /// [`Error::Missing`] if there is no such column, [`Error::BadOption`] if `fraction` is not between 0 and 1,
    /// [`Error::CannotSplit`] if the column has fewer than two groups.
    pub fn by_column(shards: &ShardSet, column: &str, fraction: f64, seed: u64) -> Result<Self> {
        check_fraction(fraction)?;
        let labels = shards.labels(column)?;
        let mut sizes = vec![0usize; labels.categories.len()];
        labels.codes.iter().flatten().for_each(|&code| sizes[code as usize] += 1);
        let mut groups: Vec<usize> = (0..sizes.len()).filter(|&group| sizes[group] > 0).collect();
        if groups.len() < 2 {
            return Err(cannot_split(
                shards,
                format!("{column} has {} distinct value(s); two are needed", groups.len()),
            ));
        }
        stream(seed, Purpose::Split, 1, 0).shuffle(&mut groups);
        let target = fraction * shards.n_cells() as f64;
        let mut chosen = vec![false; sizes.len()];
        let (mut n_groups, mut n_cells) = (0usize, 0usize);
        for &group in &groups {
            let grown = n_cells + sizes[group];
            if n_groups + 1 < groups.len() && (grown as f64 - target).abs() < (n_cells as f64 - target).abs()
            {
                chosen[group] = true;
                n_groups += 1;
                n_cells = grown;
            }
        }
        if n_groups == 0 {
            groups
                .iter()
                .min_by_key(|&&group| sizes[group])
                .into_iter()
                .for_each(|&group| chosen[group] = true);
        }
        let in_validation = |code: Option<u32>| code.is_some_and(|code| chosen[code as usize]);
        let rows = (0u64..).zip(&labels.codes).filter(|&(_, &code)| in_validation(code)).map(|(row, _)| row);
        Self::from_validation(shards, rows)
    }

    fn from_validation(shards: &ShardSet, rows: impl Iterator<Item = u64>) -> Result<Self> {
        let validation = RowSelection::from_rows(shards.n_cells() as u64, rows);
        let train = validation.complement();
        for (side, selection) in [("training", &train), ("validation", &validation)] {
            if selection.is_empty() {
                return Err(cannot_split(
                    shards,
                    format!("of {} cells none is left for {side}", shards.n_cells()),
                ));
            }
        }
        Ok(Self { train, validation })
    }
}

fn cannot_split(shards: &ShardSet, reason: String) -> Error {
    Error::CannotSplit { path: shards.path().to_path_buf(), reason }
}

fn check_fraction(fraction: f64) -> Result<()> {
    if fraction > 0.0 && fraction < 1.0 {
        return Ok(());
    }
    let reason = "it must be between 0 and 1, both excluded".into();
    Err(Error::BadOption { option: "validation-fraction", value: fraction.to_string(), reason })
}
