//! The state that all links of a node share, and the events that they report to the core.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cortado_protocol::peer::{Hello, PeerMessage};
use cortado_protocol::{LogId, NodeId, PROTOCOL_VERSION};
use cortado_transport::{Endpoint, NetworkFaults, NodeTls, Refusal, RefusalLog};
use quinn::Connection;
use tokio::sync::{mpsc, watch};

/// Events on links. `conn` numbers the connections that peers opened; numbers are not reused.
#[derive(Debug)]
pub enum PeerEvent {
    /// This node's link to the peer is up. Send from [`Hello::seq`] on, the number that the peer
    /// expects.
    LinkUp {
        /// The peer.
        peer: NodeId,
        /// Its greeting.
        hello: Hello,
    },
    /// This node's link to the peer is lost. Messages without an acknowledgement may be lost with
    /// it.
    LinkDown {
        /// The peer.
        peer: NodeId,
        /// The peer closed it because of a frame that it calls misbehaviour.
        refused: bool,
    },
    /// The peer has handled everything below `next`.
    LinkAck {
        /// The peer.
        peer: NodeId,
        /// The next number it expects.
        next: u64,
    },
    /// A peer has dialled this node. Answer with [`super::Peers::welcome`] or
    /// [`super::Peers::refuse`].
    Inbound {
        /// The connection.
        conn: u64,
        /// Its greeting; the certificate proves `node`.
        hello: Hello,
    },
    /// A message of a peer.
    Message {
        /// The connection.
        conn: u64,
        /// The peer, as its certificate proves.
        from: NodeId,
        /// The message's number.
        seq: u64,
        /// The message.
        message: PeerMessage,
        /// Its tail.
        tail: Bytes,
    },
    /// The connection is closed; no event of it follows.
    InboundClosed {
        /// The connection.
        conn: u64,
    },
}

/// Settings of the links.
#[derive(Clone, Debug)]
pub struct PeersConfig {
    /// Address to listen on.
    pub bind: SocketAddr,
    /// Certificates; they name this node and its cluster.
    pub tls: NodeTls,
    /// The generation of this run of the node.
    pub boot: u64,
    /// The id of this node's log.
    pub log: LogId,
    /// The faults of the network, if it can be disturbed.
    pub faults: Option<NetworkFaults>,
}

/// Returns the lowest unacknowledged number of the messages to a peer. Called before each `Hello`.
pub type Resume = Arc<dyn Fn(NodeId) -> u64 + Send + Sync>;

/// A peer's current connection. Its task holds the lock from `Inbound` to `InboundClosed`. A newer
/// connection closes the older one and waits for the lock.
#[derive(Clone, Default)]
pub(super) struct Seat {
    pub(super) taken: Arc<tokio::sync::Mutex<()>>,
    pub(super) connection: Option<Connection>,
}

/// State shared by the tasks of all links.
pub(super) struct Shared {
    pub(super) config: PeersConfig,
    pub(super) resume: Resume,
    pub(super) endpoint: Endpoint,
    pub(super) events: mpsc::Sender<PeerEvent>,
    pub(super) links: Mutex<HashMap<NodeId, Link>>,
    pub(super) inbound: Mutex<HashMap<u64, watch::Sender<Answer>>>,
    /// The current connection of each peer; see the listener.
    pub(super) seats: Mutex<HashMap<NodeId, Seat>>,
    pub(super) next_conn: AtomicU64,
    pub(super) dial_refusals: RefusalLog,
}

/// A link that is up.
pub(super) struct Link {
    pub(super) queue: mpsc::UnboundedSender<Bytes>,
    /// The next number the link can carry; see [`super::Peers::send`].
    pub(super) next: u64,
}

/// The core's answer to an inbound connection. A newer value replaces an older one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Answer {
    pub(super) welcome: Option<u64>,
    pub(super) ack: Option<u64>,
    pub(super) refused: bool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "links of {}", self.config.tls.node())
    }
}

impl Shared {
    pub(super) fn hello(&self, seq: u64) -> Hello {
        Hello {
            version: PROTOCOL_VERSION,
            cluster: self.config.tls.cluster().to_owned(),
            node: self.config.tls.node(),
            boot: self.config.boot,
            log: self.config.log,
            seq,
        }
    }

    /// Checks a greeting. `node` is the name in the certificate.
    pub(super) fn check(&self, hello: &Hello, node: NodeId) -> Result<(), Refusal> {
        if hello.version != PROTOCOL_VERSION {
            Err(Refusal::OtherVersion)
        } else if hello.cluster != self.config.tls.cluster() {
            Err(Refusal::OtherCluster)
        } else if hello.node != node {
            Err(Refusal::OtherNode)
        } else {
            Ok(())
        }
    }

    /// Reports an event to the core; waits while the core is behind. Fails when the core has ended.
    pub(super) async fn report(&self, event: PeerEvent) -> Result<(), Stopped> {
        self.events.send(event).await.map_err(|_| Stopped)
    }
}

/// The core takes no more events.
#[derive(Debug)]
pub(super) struct Stopped;
