//! Finds ports that are free for UDP and TCP. They are below the range of the system for outgoing sockets, so that no
//! other program takes a node's port while the node is down.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;

/// The range of the search.
pub(super) const RANGE: Range<u16> = 10_000..32_000;
/// Ports of one node: gossip, peer, client, HTTP.
pub(super) const PER_NODE: u16 = 4;
/// Attempts before the search fails.
const ATTEMPTS: usize = 1_000;

/// Picks `count` consecutive free ports that are not in `taken`. `random` returns numbers below its
/// argument.
pub(super) fn pick(
    count: u16,
    taken: &BTreeSet<u16>,
    mut random: impl FnMut(u16) -> u16,
) -> Option<Range<u16>> {
    let bases = RANGE.end - RANGE.start - count;
    (0..ATTEMPTS).find_map(|_| {
        let base = RANGE.start + random(bases);
        let ports = base..base + count;
        let free = !ports.clone().any(|port| taken.contains(&port)) && all_free(ports.clone());
        free.then_some(ports)
    })
}

/// Whether all can be bound at once.
fn all_free(mut ports: Range<u16>) -> bool {
    let mut held = Vec::new();
    ports.all(|port| {
        let at = (Ipv4Addr::LOCALHOST, port);
        let both = UdpSocket::bind(at).and_then(|udp| Ok((udp, TcpListener::bind(at)?)));
        both.map(|sockets| held.push(sockets)).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tries all bases one after the other.
    fn ascending() -> impl FnMut(u16) -> u16 {
        let mut next = 0;
        move |bound| {
            next += 1;
            (next - 1) % bound
        }
    }

    #[test]
    fn a_port_in_use_is_passed_over() {
        // This test binds a port itself, so it is taken whatever other programs do.
        let bind = |port: u16| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok();
        let (port, _held) =
            (RANGE.start + 1..RANGE.end).find_map(|port| Some((port, bind(port)?))).unwrap();
        let mut next = port - 1 - RANGE.start;
        let found = pick(3, &BTreeSet::new(), |bound| {
            next += 1;
            (next - 1) % bound
        });
        assert!(!found.unwrap().contains(&port));
    }

    #[test]
    fn a_taken_port_is_passed_over_though_nobody_listens() {
        let free = pick(3, &BTreeSet::new(), ascending()).unwrap();
        let other = pick(3, &BTreeSet::from([free.end - 1]), ascending()).unwrap();
        assert!(!other.contains(&(free.end - 1)));
        assert!(other.start >= RANGE.start && other.end <= RANGE.end);
        assert_eq!(pick(3, &RANGE.collect(), ascending()), None);
    }
}
