//! Write-ahead log of a Cortado node behind a storage trait that tests can crash.
//!
//! One writer appends records to preallocated segments; [`Log::sync`] makes everything appended so
//! far durable with one `fdatasync` (group commit, see [`Committer`]). Any number of threads read
//! through a [`LogReader`]. Opening a log delivers the heads of its records and says what it lost.
//! Records belong to groups; the space of forgotten groups is given back ([`Log::collect`]).
//!
//! Invariants:
//! - A record that was appended before a successful [`Log::sync`] is delivered by every later
//!   [`Log::open`], unless the disk damaged it; then the loss is reported, never passed over.
//! - Without damage, what is delivered is a prefix of what was appended.
//! - A record whose checksum does not match is never delivered and never read.
//! - After a failed sync nothing is ever acknowledged again: the log is poisoned and the process
//!   has to end, because the kernel may have dropped the pages it could not write (Rebello et al.,
//!   "Can Applications Recover from fsync Failures?", USENIX ATC 2020).
//!
//! ```
//! use std::sync::Arc;
//! use cortado_log::{Log, LogConfig, MemStorage};
//!
//! let storage = Arc::new(MemStorage::new());
//! let (mut log, _) = Log::open(storage.clone(), LogConfig::default(), 7, &mut |_, _, _| ())?;
//! let record = log.append(1, 42, 0, &[b"hello ", b"world"])?;
//! log.sync()?;
//! assert_eq!(&log.reader().read(record)?.1[..], b"hello world");
//! drop(log);
//!
//! let mut seen = Vec::new();
//! let (_, recovery) = Log::open(storage, LogConfig::default(), 8, &mut |_, meta, head| {
//!     seen.push((meta.group, head.to_vec()));
//! })?;
//! assert_eq!(recovery.log_id, 7);
//! assert_eq!(seen, vec![(42, b"hello ".to_vec())]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod collect;
mod commit;
mod current;
mod error;
mod file;
mod footer;
mod format;
mod log;
mod mark;
mod mem;
mod reader;
mod recovery;
mod report;
mod rotation;
mod scan;
mod segments;
mod state;
mod storage;
#[cfg(test)]
mod tests;

pub use collect::{Collected, Moved};
pub use commit::{
    Append, Busy, CommitQueue, Committed, Committer, Meter, QueueClosed, SYNC_CLASSES,
};
pub use error::{AppendError, OpenError, ReadError, StateError, SyncError};
pub use file::{FileStorage, LockError};
pub use format::{PAYLOAD_BYTES, RecordMeta, RecordRef};
pub use log::{Log, LogConfig};
pub use mem::{Fate, MemStorage, Pending};
pub use reader::LogReader;
pub use report::{Damage, Recovery, Report};
pub use state::StateFiles;
pub use storage::Storage;
