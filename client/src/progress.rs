//! Progress of long commands. The library reports it, and the command line draws it.

use std::time::Duration;

use cortado_protocol::JobId;
use cortado_protocol::job::JobStatus;

/// A step of the progress.
#[derive(Clone, Debug)]
pub enum Progress<'a> {
    /// The job's id; always reported first.
    Job(JobId),
    /// The upload starts or continues.
    Upload {
        /// Bytes of all files.
        total_bytes: u64,
        /// Bytes that the cluster has already.
        resumed_bytes: u64,
    },
    /// Another batch is durable.
    Durable {
        /// Its length in bytes.
        bytes: u64,
        /// Its approximate number of rows.
        rows: u64,
        /// Its rejected rows.
        rejected: u64,
        /// Number of disks that have it.
        copies: u8,
        /// Number of disks that should have it.
        replicas: u8,
        /// Time since it was first sent.
        took: Duration,
    },
    /// A batch has arrived in an earlier run, with the same content.
    Known {
        /// Its length in bytes.
        bytes: u64,
    },
    /// A node answered "not now"; this is the reason.
    Waiting(&'a str),
    /// The state of the job, while the upload waits or after it.
    Status(&'a JobStatus),
    /// No live node has these batches of a table: they are sent again.
    Resend {
        /// The table.
        table: &'a str,
        /// Number of batches.
        batches: u64,
    },
}

/// Receives progress.
pub trait Observer: Send + Sync {
    /// Takes one step of the progress.
    fn note(&self, progress: Progress<'_>);
}

/// Ignores all progress.
impl Observer for () {
    fn note(&self, _: Progress<'_>) {}
}
