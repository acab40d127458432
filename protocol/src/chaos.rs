//! Disturbances that `cortado chaos` asks of a node, to test how the cluster behaves under them. A
//! node refuses them unless it was started with `--allow-chaos`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::NodeId;

/// Longest time a disturbance may last, in milliseconds: one hour.
pub const LONGEST_MS: u32 = 3_600_000;
/// Longest delay of a packet, in milliseconds.
pub const LONGEST_DELAY_MS: u32 = 10_000;

/// A request to disturb a node, or to stop that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Start a disturbance, in addition to those under way.
    Begin {
        /// The disturbance.
        what: Disturbance,
        /// Its duration in milliseconds, up to [`LONGEST_MS`].
        for_ms: u32,
    },
    /// End every disturbance at once.
    Heal,
}

/// A fault. Only traffic between nodes is disturbed, never that of clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Disturbance {
    /// The node sends nothing to these nodes and drops what they send.
    Cut(Vec<NodeId>),
    /// The node sends nothing to these nodes.
    Mute(Vec<NodeId>),
    /// The node drops what these nodes send.
    Deaf(Vec<NodeId>),
    /// The node sends every packet to other nodes later.
    Delay {
        /// The delay in milliseconds, up to [`LONGEST_DELAY_MS`].
        ms: u32,
    },
    /// Packets to other nodes are lost at random.
    Loss {
        /// The share of lost packets, in percent, up to 100.
        percent: u8,
    },
    /// The disk has no free space beyond its reserve: the node takes no batches.
    DiskFull,
    /// No write and no sync of the disk returns.
    DiskHang,
    /// The node's event loop stands still. Its membership continues.
    LoopStall,
    /// Like [`Self::Cut`], but only for connections that carry data: membership datagrams pass.
    CutData(Vec<NodeId>),
    /// Like [`Self::Mute`], for data only.
    MuteData(Vec<NodeId>),
    /// Like [`Self::Deaf`], for data only.
    DeafData(Vec<NodeId>),
}

impl fmt::Display for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |nodes| NodeId::join(nodes, ", ");
        match self {
            Self::Cut(nodes) => write!(f, "cut off from {}", names(nodes)),
            Self::Mute(nodes) => write!(f, "not heard by {}", names(nodes)),
            Self::Deaf(nodes) => write!(f, "does not hear {}", names(nodes)),
            Self::Delay { ms } => write!(f, "packets {ms} ms late"),
            Self::Loss { percent } => write!(f, "{percent} % of packets lost"),
            Self::DiskFull => write!(f, "disk full"),
            Self::DiskHang => write!(f, "disk hangs"),
            Self::LoopStall => write!(f, "event loop stands still"),
            Self::CutData(nodes) => write!(f, "data cut off from {}", names(nodes)),
            Self::MuteData(nodes) => write!(f, "data not heard by {}", names(nodes)),
            Self::DeafData(nodes) => write!(f, "does not hear data of {}", names(nodes)),
        }
    }
}

impl Order {
    /// Whether its numbers are within the limits.
    #[must_use]
    pub fn is_sensible(&self) -> bool {
        let Self::Begin { what, for_ms } = self else { return true };
        let sensible = match what {
            Disturbance::Delay { ms } => *ms <= LONGEST_DELAY_MS,
            Disturbance::Loss { percent } => *percent <= 100,
            Disturbance::Cut(_)
            | Disturbance::Mute(_)
            | Disturbance::Deaf(_)
            | Disturbance::DiskFull
            | Disturbance::DiskHang
            | Disturbance::LoopStall
            | Disturbance::CutData(_)
            | Disturbance::MuteData(_)
            | Disturbance::DeafData(_) => true,
        };
        sensible && *for_ms <= LONGEST_MS
    }
}
