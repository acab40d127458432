//! Configuration, commands and errors of the detector's thread.

use std::io;
use std::net::SocketAddr;

use cortado_membership::{Counters, Identity, KnownPeer, Profile, Trouble};
use cortado_protocol::NodeId;
use cortado_protocol::health::Illness;
use cortado_transport::{EndpointError, NetworkFaults, NodeTls, Refusal};
use tokio::sync::oneshot;

use crate::history::History;

/// Numbers of refused connections, by kind, and of faulty datagrams, since the start.
pub type Refused = (Vec<(Refusal, u64)>, Counters);

/// Settings of the detector.
#[derive(Clone, Debug)]
pub struct GossipConfig {
    /// Address to listen on.
    pub bind: SocketAddr,
    /// Certificates; they name this node and its cluster.
    pub tls: NodeTls,
    /// Timing of the detector.
    pub profile: Profile,
    /// What this node announces about itself. Its generation must be on disk already. A gossip port
    /// of 0 stands for the port that was bound.
    pub me: Identity,
    /// Whether the address in `me` follows the host's own name.
    pub follow_own_name: bool,
    /// Addresses of other nodes, `host:port`. Names are looked up repeatedly.
    pub seeds: Vec<String>,
    /// What the last call of [`Memory::known`] saved.
    pub known: Vec<KnownPeer>,
    /// Seed of the detector's random choices; let it differ between nodes and starts.
    pub seed: u64,
    /// Records the events.
    pub history: History,
    /// The faults of the network, if it can be disturbed.
    pub faults: Option<NetworkFaults>,
}

/// Saves what the detector needs after a restart. `persist` runs on a blocking thread, `known` on
/// the detector's thread.
pub trait Memory: Send + Sync + 'static {
    /// Writes and syncs the generation; may block. The detector uses the generation only after this
    /// returns.
    ///
    /// # Errors
    /// If the generation is not on disk. The detector then stops.
    fn persist(&self, generation: u64) -> io::Result<()>;

    /// Writes the nodes seen so far. Without them, the node needs longer to find the others.
    fn known(&self, peers: Vec<KnownPeer>);
}

/// Why the detector ended.
#[derive(Debug, thiserror::Error)]
pub enum GossipError {
    /// It could not start.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The system gave no thread or timer.
    #[error("the membership thread can't run: {0}")]
    Thread(io::Error),
    /// The generation could not be persisted.
    #[error("the membership generation could not be written: {0}")]
    Persist(io::Error),
    /// The thread failed. The process should end, because the node would not notice any change of
    /// the membership.
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
