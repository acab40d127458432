//! QUIC settings for each protocol. The defaults of the library are meant for the open internet and
//! one connection; a node has many connections, and the cost of each must be limited. Endpoints use
//! them.

use std::sync::Arc;
use std::time::Duration;

use cortado_protocol::{ALPN_CLIENT, ALPN_GOSSIP, ALPN_PEER};
use quinn::congestion::CubicConfig;
use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

/// Largest UDP payload with segmentation offload: ten segments must fit one 64 KiB send.
const OFFLOAD_PAYLOAD_BYTES: u16 = 6550;
/// Largest possible UDP payload. On loopback large packets are much faster than segmentation
/// offload.
const LOOPBACK_PAYLOAD_BYTES: u16 = 65507;
/// On loopback, path discovery probes half of the largest payload, then the largest. A probe is
/// padding, which quinn reads byte by byte as frames: a finer search costs more than a small job
/// does.
const LOOPBACK_PROBE_STEP_BYTES: u16 = 20_000;
/// Membership packets are small, and many small endpoints must stay cheap.
const GOSSIP_PAYLOAD_BYTES: u16 = 1472;
/// Flow control of one stream: bandwidth times round-trip time of a fast local network.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Flow control of one connection, all streams together.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Most bytes sent and not yet acknowledged.
const SEND_WINDOW_BYTES: u64 = 8 << 20;
/// Queued membership datagrams per connection, per direction.
pub const DATAGRAM_BUFFER_BYTES: usize = 64 << 10;
/// How much may be in flight before the path is known. The default of 12,000 bytes is less than one
/// large packet, and then quinn delays a close that is pending together with data.
const INITIAL_WINDOW_BYTES: u64 = 256 << 10;
/// Most requests of one client at the same time.
const CLIENT_STREAMS: u32 = 64;
/// Most links of one peer; one is used.
const PEER_STREAMS: u32 = 4;

/// One of the three protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Data between nodes.
    Peer,
    /// Membership between nodes.
    Gossip,
    /// Between clients and nodes.
    Client,
}

impl Kind {
    pub(crate) const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Peer => ALPN_PEER,
            Self::Gossip => ALPN_GOSSIP,
            Self::Client => ALPN_CLIENT,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Gossip => "gossip",
            Self::Client => "client",
        }
    }

    /// How long a handshake may take.
    pub(crate) const fn handshake_timeout(self) -> Duration {
        match self {
            // A lost first packet must not cost more than one or two probes.
            Self::Gossip => Duration::from_millis(1500),
            Self::Peer | Self::Client => Duration::from_secs(5),
        }
    }

    pub(crate) const fn max_payload(self, loopback: bool) -> u16 {
        match (self, loopback) {
            (Self::Gossip, _) => GOSSIP_PAYLOAD_BYTES,
            (_, true) => LOOPBACK_PAYLOAD_BYTES,
            (_, false) => OFFLOAD_PAYLOAD_BYTES,
        }
    }

    const fn timeouts(self) -> (u32, Duration) {
        match self {
            Self::Gossip => (3_000, Duration::from_secs(1)),
            Self::Peer | Self::Client => (10_000, Duration::from_secs(3)),
        }
    }

    /// `listener` says whether this end accepts streams of the other one.
    pub(crate) fn transport(self, listener: bool, loopback: bool) -> Arc<TransportConfig> {
        let mut config = TransportConfig::default();
        let (idle_ms, keep_alive) = self.timeouts();
        let bidi = match (self, listener) {
            (Self::Gossip, _) | (_, false) => 0,
            (Self::Peer, true) => PEER_STREAMS,
            (Self::Client, true) => CLIENT_STREAMS,
        };
        let datagrams = match self {
            Self::Gossip => Some(DATAGRAM_BUFFER_BYTES),
            Self::Peer | Self::Client => None,
        };
        config
            .max_concurrent_bidi_streams(VarInt::from_u32(bidi))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle_ms))))
            .keep_alive_interval(Some(keep_alive))
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
            .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
            .send_window(SEND_WINDOW_BYTES)
            .datagram_receive_buffer_size(datagrams)
            .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES);
        if matches!(self, Self::Gossip) {
            // Clusters run on local networks: do not wait a second before the first retransmission.
            config.initial_rtt(Duration::from_millis(50)).mtu_discovery_config(None);
        } else {
            let mut discovery = MtuDiscoveryConfig::default();
            discovery.upper_bound(self.max_payload(loopback));
            if loopback {
                discovery.minimum_change(LOOPBACK_PROBE_STEP_BYTES);
            }
            let mut cubic = CubicConfig::default();
            cubic.initial_window(INITIAL_WINDOW_BYTES);
            config
                .mtu_discovery_config(Some(discovery))
                .congestion_controller_factory(Arc::new(cubic))
                .enable_segmentation_offload(!loopback);
        }
        Arc::new(config)
    }
}
