//! Which matrix of a file to read.

use super::AnnDataFile;
use super::location::MatrixLocation;
use crate::error::{Error, Result};
use crate::matrix::{ValueKind, ValuePolicy};

/// Which matrix is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MatrixChoice {
    /// A layer by name; without it `raw/X`, then `X`, then the layer that holds counts if it is the only one.
    pub layer: Option<String>,
    /// Which values will do.
    pub values: ValuePolicy,
    /// The genome of a 10x input that has several; others are not asked for one.
    pub genome: Option<String>,
}

/// The matrix to read.
#[derive(Debug, Clone, PartialEq)]
pub struct ChosenMatrix {
    /// Where it is.
    pub location: MatrixLocation,
    /// What its values are, judged by a sample; reading checks every value.
    pub kind: ValueKind,
}

/// See [`AnnDataFile::choose_matrix`].
pub(super) fn choose(file: &AnnDataFile, choice: &MatrixChoice) -> Result<ChosenMatrix> {
    if let Some(layer) = &choice.layer {
        let location = MatrixLocation::Layer(layer.clone());
        let kind = file.value_kind(&location)?;
        return accept(file, choice.values, vec![ChosenMatrix { location, kind }]);
    }
    let available = file.matrices();
    let mut found = Vec::new();
    for location in [MatrixLocation::RawX, MatrixLocation::X] {
        if available.contains(&location) {
            let kind = file.value_kind(&location)?;
            let is_counts = kind == ValueKind::Counts;
            found.push(ChosenMatrix { location, kind });
            if is_counts {
                break;
            }
        }
    }
    if found.is_empty() {
        // Without X and raw/X, the one layer that holds counts is meant; of several, the user must say which.
        let layers = available.iter().map(|location| Ok((location, file.value_kind(location)?)));
        let layers: Vec<_> = layers.collect::<Result<_>>()?;
        let mut counts = layers.into_iter().filter(|(_, kind)| *kind == ValueKind::Counts);
        if let (Some((location, kind)), None) = (counts.next(), counts.next()) {
            return Ok(ChosenMatrix { location: location.clone(), kind });
        }
        return Err(Error::Missing {
            path: file.path().to_path_buf(),
            what: "matrix",
            name: "X".into(),
            available: available.iter().map(MatrixLocation::to_string).collect(),
        });
    }
    accept(file, choice.values, found)
}

/// The first matrix of counts, else what the policy allows, `X` before `raw/X`.
fn accept(file: &AnnDataFile, policy: ValuePolicy, found: Vec<ChosenMatrix>) -> Result<ChosenMatrix> {
    let is_log = |matrix: &&ChosenMatrix| matches!(matrix.kind, ValueKind::Log1p { .. });
    let counts = found.iter().find(|matrix| matrix.kind == ValueKind::Counts);
    let logs = found.iter().rev().find(is_log).filter(|_| policy == ValuePolicy::Normalized);
    if let Some(chosen) = counts.or(logs) {
        return Ok(chosen.clone());
    }
    let describe = |matrix: &ChosenMatrix| format!("{} looks like {}", matrix.location, matrix.kind);
    let mut text = found.iter().rev().map(describe).collect::<Vec<_>>().join(", ");
    let looked_at = |location: &MatrixLocation| found.iter().any(|matrix| matrix.location == *location);
    let counted: Vec<String> = file
        .matrices()
        .into_iter()
        .filter(|location| !looked_at(location) && matches!(file.value_kind(location), Ok(ValueKind::Counts)))
        .map(|location| location.to_string())
        .collect();
    if !counted.is_empty() {
        text = format!("{text}, but {} holds counts", counted.join(" and "));
    }
    Err(Error::NotCounts {
        path: file.path().to_path_buf(),
        dataset: found.last().map(|matrix| matrix.location.to_string()).unwrap_or_default(),
        found: text,
    })
}
