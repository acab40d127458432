//! Links to the other nodes.
//!
//! Each node dials every peer once for what *it* has to say; acknowledgements come back on the same
//! stream ([`cortado_protocol::peer`]). This module moves bytes: it dials and dials again, exchanges
//! greetings, and checks that whoever speaks is the node of its certificate. Sequence numbers,
//! windows and what is sent again are decided by the core.
//!
//! For each peer the core sees `LinkUp` and `LinkDown` in turns, and for each connection `Inbound`,
//! any number of `Message`s, `InboundClosed`. Of two connections of one peer, the older one is closed
//! and reported closed before the newer one is reported.

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

/// Events the core has not taken yet; when there are more, peers are read no further.
pub const EVENTS: usize = 256;

type Targets = Vec<(NodeId, SocketAddr)>;

/// All links of this node. Dropping it ends them; [`Peers::stop`] also waits for that.
#[derive(Debug)]
pub struct Peers {
    shared: Arc<Shared>,
    /// `None` ends all links.
    targets: watch::Sender<Option<Targets>>,
    task: JoinHandle<()>,
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
