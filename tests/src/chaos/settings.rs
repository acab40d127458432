//! What a chaos run is like.

use std::path::PathBuf;
use std::time::Duration;

/// What is done.
#[derive(Clone, Debug)]
pub struct Chaos {
    /// Profile of the cluster. Its nodes must have been started with `--allow-chaos`.
    pub profile: PathBuf,
    /// How long trouble is made. Jobs under way then are waited for.
    pub duration: Duration,
    /// Decides what happens to whom, and when.
    pub seed: u64,
    /// Clients at once.
    pub clients: u64,
    /// Only these kinds of trouble; all if empty.
    pub only: Vec<String>,
}
