//! What a long command tells about its progress. The library reports; the command line draws.

use std::time::Duration;

use cortado_protocol::JobId;
use cortado_protocol::job::JobStatus;

/// Something has happened.
#[derive(Clone, Debug)]
pub enum Progress<'a> {
    /// The job is known under this id; said first.
    Job(JobId),
    /// The upload begins, or goes on: bytes in all files, and those the cluster has already.
    Upload {
        /// Bytes of all files.
        total_bytes: u64,
        /// Bytes that need not be sent.
        resumed_bytes: u64,
    },
    /// Another batch is durable.
    Durable {
        /// Its length.
        bytes: u64,
        /// About its number of rows.
        rows: u64,
        /// Rows of it that were rejected.
        rejected: u64,
        /// Disks that have it.
        copies: u8,
        /// Disks that should.
        replicas: u8,
        /// Time since it was sent for the first time.
        took: Duration,
    },
    /// A batch is there already from an earlier run; its content is the same.
    Known {
        /// Its length.
        bytes: u64,
    },
    /// The cluster says "not now".
    Waiting(&'a str),
    /// Everything is uploaded or the upload has to wait; this is how the job stands.
    Status(&'a JobStatus),
    /// No live node has these batches of a table any more; they are sent again.
    Resend {
        /// The table.
        table: &'a str,
        /// Number of batches.
        batches: u64,
    },
}

/// Hears of progress.
pub trait Observer: Send + Sync {
    /// Takes note.
    fn note(&self, progress: Progress<'_>);
}

/// Nobody listens.
impl Observer for () {
    fn note(&self, _: Progress<'_>) {}
}
