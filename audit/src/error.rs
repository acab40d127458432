//! Errors.

use std::path::PathBuf;

use cortado_stream::NotValid;

/// Why an audit file can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// SQLite can't read or write it.
    #[error("{path}: {source}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// It is another file than the one expected.
    #[error("{0}")]
    Other(String),
    /// An event is not what the stream's plan says.
    #[error(transparent)]
    Event(#[from] NotValid),
}
