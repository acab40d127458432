//! QUIC endpoints, certificates and framing shared by Cortado nodes and clients.
//!
//! Three protocols run over QUIC (RFC 9000) with TLS 1.3 and certificates at both ends: data between
//! nodes, membership between nodes, and clients. Each has its own port, its own ALPN and its own
//! settings ([`Kind`]). A cluster has two authorities ([`Authority`]): what the client authority
//! issued can never open a port that nodes use among themselves. Who speaks is read from the
//! certificate ([`Identity`]), never from an address or a host name.

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
