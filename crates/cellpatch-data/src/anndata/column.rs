//! One annotation of every cell or gene.

use super::labels::Labels;

/// A named column of `obs` or `var`.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// One value per row.
    pub values: ColumnValues,
}

/// The values of a column. `None` and NaN are missing.
#[derive(Debug, Clone, PartialEq)]
pub enum ColumnValues {
    /// Values out of a fixed list.
    Categories(Labels),
    /// Text.
    Texts(Vec<Option<String>>),
    /// Whole numbers.
    Integers(Vec<Option<i64>>),
    /// Numbers.
    Numbers(Vec<f64>),
    /// True or false.
    Booleans(Vec<Option<bool>>),
}

impl Column {
    /// How many rows the column has.
    pub fn len(&self) -> usize {
        match &self.values {
            ColumnValues::Categories(labels) => labels.codes.len(),
            ColumnValues::Texts(values) => values.len(),
            ColumnValues::Integers(values) => values.len(),
            ColumnValues::Numbers(values) => values.len(),
            ColumnValues::Booleans(values) => values.len(),
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The column as numbers, missing ones NaN; none for texts, truth values and categories.
    pub fn numbers(&self) -> Option<Vec<f64>> {
        match &self.values {
            ColumnValues::Numbers(values) => Some(values.clone()),
            ColumnValues::Integers(values) => {
                Some(values.iter().map(|value| value.map_or(f64::NAN, |value| value as f64)).collect())
            }
            ColumnValues::Categories(_) | ColumnValues::Texts(_) | ColumnValues::Booleans(_) => None,
        }
    }

    /// The column as categories: those of the file for a categorical column, else its distinct values in ascending order.
    pub fn labels(&self) -> Labels {
        match &self.values {
            ColumnValues::Categories(labels) => labels.clone(),
            ColumnValues::Texts(values) => Labels::of_texts(values),
            ColumnValues::Integers(values) => Labels::distinct(values.iter().copied(), i64::to_string),
            ColumnValues::Booleans(values) => {
                Labels::distinct(values.iter().copied(), |&value| boolean(value))
            }
            ColumnValues::Numbers(values) => {
                let present = values.iter().map(|&value| (!value.is_nan()).then_some(Ordered(value)));
                Labels::distinct(present, |value| value.0.to_string())
            }
        }
    }

    /// Every value as text, `None` where it is missing.
    pub fn texts(&self) -> Vec<Option<String>> {
        match &self.values {
            ColumnValues::Texts(values) => values.clone(),
            _ => {
                let labels = self.labels();
                let text =
                    |code: &Option<u32>| code.and_then(|code| labels.categories.get(code as usize).cloned());
                labels.codes.iter().map(text).collect()
            }
        }
    }
}

/// A boolean as pandas prints it.
fn boolean(value: bool) -> String {
    if value { "True".into() } else { "False".into() }
}

/// A number with a total order; NaN never gets here.
#[derive(PartialEq)]
struct Ordered(f64);

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(values: ColumnValues) -> Column {
        Column { name: "label".into(), values }
    }

    #[test]
    fn any_column_becomes_ascending_categories() {
        let texts =
            column(ColumnValues::Texts(vec![Some("b".into()), None, Some("a".into()), Some("b".into())]));
        let labels = texts.labels();
        assert_eq!(labels.categories, ["a", "b"]);
        assert_eq!(labels.codes, [Some(1), None, Some(0), Some(1)]);
        let integers = column(ColumnValues::Integers(vec![Some(10), Some(9), None]));
        assert_eq!(integers.labels().categories, ["9", "10"]);
        let numbers = column(ColumnValues::Numbers(vec![2.5, f64::NAN, -1.0]));
        assert_eq!(numbers.labels().categories, ["-1", "2.5"]);
        assert_eq!(numbers.labels().codes, [Some(1), None, Some(0)]);
        let booleans = column(ColumnValues::Booleans(vec![Some(true), Some(false)]));
        assert_eq!(booleans.texts(), [Some("True".to_string()), Some("False".to_string())]);
    }
}
