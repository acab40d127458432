//! What a task is for: kept until its output comes back.

use cortado_protocol::entry::Source;
use cortado_protocol::{EntryKey, JobId, NodeId};

/// Who asked: the node a client is connected to, and the number of its question.
pub(crate) type Origin = (NodeId, u64);

/// Who asked for work on slots, and the number of the request.
pub(crate) type WorkKey = (NodeId, u64);

/// A batch that is being mapped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapping {
    pub(crate) ticket: u64,
    pub(crate) key: EntryKey,
    pub(crate) slots: u8,
    pub(crate) source: Source,
}

/// A peer's request for entries: who asks, of which job, under which number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetch {
    pub(crate) from: NodeId,
    pub(crate) job: JobId,
    pub(crate) round: u64,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// A batch becomes an entry.
    Map(Mapping),
    /// Slots fold, or look rows up.
    Work(WorkKey),
    /// The job's coordinator puts its result together.
    Coordinate(JobId),
    /// A peer wants entries.
    Fetch(Fetch),
    /// A client wants a part of a result.
    Chunk(Origin),
    /// A client wants the specification of a job that is done.
    Spec(Origin),
    /// A client wants rejected rows.
    Rejects(Origin),
    /// The stream's coordinator reads, or makes the rows of a round.
    Stream(JobId),
    /// A client wants to know how a stream stood at its end.
    StreamSummary(Origin),
    /// A client wants rows that a stream has published.
    Rows(Origin),
    /// Rows of a stream go to the webhook of this number.
    Deliver(JobId, usize),
    /// A client wants a row delivered once more.
    DeliverAgain(Origin, JobId),
}
