//! Settings of the measurements, and the result of one.

use std::time::Duration;

/// Settings of the measurements.
#[derive(Clone, Debug)]
pub struct Outages {
    /// Number of outages.
    pub kills: usize,
    /// Number of nodes killed at the same moment.
    pub together: usize,
    /// Number of nodes of a cluster.
    pub nodes: usize,
    /// Timing of the failure detector: `lan` or `shared`.
    pub timing: String,
    /// Whether the other nodes start the dead ones. If not, this program starts them after the
    /// measurements, so that only the failure detector reports a death.
    pub reviving: bool,
}

/// The times of one outage, since the kill.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outage {
    /// Until the first of the others marked a dead node as down. `None` if a node ran again before
    /// all others had missed it.
    pub known_to_one: Option<Duration>,
    /// Until all others had marked all dead nodes as down.
    pub known_to_all: Option<Duration>,
    /// Until a job was done that began at the kill and that the dead node would have driven. Only
    /// for single nodes: while W nodes are away, no node can say that a job's id is new.
    pub served: Option<Duration>,
    /// Until there were as many copies of everything as before. Only if the other nodes do not
    /// start the dead ones.
    pub copies: Option<Duration>,
    /// Until the nodes were alive in all views again; since their start if the other nodes do not
    /// start them.
    pub back: Duration,
}
