//! A limit on reports of down nodes: one peer alone can't make this node take most of the cluster
//! for down. The detector asks before it hands such a datagram to foca.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cortado_protocol::NodeId;

/// How long a peer's report counts towards the limit.
const WINDOW: Duration = Duration::from_secs(10);
/// Smaller clusters have no limit: there half of the nodes is one node or two.
const SMALLEST: usize = 4;

/// For each peer, the nodes that it declared down lately, and when.
#[derive(Default)]
pub(super) struct Rumours {
    told: BTreeMap<NodeId, BTreeMap<NodeId, Duration>>,
}

impl Rumours {
    /// Records that `from` declares `down` down, and returns whether to accept that: whether all
    /// nodes that it declared down within ten seconds are at most half of `cluster` nodes.
    pub(super) fn credible(
        &mut self,
        now: Duration,
        from: NodeId,
        down: &BTreeSet<NodeId>,
        cluster: usize,
    ) -> bool {
        if down.is_empty() {
            return true;
        }
        let told = self.told.entry(from).or_default();
        told.retain(|_, at| now.saturating_sub(*at) < WINDOW);
        told.extend(down.iter().map(|id| (*id, now)));
        cluster < SMALLEST || 2 * told.len() <= cluster
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_cluster_in_ten_seconds_is_the_limit() {
        let id = |n: usize| format!("node-{n}").parse::<NodeId>().unwrap();
        let at = Duration::from_secs;
        let mut rumours = Rumours::default();
        assert!(rumours.credible(at(1), id(0), &BTreeSet::from([id(1), id(2)]), 5));
        assert!(rumours.credible(at(2), id(0), &BTreeSet::from([id(1)]), 5), "said twice");
        assert!(!rumours.credible(at(3), id(0), &BTreeSet::from([id(3)]), 5));
        assert!(rumours.credible(at(3), id(4), &BTreeSet::from([id(3)]), 5), "another peer");
        assert!(rumours.credible(at(13), id(0), &BTreeSet::from([id(3)]), 5), "forgotten");
        assert!(rumours.credible(at(13), id(5), &BTreeSet::from([id(1), id(2)]), 3), "small");
    }
}
