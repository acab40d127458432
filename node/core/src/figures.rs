//! What an operator may want to see drawn over time.

use std::collections::BTreeMap;

use cortado_protocol::stream::StreamStatus;

/// Figures of one node at one moment.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Jobs that this node coordinates, by the name of their state.
    pub jobs: BTreeMap<&'static str, u64>,
    /// Jobs whose records are here.
    pub held: u64,
    /// Entries on their way to enough disks.
    pub replicating: u64,
    /// Batches that wait to be mapped.
    pub mapping: u64,
    /// Tasks of the workers that are under way or wait.
    pub tasks: u64,
    /// Entries that are still to be moved to their owners.
    pub moving: u64,
    /// The streams that this node coordinates, by name.
    pub streams: Vec<(String, StreamStatus)>,
}
