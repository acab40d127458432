//! Messages between nodes and with clients: types, limits, framing and versions. All other crates
//! use it. No I/O.
//!
//! Everything that nodes send or log is defined here, once. A message is a *frame* ([`frame`]): a
//! small postcard-encoded head and an optional tail of raw bytes that is never copied through
//! serde. No length is used before it was compared with [`limits`].
//!
//! ```
//! use cortado_protocol::{Coverage, JobId, NodeId, SlotSet};
//!
//! let node: NodeId = "node-1".parse().unwrap();
//! assert_eq!(node.to_string(), "node-1");
//! let job: JobId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
//! assert_eq!(job.to_string(), "01890a5d-ac96-774b-bcce-b302099a8057");
//!
//! let mut held = Coverage::default();
//! held.insert_range(0, 3);
//! held.insert(4);
//! assert_eq!(held.gaps(6), vec![(3, 4), (5, 6)]);
//! assert_eq!(SlotSet::first(3).iter().map(|slot| slot.0).collect::<Vec<_>>(), vec![0, 1, 2]);
//! ```

pub mod chaos;
pub mod client;
mod coverage;
pub mod entry;
pub mod event;
pub mod expiry;
pub mod frame;
mod hash;
pub mod health;
mod id;
pub mod job;
pub mod limits;
pub mod peer;
mod slot;
pub mod stream;

pub use coverage::Coverage;
pub use entry::{Edge, EntryKey};
pub use hash::{client_key, content_hash, wide_hash};
pub use id::{IdError, JobId, LogId, NodeId};
pub use slot::{META_SLOT, Slot, SlotSet};

/// Version of both protocols and of the log's record payloads. Nodes with different versions refuse
/// each other's streams with a clear error.
pub const PROTOCOL_VERSION: u32 = 11;

/// ALPN of node-to-node connections that carry data.
pub const ALPN_PEER: &[u8] = b"cortado-peer/1";
/// ALPN of node-to-node connections that carry only membership datagrams.
pub const ALPN_GOSSIP: &[u8] = b"cortado-gossip/1";
/// ALPN of client-to-node connections.
pub const ALPN_CLIENT: &[u8] = b"cortado-client/1";
