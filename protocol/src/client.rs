//! Messages between clients and nodes. Each request is a bidirectional stream: one frame with a
//! [`ClientRequest`], answered by one frame with a [`ClientResponse`]. [`ClientRequest::Upload`]
//! turns its stream into an upload: frames of [`BatchHeader`](crate::job::BatchHeader) with the
//! payload as tail, answered in any order by frames of [`BatchReply`].

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::chaos;
use crate::event::Event;
use crate::job::{JobSpec, JobStatus};
use crate::{Coverage, JobId, NodeId, Slot};

/// How long a client waits for an answer, beyond the wait that it asks for. Nodes give up earlier, to
/// say why.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientRequest {
    /// Who is here? Answered by [`ClientResponse::Cluster`].
    Cluster,
    /// Run this job. Answered by [`ClientResponse::Status`] once it is durable.
    Submit(JobSpec),
    /// What was submitted under this id? Answered by [`ClientResponse::Spec`].
    Spec(JobId),
    /// What has arrived of a table? Answered by [`ClientResponse::Coverage`].
    Coverage {
        /// The job.
        job: JobId,
        /// The table's index in the plan.
        table: u16,
        /// The first batch number to be told of.
        from: u64,
    },
    /// Batches of this job follow on this stream.
    Upload(JobId),
    /// The table has this many batches. Answered by [`ClientResponse::Status`] once it is durable.
    EndTable {
        /// The job.
        job: JobId,
        /// The table's index in the plan.
        table: u16,
        /// Its number of batches.
        batches: u64,
    },
    /// How does it stand? Answered by [`ClientResponse::Status`]: at once with `wait_ms` 0, otherwise
    /// when the job ended, misses batches or the time is over.
    Status {
        /// The job.
        job: JobId,
        /// Longest wait in milliseconds; nodes cap it at 5,000.
        wait_ms: u32,
    },
    /// Jobs the live members know, in the order of their ids, at most
    /// [`crate::limits::JOBS_PER_ANSWER`]. Answered by [`ClientResponse::Jobs`].
    Jobs {
        /// Only those with a larger id.
        after: Option<JobId>,
    },
    /// Stop it. Answered by [`ClientResponse::Status`] once it is durable.
    Cancel(JobId),
    /// One chunk of the result. Answered by [`ClientResponse::Chunk`] with the bytes as tail.
    Result {
        /// The job.
        job: JobId,
        /// The chunk's number.
        chunk: u64,
    },
    /// Rejected rows of a table. Answered by [`ClientResponse::Rejects`].
    Rejects {
        /// The job.
        job: JobId,
        /// The table's index in the plan.
        table: u16,
    },
    /// Who owns what? Answered by [`ClientResponse::Ring`].
    Ring,
    /// Move everything off the node and let it leave. Answered by [`ClientResponse::Accepted`].
    Drain(NodeId),
    /// Forget a dead node for good.
    Forget(NodeId),
    /// What did you see happen after this? Answered by [`ClientResponse::Log`]: at once, or when
    /// something happens, or the time is over.
    Log {
        /// Boot of the last answer; 0 at first.
        boot: u64,
        /// Number of the last event known; 0 for all.
        after: u64,
        /// Longest wait in milliseconds; nodes cap it at 5,000.
        wait_ms: u32,
    },
    /// Disturb this node's network or disk, or stop that. Answered by [`ClientResponse::Accepted`].
    Chaos(chaos::Order),
    /// Forget a job that has ended, with its result. Answered by [`ClientResponse::Accepted`] once enough
    /// members have agreed that nobody can bring it back.
    Delete(JobId),
}

impl ClientRequest {
    /// The job it is about.
    #[must_use]
    pub fn job(&self) -> Option<JobId> {
        match self {
            Self::Submit(spec) => Some(spec.job),
            Self::Spec(job)
            | Self::Coverage { job, .. }
            | Self::Upload(job)
            | Self::Cancel(job)
            | Self::Delete(job)
            | Self::EndTable { job, .. }
            | Self::Status { job, .. }
            | Self::Result { job, .. }
            | Self::Rejects { job, .. } => Some(*job),
            Self::Cluster
            | Self::Jobs { .. }
            | Self::Ring
            | Self::Log { .. }
            | Self::Chaos(_)
            | Self::Forget(_)
            | Self::Drain(_) => None,
        }
    }
}

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientResponse {
    /// To [`ClientRequest::Cluster`].
    Cluster(ClusterView),
    /// How the job stands.
    Status(JobStatus),
    /// To [`ClientRequest::Spec`].
    Spec(JobSpec),
    /// To [`ClientRequest::Coverage`]: the first [`crate::limits::BATCHES_PER_ANSWER`] batches from the
    /// given number on.
    Coverage(TableCoverage),
    /// To [`ClientRequest::Jobs`].
    Jobs(Vec<JobStatus>),
    /// To [`ClientRequest::Result`]; the bytes are the frame's tail.
    Chunk,
    /// To [`ClientRequest::Rejects`].
    Rejects(Vec<Reject>),
    /// To [`ClientRequest::Ring`].
    Ring(RingView),
    /// It will be done.
    Accepted,
    /// It was not done; the state is as before.
    Error(ClientError),
    /// To [`ClientRequest::Log`].
    Log {
        /// The answering node's run: events are numbered anew in each.
        boot: u64,
        /// The oldest first.
        events: Vec<Event>,
    },
}

/// What kind of error, for exit codes and retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The user can fix it (exit code 2).
    BadInput,
    /// There is no such job, table or node (exit code 3).
    NotFound,
    /// Not now: not enough replicas, still forming, coordinator unreachable. Ask again (exit code 5 in
    /// the end).
    Unavailable,
    /// The request contradicts what is already recorded (exit code 2).
    Conflict,
    /// The job failed or was cancelled (exit code 1).
    Ended,
}

impl ClientResponse {
    /// An error of the given kind.
    pub fn error(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::Error(ClientError::new(kind, message))
    }
}

/// An error for a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ClientError {
    /// What kind it is.
    pub kind: ErrorKind,
    /// What happened and what to do, in a sentence.
    pub message: String,
}

impl ClientError {
    /// An error of the given kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// A node's answer to a batch, in any order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchReply {
    /// The table's index in the plan.
    pub table: u16,
    /// The batch's number.
    pub number: u64,
    /// What became of it.
    pub outcome: BatchOutcome,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BatchOutcome {
    /// Every delta of it is fsynced on at least `copies` of `replicas` nodes.
    Durable {
        /// Fewest copies of any of its deltas.
        copies: u8,
        /// Copies aimed at.
        replicas: u8,
        /// Rows of it that were rejected.
        rejected: u32,
    },
    /// Nothing of it is promised; send it again, here or elsewhere, after a pause.
    Retry {
        /// Why, in a sentence, for example `waiting for replicas: 1 of 2`.
        reason: String,
    },
    /// It will never be accepted.
    Refused(ClientError),
}

/// Which batches of a table have arrived.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TableCoverage {
    /// Batches and their content hashes, in ascending order.
    pub batches: Vec<(u64, u64)>,
    /// Declared number of batches, once it is known.
    pub declared: Option<u64>,
    /// Where to go on asking; nothing if these are the last.
    pub next: Option<u64>,
}

impl TableCoverage {
    /// The numbers alone.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        self.batches.iter().map(|(number, _)| *number).collect()
    }
}

/// A row that was not counted, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reject {
    /// File below the dataset's directory.
    pub file: String,
    /// Line in the file, counted from 1.
    pub line: u64,
    /// Why, for example `final_amount: not a decimal`.
    pub reason: String,
    /// The row as it was, cut at 1,000 bytes.
    pub row: String,
}

/// The members as one node sees them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterView {
    /// The cluster's name.
    pub cluster: String,
    /// The node that answers.
    pub answered_by: NodeId,
    /// Copies aimed at (R).
    pub replicas: u8,
    /// Copies needed before an acknowledgement (W).
    pub min_copies: u8,
    /// Slots of a job.
    pub slots: u8,
    /// Members that must have been seen before the first job is accepted.
    pub expected_nodes: u16,
    /// Whether they have been.
    pub formed: bool,
    /// Members, live and down, ordered by id.
    pub members: Vec<MemberView>,
    /// Elected supervisor and its term, once there is one.
    pub supervisor: Option<(NodeId, u64)>,
    /// Members that were revived too often and are left to the operator.
    pub crash_looping: Vec<NodeId>,
    /// Jobs that would be gone if enough members were there.
    pub overdue: Option<Overdue>,
}

/// Jobs whose time to live is over, but so many members are away that it can't be decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overdue {
    /// How many jobs, of those that the answering node has records of.
    pub jobs: u32,
    /// Who is away; members that were never seen are not among them.
    pub away: Vec<NodeId>,
}

/// A member as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// Its name.
    pub id: NodeId,
    /// How it stands.
    pub state: MemberState,
    /// Where clients reach it.
    pub client_addr: SocketAddr,
    /// Its generation: grows with every start and every renewal.
    pub generation: u64,
    /// Jobs whose records it holds; known of the answering node only.
    pub jobs: Option<u32>,
    /// Why it is ill, for people.
    pub reason: Option<String>,
}

/// How a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It answers, and takes no new work: it is moving its records away.
    Draining,
    /// It does not answer.
    Down,
    /// It answers, but something is wrong with it: it has no roles until it is well again.
    Ill,
}

/// Slot owners by the answering node's view, for jobs in general and moves in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingView {
    /// Number of the view: grows with every change the node saw.
    pub version: u64,
    /// The owners of each slot, the first one first.
    pub slots: Vec<(Slot, Vec<NodeId>)>,
    /// Entries still to move, per job and target.
    pub moves: Vec<(JobId, NodeId, u64)>,
}
