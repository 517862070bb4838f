//! How the tensors of a weights file and the parameters of a model go together.

use std::fmt;

use serde::Serialize;

use super::contents::LeftOut;

/// Every tensor of a weights file and every parameter of a model, by what becomes of it.
///
/// [`Checkpoint::fit`](super::Checkpoint::fit) makes it without changing either. `Display` lists it over several
/// lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Fit {
    /// Tensors the model has a place for, by name.
    pub matching: Vec<String>,
    /// Parameters the file has no tensor for.
    pub missing: Vec<NamedShape>,
    /// Parameters the file has a tensor of another shape for.
    pub mismatched: Vec<ShapeMismatch>,
    /// Tensors the model has no place for: the head of an annotation model, for example.
    pub unused: Vec<NamedShape>,
    /// What else the file holds: optimizer state, counters, tensors of integers.
    pub left_out: Vec<LeftOut>,
}

/// A tensor's name and shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NamedShape {
    /// The released name.
    pub name: String,
    /// The shape in PyTorch's layout.
    pub shape: Vec<usize>,
}

/// A tensor whose shape is not that of the parameter of its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShapeMismatch {
    /// The released name.
    pub name: String,
    /// The shape in the file.
    pub found: Vec<usize>,
    /// The shape in the model, in PyTorch's layout.
    pub expected: Vec<usize>,
}

impl Fit {
    /// Whether every parameter of the model has its tensor, so that
    /// [`Checkpoint::load_into`](super::Checkpoint::load_into) succeeds.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.mismatched.is_empty()
    }
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tensors fit the model", self.matching.len())?;
        list(f, "missing from the file", &self.missing)?;
        list(f, "of another shape", &self.mismatched)?;
        list(f, "not used by the model", &self.unused)?;
        list(f, "no weights, left out", &self.left_out)
    }
}

impl fmt::Display for NamedShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.name, self.shape)
    }
}

impl fmt::Display for ShapeMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} in the file, {:?} in the model", self.name, self.found, self.expected)
    }
}

fn list(f: &mut fmt::Formatter<'_>, what: &str, items: &[impl fmt::Display]) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    write!(f, "\n{} {what}:", items.len())?;
    items.iter().try_for_each(|item| write!(f, "\n  {item}"))
}
