//! One error enum for each boundary; each variant says what became of the log.

use std::io;

use crate::format::PAYLOAD_BYTES;

/// Why a log could not be opened. Nothing was deleted.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk failed.
    #[error("log: {what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the disk said.
        source: io::Error,
    },
    /// The log was written by another version of this program.
    #[error(
        "log segment {segment} has format version {found}; this program reads {supported}: fetch the \
         results with the version that wrote it, or start with an empty data folder"
    )]
    Version {
        /// The segment's number.
        segment: u32,
        /// Its version.
        found: u32,
        /// The version this program reads and writes.
        supported: u32,
    },
}

/// Why a record was not appended. Except after `Poisoned` and `Io` the log stays usable.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Free space is below the reserve, or the disk is full. Nothing was appended; appending
    /// succeeds again when space returns.
    #[error("disk is full or at its reserve")]
    Full,
    /// The payload is over the limit. Nothing was appended.
    #[error("record of {bytes} bytes is over the limit of {PAYLOAD_BYTES}")]
    TooLarge {
        /// Length of the payload.
        bytes: usize,
    },
    /// An earlier failure made the log's state on disk unknown: the process has to end.
    #[error("log is poisoned by an earlier failure")]
    Poisoned,
    /// The disk failed; the log is poisoned from now on and the process has to end.
    #[error("log write failed: {0}")]
    Io(io::Error),
}

/// Why a sync failed. Nothing appended since the last successful sync may be acknowledged, and the
/// process has to end: the kernel may have dropped the pages, and a second try would succeed
/// falsely.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// An earlier failure made the log's state on disk unknown.
    #[error("log is poisoned by an earlier failure")]
    Poisoned,
    /// The disk failed; the log is poisoned from now on.
    #[error("log sync failed: {0}")]
    Io(io::Error),
}

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Its segment was deleted.
    #[error("segment {0} is gone")]
    Gone(u32),
    /// The bytes there are not this record: damaged on disk, or no reference of this log.
    #[error("no valid record at offset {offset} of segment {segment}")]
    Damaged {
        /// The segment's number.
        segment: u32,
        /// Where the record should be.
        offset: u32,
    },
    /// The disk failed.
    #[error("log read failed: {0}")]
    Io(#[from] io::Error),
}

/// Why a state file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file is there but its checksum does not match.
    #[error("state file '{0}' is damaged")]
    Damaged(String),
    /// Names are 1 to 64 characters of a-z, 0-9 and '-'.
    #[error("'{0}' is no name for a state file")]
    Name(String),
    /// The disk failed. The old content is still there, or the new content is.
    #[error("state file: {0}")]
    Io(#[from] io::Error),
}
