//! Why connections are refused, in sentences for the operator or user who has to act. Endpoints
//! produce these errors and count them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Which side refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// This side refused the other one.
    Us,
    /// The other side refused this one.
    Them,
}

/// The reason of a refusal. TLS alert numbers (RFC 8446 §6) carry it to the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The certificate was issued by an authority that the port does not trust.
    UnknownAuthority,
    /// There was no certificate.
    NoCertificate,
    /// A client's certificate on a port for nodes, or the other way round.
    WrongRole,
    /// A certificate of another cluster.
    OtherCluster,
    /// The node at this address is not the expected one.
    OtherNode,
    /// The certificate is no longer or not yet valid.
    Expired,
    /// The certificate belongs to a forgotten node.
    Forgotten,
    /// The certificate is malformed or does not match its key.
    BadCertificate,
    /// The two sides have no protocol in common.
    OtherProtocol,
    /// The two sides speak different versions of the same protocol.
    OtherVersion,
    /// Too many connections.
    Busy,
    /// Nothing answered in time.
    Timeout,
    /// The other side sent something that the protocol does not allow.
    Misbehaved,
    /// The other side closed the connection or restarted.
    Closed,
}

const KINDS: [Refusal; 14] = [
    Refusal::UnknownAuthority,
    Refusal::NoCertificate,
    Refusal::WrongRole,
    Refusal::OtherCluster,
    Refusal::OtherNode,
    Refusal::Expired,
    Refusal::Forgotten,
    Refusal::BadCertificate,
    Refusal::OtherProtocol,
    Refusal::OtherVersion,
    Refusal::Busy,
    Refusal::Timeout,
    Refusal::Misbehaved,
    Refusal::Closed,
];

impl Refusal {
    /// Whether the cause may pass by itself, without a change of a certificate, a clock or an
    /// address.
    #[must_use]
    pub const fn may_pass(self) -> bool {
        matches!(self, Self::Busy | Self::Timeout | Self::Misbehaved | Self::Closed)
    }

    /// The application error code (RFC 9000 §20.2) that closes a connection for this reason.
    #[must_use]
    pub fn code(self) -> quinn::VarInt {
        (self as u32).into()
    }
}

/// Why there is no connection, or why it ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// One side refused the other.
    #[error("{}", sentence(*refusal, *side))]
    Refused {
        /// The reason.
        refusal: Refusal,
        /// The side that refused.
        side: Side,
    },
    /// The address can't be dialled.
    #[error("{address} can't be dialled: {reason}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// Any other error of QUIC.
    #[error("connection failed: {0}")]
    Other(String),
}

impl ConnectError {
    /// The reason, if the error is a refusal.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(*refusal),
            _ => None,
        }
    }

    pub(crate) fn by(side: Side, refusal: Refusal) -> Self {
        Self::Refused { refusal, side }
    }
}

impl From<quinn::ConnectionError> for ConnectError {
    fn from(error: quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as Quic;
        let (code, side) = match &error {
            Quic::TransportError(error) => (error.code, Side::Us),
            Quic::ConnectionClosed(close) => (close.error_code, Side::Them),
            Quic::TimedOut => return Self::by(Side::Them, Refusal::Timeout),
            Quic::ApplicationClosed(close) if close.error_code == Refusal::Misbehaved.code() => {
                return Self::by(Side::Them, Refusal::Misbehaved);
            }
            Quic::Reset | Quic::ApplicationClosed(_) => {
                return Self::by(Side::Them, Refusal::Closed);
            }
            Quic::VersionMismatch => return Self::by(Side::Them, Refusal::OtherProtocol),
            Quic::LocallyClosed | Quic::CidsExhausted => return Self::Other(error.to_string()),
        };
        match from_code(code.into()) {
            Some(refusal) => Self::by(side, refusal),
            None => Self::Other(error.to_string()),
        }
    }
}

/// QUIC carries TLS alerts as 0x100 + alert (RFC 9001 §4.8).
fn from_code(code: u64) -> Option<Refusal> {
    Some(match code {
        0x2 => Refusal::Busy,
        0x12a | 0x133 => Refusal::BadCertificate,
        0x12b => Refusal::WrongRole,
        0x12c => Refusal::Forgotten,
        0x12d => Refusal::Expired,
        0x12e => Refusal::OtherNode,
        0x130 => Refusal::UnknownAuthority,
        0x131 => Refusal::OtherCluster,
        0x174 => Refusal::NoCertificate,
        0x178 => Refusal::OtherProtocol,
        _ => return None,
    })
}

fn sentence(refusal: Refusal, side: Side) -> String {
    let (whose, port) = match side {
        Side::Us => ("the other side's certificate", "this port"),
        Side::Them => ("our certificate", "the other side"),
    };
    match refusal {
        Refusal::UnknownAuthority => format!(
            "{whose} was issued by an authority that {port} does not trust: \
             use one issued by this cluster's own authority"
        ),
        Refusal::NoCertificate => {
            format!("{port} asks for a certificate and got none: configure certificate and key")
        }
        Refusal::WrongRole => format!(
            "{whose} is of the wrong kind for {port}: clients use the client port and a \
             certificate of the client authority, nodes one of the peer authority"
        ),
        Refusal::OtherCluster => {
            format!("{whose} belongs to another cluster: check cluster name and address")
        }
        Refusal::OtherNode => format!(
            "{whose} is not that of the expected node: check the address, another node may have it now"
        ),
        Refusal::Expired => {
            format!("{whose} is not valid at this time: check the clocks, or issue a new one")
        }
        Refusal::Forgotten => format!(
            "{whose} is that of a node that was forgotten (`cortado forget`): to join again it needs \
             a new certificate and an empty data folder"
        ),
        Refusal::BadCertificate => {
            format!("{whose} is damaged or does not match its key: issue a new one")
        }
        Refusal::OtherProtocol => format!(
            "{port} speaks another protocol: check that the peer, gossip and client ports are not \
             mixed up and that both sides run compatible versions"
        ),
        Refusal::OtherVersion => {
            "the two sides speak different protocol versions: upgrade the older one".into()
        }
        Refusal::Busy => format!("{port} has too many connections: try again later"),
        Refusal::Timeout => "no answer in time: check that the node runs and its UDP port is \
                             reachable"
            .into(),
        Refusal::Misbehaved => "the other side broke the protocol".into(),
        Refusal::Closed => "the other side closed the connection".into(),
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownAuthority => "unknown_authority",
            Self::NoCertificate => "no_certificate",
            Self::WrongRole => "wrong_role",
            Self::OtherCluster => "other_cluster",
            Self::OtherNode => "other_node",
            Self::Expired => "expired",
            Self::Forgotten => "forgotten",
            Self::BadCertificate => "bad_certificate",
            Self::OtherProtocol => "other_protocol",
            Self::OtherVersion => "other_version",
            Self::Busy => "busy",
            Self::Timeout => "timeout",
            Self::Misbehaved => "misbehaved",
            Self::Closed => "closed",
        })
    }
}

/// Counts refusals by kind, and logs each kind at most once a minute: a hostile or misconfigured
/// peer must not fill the log.
#[derive(Debug)]
pub struct RefusalLog {
    port: &'static str,
    counts: [AtomicU64; KINDS.len()],
    logged: Mutex<[Option<Instant>; KINDS.len()]>,
}

impl RefusalLog {
    const PAUSE: Duration = Duration::from_secs(60);

    /// A log for the port of this name.
    #[must_use]
    pub fn new(port: &'static str) -> Self {
        Self { port, counts: Default::default(), logged: Mutex::default() }
    }

    /// Counts one refusal, and logs it if none of its kind was logged in the last minute.
    pub fn note(&self, refusal: Refusal, remote: SocketAddr, what: &dyn fmt::Display) {
        let kind = refusal as usize;
        let count = self.counts[kind].fetch_add(1, Ordering::Relaxed) + 1;
        let now = Instant::now();
        {
            let mut logged = self.logged.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if logged[kind].is_some_and(|last| now.duration_since(last) < Self::PAUSE) {
                return;
            }
            logged[kind] = Some(now);
        }
        tracing::warn!(port = self.port, %remote, kind = %refusal, count, "connection refused: {what}");
    }

    /// The number of refusals by kind, without kinds that never occurred.
    pub fn counts(&self) -> impl Iterator<Item = (Refusal, u64)> + '_ {
        KINDS
            .iter()
            .map(|kind| (*kind, self.counts[*kind as usize].load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
    }
}
