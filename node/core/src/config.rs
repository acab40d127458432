//! What a node is told when it starts.

use std::time::Duration;

use cortado_protocol::{LogId, NodeId};

use crate::memory::Budget;

/// What does not change while a node runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// The cluster's name.
    pub cluster: String,
    /// Number of this process start: larger than any before it on this disk.
    pub boot: u64,
    /// The log this node writes to.
    pub log: LogId,
    /// Copies aimed at (R).
    pub replicas: u8,
    /// Copies needed before an acknowledgement (W).
    pub min_copies: u8,
    /// Slots of new jobs.
    pub slots: u8,
    /// Members that must have been seen before the first job is accepted.
    pub expected_nodes: u16,
    /// Jobs that run at once; others wait.
    pub max_running_jobs: u32,
    /// Time without a batch after which an upload gives its place in the queue up.
    pub upload_idle: Duration,
    /// Memory that jobs may take at this node.
    pub memory: Budget,
    /// How long a job is kept after it ended, or after the last sign of it.
    pub job_ttl: Duration,
    /// A fault for the simulator to find. The daemon has no way to set it.
    pub planted: Option<PlantedBug>,
}

/// Faults that a simulator worth its name finds: each breaks one promise on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedBug {
    /// Say that an entry is stored before it is synced.
    AcknowledgeBeforeFsync,
    /// Index an entry that is held already once more.
    SkipDuplicateCheck,
    /// Offer nothing to new owners.
    ForgetHandoff,
    /// Fold a slot that misses batches.
    FinishWithGap,
    /// Say that a job is cancelled, and forget it.
    DropCancel,
    /// Count what a node acknowledged before it lost its disk.
    CountLostCopies,
    /// Number messages from zero after every start, and say that it is the same start as before.
    ReuseNumbers,
    /// Add up in floating point.
    FloatSums,
    /// Drop a job when its coordinator alone thinks that its time is over.
    ExpireAlone,
}

impl PlantedBug {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::AcknowledgeBeforeFsync,
        Self::SkipDuplicateCheck,
        Self::ForgetHandoff,
        Self::FinishWithGap,
        Self::DropCancel,
        Self::CountLostCopies,
        Self::ReuseNumbers,
        Self::FloatSums,
        Self::ExpireAlone,
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
