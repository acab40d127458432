//! Places of records in the log, and the groups in which records are dropped.

use bytes::Bytes;
use cortado_protocol::{Edge, EntryKey, JobId, SlotSet, wide_hash};

/// Where a record is in this node's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordRef {
    /// The segment's number.
    pub segment: u32,
    /// Where the record starts in it, in bytes.
    pub offset: u32,
    /// Its length, in bytes.
    pub len: u32,
}

/// An entry, where this node's log has it, and the slots it is to be read for. The record may speak
/// for others too, which another record counts for.
pub type Located = (EntryKey, RecordRef, SlotSet);

/// A record that the log has copied to its end, because its old segment will be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedRecord {
    /// Its old place.
    pub from: RecordRef,
    /// Its new place.
    pub to: RecordRef,
    /// Its first bytes, as they are restored at a start.
    pub head: Bytes,
}

/// Records of one job that are dropped together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(u128);

impl Group {
    /// The job's log and its result: kept until the job is dropped.
    #[must_use]
    pub fn kept(job: JobId) -> Self {
        Self(job.0)
    }

    /// The job's batches of tables, which are dropped when the job is done.
    #[must_use]
    pub fn batches(job: JobId) -> Self {
        // Job ids are UUIDv7. No complement of one is: its version would be 8.
        Self(!job.0)
    }

    /// A stream's batches under [`Self::BATCHES`] numbers of an edge, which are dropped when all of them
    /// are retired.
    #[must_use]
    pub fn of_stream(job: JobId, edge: Edge, number: u64) -> Self {
        let part = number / Self::BATCHES;
        let bytes = [&job.0.to_le_bytes()[..], &edge.0.to_le_bytes(), &part.to_le_bytes()].concat();
        Self(wide_hash(&bytes))
    }

    /// Numbers of an edge of a stream in one group.
    pub const BATCHES: u64 = 64;

    /// The group of an entry.
    #[must_use]
    pub fn of(key: &EntryKey) -> Self {
        match key.edge {
            edge if edge.is_of_stream() => Self::of_stream(key.job, edge, key.number),
            edge if edge.is_upload() => Self::batches(key.job),
            _ => Self::kept(key.job),
        }
    }

    /// All groups of a job but those of a stream's batches.
    #[must_use]
    pub fn all(job: JobId) -> [Self; 2] {
        [Self::kept(job), Self::batches(job)]
    }

    /// Its number in the log.
    #[must_use]
    pub fn number(self) -> u128 {
        self.0
    }
}
