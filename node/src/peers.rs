//! Links to the other nodes. The node's start creates it; the driver uses it.
//!
//! Each node dials every peer once for its own messages; acknowledgements come back on the same
//! stream ([`cortado_protocol::peer`]). This module dials, repeats failed dials, exchanges
//! greetings, and checks that a sender is the node of its certificate. The core decides about
//! sequence numbers, windows and repeats.
//!
//! For each peer the core gets `LinkUp` and `LinkDown` in turns, and for each inbound connection
//! `Inbound`, any number of `Message`s, and `InboundClosed`. When a peer opens a second connection,
//! the older one is closed and its `InboundClosed` is reported before the newer one's `Inbound`.

#[cfg(test)]
pub(crate) mod certificates;
mod dialler;
mod listener;
mod shared;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cortado_protocol::NodeId;
use cortado_protocol::frame::PREFIX_BYTES;
use cortado_transport::{Endpoint, EndpointError, Kind, Refusal, RefusalLog};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::lock::lock;
use shared::{Answer, Shared};
pub use shared::{PeerEvent, PeersConfig, Resume};

/// Events that the core has not taken yet. While so many wait, no peer is read.
pub const EVENTS: usize = 256;

type Targets = Vec<(NodeId, SocketAddr)>;

/// All links of this node. Dropping it closes them; [`Peers::stop`] also waits for their tasks.
#[derive(Debug)]
pub struct Peers {
    shared: Arc<Shared>,
    /// `None` ends all links.
    targets: watch::Sender<Option<Targets>>,
    task: JoinHandle<()>,
}

impl Peers {
    /// Starts to listen; dials no peer yet. Must be called within a tokio runtime.
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

    /// Keeps a link to each of these nodes and closes all others. A link whose address changed is
    /// dialled again.
    pub fn set_targets(&self, targets: Vec<(NodeId, SocketAddr)>) {
        self.targets.send_if_modified(|wanted| {
            let old = wanted.replace(targets);
            old != *wanted
        });
    }

    /// Sends an encoded `LinkFrame::Message` if the link is up. Never waits: the core's window
    /// bounds the queue.
    ///
    /// Numbers must be consecutive, and begin at most at the number that the peer expects. A
    /// message that leaves a gap is dropped: the core sent it before it received `LinkDown` and
    /// `LinkUp`, and sends it again after these.
    pub fn send(&self, peer: NodeId, frame: Bytes) {
        let mut links = lock(&self.shared.links);
        let Some(link) = links.get_mut(&peer) else { return };
        if let Some(seq) = message_number(&frame) {
            if seq > link.next {
                return;
            }
            link.next = link.next.max(seq + 1);
        }
        // If the link was just lost, there is no receiver. The core gets `LinkDown`.
        let _ = link.queue.send(frame);
    }

    /// Answers [`PeerEvent::Inbound`]: the peer shall continue at `next`.
    pub fn welcome(&self, conn: u64, next: u64) {
        self.answer(conn, |answer| answer.welcome = Some(next));
    }

    /// Acknowledges everything below `next`. If calls come faster than the network carries
    /// acknowledgements, only the newest is sent.
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

    /// Refusals by kind: connections that this node refused, and its failed dials.
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
        // The panic hook has logged a panic of the task.
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

/// Owns the tasks of all links: one dialler for each node that was ever a target, and one task for
/// each inbound connection. The tasks end with this function.
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

/// Reads the number of an encoded `LinkFrame::Message` without decoding the message.
fn message_number(frame: &Bytes) -> Option<u64> {
    let head = frame.get(PREFIX_BYTES + 4..)?;
    match postcard::take_from_bytes::<(u32, u64)>(head) {
        Ok(((0, seq), _)) => Some(seq),
        _ => None,
    }
}
