//! What the values of a matrix are: counts, normalised, scaled.

use std::fmt;

use super::{CountBlocks, Matrix, Parts};
use crate::counts::{LARGEST_WHOLE, is_whole, nearest_whole};
use crate::error::Result;

/// Places of a matrix that are looked at, and cells at each.
const WINDOWS: usize = 16;
const WINDOW_CELLS: usize = 64;
/// Memory for the cells of one place.
const WINDOW_BYTES: usize = 2 << 20;
/// ln(1 + x) of the largest count ever seen in a cell is far below; normalised counts are far above.
const MAX_LOG: f64 = 20.0;
/// How far sums of cells scaled to the same total may be apart, relative to the total: float32 noise, with room.
const SAME_SUM: f64 = 1e-3;

/// Which values a reader can use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ValuePolicy {
    /// Raw counts only.
    #[default]
    Counts,
    /// Raw counts, or log1p-normalised values as they are.
    Normalized,
}

/// What values look like.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueKind {
    /// Whole numbers from 0 on.
    Counts,
    /// ln(1 + x) of normalised counts.
    Log1p {
        /// What every cell's counts were scaled to; `None` if the cells' totals differ, as in a selection of genes.
        target_sum: Option<f64>,
    },
    /// Normalised to the same total, without the logarithm.
    NormalizedNotLogged {
        /// The total.
        target_sum: f64,
    },
    /// Centred or z-scored: some values are negative.
    Scaled {
        /// The smallest value seen.
        minimum: f64,
    },
    /// Fractions too large for logarithms whose totals differ: counts corrected for ambient RNA, or expected counts.
    Fractional {
        /// The largest value seen.
        maximum: f64,
    },
}

impl fmt::Display for ValueKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Counts => formatter.write_str("raw counts"),
            Self::Log1p { target_sum: Some(sum) } => {
                write!(formatter, "log1p-normalised values (cells scaled to {sum:.0})")
            }
            Self::Log1p { target_sum: None } => formatter.write_str("log1p-normalised values"),
            Self::NormalizedNotLogged { target_sum } => {
                write!(formatter, "normalised values without a logarithm (cells scaled to {target_sum:.0})")
            }
            Self::Scaled { minimum } => {
                write!(formatter, "scaled values with negatives (down to {minimum:.3})")
            }
            Self::Fractional { maximum } => write!(formatter, "fractional values (up to {maximum:.1})"),
        }
    }
}

/// Judges a matrix by a sample spread over it.
pub(crate) fn detect(mut matrix: Matrix) -> Result<ValueKind> {
    let mut sample = Sample::default();
    if let Parts::Columns(sparse) = &mut matrix.parts {
        // Cells are scattered over the file: look at values alone, without totals.
        let n_values = WINDOW_BYTES / size_of::<f64>() / WINDOWS;
        for start in windows(sparse.data.n_rows(), n_values) {
            let count = n_values.min(sparse.data.n_rows() - start);
            sample.values(sparse.data.read_numbers(start, count)?.into_iter());
        }
        return Ok(sample.kind());
    }
    let n_cells = matrix.n_cells;
    let mut blocks = CountBlocks::new(matrix, WINDOW_BYTES, None)?;
    for start in windows(n_cells, WINDOW_CELLS) {
        blocks.seek(start, start + WINDOW_CELLS);
        if let Some(block) = blocks.next().transpose()? {
            for cell in 0..block.n_cells() {
                sample.cell(block.cell(cell).1);
            }
        }
    }
    Ok(sample.kind())
}

/// First positions of windows of `length` spread evenly over `total`.
fn windows(total: usize, length: usize) -> impl Iterator<Item = usize> {
    let n_windows = total.div_ceil(length.max(1)).min(WINDOWS);
    let last = total.saturating_sub(length);
    (0..n_windows).map(move |window| if n_windows < 2 { 0 } else { last / (n_windows - 1) * window })
}

/// What a sample of values shows.
#[derive(Default)]
pub(crate) struct Sample {
    fractions: bool,
    minimum: f64,
    maximum: f64,
    sums: Vec<f64>,
    sums_before_log: Vec<f64>,
}

impl Sample {
    /// Takes values in whose cells are not known.
    pub(crate) fn values(&mut self, values: impl Iterator<Item = f64>) {
        for value in values {
            self.fractions |= value.fract() != 0.0;
            self.minimum = self.minimum.min(value);
            self.maximum = self.maximum.max(value);
        }
    }

    /// Takes a whole cell in.
    pub(crate) fn cell(&mut self, values: &[f32]) {
        if values.is_empty() {
            return;
        }
        // One look at all for what counts are, which most values are; one by one only if they are not.
        let is_count = |value: f32| is_whole(value, LARGEST_WHOLE);
        let are_counts =
            values.chunks(4096).all(|values| values.iter().fold(true, |all, &value| all & is_count(value)));
        if are_counts {
            self.maximum = self
                .maximum
                .max(values.iter().map(|&value| nearest_whole(value)).max().map_or(0.0, f64::from));
        } else {
            self.values(values.iter().map(|&value| f64::from(value)));
        }
        self.sums.push(values.iter().map(|&value| f64::from(value)).sum());
        // Beyond that they are no logarithms, and nobody asks.
        if self.maximum < MAX_LOG {
            self.sums_before_log.push(values.iter().map(|&value| f64::from(value).exp_m1()).sum());
        }
    }

    /// What it looks like.
    pub(crate) fn kind(&self) -> ValueKind {
        if self.minimum < 0.0 {
            return ValueKind::Scaled { minimum: self.minimum };
        }
        if !self.fractions {
            return ValueKind::Counts;
        }
        if let Some(target_sum) = common(&self.sums) {
            return ValueKind::NormalizedNotLogged { target_sum };
        }
        if self.maximum < MAX_LOG {
            return ValueKind::Log1p { target_sum: common(&self.sums_before_log) };
        }
        ValueKind::Fractional { maximum: self.maximum }
    }
}

/// The value that all share, if they do and there are at least two.
fn common(sums: &[f64]) -> Option<f64> {
    if sums.len() < 2 {
        return None;
    }
    let mean = sums.iter().sum::<f64>() / sums.len() as f64;
    let same = |sum: &f64| (sum - mean).abs() <= SAME_SUM * mean.abs();
    sums.iter().all(same).then_some(mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(cells: &[&[f32]]) -> ValueKind {
        let mut sample = Sample::default();
        cells.iter().for_each(|cell| sample.cell(cell));
        sample.kind()
    }

    #[test]
    fn values_are_told_apart() {
        assert_eq!(kind(&[&[1.0, 7.0], &[], &[300.0]]), ValueKind::Counts);
        assert_eq!(kind(&[&[0.5, -0.5]]), ValueKind::Scaled { minimum: -0.5 });
        assert_eq!(
            kind(&[&[7500.5, 2499.5], &[9999.5, 0.5]]),
            ValueKind::NormalizedNotLogged { target_sum: 10_000.0 }
        );
        assert_eq!(kind(&[&[0.25, 0.75], &[0.5, 0.5]]), ValueKind::NormalizedNotLogged { target_sum: 1.0 });
        assert_eq!(kind(&[&[0.7, 3.1], &[2.2]]), ValueKind::Log1p { target_sum: None });
        assert!(matches!(kind(&[&[10.5, 40.25], &[3.5]]), ValueKind::Fractional { .. }));
        let cells: Vec<Vec<f32>> =
            [[5.0f64, 3.0, 2.0], [1.0, 1.0, 1.0]].map(|cell| scaled(&cell, 10_000.0)).into_iter().collect();
        let ValueKind::Log1p { target_sum: Some(sum) } = kind(&[&cells[0], &cells[1]]) else {
            panic!("not log1p")
        };
        assert!((sum - 10_000.0).abs() < 1.0, "{sum}");
    }

    fn scaled(cell: &[f64], target: f64) -> Vec<f32> {
        let total: f64 = cell.iter().sum();
        cell.iter().map(|count| (count / total * target).ln_1p() as f32).collect()
    }

    #[test]
    fn cells_of_counts_are_looked_at_as_any_values() {
        let cells: [&[f32]; 3] = [&[1.0, 300.0, 8_388_607.0], &[2.0], &[8_388_608.0, 1e9]];
        let (mut cell_by_cell, mut all) = (Sample::default(), Sample::default());
        for cell in cells {
            cell_by_cell.cell(cell);
            all.values(cell.iter().map(|&value| f64::from(value)));
        }
        assert_eq!(
            (cell_by_cell.fractions, cell_by_cell.minimum, cell_by_cell.maximum),
            (all.fractions, all.minimum, all.maximum)
        );
    }

    #[test]
    fn windows_stay_inside_and_reach_both_ends() {
        for total in [0, 1, 63, 64, 65, 1_000, 1_000_003] {
            let starts: Vec<usize> = windows(total, 64).collect();
            assert!(starts.iter().all(|&start| start < total.max(1)), "{total}");
            assert_eq!(starts.is_empty(), total == 0);
        }
        assert!(windows(100_000, 64).last().unwrap() + 64 > 99_000);
    }
}
