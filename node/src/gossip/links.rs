//! Connections that carry membership datagrams. Whichever is alive is used, whoever dialled it; there
//! is none until somebody has something to say.

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

/// Datagrams that wait for a handshake; the oldest go first, as on any lossy network.
const WAITING: usize = 8;
/// Connections kept per node. Two that dial each other at once have two for good, which is harmless.
const PER_NODE: usize = 4;
/// Datagrams that arrived and were not looked at yet, and connections that were made.
const ARRIVALS: usize = 1024;

/// What arrived.
pub(super) enum Arrival {
    /// A datagram, and whose it is by the certificate.
    Datagram(NodeId, Bytes),
    /// A connection was made by the other side.
    Accepted(NodeId, Connection),
    /// A connection was made by us, or not.
    Dialled(SocketAddr, Result<(NodeId, Connection), ConnectError>),
}

/// All connections of the detector, and their tasks.
pub(super) struct Links {
    endpoint: Endpoint,
    cluster: String,
    alive: HashMap<NodeId, Vec<Connection>>,
    dialling: HashMap<SocketAddr, VecDeque<Bytes>>,
    /// Who answered at an address we dialled.
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

    /// Sends a datagram once, to the node if it is known, else to whoever is at the address.
    pub(super) fn send(&mut self, to: SocketAddr, node: Option<NodeId>, data: Bytes) {
        let connection =
            match node {
                Some(node) => self.newest(node, |_| true),
                // Of a seed only the address is known; somebody else may have it by now.
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
            // The driver is gone when the node stops.
            let _ = arrivals.send(Arrival::Dialled(to, dialled)).await;
        });
    }

    /// The newest connection to the node that is alive: a node that was restarted has just dialled
    /// us, and its older connections do not know yet that they are dead.
    fn newest(&mut self, node: NodeId, fits: impl Fn(&Connection) -> bool) -> Option<&Connection> {
        let connections = self.alive.get_mut(&node)?;
        connections.retain(|connection| connection.close_reason().is_none());
        connections.iter().rev().find(|connection| fits(connection))
    }

    /// Completes a handshake that somebody began.
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

    /// Takes a connection into use.
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
                // Full: dropped, as the network would.
                if let Err(mpsc::error::TrySendError::Closed(_)) =
                    arrivals.try_send(Arrival::Datagram(node, data))
                {
                    return;
                }
            }
        });
    }

    /// A dial has ended: sends what waited for it, or forgets it.
    pub(super) fn dialled(
        &mut self,
        to: SocketAddr,
        dialled: Result<(NodeId, Connection), ConnectError>,
    ) {
        let waiting = self.dialling.remove(&to).unwrap_or_default();
        match dialled {
            Ok((node, connection)) => {
                for data in waiting {
                    // A datagram is lost without further notice.
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

    /// Forgets tasks that have ended.
    pub(super) fn reap(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "membership task failed");
            }
        }
    }

    /// Whether datagrams wait to be sent.
    pub(super) fn busy(&self) -> bool {
        self.alive.values().flatten().any(|connection| {
            connection.close_reason().is_none()
                && connection.datagram_send_buffer_space() < DATAGRAM_BUFFER_BYTES
        })
    }

    /// Ends all connections.
    pub(super) async fn close(mut self) {
        self.tasks.shutdown().await;
        self.endpoint.close();
        self.endpoint.wait_idle().await;
    }
}
