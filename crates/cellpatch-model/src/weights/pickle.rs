//! A reader for the part of Python's pickle format that state dicts are written in.
//!
//! It builds values and runs nothing: a name that stands for a function is kept as a name, and a call of one as the
//! name with its arguments. A name that no state dict is written with ends the reading, whether it is called or not.
//! Values live in one list and refer to each other by position, so that neither cycles nor depth in a hostile file
//! can exhaust the stack, and their number is limited.
//!
//! The format is Python's `pickletools`; `torch.save` writes protocol 2.

mod globals;
mod machine;
mod writer;

use std::collections::BTreeSet;

use self::machine::Machine;
use super::fault::Fault;

pub(super) use writer::PickleWriter;

/// How large a pickle may be; a state dict takes about 150 bytes a tensor.
const MOST_BYTES: usize = 16 << 20;

/// Where a value lives in its [`Pickle`].
pub(super) type Position = usize;

/// A value a pickle holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// None, a float, or anything else no state dict's tensors need.
    Other,
    Integer(i64),
    Text(String),
    Sequence(Vec<Position>),
    Dict(Vec<(Position, Position)>),
    /// `module.name`
    Global(String),
    /// A global called with a tuple of arguments.
    Call {
        function: Position,
        arguments: Position,
    },
    /// Something that lives outside the pickle: a tensor's storage.
    Persistent(Position),
}

/// The values of a pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<Value>,
    root: Position,
}

impl Pickle {
    /// Reads a pickle up to its end.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        if bytes.len() > MOST_BYTES {
            return Err(Fault::PickleTooLarge { found: bytes.len(), unit: "bytes" });
        }
        let (values, root) = Machine::new(bytes).run()?;
        Ok(Self { values, root })
    }

    pub(super) fn root(&self) -> Position {
        self.root
    }

    pub(super) fn value(&self, position: Position) -> &Value {
        &self.values[position]
    }

    /// The items of a tuple or list.
    pub(super) fn sequence(&self, position: Position) -> Option<&[Position]> {
        match self.value(position) {
            Value::Sequence(items) => Some(items),
            _ => None,
        }
    }

    /// A dict's values under string keys.
    pub(super) fn entries(&self, position: Position) -> Option<Vec<(&str, Position)>> {
        let Value::Dict(items) = self.value(position) else {
            return None;
        };
        Some(items.iter().filter_map(|&(key, value)| Some((self.text(key)?, value))).collect())
    }

    pub(super) fn text(&self, position: Position) -> Option<&str> {
        match self.value(position) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn index(&self, position: Position) -> Option<usize> {
        match self.value(position) {
            Value::Integer(integer) => usize::try_from(*integer).ok(),
            _ => None,
        }
    }

    /// How many values that stand for tensors can be reached from a value.
    pub(super) fn n_tensors(&self, position: Position) -> usize {
        let (mut seen, mut waiting, mut n_tensors) = (BTreeSet::new(), vec![position], 0);
        while let Some(position) = waiting.pop() {
            if !seen.insert(position) {
                continue;
            }
            match self.value(position) {
                Value::Sequence(items) => waiting.extend(items),
                Value::Dict(items) => waiting.extend(items.iter().map(|&(_, value)| value)),
                Value::Call { function, .. } if self.global(*function).is_some_and(is_tensor) => {
                    n_tensors += 1;
                }
                _ => {}
            }
        }
        n_tensors
    }

    pub(super) fn global(&self, position: Position) -> Option<&str> {
        match self.value(position) {
            Value::Global(name) => Some(name),
            _ => None,
        }
    }
}

/// Whether a Python function makes tensors.
pub(super) fn is_tensor(function: &str) -> bool {
    function.starts_with("torch._utils._rebuild_") || function.starts_with("torch._tensor._rebuild_")
}
