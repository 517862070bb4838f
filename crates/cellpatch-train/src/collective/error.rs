//! What goes wrong between the processes of one training.

use std::fmt;

use cellpatch_data::ErrorCategory;
use serde::{Deserialize, Serialize};

/// Why a training by several processes could not begin, or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectiveError {
    /// Rank 0 cannot listen where the others would look for it, or a rank cannot listen for its peers.
    #[error("could not listen at {address}")]
    Listen {
        /// The address as it was given.
        address: String,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// Nobody listens at the rendezvous.
    #[error("could not reach rank 0 at {address} in {seconds} s: {reason}")]
    Unreachable {
        /// The address as it was given.
        address: String,
        /// How long it was tried.
        seconds: u64,
        /// What the last attempt ended with.
        reason: String,
    },
    /// What answers at the rendezvous is something else.
    #[error("what answers at {address} is not rank 0 of a training: {reason}")]
    NotRankZero {
        /// The address as it was given.
        address: String,
        /// What was wrong with the answer.
        reason: String,
    },
    /// Rank 0 does not take this process.
    #[error("rank 0 refused this process: {refusal}")]
    Refused {
        /// Its reason.
        refusal: Refusal,
    },
    /// Some ranks never came.
    #[error("{} of {world_size} ranks did not join in {seconds} s: {}", missing.len(), ranks(missing))]
    NotAllJoined {
        /// The ranks that are missing.
        missing: Vec<usize>,
        /// How many processes were expected.
        world_size: usize,
        /// How long rank 0 waited.
        seconds: u64,
    },
    /// Waiting for the others was given up.
    #[error("gave up waiting for the other ranks: {reason}")]
    GaveUp {
        /// Why.
        reason: String,
    },
    /// A process died, or its machine or network did.
    #[error("rank {rank} was lost: {reason}")]
    Lost {
        /// The rank that is gone.
        rank: usize,
        /// What was noticed.
        reason: String,
    },
    /// A process ended with an error of its own.
    #[error("rank {rank} stopped: {reason}")]
    Stopped {
        /// The rank that stopped.
        rank: usize,
        /// Its error.
        reason: String,
    },
    /// A peer sent what this rank does not expect now.
    #[error("rank {rank} is out of step: {reason}")]
    OutOfStep {
        /// The rank.
        rank: usize,
        /// What does not fit.
        reason: String,
    },
}

/// Why rank 0 does not take a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// It speaks another protocol or is of another version of the program.
    Version {
        /// Rank 0's.
        host: String,
        /// The process's.
        joining: String,
    },
    /// It belongs to another job.
    Job {
        /// Rank 0's.
        host: String,
        /// The process's.
        joining: String,
    },
    /// It expects another number of processes.
    WorldSize {
        /// Rank 0's.
        host: usize,
        /// The process's.
        joining: usize,
    },
    /// There is no such rank, or it is 0.
    NoSuchRank {
        /// The process's rank.
        rank: usize,
        /// How many processes there are.
        world_size: usize,
    },
    /// Another process has that rank.
    RankTaken {
        /// The rank.
        rank: usize,
    },
    /// It would compute something else.
    Settings {
        /// "the configuration", "the data" or "the backend".
        what: String,
        /// Rank 0's value, or its hash.
        host: String,
        /// The process's.
        joining: String,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { host, joining } => write!(f, "it is {host} and this process is {joining}"),
            Self::Job { host, joining } => {
                write!(f, "it belongs to job {host:?} and this process to job {joining:?}")
            }
            Self::WorldSize { host, joining } => {
                write!(f, "it expects {host} processes and this process expects {joining}")
            }
            Self::NoSuchRank { rank, world_size } => {
                write!(f, "there is no rank {rank} to take among {world_size}")
            }
            Self::RankTaken { rank } => write!(f, "rank {rank} is taken by another process"),
            Self::Settings { what, host, joining } => {
                write!(f, "{what} of rank 0 is {host} and this process has {joining}")
            }
        }
    }
}

impl CollectiveError {
    /// What the user can do about it.
    pub fn help(&self) -> String {
        match self {
            Self::Listen { .. } => {
                "give --rendezvous a host name of rank 0's machine and a port that is free there".into()
            }
            Self::Unreachable { .. } => {
                "see whether rank 0 runs, and whether --rendezvous names its machine and port on all ranks"
                    .into()
            }
            Self::NotRankZero { .. } => "choose a port that nothing else uses with --rendezvous".into(),
            Self::Refused { .. } => {
                "start all ranks with the same program, settings and data, and with a --rank of their own"
                    .into()
            }
            Self::NotAllJoined { .. } | Self::GaveUp { .. } => {
                "look at what the missing ranks said; --join-timeout gives them more time".into()
            }
            Self::Lost { .. } | Self::Stopped { .. } | Self::OutOfStep { .. } => {
                "start all ranks again with --resume: the run goes on from its last checkpoint".into()
            }
        }
    }

    /// Whose fault it is: a request's where ranks were started with different ones, else the environment's.
    pub fn category(&self) -> ErrorCategory {
        match self {
            Self::Refused { refusal: Refusal::Version { .. } | Refusal::Job { .. } } => {
                ErrorCategory::Environment
            }
            Self::Refused { .. } => ErrorCategory::Usage,
            _ => ErrorCategory::Environment,
        }
    }
}

/// "rank 2" or "ranks 2, 5".
fn ranks(ranks: &[usize]) -> String {
    let list: Vec<String> = ranks.iter().map(usize::to_string).collect();
    format!("rank{} {}", if ranks.len() == 1 { "" } else { "s" }, list.join(", "))
}
