//! The crate's one error type.

use std::path::{Path, PathBuf};

use crate::precision::Precision;
use crate::weights::Fault;

/// What went wrong while configuring a model, or while reading or writing its weights.
///
/// `Display` says what happened and where; [`Error::help`] says what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configuration has a value that no model can have.
    #[error("{field} is {value}: {reason}")]
    BadConfig {
        /// The field of [`CellPatchConfig`](crate::CellPatchConfig).
        field: &'static str,
        /// What it was set to.
        value: String,
        /// What is allowed.
        reason: String,
    },
    /// There is no such preset.
    #[error("there is no preset {name:?}")]
    UnknownPreset {
        /// What was asked for.
        name: String,
    },
    /// There is no such precision.
    #[error("there is no precision {name:?}")]
    UnknownPrecision {
        /// What was asked for.
        name: String,
    },
    /// A device has no floats of this kind, or its backend no kernels for them.
    #[error("{device} has no kernels that store {precision}")]
    NoSuchPrecision {
        /// What was asked for.
        precision: Precision,
        /// The device.
        device: String,
    },
    /// Tensors of one batch disagree about the number of cells or genes.
    #[error("{what} has shape {found:?} where {expected:?} is needed")]
    BadInput {
        /// The tensor.
        what: &'static str,
        /// Its shape.
        found: Vec<usize>,
        /// The shape it must have.
        expected: Vec<usize>,
    },
    /// A file could not be opened, read, written or renamed.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was being done: "read", "create", "rename", ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The file is damaged, or is no weights file of a known kind.
    #[error("{} is not a {format} file that can be read: {fault}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// "safetensors" or "PyTorch".
        format: &'static str,
        /// Why.
        fault: Fault,
    },
    /// A tensor the model needs is not among the weights.
    #[error("the weights have no tensor {name:?}, which this model needs")]
    MissingTensor {
        /// The released name.
        name: String,
    },
    /// A tensor has another shape than the model's.
    #[error("{name} has shape {found:?} in the weights, but {expected:?} in the model")]
    WrongShape {
        /// The released name.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape in the model, in PyTorch's layout.
        expected: Vec<usize>,
    },
    /// A tensor has elements that are not floating-point numbers.
    #[error("{name} holds {found} where floating-point numbers are needed")]
    WrongType {
        /// The released name.
        name: String,
        /// The element type in the file.
        found: String,
    },
    /// A tensor to be written has more or fewer numbers than its shape says.
    #[error("{name} has {n_values} numbers, which do not make the shape {shape:?}")]
    WrongLength {
        /// The tensor.
        name: String,
        /// How many numbers it has.
        n_values: usize,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A tensor to be written has a name that the file format uses itself.
    #[error("no tensor in a safetensors file can be called {name:?}")]
    ReservedName {
        /// The name.
        name: String,
    },
    /// The weights' names and shapes do not describe a CellPatch model.
    #[error("the weights are not those of a CellPatch model: {reason}")]
    NotCellPatch {
        /// What does not fit.
        reason: String,
    },
}

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose fault an error is, and so which exit code a program should end with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCategory {
    /// The request makes no sense.
    Usage,
    /// The input is bad.
    Input,
    /// The machine cannot: disk, permissions, memory, devices.
    Environment,
}

impl Error {
    /// An I/O error with the path it happened to.
    pub fn io(action: &'static str, path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { action, path: path.as_ref().to_path_buf(), source }
    }

    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::UnknownPreset { .. } => "choose one of: paper, released, tiny".into(),
            Self::UnknownPrecision { .. } => "choose one of: f32, bf16, f16".into(),
            Self::NoSuchPrecision { .. } => {
                "use f32, which every device has; bf16 takes CUDA, f16 a card with such floats and its kernels switched on".into()
            }
            Self::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound => "check the path; relative paths start at the current folder".into(),
                std::io::ErrorKind::FileTooLarge => "write safetensors, which have no such limit".into(),
                std::io::ErrorKind::StorageFull => "free some disk space or choose another folder".into(),
                std::io::ErrorKind::PermissionDenied => "choose a file you can read, or a folder you can write to".into(),
                _ => return None,
            },
            Self::Unreadable { fault, .. } => fault.help(),
            Self::MissingTensor { .. } | Self::WrongShape { .. } => "make the model from the file's own configuration (`Checkpoint::config`), or choose the preset it was trained with".into(),
            Self::NotCellPatch { .. } => "give a pretraining checkpoint of CellPatch".into(),
            _ => return None,
        })
    }

    /// Whose fault it is.
    pub fn category(&self) -> ErrorCategory {
        match self {
            Self::BadConfig { .. } | Self::UnknownPreset { .. } | Self::UnknownPrecision { .. } => {
                ErrorCategory::Usage
            }
            Self::NoSuchPrecision { .. } => ErrorCategory::Environment,
            Self::Io { source, .. } if source.kind() != std::io::ErrorKind::NotFound => {
                ErrorCategory::Environment
            }
            _ => ErrorCategory::Input,
        }
    }
}
