//! Settings of a storm.

use std::time::Duration;

/// Settings of a storm.
#[derive(Clone, Copy, Debug)]
pub struct Storm {
    /// Decides which nodes are killed and when. Processes are not deterministic: the same seed
    /// gives the same plan, not the same run.
    pub seed: u64,
    /// How long nodes are killed. The run then waits for the jobs in progress.
    pub duration: Duration,
    /// Time from one kill to the next, unless the node takes longer to answer again.
    pub every: Duration,
    /// Number of nodes.
    pub nodes: usize,
    /// Number of clients.
    pub clients: u64,
}
