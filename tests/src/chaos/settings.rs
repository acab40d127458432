//! Settings of a chaos run.

use std::path::PathBuf;
use std::time::Duration;

/// Settings of a chaos run.
#[derive(Clone, Debug)]
pub struct Chaos {
    /// Profile of the cluster. Its nodes must have been started with `--allow-chaos`.
    pub profile: PathBuf,
    /// How long faults are made. The run then waits for the jobs in progress.
    pub duration: Duration,
    /// Seed of the random choice of faults, nodes and times.
    pub seed: u64,
    /// Number of clients.
    pub clients: u64,
    /// Only these kinds of faults; all if empty.
    pub only: Vec<String>,
}
