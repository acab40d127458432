//! Disturbances a node can be asked for, to see how the cluster bears them. A node refuses them unless
//! it was started with `--allow-chaos`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::NodeId;

/// Longest time a disturbance may last, in milliseconds: one hour.
pub const LONGEST_MS: u32 = 3_600_000;
/// Most a packet may be held back, in milliseconds.
pub const LONGEST_DELAY_MS: u32 = 10_000;

/// What is asked of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Disturb, together with what is going on already.
    Begin {
        /// How.
        what: Disturbance,
        /// For how long, in milliseconds, up to [`LONGEST_MS`].
        for_ms: u32,
    },
    /// End every disturbance at once.
    Heal,
}

/// What goes wrong. Only traffic between nodes is disturbed, never that of clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Disturbance {
    /// Nothing is sent to these nodes, and nothing of theirs is heard.
    Cut(Vec<NodeId>),
    /// Nothing is sent to these nodes.
    Mute(Vec<NodeId>),
    /// Nothing of these nodes is heard.
    Deaf(Vec<NodeId>),
    /// Every packet to another node is sent later.
    Delay {
        /// By how much, in milliseconds, up to [`LONGEST_DELAY_MS`].
        ms: u32,
    },
    /// Packets to other nodes are lost at random.
    Loss {
        /// Which share of them, in percent, up to 100.
        percent: u8,
    },
    /// The disk has no more free space than its reserve: it takes no batches.
    DiskFull,
    /// No write and no sync of the disk returns.
    DiskHang,
    /// The node's event loop stands still. Its membership goes on.
    LoopStall,
    /// As [`Self::Cut`], for connections that carry data only: membership datagrams pass.
    CutData(Vec<NodeId>),
    /// As [`Self::Mute`], for data only.
    MuteData(Vec<NodeId>),
    /// As [`Self::Deaf`], for data only.
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
    /// Whether its numbers make sense.
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
