//! QUIC endpoints: a UDP socket with this cluster's certificates and settings. Nodes have one for
//! each protocol, clients have one for theirs. An endpoint limits open handshakes, and counts the
//! connections it refused.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cortado_protocol::NodeId;
use quinn::{Connection, EndpointConfig, Incoming, Runtime, TokioRuntime, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::chaos::{FaultySocket, NetworkFaults};
use crate::identity::{Identity, peer_identity};
use crate::refusal::{ConnectError, Refusal, RefusalLog, Side};
use crate::settings::Kind;
use crate::tls::{ClientTls, NodeTls, TlsError};

/// Wanted size for each direction; the kernel may give less (`net.core.rmem_max`, `wmem_max`).
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// From this number of open handshakes on, the other side must first prove that it owns its address
/// (RFC 9000 §8.1.2).
const RETRY_FROM: usize = 32;
/// Most handshakes at the same time; further ones are refused.
const MAX_HANDSHAKES: usize = 256;
/// Most bytes kept of a connection that was not accepted yet.
const INCOMING_BYTES: u64 = 64 << 10;
const INCOMING_TOTAL_BYTES: u64 = 4 << 20;
/// Longest time that an endpoint takes to close.
const GOODBYE: Duration = Duration::from_millis(500);
/// Host names in certificates have no meaning here, but TLS asks for one.
const SERVER_NAME: &str = "cortado";

/// Why an endpoint could not be created.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The socket could not be opened.
    #[error("UDP port {address} can't be used: {source}")]
    Bind {
        /// The requested address.
        address: SocketAddr,
        /// What went wrong.
        source: io::Error,
    },
    /// The certificates can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A setting was refused.
    #[error("setting refused: {0}")]
    Setting(#[from] quinn::ConfigError),
}

#[derive(Clone, Debug)]
enum Tls {
    Node(NodeTls),
    Client(ClientTls),
}

/// A UDP socket for one of the protocols. Clones share it. Create it within a tokio runtime, which
/// then drives it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    quic: quinn::Endpoint,
    kind: Kind,
    tls: Tls,
    dialling: Arc<TransportConfig>,
    /// Its reference count is the number of open handshakes plus one.
    handshakes: Arc<()>,
    refusals: Arc<RefusalLog>,
}

impl Endpoint {
    /// A node's endpoint. It listens; endpoints for peers and gossip also dial. Port 0 takes any
    /// free port.
    ///
    /// # Errors
    /// If the socket or the certificates can't be used.
    pub fn node(kind: Kind, bind: SocketAddr, tls: &NodeTls) -> Result<Self, EndpointError> {
        Self::faulty_node(kind, bind, tls, None)
    }

    /// A node's endpoint on a network that can be disturbed on purpose.
    ///
    /// # Errors
    /// As [`Endpoint::node`].
    pub fn faulty_node(
        kind: Kind,
        bind: SocketAddr,
        tls: &NodeTls,
        faults: Option<&NetworkFaults>,
    ) -> Result<Self, EndpointError> {
        let loopback = bind.ip().is_loopback();
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(tls.listen(kind)?));
        server
            .transport_config(kind.transport(true, loopback))
            .migration(matches!(kind, Kind::Client))
            .max_incoming(MAX_HANDSHAKES)
            .incoming_buffer_size(INCOMING_BYTES)
            .incoming_buffer_size_total(INCOMING_TOTAL_BYTES);
        Self::bind(kind, bind, Some(server), Tls::Node(tls.clone()), faults)
    }

    /// A client's endpoint, for nodes at the given address: settings differ on loopback.
    ///
    /// # Errors
    /// If the socket or the certificates can't be used.
    pub fn client(nodes_at: SocketAddr, tls: &ClientTls) -> Result<Self, EndpointError> {
        let bind = match nodes_at {
            SocketAddr::V4(a) if a.ip().is_loopback() => (Ipv4Addr::LOCALHOST, 0).into(),
            SocketAddr::V6(a) if a.ip().is_loopback() => (Ipv6Addr::LOCALHOST, 0).into(),
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        Self::bind(Kind::Client, bind, None, Tls::Client(tls.clone()), None)
    }

    fn bind(
        kind: Kind,
        bind: SocketAddr,
        server: Option<quinn::ServerConfig>,
        tls: Tls,
        faults: Option<&NetworkFaults>,
    ) -> Result<Self, EndpointError> {
        let loopback = bind.ip().is_loopback();
        let not_bound = |source| EndpointError::Bind { address: bind, source };
        let mut socket = socket(bind)
            .and_then(|socket| TokioRuntime.wrap_udp_socket(socket))
            .map_err(not_bound)?;
        if let Some(faults) = faults {
            socket = Arc::new(FaultySocket::new(socket, faults.clone()));
        }
        // With a key that survives restarts, a restarted node answers packets of old connections
        // with a stateless reset (RFC 9000 §10.3): the other side detects the restart at once,
        // without a timeout.
        let reset_secret = match &tls {
            Tls::Node(tls) => tls.reset_secret(),
            Tls::Client(tls) => *tls.reset_secret(),
        };
        let secret = [&reset_secret[..], kind.name().as_bytes()].concat();
        let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
        let mut config = EndpointConfig::new(Arc::new(reset_key));
        let cid_key = cortado_protocol::content_hash(&secret);
        config.max_udp_payload_size(kind.max_payload(loopback))?.cid_generator(move || {
            Box::new(quinn_proto::HashedConnectionIdGenerator::from_key(cid_key))
        });
        let runtime = Arc::new(TokioRuntime);
        let quic = quinn::Endpoint::new_with_abstract_socket(config, server, socket, runtime)
            .map_err(not_bound)?;
        Ok(Self {
            quic,
            kind,
            tls,
            dialling: kind.transport(false, loopback),
            handshakes: Arc::new(()),
            refusals: Arc::new(RefusalLog::new(kind.name())),
        })
    }

    /// The address it listens on, with the real port.
    ///
    /// # Errors
    /// If the system can't say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.quic.local_addr()
    }

    /// Connects to any node, or to the node in `expect`. The other side checks our certificate only
    /// after this returns, so it may still refuse the connection: then the first read or write
    /// fails with an error that [`ConnectError`] explains.
    ///
    /// # Errors
    /// If no node answers, or one side refuses the other.
    pub async fn dial(
        &self,
        address: SocketAddr,
        expect: Option<NodeId>,
    ) -> Result<Connection, ConnectError> {
        let crypto = match &self.tls {
            Tls::Node(tls) => tls.dial(self.kind, expect),
            Tls::Client(tls) => tls.dial(expect),
        }
        .map_err(|error| ConnectError::Other(error.to_string()))?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(self.dialling.clone());
        let connecting = self
            .quic
            .connect_with(config, address, SERVER_NAME)
            .map_err(|error| ConnectError::Address { address, reason: error.to_string() })?;
        match tokio::time::timeout(self.kind.handshake_timeout(), connecting).await {
            Ok(connection) => Ok(connection?),
            Err(_) => Err(ConnectError::by(Side::Them, Refusal::Timeout)),
        }
    }

    /// Waits for the next connection; `None` once the endpoint is closed. Under a flood it refuses
    /// connections, or asks for a proof of address first. Complete each handshake in its own task.
    pub async fn accept(&self) -> Option<Handshake> {
        loop {
            let incoming = self.quic.accept().await?;
            let open = Arc::strong_count(&self.handshakes) - 1;
            if open >= MAX_HANDSHAKES {
                let busy = ConnectError::by(Side::Us, Refusal::Busy);
                self.refusals.note(Refusal::Busy, incoming.remote_address(), &busy);
                incoming.refuse();
            } else if open >= RETRY_FROM && incoming.may_retry() {
                // Can't fail, since `may_retry` returned true.
                let _ = incoming.retry();
            } else {
                return Some(Handshake {
                    incoming,
                    endpoint: self.clone(),
                    _open: self.handshakes.clone(),
                });
            }
        }
    }

    /// Counts of the connections that this endpoint refused, by kind. [`Handshake::complete`] adds
    /// to them; callers may add refusals that they decide later.
    #[must_use]
    pub fn refusals(&self) -> &RefusalLog {
        &self.refusals
    }

    /// Ends all connections and accepts no new ones.
    pub fn close(&self) {
        self.quic.close(VarInt::from_u32(0), b"shutting down");
    }

    /// Waits until the closing messages of [`Endpoint::close`] are sent, and repeats them for a
    /// while to peers that go on sending. QUIC waits three probe timeouts for this (RFC 9000
    /// §10.2), which are seconds for a new connection; this waits half a second at most.
    pub async fn wait_idle(&self) {
        let _ = tokio::time::timeout(GOODBYE, self.quic.wait_idle()).await;
    }
}

/// An incoming connection whose handshake is not complete.
#[derive(Debug)]
pub struct Handshake {
    incoming: Incoming,
    endpoint: Endpoint,
    _open: Arc<()>,
}

impl Handshake {
    /// The address it comes from.
    #[must_use]
    pub fn remote_address(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// Refuses the connection: too busy.
    pub fn refuse(self) {
        self.incoming.refuse();
    }

    /// Completes the handshake and returns the identity of the other side. A refusal is counted and
    /// logged.
    ///
    /// # Errors
    /// If it takes too long, or one side refuses the other.
    pub async fn complete(self) -> Result<(Connection, Identity), ConnectError> {
        let Self { incoming, endpoint, _open } = self;
        let remote = incoming.remote_address();
        let result = Self::shake(incoming, endpoint.kind).await;
        if let Err(error) = &result {
            endpoint.refusals.note(error.refusal().unwrap_or(Refusal::Misbehaved), remote, error);
        }
        result
    }

    async fn shake(incoming: Incoming, kind: Kind) -> Result<(Connection, Identity), ConnectError> {
        let connecting = incoming.accept()?;
        let connection = tokio::time::timeout(kind.handshake_timeout(), connecting)
            .await
            .map_err(|_| ConnectError::by(Side::Us, Refusal::Timeout))??;
        let identity = peer_identity(&connection)
            .map_err(|_| ConnectError::by(Side::Us, Refusal::BadCertificate))?;
        Ok((connection, identity))
    }
}

fn socket(bind: SocketAddr) -> io::Result<UdpSocket> {
    static WARNED: AtomicBool = AtomicBool::new(false);
    let socket = Socket::new(Domain::for_address(bind), Type::DGRAM, Some(Protocol::UDP))?;
    if bind.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    let got = socket.recv_buffer_size()?.min(socket.send_buffer_size()?);
    if got < SOCKET_BUFFER_BYTES && !WARNED.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            wanted_bytes = SOCKET_BUFFER_BYTES,
            got_bytes = got,
            "small UDP buffers: packets may be lost under load; raise net.core.rmem_max and wmem_max"
        );
    }
    socket.bind(&bind.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests;
