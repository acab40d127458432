//! One connection per node, opened when needed and kept until it fails.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cortado_transport::{ClientTls, ConnectError, Endpoint};
use quinn::Connection;

/// Why a node did not answer. The node may have carried out the request or not.
#[derive(Clone, Debug)]
pub(crate) struct NoAnswer {
    reason: String,
    tells: Tells,
}

/// How helpful a reason is to the person who has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tells {
    /// A node may be down, or slow.
    Silence,
    /// This request failed.
    Failure,
    /// Nothing changes until a person acts.
    Refusal,
}

impl NoAnswer {
    pub(super) fn new(reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), tells: Tells::Failure }
    }

    pub(super) fn silence(reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), tells: Tells::Silence }
    }

    /// How helpful the reason is.
    pub(super) const fn tells(&self) -> Tells {
        self.tells
    }
}

impl From<ConnectError> for NoAnswer {
    fn from(error: ConnectError) -> Self {
        let tells = match error.refusal() {
            Some(refusal) if refusal.may_pass() => Tells::Silence,
            Some(_) => Tells::Refusal,
            None => Tells::Failure,
        };
        Self { reason: error.to_string(), tells }
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// The connections and their sockets: one socket per kind of address, since loopback addresses,
/// IPv4 and IPv6 need different ones.
pub(super) struct Connections {
    tls: ClientTls,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    endpoints: HashMap<(bool, bool), Endpoint>,
    connections: HashMap<SocketAddr, Connection>,
}

impl Connections {
    pub(super) fn new(tls: ClientTls) -> Self {
        Self { tls, open: Mutex::default() }
    }

    /// The connection to a node; dials if none is alive.
    pub(super) async fn get(&self, addr: SocketAddr) -> Result<Connection, NoAnswer> {
        let endpoint = {
            let mut open = self.open();
            match open.connections.get(&addr) {
                Some(connection) if connection.close_reason().is_none() => {
                    return Ok(connection.clone());
                }
                _ => {}
            }
            let kind = (addr.is_ipv4(), addr.ip().is_loopback());
            match open.endpoints.get(&kind) {
                Some(endpoint) => endpoint.clone(),
                None => {
                    let endpoint = Endpoint::client(addr, &self.tls).map_err(NoAnswer::new)?;
                    open.endpoints.insert(kind, endpoint.clone());
                    endpoint
                }
            }
        };
        let connection = endpoint.dial(addr, None).await?;
        // Two tasks may have dialled at once: both connections work, and the later one is kept.
        self.open().connections.insert(addr, connection.clone());
        Ok(connection)
    }

    /// Why the connection to a node was closed by the other side: under TLS 1.3 a node that refuses
    /// the client's certificate says so only after the handshake (RFC 8446 §4.4).
    pub(super) fn refusal(&self, addr: SocketAddr) -> Option<NoAnswer> {
        let reason = self.open().connections.get(&addr)?.close_reason()?;
        Some(ConnectError::from(reason).into())
    }

    /// Closes the connection to a node, if there is one.
    pub(super) fn drop(&self, addr: SocketAddr) {
        if let Some(connection) = self.open().connections.remove(&addr) {
            connection.close(0u32.into(), b"given up");
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        for endpoint in self.open().endpoints.values() {
            endpoint.close();
        }
    }
}
