//! A limit on bad news: one peer alone may not talk us into believing that most of the cluster is
//! down.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cortado_protocol::NodeId;

/// For how long what a peer said counts against it.
const WINDOW: Duration = Duration::from_secs(10);
/// Below this size half of the cluster is a node or two, and such news is ordinary.
const SMALLEST: usize = 4;

/// Who declared whom down lately.
#[derive(Default)]
pub(super) struct Rumours {
    told: BTreeMap<NodeId, BTreeMap<NodeId, Duration>>,
}

impl Rumours {
    /// Notes that `from` says `down` are down, and tells whether it is to be believed: whether all
    /// it declared down within ten seconds are at most half of `cluster` nodes.
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
