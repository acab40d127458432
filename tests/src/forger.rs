//! Opens QUIC connections with forged source addresses: the packets are valid, but the answers go
//! to other addresses.
//!
//! All of 127.0.0.0/8 is this machine, so forging needs no privilege: the packets leave from
//! addresses that no program reads.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::intruder::Intruder;

/// More than any datagram of a handshake has.
const DATAGRAM_BYTES: usize = 2048;
/// Time limit for a first packet on this machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends from forged addresses.
pub struct Forger {
    sources: Vec<UdpSocket>,
}

/// Bytes in both directions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Datagrams sent to the node.
    pub sent: usize,
    /// Bytes of these datagrams.
    pub sent_bytes: u64,
    /// Bytes that arrived at the forged addresses.
    pub answered_bytes: u64,
}

impl Forger {
    /// Uses so many addresses, up to 50,000.
    ///
    /// # Panics
    /// If there are no sockets, like all methods here: a test can't continue then.
    #[must_use]
    pub fn new(addresses: u16) -> Self {
        let source = |number: u16| {
            let [high, low] = number.to_be_bytes();
            let socket = UdpSocket::bind((Ipv4Addr::new(127, 77, high, low), 0));
            let socket = socket.expect("all of 127.0.0.0/8 is this machine");
            socket.set_nonblocking(true).expect("a socket can be set");
            socket
        };
        Self { sources: (1..=addresses).map(source).collect() }
    }

    /// Sends the first packets of `count` connections to `target`, each from the next address.
    pub async fn flood(&self, stranger: &Intruder, target: SocketAddr, count: usize) -> Traffic {
        let mut traffic = Traffic::default();
        for (source, _) in self.sources.iter().cycle().zip(0..count) {
            let packet = first_packet(stranger).await;
            // A packet that a full socket drops counts as lost.
            if source.send_to(&packet, target).is_ok() {
                traffic.sent += 1;
                traffic.sent_bytes += packet.len() as u64;
            }
        }
        traffic
    }

    /// Bytes that have come to the addresses since the last call.
    #[must_use]
    pub fn answers(&self) -> u64 {
        let mut buffer = [0; DATAGRAM_BYTES];
        let mut bytes = 0;
        for source in &self.sources {
            loop {
                match source.recv(&mut buffer) {
                    Ok(length) => bytes += length as u64,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // An ICMP error; datagrams after it count as well.
                    Err(_) => {}
                }
            }
        }
        bytes
    }
}

/// The first packet of a connection to any server, with fresh connection ids.
async fn first_packet(stranger: &Intruder) -> Vec<u8> {
    let sink = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = sink.local_addr().expect("it is bound");
    let mut packet = vec![0; DATAGRAM_BYTES];
    // No server answers: the attempt ends as soon as the packet is here.
    let received = tokio::select! {
        _ = stranger.knock(address) => None,
        received = tokio::time::timeout(PATIENCE, sink.recv(&mut packet)) => received.ok(),
    };
    let length = received.and_then(Result::ok).expect("a client sends a first packet");
    packet.truncate(length);
    packet
}
