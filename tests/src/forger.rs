//! Somebody who opens QUIC connections in the name of others: the packets are right, the addresses
//! they come from are not his, so he never hears an answer.
//!
//! All of 127.0.0.0/8 is this machine, so forging needs no privilege: packets leave from addresses
//! that nobody reads.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::intruder::Intruder;

/// Larger than any datagram of a handshake.
const DATAGRAM_BYTES: usize = 2048;
/// How long a first packet takes on this machine, at the very most.
const PATIENCE: Duration = Duration::from_secs(20);

/// Addresses that are not his.
pub struct Forger {
    sources: Vec<UdpSocket>,
}

/// Bytes there and back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Datagrams sent to the node.
    pub sent: usize,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Bytes that came to those whose addresses were used.
    pub answered_bytes: u64,
}

impl Forger {
    /// With so many addresses, up to 50,000.
    ///
    /// # Panics
    /// If there are no sockets, like all methods here: a test can't go on then.
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

    /// Sends `target` the first packet of so many connections, each from the next address.
    pub async fn flood(&self, stranger: &Intruder, target: SocketAddr, count: usize) -> Traffic {
        let mut traffic = Traffic::default();
        for (source, _) in self.sources.iter().cycle().zip(0..count) {
            let packet = first_packet(stranger).await;
            // A full socket is as good as a lost packet.
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
                    // Somebody's ICMP; what comes after it counts as well.
                    Err(_) => {}
                }
            }
        }
        bytes
    }
}

/// The first packet of a connection, as it would go to any server: each has ids of its own.
async fn first_packet(stranger: &Intruder) -> Vec<u8> {
    let sink = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let address = sink.local_addr().expect("it is bound");
    let mut packet = vec![0; DATAGRAM_BYTES];
    // Nobody answers: it is given up as soon as the packet is there.
    let received = tokio::select! {
        _ = stranger.knock(address) => None,
        received = tokio::time::timeout(PATIENCE, sink.recv(&mut packet)) => received.ok(),
    };
    let length = received.and_then(Result::ok).expect("a client sends a first packet");
    packet.truncate(length);
    packet
}
