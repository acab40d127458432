//! Totals of refused connections and datagrams since the start, by port and kind, for the operator.
//!
//! Each refusal is also logged when it happens, at most once a minute for each kind; this module
//! logs the counts.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use cortado_membership::Counters;
use cortado_transport::Refusal;

/// Pause between two logs of the totals.
const EVERY: Duration = Duration::from_secs(60);

/// Totals by port and kind.
pub(crate) type Totals = BTreeMap<(&'static str, String), u64>;

/// Remembers the totals that were logged last.
#[derive(Debug)]
pub(crate) struct Refused {
    told: Totals,
    next: Instant,
}

impl Refused {
    pub(crate) fn new(now: Instant) -> Self {
        Self { told: Totals::new(), next: now + EVERY }
    }

    /// Whether the pause is over.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        now >= self.next
    }

    /// Logs the totals if they have changed.
    pub(crate) fn tell(&mut self, now: Instant, totals: Totals) {
        self.next = now + EVERY;
        if totals != self.told {
            tracing::info!(since_start = %sentence(&totals), "refused");
            self.told = totals;
        }
    }
}

/// Collects the counts of all ports.
pub(crate) fn totals(
    peer: Vec<(Refusal, u64)>,
    client: Vec<(Refusal, u64)>,
    gossip: Vec<(Refusal, u64)>,
    datagrams: Counters,
) -> Totals {
    let mut totals = Totals::new();
    for (port, counts) in [("peer", peer), ("client", client), ("gossip", gossip)] {
        totals.extend(counts.into_iter().map(|(kind, count)| ((port, kind.to_string()), count)));
    }
    let Counters { malformed, forged, future, crowded, rumours, .. } = datagrams;
    let datagrams = [
        ("malformed", malformed),
        ("forged", forged),
        ("future", future),
        ("crowded", crowded),
        ("rumours", rumours),
    ];
    let datagrams = datagrams.into_iter().filter(|(_, count)| *count > 0);
    totals.extend(datagrams.map(|(kind, count)| (("datagram", kind.to_owned()), count)));
    totals
}

fn sentence(totals: &Totals) -> String {
    let mut text = String::new();
    for ((port, kind), count) in totals {
        let comma = if text.is_empty() { "" } else { ", " };
        // Writing to memory does not fail.
        let _ = write!(text, "{comma}{port} {kind} {count}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_told_by_port_and_kind() {
        let datagrams = Counters { forged: 4, stalls: 9, ..Counters::default() };
        let peer = vec![(Refusal::WrongRole, 2), (Refusal::Busy, 1)];
        let totals = totals(peer, vec![(Refusal::Misbehaved, 3)], Vec::new(), datagrams);
        let text = "client misbehaved 3, datagram forged 4, peer busy 1, peer wrong_role 2";
        assert_eq!(sentence(&totals), text);
    }
}
