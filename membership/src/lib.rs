//! Which nodes are present, down, leading, and own what: SWIM, rendezvous ring, Bully. No I/O, no
//! clock.
//!
//! State machines and one function, all pure: time is an argument (a [`Duration`] since the process
//! started; wall clock as milliseconds since the Unix epoch), randomness comes from a seed, effects
//! are polled. The daemon and the simulator drive them; the core reads views; core and client use
//! the ring.
//!
//! - [`Detector`]: SWIM failure detection and membership. Produces a [`View`].
//! - [`ring`]: which nodes of a view own a key. Every node computes it for itself.
//! - [`Election`]: the Bully election of the node that supervises the others.
//! - [`Supervisor`]: how the elected node brings back nodes that are down.
//! - [`Membership`]: detector, reports of health and election together, as a node runs them.
//!
//! *Down is a hint*: nothing irreversible may follow from a view alone. Roles, acknowledgements and
//! sequence numbers are keyed on the node id, never on an [`Identity`]: identities renew.
//!
//! [`Duration`]: std::time::Duration
//!
//! ```
//! use cortado_membership::ring;
//! use cortado_protocol::NodeId;
//!
//! let nodes: Vec<NodeId> = ["node-1", "node-2", "node-3"].map(|n| n.parse().unwrap()).to_vec();
//! let owners = ring::owners(7, &nodes);
//! assert_eq!(owners.len(), 3);
//! // When an owner goes, the others move up and keep their order.
//! let rest: Vec<NodeId> = nodes.iter().copied().filter(|n| *n != owners[0]).collect();
//! assert_eq!(ring::owners(7, &rest), owners[1..]);
//! ```

pub mod bully;
mod detector;
mod health;
mod hysteresis;
mod identity;
mod membership;
pub mod ring;
mod supervisor;
mod trouble;
mod view;

pub use bully::Election;
pub use detector::{Counters, Detector, DetectorConfig, Output, Profile};
pub use hysteresis::Hysteresis;
pub use identity::{Identity, KnownPeer, next_generation};
pub use membership::{Effect, Lead, Membership};
pub use supervisor::{
    Allowance, Decision, Evidence, Facts, Reason, Step, Supervisor, decide as decide_revival,
};
pub use trouble::Trouble;
pub use view::{Member, MemberState, View};
