//! Labels: categories and, for every row, which one it has.

use std::collections::BTreeMap;

/// A column as categories and, for every row, a position in them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// The names, each once.
    pub categories: Vec<String>,
    /// One per row; `None` where the value is missing.
    pub codes: Vec<Option<u32>>,
}

/// Which names say that there is no label. Case and spaces around a name do not matter.
///
/// The default are the empty name and `nan`, which is what a missing value becomes when Python writes it as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingNames(Vec<String>);

impl Default for MissingNames {
    fn default() -> Self {
        Self(vec![String::new(), "nan".into()])
    }
}

impl MissingNames {
    /// These, and others: `unknown`, `unassigned`.
    pub fn and(mut self, names: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.0.extend(names.into_iter().map(|name| name.as_ref().trim().to_lowercase()));
        self
    }

    /// Whether a name says that there is no label.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains(&name.trim().to_lowercase())
    }
}

impl Labels {
    /// Distinct texts in ascending order, and for every row which one it has.
    pub fn of_texts(texts: &[Option<String>]) -> Self {
        Self::distinct(texts.iter().map(Option::as_ref), |text| (*text).clone())
    }

    /// Distinct values in ascending order, under their names.
    pub(super) fn distinct<T: Ord>(
        values: impl Iterator<Item = Option<T>>,
        name: impl Fn(&T) -> String,
    ) -> Self {
        let values: Vec<Option<T>> = values.collect();
        let mut order: BTreeMap<&T, u32> = values.iter().flatten().map(|value| (value, 0)).collect();
        for (code, position) in order.values_mut().zip(0..) {
            *code = position;
        }
        Self {
            categories: order.keys().map(|value| name(value)).collect(),
            codes: values
                .iter()
                .map(|value| value.as_ref().and_then(|value| order.get(value).copied()))
                .collect(),
        }
    }

    /// The same labels for learning: names that say "missing" are, and categories without a cell are gone. The order of
    /// the others stays.
    pub fn known(&self, missing: &MissingNames) -> Self {
        let mut has_cells = vec![false; self.categories.len()];
        self.codes.iter().flatten().for_each(|&code| has_cells[code as usize] = true);
        let mut categories = Vec::new();
        let new_codes: Vec<Option<u32>> = self
            .categories
            .iter()
            .zip(has_cells)
            .map(|(name, has_cells)| {
                (has_cells && !missing.contains(name)).then(|| {
                    categories.push(name.clone());
                    categories.len() as u32 - 1
                })
            })
            .collect();
        let codes = self.codes.iter().map(|code| code.and_then(|code| new_codes[code as usize])).collect();
        Self { categories, codes }
    }

    /// How many rows have a label.
    pub fn n_labelled(&self) -> usize {
        self.codes.iter().flatten().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_say_missing_and_categories_without_cells_are_gone() {
        let names = ["T cell", "NaN", "unused", "", "Unknown ", "B cell"];
        let labels = Labels {
            categories: names.map(String::from).to_vec(),
            codes: vec![Some(0), Some(1), None, Some(3), Some(4), Some(5), Some(0)],
        };
        let known = labels.known(&MissingNames::default());
        assert_eq!(known.categories, ["T cell", "Unknown ", "B cell"]);
        assert_eq!(known.codes, [Some(0), None, None, None, Some(1), Some(2), Some(0)]);
        assert_eq!(known.n_labelled(), 4);
        let known = labels.known(&MissingNames::default().and(["unknown"]));
        assert_eq!(known.categories, ["T cell", "B cell"]);
        assert_eq!(known.codes, [Some(0), None, None, None, None, Some(1), Some(0)]);
    }
}
