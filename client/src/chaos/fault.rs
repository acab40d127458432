//! The kinds of faults, and the requests that each sends to nodes.

use std::fmt;

use cortado_protocol::NodeId;
use cortado_protocol::chaos::Disturbance;

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// A node's process is killed.
    Kill,
    /// A node's process stands still.
    Pause,
    /// The network falls into parts.
    Partition,
    /// One node is not heard by another.
    Oneway,
    /// Packets of a node are late.
    Delay,
    /// Packets of a node are lost.
    Loss,
    /// A node's disk is full.
    DiskFull,
    /// No write of a node's disk returns.
    DiskHang,
    /// A node's data connections are cut, while its membership goes on.
    DataCut,
    /// A node's event loop stands still, while its membership goes on.
    LoopStall,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 10] = [
        Self::Kill,
        Self::Pause,
        Self::Partition,
        Self::Oneway,
        Self::Delay,
        Self::Loss,
        Self::DiskFull,
        Self::DiskHang,
        Self::DataCut,
        Self::LoopStall,
    ];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Partition => "partition",
            Self::Oneway => "oneway",
            Self::Delay => "delay",
            Self::Loss => "loss",
            Self::DiskFull => "disk-full",
            Self::DiskHang => "disk-hang",
            Self::DataCut => "data-cut",
            Self::LoopStall => "loop-stall",
        }
    }
}

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process of this node is killed.
    Kill(NodeId),
    /// The process of this node stands still.
    Pause(NodeId),
    /// Nodes of different groups drop each other's packets.
    Partition(Vec<Vec<NodeId>>),
    /// What one node sends does not arrive at another.
    Oneway {
        /// The sender.
        from: NodeId,
        /// The receiver.
        to: NodeId,
    },
    /// What these nodes send to other nodes is late.
    Delay {
        /// The senders.
        nodes: Vec<NodeId>,
        /// The delay in milliseconds.
        ms: u32,
    },
    /// A share of what these nodes send to other nodes is lost.
    Loss {
        /// The senders.
        nodes: Vec<NodeId>,
        /// The share in percent.
        percent: u8,
    },
    /// These nodes' disks are full.
    DiskFull(Vec<NodeId>),
    /// These nodes' disks hang.
    DiskHang(Vec<NodeId>),
    /// No data passes between a node and these others; membership datagrams do.
    DataCut {
        /// The node that is cut off.
        node: NodeId,
        /// The nodes that it is cut off from.
        others: Vec<NodeId>,
        /// The direction, if only one.
        way: Option<Way>,
    },
    /// These nodes' event loops stand still.
    LoopStall(Vec<NodeId>),
}

/// One way of a node's traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// What others send to it.
    In,
    /// What it sends to others.
    Out,
}

impl Fault {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Kill(_) => Kind::Kill,
            Self::Pause(_) => Kind::Pause,
            Self::Partition(_) => Kind::Partition,
            Self::Oneway { .. } => Kind::Oneway,
            Self::Delay { .. } => Kind::Delay,
            Self::Loss { .. } => Kind::Loss,
            Self::DiskFull(_) => Kind::DiskFull,
            Self::DiskHang(_) => Kind::DiskHang,
            Self::DataCut { .. } => Kind::DataCut,
            Self::LoopStall(_) => Kind::LoopStall,
        }
    }

    /// The nodes that it affects.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        match self {
            Self::Kill(node) | Self::Pause(node) | Self::DataCut { node, .. } => vec![*node],
            Self::Partition(groups) => groups.concat(),
            Self::Oneway { from, to } => vec![*from, *to],
            Self::Delay { nodes, .. }
            | Self::Loss { nodes, .. }
            | Self::DiskFull(nodes)
            | Self::DiskHang(nodes)
            | Self::LoopStall(nodes) => nodes.clone(),
        }
    }

    /// The requests to each node. Both ends of a cut drop packets, because one end may be restarted
    /// in the meantime and forget the cut.
    pub(super) fn orders(&self) -> Vec<(NodeId, Disturbance)> {
        let all = |nodes: &[NodeId], what: Disturbance| {
            nodes.iter().map(|node| (*node, what.clone())).collect()
        };
        match self {
            Self::Kill(_) | Self::Pause(_) => Vec::new(),
            Self::Partition(groups) => {
                let mut orders = Vec::new();
                for group in groups {
                    let others = groups.concat().into_iter().filter(|node| !group.contains(node));
                    let cut = Disturbance::Cut(others.collect());
                    orders.extend(group.iter().map(|node| (*node, cut.clone())));
                }
                orders
            }
            Self::Oneway { from, to } => {
                vec![(*from, Disturbance::Mute(vec![*to])), (*to, Disturbance::Deaf(vec![*from]))]
            }
            Self::Delay { nodes, ms } => all(nodes, Disturbance::Delay { ms: *ms }),
            Self::Loss { nodes, percent } => all(nodes, Disturbance::Loss { percent: *percent }),
            Self::DiskFull(nodes) => all(nodes, Disturbance::DiskFull),
            Self::DiskHang(nodes) => all(nodes, Disturbance::DiskHang),
            Self::LoopStall(nodes) => all(nodes, Disturbance::LoopStall),
            Self::DataCut { node, others, way } => {
                type With = fn(Vec<NodeId>) -> Disturbance;
                let (mine, theirs): (With, With) = match way {
                    None => (Disturbance::CutData, Disturbance::CutData),
                    Some(Way::In) => (Disturbance::DeafData, Disturbance::MuteData),
                    Some(Way::Out) => (Disturbance::MuteData, Disturbance::DeafData),
                };
                let theirs = others.iter().map(|other| (*other, theirs(vec![*node])));
                [(*node, mine(others.clone()))].into_iter().chain(theirs).collect()
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |nodes| NodeId::join(nodes, ",");
        match self {
            Self::Kill(node) => write!(f, "kill {node}"),
            Self::Pause(node) => write!(f, "pause {node}"),
            Self::Partition(groups) => {
                let groups: Vec<_> = groups.iter().map(names).collect();
                write!(f, "partition {}", groups.join(" "))
            }
            Self::Oneway { from, to } => write!(f, "oneway {from} {to}"),
            Self::Delay { nodes, ms } => write!(f, "delay {} --ms {ms}", names(nodes)),
            Self::Loss { nodes, percent } => write!(f, "loss {} --percent {percent}", names(nodes)),
            Self::DiskFull(nodes) => write!(f, "disk-full {}", names(nodes)),
            Self::DiskHang(nodes) => write!(f, "disk-hang {}", names(nodes)),
            Self::LoopStall(nodes) => write!(f, "loop-stall {}", names(nodes)),
            Self::DataCut { node, way, .. } => match way {
                None => write!(f, "data-cut {node}"),
                Some(Way::In) => write!(f, "data-cut {node} --oneway in"),
                Some(Way::Out) => write!(f, "data-cut {node} --oneway out"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u32) -> NodeId {
        format!("node-{number}").parse().unwrap()
    }

    #[test]
    fn both_sides_of_a_cut_drop_what_the_other_sends() {
        let fault = Fault::Partition(vec![vec![node(1)], vec![node(2), node(3)]]);
        assert_eq!(
            fault.orders(),
            [
                (node(1), Disturbance::Cut(vec![node(2), node(3)])),
                (node(2), Disturbance::Cut(vec![node(1)])),
                (node(3), Disturbance::Cut(vec![node(1)])),
            ]
        );
        assert_eq!(fault.to_string(), "partition node-1 node-2,node-3");
    }

    #[test]
    fn one_way_is_one_way() {
        let fault = Fault::Oneway { from: node(1), to: node(2) };
        assert_eq!(
            fault.orders(),
            [
                (node(1), Disturbance::Mute(vec![node(2)])),
                (node(2), Disturbance::Deaf(vec![node(1)])),
            ]
        );
    }
}
