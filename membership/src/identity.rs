//! The identity that a node announces, and which of two identities of one node is the newer. The
//! detector renews it; the other modules only read it.

use std::net::{IpAddr, SocketAddr};

use cortado_protocol::NodeId;
use serde::{Deserialize, Serialize};

/// One incarnation of a node: its name, its addresses, and a generation that orders the identities
/// of one node.
///
/// SWIM declares an identity down for good; a node that is still alive renews it with a higher
/// generation. So an identity is not a key for anything: use [`Identity::id`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    // `Ord` compares the fields in this order, and so decides conflicts: see `win_addr_conflict`.
    /// Orders the identities of one node. Persisted before use, see [`next_generation`].
    pub generation: u64,
    /// The node is leaving for good, right now. Only the detector sets it.
    pub leaving: bool,
    /// The node still serves but must not be given new work: it is about to leave.
    pub draining: bool,
    /// The node's lasting name.
    pub id: NodeId,
    /// Address of its three ports.
    pub ip: IpAddr,
    /// UDP port of the membership datagrams.
    pub gossip_port: u16,
    /// UDP port of node-to-node connections that carry data.
    pub peer_port: u16,
    /// UDP port of client connections.
    pub client_port: u16,
    /// Where browsers reach it over HTTP, if that is known.
    pub http_addr: Option<SocketAddr>,
}

impl Identity {
    /// Address for membership datagrams.
    #[must_use]
    pub fn gossip_addr(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.gossip_port)
    }

    /// Address for data connections from other nodes.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.peer_port)
    }

    /// Address for clients.
    #[must_use]
    pub fn client_addr(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.client_port)
    }

    /// An identity that serves only to address an announcement to `id` at `gossip`.
    pub(crate) fn addressee(id: NodeId, gossip: SocketAddr) -> Self {
        Self {
            generation: 0,
            leaving: false,
            draining: false,
            id,
            ip: gossip.ip(),
            gossip_port: gossip.port(),
            peer_port: 0,
            client_port: 0,
            http_addr: None,
        }
    }
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    /// Never: to renew takes a disk, which foca does not have. The detector does it when foca
    /// reports that this identity is defunct.
    fn renew(&self) -> Option<Self> {
        None
    }

    fn addr(&self) -> NodeId {
        self.id
    }

    /// The higher generation wins. Within a generation leaving wins, so that a node can leave
    /// without a write to its disk. The other fields only need an order that is the same on all
    /// nodes.
    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self > adversary
    }
}

/// The generation to use after `previous` (as persisted; `None` on a new disk).
///
/// A clock alone is not enough: after it was set back, the new identity would lose against the
/// node's own past. A counter alone is not enough: a node that lost its disk would have to count up
/// to its old value. Write the generation to disk and sync it before its first use.
#[must_use]
pub fn next_generation(previous: Option<u64>, unix_ms: u64) -> u64 {
    previous.map_or(unix_ms, |old| old.saturating_add(1).max(unix_ms))
}

/// A node seen at least once, and its address. A restarted node needs it to find the others again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KnownPeer {
    /// The node.
    pub id: NodeId,
    /// The last known address for its membership datagrams.
    pub gossip: SocketAddr,
}

#[cfg(test)]
mod tests {
    use foca::Identity as _;

    use super::*;

    fn identity(generation: u64) -> Identity {
        let addr = "10.0.0.1:7000".parse().unwrap();
        Identity { generation, ..Identity::addressee("node-1".parse().unwrap(), addr) }
    }

    #[test]
    fn generations_only_grow() {
        assert_eq!(next_generation(None, 50), 50);
        assert_eq!(next_generation(Some(10), 50), 50);
        assert_eq!(next_generation(Some(50), 50), 51);
        assert_eq!(next_generation(Some(90), 50), 91, "the clock was set back");
        assert_eq!(next_generation(Some(u64::MAX), 50), u64::MAX);
    }

    #[test]
    fn exactly_one_of_two_identities_wins() {
        let (old, new) = (identity(1), identity(2));
        let leaving = Identity { leaving: true, ..old };
        let moved = Identity { ip: "10.0.0.2".parse().unwrap(), ..old };
        for (a, b) in [(new, old), (leaving, old), (new, leaving), (moved, old), (leaving, moved)] {
            assert!(a.win_addr_conflict(&b), "{a:?} {b:?}");
            assert!(!b.win_addr_conflict(&a), "{a:?} {b:?}");
        }
    }

    #[test]
    fn an_identity_is_small_on_the_wire() {
        let me = Identity {
            peer_port: 7001,
            client_port: 7002,
            http_addr: None,
            ..identity(next_generation(None, 1_795_000_000_000))
        };
        let bytes = postcard::to_stdvec(&me).unwrap();
        assert!(bytes.len() <= 32, "{}", bytes.len());
        assert_eq!(postcard::from_bytes::<Identity>(&bytes).unwrap(), me);
    }
}
