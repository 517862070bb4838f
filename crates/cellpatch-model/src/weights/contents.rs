//! What a weights file holds, whatever kind of file it is.

use std::collections::BTreeMap;
use std::fmt;

use burn::tensor::TensorData;
use serde::Serialize;

/// What a reader found: tensors of floating-point numbers as the file has them, and the rest.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) tensors: Vec<(String, TensorData)>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) left_out: Vec<LeftOut>,
}

/// Something a weights file holds that is no weight, and was not read: optimizer state, counters, losses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LeftOut {
    /// Its name in the file.
    pub name: String,
    /// What it is.
    pub kind: LeftOutKind,
}

/// What kind of thing was left out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LeftOutKind {
    /// A tensor without floating-point numbers, one element after the other: of integers, sparse, quantised.
    Tensor {
        /// The element type, or the Python function that makes the tensor.
        elements: String,
    },
    /// A dict or list.
    Group {
        /// How many tensors are in it, at any depth.
        n_tensors: usize,
    },
    /// A number, a text, nothing, or an object.
    Value,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: ", self.name)?;
        match &self.kind {
            LeftOutKind::Tensor { elements } => write!(f, "a tensor of {elements:?}"),
            LeftOutKind::Group { n_tensors: 1 } => f.write_str("a group with 1 tensor"),
            LeftOutKind::Group { n_tensors } => write!(f, "a group with {n_tensors} tensors"),
            LeftOutKind::Value => f.write_str("a value"),
        }
    }
}
