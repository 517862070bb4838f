//! Why something could not be had from a server.

use std::fmt;

use crate::error::ErrorCategory;

/// What went wrong between a server and here.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransferFailure {
    /// The address is none.
    BadUrl {
        /// Why not.
        reason: String,
    },
    /// The server cannot be reached: no network, no such host, no answer, no trust.
    Unreachable {
        /// What the system says.
        reason: String,
    },
    /// The server has no such thing.
    NotFound,
    /// The server wants credentials, or other ones.
    Denied {
        /// What it or the client says.
        reason: String,
    },
    /// The server answered with another status.
    Status {
        /// HTTP status.
        status: u16,
    },
    /// The connection broke, more often than was to be tried again.
    Interrupted {
        /// Bytes that came.
        received: u64,
        /// Bytes there should be, where that is known.
        expected: Option<u64>,
        /// How it broke.
        reason: String,
    },
    /// The server has another length than was expected.
    WrongLength {
        /// Bytes expected.
        expected: u64,
        /// Bytes the server has.
        found: u64,
    },
    /// What came is not what was expected.
    WrongChecksum {
        /// SHA-256 expected, in hex.
        expected: String,
        /// SHA-256 of what came.
        found: String,
    },
    /// The server sends whole files only.
    NoRanges,
    /// The answer is not of the form that is documented.
    BadAnswer {
        /// What about it.
        reason: String,
    },
}

impl fmt::Display for TransferFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadUrl { reason } => write!(formatter, "the address is not valid: {reason}"),
            Self::Unreachable { reason } => write!(formatter, "the server cannot be reached: {reason}"),
            Self::NotFound => write!(formatter, "the server has no such file (404)"),
            Self::Denied { reason } => write!(formatter, "access was denied: {reason}"),
            Self::Status { status } => write!(formatter, "the server answered with status {status}"),
            Self::Interrupted { received, expected: Some(expected), reason } => {
                write!(formatter, "the connection broke after {received} of {expected} bytes: {reason}")
            }
            Self::Interrupted { received, expected: None, reason } => {
                write!(formatter, "the connection broke after {received} bytes: {reason}")
            }
            Self::WrongLength { expected, found } => {
                write!(formatter, "the server has {found} bytes, not {expected}")
            }
            Self::WrongChecksum { expected, found } => {
                write!(formatter, "the SHA-256 of what came is {found}, not {expected}")
            }
            Self::NoRanges => write!(formatter, "the server sends no parts of files (HTTP ranges)"),
            Self::BadAnswer { reason } => write!(formatter, "the answer cannot be used: {reason}"),
        }
    }
}

impl TransferFailure {
    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        let text = match self {
            Self::BadUrl { .. } => {
                "give an address such as https://host/path, s3://bucket/path, gs://bucket/path or az://container/path"
            }
            Self::Unreachable { .. } => "check the network; behind a proxy, set HTTPS_PROXY",
            Self::NotFound => "check the address; the file may have been moved",
            Self::Denied { .. } => {
                "set the credentials of the store in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_SERVICE_ACCOUNT, AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY); for a public bucket of S3, AWS_SKIP_SIGNATURE=true"
            }
            Self::Status { .. } => "try again later",
            Self::Interrupted { .. } => "run the command again: it goes on where it stopped",
            Self::WrongLength { .. } | Self::WrongChecksum { .. } => {
                "the file on the server is another one than the one described: ask who publishes it, or correct the description if the new file is meant"
            }
            Self::NoRanges => {
                "put the files on a server that does (S3, nginx, Apache), or copy the folder here"
            }
            Self::BadAnswer { .. } => "check that the address is the one you meant",
        };
        Some(text.to_owned())
    }

    /// Whose fault it is.
    pub(crate) fn category(&self) -> ErrorCategory {
        match self {
            Self::BadUrl { .. } => ErrorCategory::Usage,
            Self::Unreachable { .. }
            | Self::Denied { .. }
            | Self::Status { .. }
            | Self::Interrupted { .. } => ErrorCategory::Environment,
            Self::NotFound
            | Self::WrongLength { .. }
            | Self::WrongChecksum { .. }
            | Self::NoRanges
            | Self::BadAnswer { .. } => ErrorCategory::Input,
        }
    }
}
