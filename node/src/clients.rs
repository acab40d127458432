//! The port for clients: one bidirectional stream per request ([`cortado_protocol::client`]).
//!
//! Each request and each batch gets a *ticket*; the core answers by ticket. Two gates, one for
//! requests and one for batches, limit what clients may cost: a task takes room before it reads a
//! frame, and gives it back when the answer is written or the client has left. While there is no
//! room, nothing is read, and QUIC's flow control makes the client wait.

mod connection;
mod gate;
mod inside;
mod shared;
#[cfg(test)]
mod tests;
mod upload;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cortado_protocol::client::{BatchReply, ClientResponse};
use cortado_transport::{BufferPool, Endpoint, EndpointError, Kind, NodeTls, Refusal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::lock::lock;
use gate::Gate;
pub use inside::Inside;
pub use shared::ClientEvent;
use shared::{BATCHES, Shared, Waiting, WaitingBatch};

use crate::chaos::Chaos;
use crate::history::History;
use crate::meters::Meters;

/// Events that the core has not taken yet. While so many wait, no client is read.
pub const EVENTS: usize = 256;
const BATCH_BYTES: usize = 64 << 20;
/// Buffers kept for later batches.
const BUFFERS: usize = 8;
/// Requests read and not yet answered.
const REQUESTS: usize = 1024;
const REQUEST_BYTES: usize = 64 << 20;
/// Connected clients.
const CONNECTIONS: usize = 1024;

/// The port for clients. Dropping it closes the port; [`Clients::stop`] also waits for the tasks.
#[derive(Debug)]
pub struct Clients {
    shared: Arc<Shared>,
    stopping: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Clients {
    /// Starts to listen. Must be called within a tokio runtime. Without `chaos`, clients can't disturb
    /// this node.
    ///
    /// # Errors
    /// If the port or the certificates can't be used.
    pub fn start(
        bind: SocketAddr,
        tls: &NodeTls,
        (history, chaos): (History, Option<Chaos>),
        meters: Arc<Meters>,
        events: mpsc::Sender<ClientEvent>,
    ) -> Result<Self, EndpointError> {
        let shared = Arc::new(Shared {
            endpoint: Endpoint::node(Kind::Client, bind, tls)?,
            events,
            history,
            chaos,
            meters,
            waiting: Mutex::default(),
            next_ticket: AtomicU64::new(1),
            requests: Gate::new(REQUESTS, REQUEST_BYTES),
            batches: Gate::new(BATCHES, BATCH_BYTES),
            buffers: BufferPool::new(BUFFERS),
        });
        let (stopping, stop) = watch::channel(false);
        let task = tokio::spawn(run(shared.clone(), stop));
        Ok(Self { shared, stopping, task })
    }

    /// The address it listens on, with the real port.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.endpoint.local_addr()
    }

    /// Answers a request. Does nothing if the client is gone.
    pub fn reply(&self, ticket: u64, response: &ClientResponse, tail: &[u8]) {
        let waiting = lock(&self.shared.waiting).remove(&ticket);
        // The client may have left meanwhile.
        match waiting {
            Some(Waiting::Request(answer)) => {
                let _ = answer.send(cortado_protocol::frame::encode(response, tail));
            }
            Some(Waiting::Inside(answer)) => {
                let _ = answer.send((response.clone(), Bytes::copy_from_slice(tail)));
            }
            Some(Waiting::Batch(..)) | None => {}
        }
    }

    /// Answers a batch. Does nothing if the client is gone.
    pub fn batch_reply(&self, ticket: u64, reply: &BatchReply) {
        let waiting = lock(&self.shared.waiting).remove(&ticket);
        if let Some(Waiting::Batch(WaitingBatch { answers, room, since, bytes })) = waiting {
            self.shared.meters.batch(reply.outcome.name(), bytes, since.elapsed());
            // The client may have left meanwhile.
            let _ = answers.send((cortado_protocol::frame::encode(reply, b""), room));
        }
    }

    /// Asks this node like a client, from within this process.
    #[must_use]
    pub fn inside(&self) -> Inside {
        Inside::new(Arc::clone(&self.shared))
    }

    /// Requests and batches that are read and not answered, and their limits.
    #[must_use]
    pub fn load(&self) -> [(&'static str, usize, usize); 2] {
        let Shared { requests, batches, .. } = &*self.shared;
        [("requests", requests.taken(), REQUESTS), ("batches", batches.taken(), BATCHES)]
    }

    /// Connections refused, by kind.
    #[must_use]
    pub fn refusals(&self) -> Vec<(Refusal, u64)> {
        self.shared.endpoint.refusals().counts().collect()
    }

    /// Ends all connections and waits for their tasks. No event follows.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        // The panic hook has logged a panic of the task.
        let _ = (&mut self.task).await;
        self.shared.endpoint.close();
        self.shared.endpoint.wait_idle().await;
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.endpoint.close();
    }
}

/// Owns the tasks of all connections.
async fn run(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            handshake = shared.endpoint.accept() => match handshake {
                Some(handshake) if connections.len() < CONNECTIONS => {
                    connections.spawn(connection::serve(shared.clone(), handshake));
                }
                Some(handshake) => {
                    let remote = handshake.remote_address();
                    let refusals = shared.endpoint.refusals();
                    refusals.note(Refusal::Busy, remote, &"too many clients");
                    handshake.refuse();
                }
                None => break,
            },
            _ = stop.changed() => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "client connection failed");
                }
            }
        }
    }
    connections.shutdown().await;
}
