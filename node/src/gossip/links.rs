//! Connections that carry membership datagrams; the driver's loop owns them. A link uses any live
//! connection to the node, whichever side dialled it. A node dials when it has a datagram to send.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;
use cortado_protocol::NodeId;
use cortado_transport::{
    ConnectError, DATAGRAM_BUFFER_BYTES, Endpoint, Handshake, Identity, Refusal, RefusalLog,
    peer_node,
};
use quinn::{Connection, SendDatagramError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Datagrams that wait for a handshake. Beyond this number the oldest is dropped.
const WAITING: usize = 8;
/// Connections kept per node. Two nodes that dial each other at once keep both connections.
const PER_NODE: usize = 4;
/// Queue of arrived datagrams and new connections.
const ARRIVALS: usize = 1024;

/// An event on a connection.
pub(super) enum Arrival {
    /// A datagram, and its sender according to the certificate.
    Datagram(NodeId, Bytes),
    /// The other side has opened a connection.
    Accepted(NodeId, Connection),
    /// A dial of this node has ended.
    Dialled(SocketAddr, Result<(NodeId, Connection), ConnectError>),
}

/// All connections of the detector, and their tasks.
pub(super) struct Links {
    endpoint: Endpoint,
    cluster: String,
    alive: HashMap<NodeId, Vec<Connection>>,
    dialling: HashMap<SocketAddr, VecDeque<Bytes>>,
    /// The node that answered at each dialled address.
    at: HashMap<SocketAddr, NodeId>,
    tasks: JoinSet<()>,
    arrivals: mpsc::Sender<Arrival>,
    failures: RefusalLog,
}

impl Links {
    pub(super) fn new(endpoint: Endpoint, cluster: &str) -> (Self, mpsc::Receiver<Arrival>) {
        let (arrivals, arriving) = mpsc::channel(ARRIVALS);
        let links = Self {
            endpoint,
            cluster: cluster.to_owned(),
            alive: HashMap::new(),
            dialling: HashMap::new(),
            at: HashMap::new(),
            tasks: JoinSet::new(),
            arrivals,
            failures: RefusalLog::new("gossip, dialling"),
        };
        (links, arriving)
    }

    /// Sends a datagram once, to the node if it is given, else to the node at the address.
    pub(super) fn send(&mut self, to: SocketAddr, node: Option<NodeId>, data: Bytes) {
        let connection =
            match node {
                Some(node) => self.newest(node, |_| true),
                // Only a seed's address is known. Another node may use the address by now.
                None => self.at.get(&to).copied().and_then(|node| {
                    self.newest(node, |connection| connection.remote_address() == to)
                }),
            };
        if let Some(connection) = connection {
            match connection.send_datagram(data) {
                Ok(()) => {}
                Err(SendDatagramError::ConnectionLost(_)) => {}
                Err(error) => tracing::warn!(%to, %error, "membership datagram not sent"),
            }
            return;
        }
        if let Some(waiting) = self.dialling.get_mut(&to) {
            if waiting.len() == WAITING {
                waiting.pop_front();
            }
            waiting.push_back(data);
            return;
        }
        self.dialling.insert(to, VecDeque::from([data]));
        let (endpoint, arrivals) = (self.endpoint.clone(), self.arrivals.clone());
        let cluster = self.cluster.clone();
        self.tasks.spawn(async move {
            let dialled = endpoint.dial(to, node).await.and_then(|connection| {
                let node = peer_node(&connection, &cluster)
                    .map_err(|error| ConnectError::Other(error.to_string()))?;
                Ok((node, connection))
            });
            // The receiver is gone when the node stops.
            let _ = arrivals.send(Arrival::Dialled(to, dialled)).await;
        });
    }

    /// The newest live connection to the node. A restarted node has just dialled this one; older
    /// connections have not noticed yet that they are dead.
    fn newest(&mut self, node: NodeId, fits: impl Fn(&Connection) -> bool) -> Option<&Connection> {
        let connections = self.alive.get_mut(&node)?;
        connections.retain(|connection| connection.close_reason().is_none());
        connections.iter().rev().find(|connection| fits(connection))
    }

    /// Completes a handshake that another node began.
    pub(super) fn accept(&mut self, handshake: Handshake) {
        let arrivals = self.arrivals.clone();
        self.tasks.spawn(async move {
            // A failed handshake was counted and logged already.
            let Ok((connection, identity)) = handshake.complete().await else { return };
            if let Identity::Node { node, .. } = identity {
                let _ = arrivals.send(Arrival::Accepted(node, connection)).await;
            }
        });
    }

    /// Adds a connection and reads its datagrams.
    pub(super) fn add(&mut self, node: NodeId, connection: Connection) {
        let connections = self.alive.entry(node).or_default();
        connections.retain(|connection| connection.close_reason().is_none());
        if connections.len() == PER_NODE {
            connections.remove(0).close(0u32.into(), b"too many");
        }
        connections.push(connection.clone());
        let arrivals = self.arrivals.clone();
        self.tasks.spawn(async move {
            while let Ok(data) = connection.read_datagram().await {
                // If the queue is full, the datagram is dropped.
                if let Err(mpsc::error::TrySendError::Closed(_)) =
                    arrivals.try_send(Arrival::Datagram(node, data))
                {
                    return;
                }
            }
        });
    }

    /// Handles the end of a dial: sends the waiting datagrams, or drops them.
    pub(super) fn dialled(
        &mut self,
        to: SocketAddr,
        dialled: Result<(NodeId, Connection), ConnectError>,
    ) {
        let waiting = self.dialling.remove(&to).unwrap_or_default();
        match dialled {
            Ok((node, connection)) => {
                for data in waiting {
                    // A datagram may be lost.
                    let _ = connection.send_datagram(data);
                }
                self.at.insert(to, node);
                self.add(node, connection);
            }
            Err(error) => {
                self.at.remove(&to);
                let kind = error.refusal().unwrap_or(Refusal::Closed);
                self.failures.note(kind, to, &error);
            }
        }
    }

    /// Removes tasks that have ended.
    pub(super) fn reap(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "membership task failed");
            }
        }
    }

    /// Whether connections still have datagrams to send.
    pub(super) fn busy(&self) -> bool {
        self.alive.values().flatten().any(|connection| {
            connection.close_reason().is_none()
                && connection.datagram_send_buffer_space() < DATAGRAM_BUFFER_BYTES
        })
    }

    /// Closes all connections.
    pub(super) async fn close(mut self) {
        self.tasks.shutdown().await;
        self.endpoint.close();
        self.endpoint.wait_idle().await;
    }
}
