//! What the peers say about themselves in their hellos, and which links are up. The router keeps it
//! among the facts.

use std::collections::{BTreeMap, BTreeSet};

use cortado_protocol::peer::Hello;
use cortado_protocol::{LogId, NodeId};

/// A peer's boot and log, from its hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The generation of its current run.
    boot: u64,
    /// The log it writes to.
    pub(crate) log: LogId,
}

/// How a hello differs from the peer's last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdentityChange {
    /// The first hello of this peer.
    New,
    /// Nothing changed.
    Same,
    /// The process was started again on its own disk.
    Restarted,
    /// The peer lost its disk: its earlier acknowledgements do not count any more.
    OtherLog,
}

/// The identities of the peers, and the links that are up.
#[derive(Default)]
pub(crate) struct Peers {
    identities: BTreeMap<NodeId, Identity>,
    linked: BTreeSet<NodeId>,
}

impl Peers {
    /// Stores a peer's identity; returns how it differs from the last one.
    pub(crate) fn identify(&mut self, hello: &Hello) -> IdentityChange {
        let now = Identity { boot: hello.boot, log: hello.log };
        match self.identities.insert(hello.node, now) {
            None => IdentityChange::New,
            Some(before) if before == now => IdentityChange::Same,
            Some(before) if before.log != now.log => IdentityChange::OtherLog,
            Some(_) => IdentityChange::Restarted,
        }
    }

    /// The id of a peer's log, once the peer has sent a hello.
    pub(crate) fn log_of(&self, peer: NodeId) -> Option<LogId> {
        self.identities.get(&peer).map(|identity| identity.log)
    }

    /// The link to a peer is up or broken.
    pub(crate) fn set_linked(&mut self, peer: NodeId, linked: bool) {
        if linked {
            self.linked.insert(peer);
        } else {
            self.linked.remove(&peer);
        }
    }

    /// Whether the link to the peer is up.
    pub(crate) fn is_linked(&self, peer: NodeId) -> bool {
        self.linked.contains(&peer)
    }
}

#[cfg(test)]
mod tests {
    use cortado_protocol::PROTOCOL_VERSION;

    use super::*;

    fn hello(boot: u64, log: u128) -> Hello {
        let (version, cluster, node) = (PROTOCOL_VERSION, "c".to_owned(), "p".parse().unwrap());
        Hello { version, cluster, node, boot, log: LogId(log), seq: 0 }
    }

    #[test]
    fn a_lost_disk_is_told_from_a_restart() {
        let mut peers = Peers::default();
        assert_eq!(peers.identify(&hello(1, 1)), IdentityChange::New);
        assert_eq!(peers.identify(&hello(1, 1)), IdentityChange::Same);
        assert_eq!(peers.identify(&hello(2, 1)), IdentityChange::Restarted);
        assert_eq!(peers.identify(&hello(3, 2)), IdentityChange::OtherLog);
    }
}
