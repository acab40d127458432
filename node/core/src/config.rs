//! Settings of a node. The shell passes them to the core at the start.

use std::time::Duration;

use cortado_protocol::{LogId, NodeId};

use crate::memory::Budget;

/// Settings that do not change while a node runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// The cluster's name.
    pub cluster: String,
    /// The generation of this run: larger than that of any earlier run on this disk.
    pub boot: u64,
    /// The id of this node's log.
    pub log: LogId,
    /// Copies aimed at (R).
    pub replicas: u8,
    /// Copies needed before an acknowledgement (W).
    pub min_copies: u8,
    /// Slots of new jobs.
    pub slots: u8,
    /// Members that must have joined before the first job is accepted.
    pub expected_nodes: u16,
    /// Jobs that run at once; others wait.
    pub max_running_jobs: u32,
    /// Time without a batch after which an upload loses its place in the queue.
    pub upload_idle: Duration,
    /// Memory that jobs may take at this node.
    pub memory: Budget,
    /// How long a job is kept after its last sign of life.
    pub job_ttl: Duration,
    /// A planted fault that the simulator has to find. The daemon can't set it.
    pub planted: Option<PlantedBug>,
}

/// Planted faults: each breaks one promise on purpose, and the simulator has to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedBug {
    /// Send `Stored` before the entry is synced.
    AcknowledgeBeforeFsync,
    /// Index an entry again that is already held.
    SkipDuplicateCheck,
    /// Offer nothing to new owners.
    ForgetHandoff,
    /// Fold a slot that misses batches.
    FinishWithGap,
    /// Answer that a job is cancelled, but do not record it.
    DropCancel,
    /// Count acknowledgements that a node sent before it lost its disk.
    CountLostCopies,
    /// Number messages from zero after every start, with the same boot as before.
    ReuseNumbers,
    /// Add up in floating-point numbers.
    FloatSums,
    /// Drop a job without the agreement of other members.
    ExpireAlone,
    /// Publish a window of a stream once, whatever comes later.
    DropLate,
    /// Windows stay as they were published, although something earlier contradicts events in them.
    IgnoreTouches,
}

impl PlantedBug {
    /// All planted faults.
    pub const ALL: [Self; 11] = [
        Self::AcknowledgeBeforeFsync,
        Self::SkipDuplicateCheck,
        Self::ForgetHandoff,
        Self::FinishWithGap,
        Self::DropCancel,
        Self::CountLostCopies,
        Self::ReuseNumbers,
        Self::FloatSums,
        Self::ExpireAlone,
        Self::DropLate,
        Self::IgnoreTouches,
    ];
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A node with R = 3, W = 2 and few slots.
    pub(crate) fn config(name: &str, boot: u64) -> Config {
        Config {
            node: name.parse().unwrap(),
            cluster: "c".to_owned(),
            boot,
            log: LogId(1),
            replicas: 3,
            min_copies: 2,
            slots: 4,
            expected_nodes: 3,
            max_running_jobs: 4,
            upload_idle: Duration::from_secs(30),
            memory: Budget::of(1 << 30, 1),
            job_ttl: Duration::from_secs(3600),
            planted: None,
        }
    }
}
