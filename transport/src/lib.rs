//! QUIC endpoints, certificates and framing. Nodes and clients use this crate for all connections.
//!
//! Three protocols run over QUIC (RFC 9000) with TLS 1.3 and certificates at both ends: data
//! between nodes, membership between nodes, and requests of clients. Each has its own port, its own
//! ALPN and its own settings ([`Kind`]). A cluster has two authorities ([`Authority`]): a
//! certificate of the client authority can never open a port that nodes use among themselves. The
//! identity of the other side is read from its certificate ([`Identity`]), never from an address or
//! a host name.

mod authority;
mod buffers;
mod chaos;
mod endpoint;
mod frames;
mod identity;
mod profile;
mod refusal;
mod register;
mod settings;
mod tls;
mod verifier;

pub use authority::{Authority, AuthorityError, Issued};
pub use buffers::{Buffer, BufferPool, keep_freed_memory};
pub use chaos::NetworkFaults;
pub use endpoint::{Endpoint, EndpointError, Handshake};
pub use frames::{FrameReader, FrameWriter, ReadError, WriteError};
pub use identity::{Identity, IdentityError, Role, peer_identity, peer_node};
pub use profile::{Profile, ProfileError};
pub use refusal::{ConnectError, Refusal, RefusalLog, Side};
pub use register::Register;
pub use settings::{DATAGRAM_BUFFER_BYTES, Kind};
pub use tls::{ClientTls, NodeTls, TlsError};
