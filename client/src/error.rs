//! The errors that users see, and their exit codes. All commands end with one of them.

use std::io;
use std::path::{Path, PathBuf};

use cortado_protocol::JobId;
use cortado_protocol::client::{ClientError, ErrorKind};

/// Why a command failed. Each variant stands for one exit code.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The job failed or was cancelled.
    #[error("{0}")]
    Ended(String),
    /// Usage or input that the user can fix.
    #[error("{0}")]
    BadInput(String),
    /// A file can't be read or written.
    #[error("can't {action} {}: {source}", path.display())]
    Io {
        /// The action, for example `read`.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// There is no such job, node or table.
    #[error("{0}")]
    NotFound(String),
    /// The result is incomplete, or a check found a mismatch.
    #[error("{0}")]
    Incomplete(String),
    /// The cluster can't be reached or makes no progress; trying again is safe.
    #[error("{0}")]
    Unreachable(String),
    /// The user interrupted the command; the job continues in the cluster.
    #[error("interrupted; job {0} stays in the cluster")]
    Detached(JobId),
    /// Standard output was closed by its reader.
    #[error("standard output is closed")]
    BrokenPipe,
}

impl Error {
    /// An I/O error at a path; `action` completes the sentence "can't …".
    #[must_use]
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    /// The process exit code.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Ended(_) => 1,
            Self::BadInput(_) | Self::Io { .. } => 2,
            Self::NotFound(_) => 3,
            Self::Incomplete(_) => 4,
            Self::Unreachable(_) => 5,
            Self::Detached(_) => 130,
            // The reader has all it wanted (`cortado jobs | head -1`).
            Self::BrokenPipe => 0,
        }
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        match error.kind {
            ErrorKind::BadInput | ErrorKind::Conflict => Self::BadInput(error.message),
            ErrorKind::NotFound => Self::NotFound(error.message),
            ErrorKind::Unavailable => Self::Unreachable(error.message),
            ErrorKind::Ended => Self::Ended(error.message),
        }
    }
}
