//! Settings of the failure detector: timing, seed of random choices, first addresses.

use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use cortado_protocol::limits::GOSSIP_BYTES;
use foca::{Config, PeriodicParams};

/// How fast a silent node is declared down, and how long a node may stall without being declared
/// down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Profile {
    /// A local network of dedicated machines: probe every 200 ms, 60 ms for a direct answer, 600 ms
    /// of suspicion. A crash is known everywhere in about 1 s.
    #[default]
    Lan,
    /// Small or shared machines, which may not run a process for half a second: 500, 150, 1000 ms.
    Shared,
}

impl Profile {
    /// How long a suspected node has to refute before it is declared down.
    #[must_use]
    pub const fn suspicion(self) -> Duration {
        Duration::from_millis(match self {
            Self::Lan => 600,
            Self::Shared => 1000,
        })
    }

    pub(super) const fn foca(self) -> Config {
        let (probe_ms, rtt_ms) = match self {
            Self::Lan => (200, 60),
            Self::Shared => (500, 150),
        };
        Config {
            probe_period: Duration::from_millis(probe_ms),
            probe_rtt: Duration::from_millis(rtt_ms),
            num_indirect_probes: count(3),
            // With fewer, some nodes miss the news and have to detect the failure themselves.
            max_transmissions: NonZeroU8::new(10).expect("not zero"),
            suspect_to_down_after: self.suspicion(),
            // Down nodes are never removed: otherwise a cut that lasts longer than this time would
            // never heal.
            remove_down_after: None,
            // One byte marks the kind of datagram.
            max_packet_size: count(GOSSIP_BYTES - 1),
            notify_down_members: true,
            periodic_announce: every(10_000, 1),
            periodic_announce_to_down_members: every(1_000, 3),
            periodic_gossip: every(50, 3),
        }
    }
}

const fn count(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).expect("not zero")
}

const fn every(ms: u64, members: usize) -> Option<PeriodicParams> {
    Some(PeriodicParams { frequency: Duration::from_millis(ms), num_members: count(members) })
}

/// How to set a [`super::Detector`] up.
#[derive(Clone, Debug, Default)]
pub struct DetectorConfig {
    /// Timing.
    pub profile: Profile,
    /// Seed of all random choices. Let it differ from node to node and from start to start.
    pub seed: u64,
    /// Addresses that may belong to nodes of the cluster, for the first contact. This node's own
    /// address may be among them.
    pub seeds: Vec<SocketAddr>,
}
