//! Detects two processes with one name. Each learns that it is down or has another address, and
//! takes a new generation to refute that, without end. The detector asks about every datagram.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::Identity;

/// This many generations at another address, all above ours, mean a twin. A node with a new disk
/// and a new address sees one such generation, its former one, until its own is higher.
const GENERATIONS: usize = 3;
/// Time within which these generations must be seen.
const WITHIN: Duration = Duration::from_secs(60);

/// Identities with this node's name that belong to another process.
#[derive(Debug, Default)]
pub(super) struct Twins {
    /// When each generation was first seen.
    seen: BTreeMap<u64, Duration>,
    /// No twin is reported before this time.
    silent_until: Duration,
}

impl Twins {
    /// Looks for another process with this node's name. Returns its address, at most once a minute.
    pub(super) fn look<'a>(
        &mut self,
        now: Duration,
        me: &Identity,
        named: impl Iterator<Item = &'a Identity>,
    ) -> Option<SocketAddr> {
        let is_other = |named: &&Identity| {
            named.id == me.id
                && named.generation > me.generation
                && named.peer_port != 0
                && (named.peer_addr() != me.peer_addr() || named.client_addr() != me.client_addr())
        };
        let other = named.filter(is_other).max()?;
        self.seen.retain(|_, at| *at + WITHIN > now);
        self.seen.entry(other.generation).or_insert(now);
        if self.seen.len() < GENERATIONS || now < self.silent_until {
            return None;
        }
        self.silent_until = now + WITHIN;
        self.seen.clear();
        Some(other.peer_addr())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me(generation: u64, ip: &str) -> Identity {
        let address = format!("{ip}:1").parse().unwrap();
        let of = Identity::addressee("node-1".parse().unwrap(), address);
        Identity { generation, peer_port: 2, client_port: 3, ..of }
    }

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn a_twin_is_who_outbids_us_again_and_again_from_elsewhere() {
        let mut twins = Twins::default();
        let mut look = |second, other: Identity| {
            twins.look(at(second), &me(5, "10.0.0.1"), [&other].into_iter())
        };
        for generation in [6, 7, 8, 9] {
            assert_eq!(
                look(1, me(generation, "10.0.0.1")),
                None,
                "that is us, as we were or will be"
            );
        }
        assert_eq!(look(2, me(4, "10.0.0.2")), None, "where we were before");
        assert_eq!(look(3, me(6, "10.0.0.2")), None);
        assert_eq!(look(3, me(6, "10.0.0.2")), None, "the same news again");
        assert_eq!(look(4, me(7, "10.0.0.2")), None);
        assert_eq!(look(5, me(8, "10.0.0.2")), Some("10.0.0.2:2".parse().unwrap()));
        for generation in 9..20 {
            assert_eq!(look(6, me(generation, "10.0.0.2")), None, "once a minute");
        }
        assert_eq!(look(66, me(20, "10.0.0.2")), None);
        assert_eq!(look(67, me(21, "10.0.0.2")), None);
        assert!(look(68, me(22, "10.0.0.2")).is_some(), "it is still there");
    }

    #[test]
    fn news_that_are_far_apart_make_no_twin() {
        let mut twins = Twins::default();
        for minute in 1..10 {
            let other = me(10 + minute, "10.0.0.2");
            assert_eq!(twins.look(at(60 * minute), &me(5, "10.0.0.1"), [&other].into_iter()), None);
        }
    }
}
