//! Sections of tissue that lie in one file.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::str::Chars;

use super::Coordinates;
use crate::anndata::Labels;
use crate::error::{Error, Result};
use crate::source::CellSource;

/// Sections of one tissue, in their order along z, and which of them each cell lies on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sections {
    /// Names along z.
    pub names: Vec<String>,
    /// Position of each cell's section among the names.
    pub of_cell: Vec<u32>,
}

impl Sections {
    /// Sections that a column of `obs` names. Their order is that of the column's categories; where that is merely the
    /// alphabet's, numbers in names count as numbers: `s2` comes before `s10`.
    ///
    /// # Errors
    /// [`Error::Missing`] if there is no such column, [`Error::Invalid`] if a cell has no section.
    pub fn of_column(source: &dyn CellSource, column: &str) -> Result<Self> {
        let Labels { categories, codes } = source.labels(column)?;
        let used: BTreeSet<u32> = codes.iter().flatten().copied().collect();
        let mut order: Vec<usize> = used.into_iter().map(|category| category as usize).collect();
        if categories.is_sorted() {
            order.sort_by(|&a, &b| natural_order(&categories[a], &categories[b]));
        }
        let mut place = vec![0; categories.len()];
        order.iter().enumerate().for_each(|(at, &category)| place[category] = at as u32);
        let of_cell = codes.iter().enumerate().map(|(cell, code)| match code {
            Some(code) => Ok(place[*code as usize]),
            None => Err(Error::Invalid {
                path: source.path().to_path_buf(),
                dataset: format!("obs[{column:?}]"),
                reason: format!("cell {cell} (counted from 0) has no section"),
            }),
        });
        let of_cell = of_cell.collect::<Result<_>>()?;
        Ok(Self { names: order.into_iter().map(|category| categories[category].clone()).collect(), of_cell })
    }

    /// Cells of one third coordinate are a section.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no third coordinate, or it is not a number for every cell.
    pub fn of_heights(source: &dyn CellSource, coordinates: &Coordinates) -> Result<Self> {
        let invalid = |reason: String| Error::Invalid {
            path: source.path().to_path_buf(),
            dataset: coordinates.origin.clone(),
            reason,
        };
        let heights = coordinates.z.as_ref().ok_or_else(|| invalid("it has no third coordinate".into()))?;
        if let Some(cell) = heights.iter().position(|z| !z.is_finite()) {
            return Err(invalid(format!(
                "the third coordinate of cell {cell} (counted from 0) is {}",
                heights[cell]
            )));
        }
        let mut levels = heights.clone();
        levels.sort_unstable_by(f64::total_cmp);
        // -0 and 0 are one height.
        levels.dedup_by(|a, b| a == b);
        let level = |z: &f64| levels.partition_point(|level| level < z) as u32;
        Ok(Self {
            names: levels.iter().map(|z| format!("z = {z}")).collect(),
            of_cell: heights.iter().map(level).collect(),
        })
    }

    /// Cells of each section, in the order of the file.
    pub fn cells(&self) -> Vec<Vec<usize>> {
        let mut cells = vec![Vec::new(); self.names.len()];
        for (cell, &section) in self.of_cell.iter().enumerate() {
            cells[section as usize].push(cell);
        }
        cells
    }
}

/// The order of texts in which runs of digits count as numbers.
fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut rest_of_a, mut rest_of_b) = (a.chars(), b.chars());
    loop {
        match (number(&mut rest_of_a), number(&mut rest_of_b)) {
            (Some(one), Some(other)) => match one.cmp(&other) {
                Ordering::Equal => {}
                unequal => return unequal,
            },
            _ => match (rest_of_a.next(), rest_of_b.next()) {
                // Equal but for zeros before a number.
                (None, None) => return a.cmp(b),
                (one, other) if one == other => {}
                (one, other) => return one.cmp(&other),
            },
        }
    }
}

/// The number a text begins with, taken off it: how many digits without zeros before them, and the digits.
fn number(text: &mut Chars<'_>) -> Option<(usize, String)> {
    let all = text.as_str();
    let digits = &all[..all.len() - all.trim_start_matches(|c: char| c.is_ascii_digit()).len()];
    if digits.is_empty() {
        return None;
    }
    *text = all[digits.len()..].chars();
    let digits = digits.trim_start_matches('0');
    Some((digits.len(), digits.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_count_as_numbers() {
        let mut names = vec!["s10", "s2", "s1b", "s1", "t", "s02", "10", "9", "s1a20", "s1a3"];
        names.sort_by(|a, b| natural_order(a, b));
        assert_eq!(names, ["9", "10", "s1", "s1a3", "s1a20", "s1b", "s02", "s2", "s10", "t"]);
    }
}
