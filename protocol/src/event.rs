//! Events of the cluster as one node saw them: members that came and went, elections, revivals.
//! Each node keeps its latest [`EVENTS_KEPT`](crate::limits::EVENTS_KEPT) in memory, and
//! `cortado log` shows them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::NodeId;
use crate::chaos::Disturbance;
use crate::health::Ill;

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number on this node since the node started, from 1.
    pub number: u64,
    /// Its time by the node's clock, in milliseconds since the Unix epoch.
    pub unix_ms: u64,
    /// What happened.
    pub what: Happening,
}

/// The kinds of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Happening {
    /// This node started.
    Started {
        /// Its generation.
        generation: u64,
    },
    /// A member answers: it is new or has returned.
    MemberAlive(NodeId),
    /// A member takes no new work, because it is about to leave.
    MemberDraining(NodeId),
    /// A member does not answer.
    MemberDown(NodeId),
    /// A member has left.
    MemberLeft(NodeId),
    /// The supervisor is gone: an election began.
    Election {
        /// The term that ended.
        term: u64,
    },
    /// A supervisor was elected, or continues in a later term.
    Elected {
        /// The supervisor.
        leader: NodeId,
        /// Its term.
        term: u64,
    },
    /// This node, as supervisor, is about to bring a node back.
    Reviving {
        /// The node.
        node: NodeId,
        /// Whether the node must be ended first, because its process runs but does not work.
        kill: bool,
        /// Number of its revivals within the last five minutes, this one included.
        attempt: u32,
        /// The reviver: `process`, `docker`.
        reviver: String,
    },
    /// A node's process was started; it joins when it is ready.
    Revived(NodeId),
    /// A node's process could not be started.
    ReviveFailed {
        /// The node.
        node: NodeId,
        /// The reason, as a sentence.
        reason: String,
    },
    /// This node, as supervisor, does nothing about a node that is down.
    LeftAlone {
        /// The node.
        node: NodeId,
        /// The reason, as a sentence.
        reason: String,
    },
    /// A node was revived too often and is left to the operator.
    CrashLooping {
        /// The node.
        node: NodeId,
        /// Its revivals within the last five minutes.
        attempts: u32,
    },
    /// A client asked this node to disturb its own network or disk.
    Disturbed {
        /// The disturbance.
        what: Disturbance,
        /// Its duration in milliseconds.
        for_ms: u32,
    },
    /// A client asked this node to end all disturbances.
    Healed,
    /// A member answers but reports that it is ill: other nodes take its roles.
    MemberIll {
        /// The node.
        node: NodeId,
        /// What is wrong.
        ill: Ill,
    },
}

impl Happening {
    /// The name of the event for programs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::MemberAlive(_) => "member_alive",
            Self::MemberDraining(_) => "member_draining",
            Self::MemberDown(_) => "member_down",
            Self::MemberLeft(_) => "member_left",
            Self::Election { .. } => "election",
            Self::Elected { .. } => "elected",
            Self::Reviving { .. } => "reviving",
            Self::Revived(_) => "revived",
            Self::ReviveFailed { .. } => "revive_failed",
            Self::LeftAlone { .. } => "left_alone",
            Self::CrashLooping { .. } => "crash_looping",
            Self::Disturbed { .. } => "disturbed",
            Self::Healed => "healed",
            Self::MemberIll { .. } => "member_ill",
        }
    }

    /// The node that the event is about, unless it is about the node that saw it.
    #[must_use]
    pub const fn node(&self) -> Option<NodeId> {
        match self {
            Self::Started { .. }
            | Self::Election { .. }
            | Self::Disturbed { .. }
            | Self::Healed => None,
            Self::MemberAlive(node)
            | Self::MemberDraining(node)
            | Self::MemberDown(node)
            | Self::MemberLeft(node)
            | Self::Revived(node)
            | Self::Elected { leader: node, .. }
            | Self::Reviving { node, .. }
            | Self::ReviveFailed { node, .. }
            | Self::LeftAlone { node, .. }
            | Self::CrashLooping { node, .. }
            | Self::MemberIll { node, .. } => Some(*node),
        }
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { generation } => write!(f, "started, generation {generation}"),
            Self::MemberAlive(node) => write!(f, "{node} is alive"),
            Self::MemberDraining(node) => write!(f, "{node} drains"),
            Self::MemberDown(node) => write!(f, "{node} is down"),
            Self::MemberLeft(node) => write!(f, "{node} has left"),
            Self::Election { term } => write!(f, "the supervisor of term {term} is gone: election"),
            Self::Elected { leader, term } => write!(f, "{leader} supervises, term {term}"),
            Self::Reviving { node, kill, attempt, reviver } => {
                let how = if *kill { "kills and starts" } else { "starts" };
                write!(f, "{how} {node} by {reviver}, {attempt} in 5 minutes")
            }
            Self::Revived(node) => write!(f, "{node} was started"),
            Self::ReviveFailed { node, reason } => write!(f, "can't start {node}: {reason}"),
            Self::LeftAlone { node, reason } => write!(f, "leaves {node} alone: {reason}"),
            Self::CrashLooping { node, attempts } => {
                write!(f, "{node} is crash-looping: {attempts} starts in 5 minutes; see its log")
            }
            Self::Disturbed { what, for_ms } => {
                write!(f, "disturbed on request: {what}, for {} s", f64::from(*for_ms) / 1e3)
            }
            Self::Healed => write!(f, "disturbed no more"),
            Self::MemberIll { node, ill } => write!(f, "{node} is ill: {ill}"),
        }
    }
}
