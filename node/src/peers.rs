//! Links to the other nodes.
//!
//! Each node dials every peer once for what *it* has to say; acknowledgements come back on the same
//! stream ([`cortado_protocol::peer`]). This module moves bytes: it dials and dials again, exchanges
//! [`Hello`]s, and checks that whoever speaks is the node of its certificate. Sequence numbers,
//! windows and what is sent again are decided by the core.
//!
//! For each peer the core sees `LinkUp` and `LinkDown` in turns, and for each connection `Inbound`,
//! any number of `Message`s, `InboundClosed`. Of two connections of one peer, the older one is closed
//! and reported closed before the newer one is reported.

#[cfg(test)]
pub(crate) mod certificates;
mod dialler;
mod listener;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cortado_protocol::frame::PREFIX_BYTES;
use cortado_protocol::peer::{Hello, PeerMessage};
use cortado_protocol::{LogId, NodeId, PROTOCOL_VERSION};
use cortado_transport::{
    Endpoint, EndpointError, Kind, NetworkFaults, NodeTls, Refusal, RefusalLog,
};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

/// Events the core has not taken yet; when there are more, peers are read no further.
pub const EVENTS: usize = 256;

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
    /// A peer has dialled us. Answer with [`Peers::welcome`] or [`Peers::refuse`].
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

type Targets = Vec<(NodeId, SocketAddr)>;

/// All links of this node. Dropping it ends them; [`Peers::stop`] also waits for that.
#[derive(Debug)]
pub struct Peers {
    shared: Arc<Shared>,
    /// `None` ends all links.
    targets: watch::Sender<Option<Targets>>,
    task: JoinHandle<()>,
}

/// What the tasks of all links share.
struct Shared {
    config: PeersConfig,
    resume: Resume,
    endpoint: Endpoint,
    events: mpsc::Sender<PeerEvent>,
    links: Mutex<HashMap<NodeId, Link>>,
    inbound: Mutex<HashMap<u64, watch::Sender<Answer>>>,
    /// The connection that speaks for a peer at present; see [`listener`].
    seats: Mutex<HashMap<NodeId, listener::Seat>>,
    next_conn: AtomicU64,
    dial_refusals: RefusalLog,
}

/// A link that is up.
struct Link {
    queue: mpsc::UnboundedSender<Bytes>,
    /// The next number the link can carry; see [`Peers::send`].
    next: u64,
}

/// What the core says to an inbound connection; only the newest counts.
#[derive(Clone, Copy, Debug, Default)]
struct Answer {
    welcome: Option<u64>,
    ack: Option<u64>,
    refused: bool,
}

impl Peers {
    /// Starts to listen; dials nobody yet. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the port or the certificates can't be used.
    pub fn start(
        config: PeersConfig,
        resume: Resume,
        events: mpsc::Sender<PeerEvent>,
    ) -> Result<Self, EndpointError> {
        let PeersConfig { bind, tls, faults, .. } = &config;
        let endpoint = Endpoint::faulty_node(Kind::Peer, *bind, tls, faults.as_ref())?;
        let shared = Arc::new(Shared {
            config,
            resume,
            endpoint,
            events,
            links: Mutex::default(),
            inbound: Mutex::default(),
            seats: Mutex::default(),
            next_conn: AtomicU64::new(1),
            dial_refusals: RefusalLog::new("peer, dialling"),
        });
        let (targets, wanted) = watch::channel(Some(Vec::new()));
        let task = tokio::spawn(run(shared.clone(), wanted));
        Ok(Self { shared, targets, task })
    }

    /// The address it listens on, with the real port.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.endpoint.local_addr()
    }

    /// Keeps a link to each of these, and to nobody else. A link whose address changed is dialled
    /// anew.
    pub fn set_targets(&self, targets: Vec<(NodeId, SocketAddr)>) {
        self.targets.send_if_modified(|wanted| {
            let old = wanted.replace(targets);
            old != *wanted
        });
    }

    /// Sends an encoded `LinkFrame::Message`, if the link is up. Never waits: the core's window
    /// bounds the queue.
    ///
    /// Numbers must follow each other, beginning at most at the number the peer expects. One that
    /// leaves a gap is dropped: it was sent before the core heard that the link was lost and is up
    /// again, and it will be sent again when the core does.
    pub fn send(&self, peer: NodeId, frame: Bytes) {
        let mut links = lock(&self.shared.links);
        let Some(link) = links.get_mut(&peer) else { return };
        if let Some(seq) = message_number(&frame) {
            if seq > link.next {
                return;
            }
            link.next = link.next.max(seq + 1);
        }
        // The receiver is gone when the link was lost a moment ago; the core will hear of it.
        let _ = link.queue.send(frame);
    }

    /// Answers [`PeerEvent::Inbound`]: go on at `next`.
    pub fn welcome(&self, conn: u64, next: u64) {
        self.answer(conn, |answer| answer.welcome = Some(next));
    }

    /// Acknowledges everything below `next`. If it is called faster than the network carries it,
    /// only the newest is sent.
    pub fn ack(&self, conn: u64, next: u64) {
        self.answer(conn, |answer| answer.ack = answer.ack.max(Some(next)));
    }

    /// Closes an inbound connection. [`PeerEvent::InboundClosed`] follows.
    pub fn refuse(&self, conn: u64) {
        self.answer(conn, |answer| answer.refused = true);
    }

    fn answer(&self, conn: u64, change: impl FnOnce(&mut Answer)) {
        if let Some(answer) = lock(&self.shared.inbound).get(&conn) {
            answer.send_modify(change);
        }
    }

    /// Refused connections by kind: those we refused as listener, and failures as dialler.
    #[must_use]
    pub fn refusals(&self) -> Vec<(Refusal, u64)> {
        let mut counts: Vec<(Refusal, u64)> = self.shared.endpoint.refusals().counts().collect();
        for (kind, count) in self.shared.dial_refusals.counts() {
            match counts.iter_mut().find(|(known, _)| *known == kind) {
                Some(known) => known.1 += count,
                None => counts.push((kind, count)),
            }
        }
        counts
    }

    /// Ends all links and waits for their tasks. No event follows.
    pub async fn stop(mut self) {
        self.targets.send_replace(None);
        // A panic in it was logged by the panic hook; there is nothing left to end.
        let _ = (&mut self.task).await;
        self.shared.endpoint.close();
        self.shared.endpoint.wait_idle().await;
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.endpoint.close();
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "links of {}", self.config.tls.node())
    }
}

impl Shared {
    fn hello(&self, seq: u64) -> Hello {
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
    fn check(&self, hello: &Hello, node: NodeId) -> Result<(), Refusal> {
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
    async fn report(&self, event: PeerEvent) -> Result<(), Stopped> {
        self.events.send(event).await.map_err(|_| Stopped)
    }
}

/// The core takes no more events.
#[derive(Debug)]
struct Stopped;

/// Owns the tasks of all links: one dialler per node that was ever a target, one task per inbound
/// connection. They end with it.
async fn run(shared: Arc<Shared>, mut targets: watch::Receiver<Option<Targets>>) {
    let mut tasks = JoinSet::new();
    let mut diallers: HashMap<NodeId, watch::Sender<Option<SocketAddr>>> = HashMap::new();
    loop {
        tokio::select! {
            handshake = shared.endpoint.accept() => match handshake {
                Some(handshake) => {
                    tasks.spawn(listener::serve(shared.clone(), handshake));
                }
                None => break,
            },
            changed = targets.changed() => {
                let wanted = targets.borrow_and_update().clone();
                let (Ok(()), Some(wanted)) = (changed, wanted) else { break };
                let wanted: HashMap<NodeId, SocketAddr> = wanted.into_iter().collect();
                for node in wanted.keys().filter(|node| **node != shared.config.tls.node()) {
                    diallers.entry(*node).or_insert_with(|| {
                        let (target, dialled) = watch::channel(None);
                        tasks.spawn(dialler::keep_link(shared.clone(), *node, dialled));
                        target
                    });
                }
                for (node, target) in &diallers {
                    let address = wanted.get(node).copied();
                    target.send_if_modified(|old| std::mem::replace(old, address) != address);
                }
            },
            Some(ended) = tasks.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "link task failed");
                }
            }
        }
    }
    tasks.shutdown().await;
}

/// The number of an encoded `LinkFrame::Message`, read without decoding the message.
fn message_number(frame: &Bytes) -> Option<u64> {
    let head = frame.get(PREFIX_BYTES + 4..)?;
    match postcard::take_from_bytes::<(u32, u64)>(head) {
        Ok(((0, seq), _)) => Some(seq),
        _ => None,
    }
}

/// Nothing that panics runs under these locks, and what they protect is whole between statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
