//! What the detector's thread is told, and what it says when it ends.

use std::io;
use std::net::SocketAddr;

use cortado_membership::{Counters, Identity, KnownPeer, Profile, Trouble};
use cortado_protocol::NodeId;
use cortado_protocol::health::Illness;
use cortado_transport::{EndpointError, NetworkFaults, NodeTls, Refusal};
use tokio::sync::oneshot;

use crate::history::History;

/// Connections refused, by kind, and what went wrong with datagrams since the start.
pub type Refused = (Vec<(Refusal, u64)>, Counters);

/// What the detector needs to know.
#[derive(Clone, Debug)]
pub struct GossipConfig {
    /// Where to listen.
    pub bind: SocketAddr,
    /// Certificates; they name this node and its cluster.
    pub tls: NodeTls,
    /// Timing.
    pub profile: Profile,
    /// What this node says about itself. Its generation is on disk already; a gossip port of 0 means
    /// the one that was bound.
    pub me: Identity,
    /// Whether the address in `me` follows the host's own name.
    pub follow_own_name: bool,
    /// Where others may be, `host:port`. Names are looked up again and again.
    pub seeds: Vec<String>,
    /// What [`Memory::known`] was told last time.
    pub known: Vec<KnownPeer>,
    /// Seed of the detector's random choices; let it differ between nodes and starts.
    pub seed: u64,
    /// Keeps what happens.
    pub history: History,
    /// What is wrong with the network, if it can be disturbed.
    pub faults: Option<NetworkFaults>,
}

/// Keeps what the detector must find again after a restart. Called on the detector's thread.
pub trait Memory: Send + Sync + 'static {
    /// Writes and syncs the generation; may block. It is used only after this returns.
    ///
    /// # Errors
    /// If it is not on disk; the detector then stops, for it may not go on.
    fn persist(&self, generation: u64) -> io::Result<()>;

    /// Writes the nodes seen so far; losing this costs time, nothing else.
    fn known(&self, peers: Vec<KnownPeer>);
}

/// Why the detector ended.
#[derive(Debug, thiserror::Error)]
pub enum GossipError {
    /// It could not begin.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The system gave no thread or timer.
    #[error("the membership thread can't run: {0}")]
    Thread(io::Error),
    /// The generation could not be persisted.
    #[error("the membership generation could not be written: {0}")]
    Persist(io::Error),
    /// It failed; the process should end, for nobody would notice it being deaf.
    #[error("the membership thread failed")]
    Failed,
}

#[derive(Debug)]
pub(super) enum Command {
    Draining(bool),
    Leave(oneshot::Sender<()>),
    Stop,
    Troubles(Vec<Trouble>),
    Ill(Illness, bool),
    Unreached(Vec<NodeId>, bool),
    Forget(Vec<(NodeId, u64)>),
}
