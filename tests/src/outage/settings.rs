//! What is measured, and what one measurement gave.

use std::time::Duration;

/// What is done.
#[derive(Clone, Debug)]
pub struct Outages {
    /// How often nodes are killed.
    pub kills: usize,
    /// So many at the same moment.
    pub together: usize,
    /// Nodes.
    pub nodes: usize,
    /// Timing of the failure detector: `lan` or `shared`.
    pub timing: String,
    /// Whether the others start who was killed; if not, that is done from here once all is measured,
    /// and nobody hears of a death but by the failure detector.
    pub reviving: bool,
}

/// How long nodes that died together were missed, from their death.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outage {
    /// Until the first of the others knew of one. None if one ran again before all had missed it.
    pub known_to_one: Option<Duration>,
    /// Until all others knew of all.
    pub known_to_all: Option<Duration>,
    /// Until a job was done that was begun when it died, and that it would have driven. Only of single
    /// nodes: while as many are away as a job is acknowledged by, nobody can say that an id is new.
    pub served: Option<Duration>,
    /// Until as many copies of everything were there as before. Only if nobody else starts them.
    pub copies: Option<Duration>,
    /// Until they were in their places again; if nobody else starts them, from their start.
    pub back: Duration,
}
