//! What all links of a node share, and what happens on them.

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

/// What happens on links. `conn` numbers a connection that a peer opened; numbers are not reused.
#[derive(Debug)]
pub enum PeerEvent {
    /// Our link to the peer is up. Send from [`Hello::seq`] on, which is the number it expects.
    LinkUp {
        /// The peer.
        peer: NodeId,
        /// What it says about itself.
        hello: Hello,
    },
    /// Our link to the peer is lost, with all that was not acknowledged.
    LinkDown {
        /// The peer.
        peer: NodeId,
        /// The peer closed it, and said that what it was sent is misbehaviour.
        refused: bool,
    },
    /// The peer has handled everything below `next`.
    LinkAck {
        /// The peer.
        peer: NodeId,
        /// The next number it expects.
        next: u64,
    },
    /// A peer has dialled us. Answer with [`super::Peers::welcome`] or [`super::Peers::refuse`].
    Inbound {
        /// The connection.
        conn: u64,
        /// What it says about itself; `node` is proven by its certificate.
        hello: Hello,
    },
    /// A peer says something.
    Message {
        /// The connection.
        conn: u64,
        /// The peer, proven by its certificate.
        from: NodeId,
        /// The message's number.
        seq: u64,
        /// The message.
        message: PeerMessage,
        /// Its tail.
        tail: Bytes,
    },
    /// The connection is gone; nothing follows from it.
    InboundClosed {
        /// The connection.
        conn: u64,
    },
}

/// What links need to know.
#[derive(Clone, Debug)]
pub struct PeersConfig {
    /// Where to listen.
    pub bind: SocketAddr,
    /// Certificates; they name this node and its cluster.
    pub tls: NodeTls,
    /// Number of this process start.
    pub boot: u64,
    /// The log this node writes to.
    pub log: LogId,
    /// What is wrong with the network, if it can be disturbed.
    pub faults: Option<NetworkFaults>,
}

/// The lowest number of a message to the peer that is not acknowledged: asked before each `Hello`.
pub type Resume = Arc<dyn Fn(NodeId) -> u64 + Send + Sync>;

/// Who speaks for a peer. The lock is held from `Inbound` to `InboundClosed`; whoever wants it
/// closes the connection that has it and waits.
#[derive(Clone, Default)]
pub(super) struct Seat {
    pub(super) taken: Arc<tokio::sync::Mutex<()>>,
    pub(super) connection: Option<Connection>,
}

/// What the tasks of all links share.
pub(super) struct Shared {
    pub(super) config: PeersConfig,
    pub(super) resume: Resume,
    pub(super) endpoint: Endpoint,
    pub(super) events: mpsc::Sender<PeerEvent>,
    pub(super) links: Mutex<HashMap<NodeId, Link>>,
    pub(super) inbound: Mutex<HashMap<u64, watch::Sender<Answer>>>,
    /// The connection that speaks for a peer at present; see the listener.
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

/// What the core says to an inbound connection; only the newest counts.
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

    /// Whether the other side may say this: `node` is what its certificate says.
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

    /// Reports to the core; waits while the core is behind. Fails when there is no core any more.
    pub(super) async fn report(&self, event: PeerEvent) -> Result<(), Stopped> {
        self.events.send(event).await.map_err(|_| Stopped)
    }
}

/// The core takes no more events.
#[derive(Debug)]
pub(super) struct Stopped;
