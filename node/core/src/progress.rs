//! How far a job is, as its coordinator sees it: what clients are told of.

use std::time::Duration;

use cortado_protocol::peer::EdgeCoverage;
use cortado_protocol::{JobId, NodeId};

/// Where a coordinator is with a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Batches and ends arrive.
    Collect,
    /// Slots fold, or look rows up.
    Slots { folds: bool, done: u32, total: u32, workers: Vec<NodeId> },
    /// The result is being put together.
    Compute,
    /// So many chunks of the result are on their way to the replicas.
    Write { left: u32 },
    /// The manifest is.
    Close,
    /// Nothing is left to do.
    Ended,
}

/// See the module's description.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// Place in the queue: 0 runs.
    pub(crate) place: Option<u32>,
    /// For how long its client has sent nothing, if that is why it does not go on.
    pub(crate) silent_for: Option<Duration>,
    /// What the client is asked to send again.
    pub(crate) missing: Vec<EdgeCoverage>,
    pub(crate) step: Step,
}

/// How far a job is, if this node coordinates it.
pub(crate) type ProgressOf<'a> = &'a dyn Fn(JobId) -> Option<Progress>;
