//! What a storm is like.

use std::time::Duration;

/// What the weather is.
#[derive(Clone, Copy, Debug)]
pub struct Storm {
    /// Decides which node is killed when. Processes have a will of their own: the same seed is the
    /// same plan, not the same run.
    pub seed: u64,
    /// How long nodes are killed. Jobs under way then are waited for.
    pub duration: Duration,
    /// Time from one kill to the next, unless the node takes longer to answer again.
    pub every: Duration,
    /// Nodes.
    pub nodes: usize,
    /// Clients at once.
    pub clients: u64,
}
