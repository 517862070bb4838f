//! The crate's one error type.

use std::path::PathBuf;

use cellpatch_data::ErrorCategory;

/// What went wrong while preparing, running or resuming a training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The data could not be read.
    #[error(transparent)]
    Data(#[from] cellpatch_data::Error),
    /// The model could not be made, loaded or saved.
    #[error(transparent)]
    Model(#[from] cellpatch_model::Error),
    /// A source of batches that is not a shard set failed.
    #[error("a batch could not be made")]
    Batch(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Scores or figures could not be made.
    #[error(transparent)]
    Analysis(#[from] cellpatch_analysis::Error),
    /// The processes of a training lost each other, or never met.
    #[error(transparent)]
    Collective(#[from] crate::collective::CollectiveError),
    /// Fewer than two classes are left to tell apart.
    #[error("{}", match classes.as_slice() { [] => "no training cell has a label".to_string(), [only, ..] => format!("all training cells are of one class, {only:?}") })]
    TooFewClasses {
        /// The classes there are.
        classes: Vec<String>,
    },
    /// A part of the data has no cells.
    #[error("there are no labelled cells for the {part} part")]
    NoCellsFor {
        /// "train", "validation" or "test".
        part: &'static str,
    },
    /// A file or folder of the run could not be read or written.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A setting makes no sense.
    #[error("{option} is {value}: {reason}")]
    BadOption {
        /// The option as the user knows it.
        option: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        reason: String,
    },
    /// The folder already holds a run.
    #[error("{} already holds a run", path.display())]
    RunExists {
        /// The run directory.
        path: PathBuf,
    },
    /// The folder holds something that is not a run.
    #[error("{} is not a run directory", path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
    },
    /// Another process works in the run directory.
    #[error("{} is in use by another process", path.display())]
    RunLocked {
        /// The run directory.
        path: PathBuf,
    },
    /// A run that should go on has no checkpoint that can be read.
    #[error("{} has no usable checkpoint{}", path.display(), damaged.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    NoCheckpoint {
        /// The run directory.
        path: PathBuf,
        /// What was wrong with the newest one, when there was one.
        damaged: Option<String>,
    },
    /// A checkpoint was made from other data, or with another configuration.
    #[error("the checkpoint {} does not fit: {what} was {then} and is {now}", path.display())]
    CheckpointMismatch {
        /// The checkpoint.
        path: PathBuf,
        /// The thing that differs.
        what: &'static str,
        /// Its value in the checkpoint.
        then: String,
        /// Its value now.
        now: String,
    },
    /// A file of the run could not be understood or written as what it is.
    #[error("{} could not be {action}: {reason}", path.display())]
    Format {
        /// "read" or "written".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The loss is no longer a number.
    #[error("the loss became {loss} at step {step}")]
    Diverged {
        /// The loss.
        loss: f64,
        /// The optimizer step.
        step: u64,
    },
}

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::Data(error) => return error.help(),
            Self::Model(error) => return error.help(),
            Self::Collective(error) => error.help(),
            Self::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull => "free some disk space, then go on with --resume".into(),
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                    "choose a folder you can write to with --run-dir".into()
                }
                _ => return None,
            },
            Self::BadOption { .. } | Self::Batch(_) => return None,
            Self::Analysis(_) => return None,
            Self::TooFewClasses { .. } => {
                "name a column with two or more classes by --label; `inspect` lists the columns".into()
            }
            Self::NoCellsFor { .. } => {
                "give more cells, larger --fractions, or another --split; classes without training cells do not count".into()
            }
            Self::RunExists { .. } => {
                "go on with it by --resume, or name another folder with --run-dir".into()
            }
            Self::NotARun { .. } => {
                "give the folder that an earlier `pretrain` named, or an empty one".into()
            }
            Self::RunLocked { .. } => "wait for it to end, or name another folder with --run-dir".into(),
            Self::NoCheckpoint { .. } => "start again without --resume, in a new --run-dir".into(),
            Self::CheckpointMismatch { .. } => {
                "resume with the data and settings the run was started with, or start a new run".into()
            }
            Self::Format { .. } => {
                "the file was damaged or written by another version: start a new run".into()
            }
            Self::Diverged { .. } => "lower --learning-rate, or set --clip-norm 1".into(),
        })
    }

    /// Whose fault it is.
    pub fn category(&self) -> ErrorCategory {
        match self {
            Self::Data(error) => error.category(),
            Self::Model(error) => match error.category() {
                cellpatch_model::ErrorCategory::Usage => ErrorCategory::Usage,
                cellpatch_model::ErrorCategory::Input => ErrorCategory::Input,
                cellpatch_model::ErrorCategory::Environment => ErrorCategory::Environment,
            },
            Self::Collective(error) => error.category(),
            Self::Io { .. } | Self::RunLocked { .. } => ErrorCategory::Environment,
            Self::BadOption { .. } | Self::RunExists { .. } => ErrorCategory::Usage,
            _ => ErrorCategory::Input,
        }
    }
}
