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
use crate::stream::{StreamRequest, StreamResponse};
use crate::{Coverage, JobId, NodeId, Slot};

/// How long a client waits for an answer, beyond the wait that it asks for. Nodes give up earlier,
/// so that they can answer with the reason.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A client's request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientRequest {
    /// Asks for the members. Answered by [`ClientResponse::Cluster`].
    Cluster,
    /// Submits a job. Answered by [`ClientResponse::Status`] once it is durable.
    Submit(JobSpec),
    /// Asks for the specification of a job. Answered by [`ClientResponse::Spec`].
    Spec(JobId),
    /// Asks which batches of a table have arrived. Answered by [`ClientResponse::Coverage`].
    Coverage {
        /// The job.
        job: JobId,
        /// The table's index in the plan.
        table: u16,
        /// The first batch number of interest.
        from: u64,
    },
    /// Batches of this job follow on this stream.
    Upload(JobId),
    /// Declares the table's number of batches. Answered by [`ClientResponse::Status`] once it is
    /// durable.
    EndTable {
        /// The job.
        job: JobId,
        /// The table's index in the plan.
        table: u16,
        /// Its number of batches.
        batches: u64,
    },
    /// Asks for the state of a job. Answered by [`ClientResponse::Status`]: at once with `wait_ms`
    /// 0, otherwise when the job has ended, batches are missing or the time is over.
    Status {
        /// The job.
        job: JobId,
        /// Longest wait in milliseconds; nodes cap it at 5,000.
        wait_ms: u32,
    },
    /// Asks for the jobs that the live members know, in the order of their ids, at most
    /// [`crate::limits::JOBS_PER_ANSWER`]. Answered by [`ClientResponse::Jobs`].
    Jobs {
        /// Only jobs with a larger id.
        after: Option<JobId>,
    },
    /// Cancels a job. Answered by [`ClientResponse::Status`] once it is durable.
    Cancel(JobId),
    /// Asks for one chunk of the result. Answered by [`ClientResponse::Chunk`] with the bytes as
    /// tail.
    Result {
        /// The job.
        job: JobId,
        /// The chunk's number.
        chunk: u64,
    },
    /// Asks for rejected rows of a table. Answered by [`ClientResponse::Rejects`].
    Rejects {
        /// The job.
        job: JobId,
        /// The table's index in the plan.
        table: u16,
    },
    /// Asks which nodes own which slots. Answered by [`ClientResponse::Ring`].
    Ring,
    /// Moves all data off the node and makes it leave. Answered by [`ClientResponse::Accepted`].
    Drain(NodeId),
    /// Removes a dead node from the cluster for good.
    Forget(NodeId),
    /// Asks for events after a given one. Answered by [`ClientResponse::Log`]: at once if there are
    /// any, otherwise when something happens or the time is over.
    Log {
        /// The boot in the previous answer; 0 at first.
        boot: u64,
        /// Number of the last event that the client has; 0 for all events.
        after: u64,
        /// Longest wait in milliseconds; nodes cap it at 5,000.
        wait_ms: u32,
    },
    /// Disturbs this node's network or disk, or stops that. Answered by
    /// [`ClientResponse::Accepted`].
    Chaos(chaos::Order),
    /// Deletes a job that has ended, with its result. Answered by [`ClientResponse::Accepted`] once
    /// enough members have agreed that no node can bring it back.
    Delete(JobId),
    /// A request about a stream. Answered by [`ClientResponse::Stream`], or as the request says.
    Stream(JobId, StreamRequest),
}

impl ClientRequest {
    /// The job that the request is about.
    #[must_use]
    pub fn job(&self) -> Option<JobId> {
        match self {
            Self::Submit(spec) => Some(spec.job),
            Self::Spec(job)
            | Self::Coverage { job, .. }
            | Self::Upload(job)
            | Self::Cancel(job)
            | Self::Delete(job)
            | Self::Stream(job, _)
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

/// A node's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientResponse {
    /// To [`ClientRequest::Cluster`].
    Cluster(ClusterView),
    /// The state of the job.
    Status(JobStatus),
    /// To [`ClientRequest::Spec`].
    Spec(JobSpec),
    /// To [`ClientRequest::Coverage`]: the first [`crate::limits::BATCHES_PER_ANSWER`] batches from
    /// the requested number on.
    Coverage(TableCoverage),
    /// To [`ClientRequest::Jobs`].
    Jobs(Vec<JobStatus>),
    /// To [`ClientRequest::Result`]; the bytes are the frame's tail.
    Chunk,
    /// To [`ClientRequest::Rejects`].
    Rejects(Vec<Reject>),
    /// To [`ClientRequest::Ring`].
    Ring(RingView),
    /// The node will carry out the request.
    Accepted,
    /// The request failed; the state is unchanged.
    Error(ClientError),
    /// To [`ClientRequest::Log`].
    Log {
        /// The boot of the answering node: each boot numbers its events from the start.
        boot: u64,
        /// The events, oldest first.
        events: Vec<Event>,
    },
    /// To [`ClientRequest::Stream`]; rows are the frame's tail.
    Stream(StreamResponse),
}

/// The kind of an error, which decides exit codes and retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The user can fix it (exit code 2).
    BadInput,
    /// There is no such job, table or node (exit code 3).
    NotFound,
    /// Not possible now: too few replicas, a cluster that is still forming, an unreachable
    /// coordinator. The client asks again (exit code 5 if it gives up).
    Unavailable,
    /// The request contradicts what is recorded already (exit code 2).
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
    /// Its kind.
    pub kind: ErrorKind,
    /// What happened and what to do, as a sentence.
    pub message: String,
}

impl ClientError {
    /// An error of the given kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// A node's answer to a batch. Answers come in any order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchReply {
    /// The table's index in the plan.
    pub table: u16,
    /// The batch's number.
    pub number: u64,
    /// The outcome.
    pub outcome: BatchOutcome,
}

/// The outcome of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BatchOutcome {
    /// Every delta of the batch is fsynced on at least `copies` of `replicas` nodes.
    Durable {
        /// The smallest number of copies of any of its deltas.
        copies: u8,
        /// Copies aimed at.
        replicas: u8,
        /// Rejected rows of the batch.
        rejected: u32,
    },
    /// The batch may not be durable: send it again after a pause, to this or another node.
    Retry {
        /// The reason, as a sentence, for example `waiting for replicas: 1 of 2`.
        reason: String,
    },
    /// No node will ever accept the batch.
    Refused(ClientError),
}

impl BatchOutcome {
    /// The outcome as one word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Durable { .. } => "durable",
            Self::Retry { .. } => "retry",
            Self::Refused(_) => "refused",
        }
    }
}

/// The batches of a table that have arrived.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TableCoverage {
    /// Batches and their content hashes, in ascending order.
    pub batches: Vec<(u64, u64)>,
    /// Declared number of batches, once it is known.
    pub declared: Option<u64>,
    /// The number to ask for next; `None` if these are the last.
    pub next: Option<u64>,
    /// All batches of a publisher below this number have arrived, and are gone, because their time of
    /// retention is over.
    pub floor: u64,
}

impl TableCoverage {
    /// The numbers without the hashes.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        self.batches.iter().map(|(number, _)| *number).collect()
    }
}

/// A rejected row, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reject {
    /// File below the dataset's directory.
    pub file: String,
    /// Line in the file, counted from 1.
    pub line: u64,
    /// The reason, for example `final_amount: not a decimal`.
    pub reason: String,
    /// The original row, cut at 1,000 bytes.
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
    /// How many members the cluster must have seen before it accepts the first job.
    pub expected_nodes: u16,
    /// Whether the cluster has seen that many.
    pub formed: bool,
    /// Members, live and down, ordered by id.
    pub members: Vec<MemberView>,
    /// Elected supervisor and its term, once there is one.
    pub supervisor: Option<(NodeId, u64)>,
    /// Members that were revived too often and are left to the operator.
    pub crash_looping: Vec<NodeId>,
    /// Jobs that stay only because too many members are away.
    pub overdue: Option<Overdue>,
}

/// Jobs whose time to live is over, while too many members are away to decide about them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overdue {
    /// Their number, among the jobs that the answering node has records of.
    pub jobs: u32,
    /// The members that are away, without members that were never seen.
    pub away: Vec<NodeId>,
}

/// A member as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// Its name.
    pub id: NodeId,
    /// Its state.
    pub state: MemberState,
    /// Its address for clients.
    pub client_addr: SocketAddr,
    /// Its address for HTTP, if others can reach it.
    pub http_addr: Option<SocketAddr>,
    /// Its generation, which grows with every start and every renewal.
    pub generation: u64,
    /// Number of jobs whose records it holds; only known for the answering node.
    pub jobs: Option<u32>,
    /// Why it is ill, as a sentence.
    pub reason: Option<String>,
}

/// The state of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It answers, but takes no new work and moves its records to other nodes.
    Draining,
    /// It does not answer.
    Down,
    /// It answers, but something is wrong with it: it gets no roles until it is well again.
    Ill,
}

impl MemberState {
    /// The state as one word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Draining => "draining",
            Self::Down => "down",
            Self::Ill => "ill",
        }
    }
}

/// The slot owners in the answering node's view, for jobs in general, and the moves in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingView {
    /// Number of the view, which grows with every change that the node saw.
    pub version: u64,
    /// The owners of each slot, first owner first.
    pub slots: Vec<(Slot, Vec<NodeId>)>,
    /// Number of entries still to move, by job and target.
    pub moves: Vec<(JobId, NodeId, u64)>,
}
