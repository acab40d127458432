//! Reach: the members to which this node has a working data link, and which members take roles
//! because of that.
//!
//! Owns the observations of each link. A member whose link does not answer is passed over after
//! [`SILENT_AFTER`], and takes roles again after it has answered for a while. The router calls it
//! on each tick. Membership datagrams use another port, so a member can be alive in the view and
//! yet acknowledge nothing (gray failure, Huang et al., HotOS 2017).
//!
//! A node that does not reach most of the others is itself cut off. It reports that, and passes no
//! member over.

use std::collections::BTreeMap;
use std::time::Duration;

use cortado_membership::Hysteresis;
use cortado_protocol::NodeId;

use crate::placement::Members;

/// A link does not work if it is not up for so long, or if something was sent and nothing
/// acknowledged for so long.
const SILENT_AFTER: Duration = Duration::from_secs(2);
/// Pause between two pings on an idle link.
const PING_EVERY: Duration = Duration::from_millis(500);
/// With more links than this, the pause grows in proportion.
const OFTEN_FOR: u32 = 8;

struct Peer {
    /// Number of the oldest unacknowledged message at the last look.
    oldest: Option<u64>,
    /// When the link last worked.
    good_at: Duration,
    pinged_at: Duration,
    judged: Hysteresis,
}

/// The state of the links to all members.
#[derive(Default)]
pub(crate) struct Reach {
    peers: BTreeMap<NodeId, Peer>,
    /// The unreached members, and whether this node was cut off, in the last report.
    told: (Vec<NodeId>, bool),
}

/// The state of the link to a peer.
#[derive(Clone, Copy)]
pub(crate) struct Link {
    /// Whether it is up.
    pub(crate) is_up: bool,
    /// Number of the first message that the peer has not acknowledged, if there is one.
    pub(crate) oldest: Option<u64>,
}

/// The result of a look at all links.
pub(crate) struct Looked {
    /// The unreached members, and whether this node is cut off, if that has changed.
    pub(crate) news: Option<(Vec<NodeId>, bool)>,
    /// Idle links on which to send a ping.
    pub(crate) ping: Vec<NodeId>,
}

impl Reach {
    /// Checks the links to the reachable members.
    pub(crate) fn look(
        &mut self,
        now: Duration,
        me: NodeId,
        members: &Members,
        link: impl Fn(NodeId) -> Link,
    ) -> Looked {
        let others = members.reachable.iter().filter(|node| **node != me);
        // The detector has judged the members that are down.
        self.peers.retain(|node, _| members.is_reachable(*node));
        let every = PING_EVERY * (self.peers.len() as u32 / OFTEN_FOR).max(1);
        let mut looked = Looked { news: None, ping: Vec::new() };
        for node in others {
            let fresh =
                Peer { oldest: None, good_at: now, pinged_at: now, judged: Hysteresis::default() };
            let peer = self.peers.entry(*node).or_insert(fresh);
            let Link { is_up, oldest } = link(*node);
            if is_up && (oldest.is_none() || oldest != peer.oldest) {
                peer.good_at = now;
            }
            peer.oldest = oldest;
            peer.judged.update(now, now >= peer.good_at + SILENT_AFTER);
            if is_up && oldest.is_none() && now >= peer.pinged_at + every {
                peer.pinged_at = now;
                looked.ping.push(*node);
            }
        }
        let told = (self.unreached(), self.is_cut_off());
        if self.told != told {
            self.told.clone_from(&told);
            looked.news = Some(told);
        }
        looked
    }

    /// This node stood still, so missing acknowledgements say nothing about the peers.
    pub(crate) fn forgive(&mut self, now: Duration) {
        self.peers.values_mut().for_each(|peer| peer.good_at = now);
    }

    /// Members to which no link works.
    pub(crate) fn unreached(&self) -> Vec<NodeId> {
        let bad = self.peers.iter().filter(|(_, peer)| peer.judged.is_bad());
        bad.map(|(node, _)| *node).collect()
    }

    /// Whether this node does not reach most of its peers, if there are at least two.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.peers.len() > 1 && 2 * self.unreached().len() > self.peers.len()
    }

    /// The members as the rest of the core sees them. Members that this node does not reach are
    /// removed. Roles go to members that report themselves well and that most others reach. If too
    /// few are left for an acknowledgement, ill members take roles too.
    pub(crate) fn effective(&self, me: NodeId, told: &Members, min_copies: usize) -> Members {
        let unreached = if self.is_cut_off() { Vec::new() } else { self.unreached() };
        let mut members = told.clone();
        members.reachable.retain(|node| !unreached.contains(node));
        members.live.retain(|node| {
            *node == me || !(unreached.contains(node) || is_unreached_by_most(told, *node))
        });
        if members.live.len() < min_copies {
            members.live = [&told.live[..], &told.ill[..]].concat();
            members.live.retain(|node| members.reachable.binary_search(node).is_ok());
            members.live.sort_unstable();
        }
        members
    }

    /// The nodes that do not reach a member, this node included.
    pub(crate) fn unreached_by(&self, me: NodeId, told: &Members, node: NodeId) -> Vec<NodeId> {
        let mut by = told.unreached.get(&node).cloned().unwrap_or_default();
        if self.peers.get(&node).is_some_and(|peer| peer.judged.is_bad()) && !self.is_cut_off() {
            by.push(me);
        }
        by.retain(|other| told.live.contains(other));
        by.sort_unstable();
        by.dedup();
        by
    }
}

/// Whether most other members that take roles report that they do not reach the node.
pub(crate) fn is_unreached_by_most(told: &Members, node: NodeId) -> bool {
    let Some(by) = told.unreached.get(&node) else { return false };
    let others = told.live.iter().filter(|other| **other != node);
    let (say, all) =
        others.fold((0, 0), |(say, all), other| (say + usize::from(by.contains(other)), all + 1));
    all > 1 && 2 * say > all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use cortado_protocol::LogId;
    use cortado_protocol::peer::{Hello, PeerMessage};

    use super::*;
    use crate::link::Links;

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn members(names: &[&str]) -> Members {
        let live: Vec<_> = names.iter().map(|name| node(name)).collect();
        Members { reachable: live.clone(), live, ..Members::alone(node("a")) }
    }

    /// The links of a node, and the peers to which they are up.
    struct Wires {
        links: Links,
        made: BTreeSet<NodeId>,
    }

    impl Wires {
        fn link(&self, node: NodeId) -> Link {
            let is_up = self.made.contains(&node);
            Link { is_up, oldest: self.links.oldest_unacknowledged(node) }
        }
    }

    fn linked(names: &[&str]) -> Wires {
        let mut wires = Wires { links: Links::default(), made: BTreeSet::new() };
        for name in names {
            wires.links.up(node(name), 0);
            wires.made.insert(node(name));
        }
        wires
    }

    fn hello(name: &str) -> Hello {
        let (version, cluster) = (1, "c".to_owned());
        Hello { version, cluster, node: node(name), boot: 1, log: LogId(1), seq: 0 }
    }

    const ALL: [&str; 5] = ["a", "b", "c", "d", "e"];

    /// Checks the links every half second; sends pings, which all members but `silent` acknowledge.
    fn pass(reach: &mut Reach, wires: &mut Wires, from: u64, to: u64, silent: &[&str]) {
        for at in (from..to).step_by(500) {
            let looked = reach.look(ms(at), node("a"), &members(&ALL), |node| wires.link(node));
            for peer in looked.ping {
                wires.links.push(peer, PeerMessage::Ping, b"", false);
            }
            for name in ["b", "c", "d", "e"].iter().filter(|name| !silent.contains(name)) {
                wires.links.acked(node(name), u64::MAX);
            }
        }
    }

    #[test]
    fn a_silent_link_is_noticed_within_three_seconds_and_used_again_three_after_it_works() {
        let (mut reach, mut wires) = (Reach::default(), linked(&ALL[1..]));
        pass(&mut reach, &mut wires, 0, 10_000, &[]);
        assert_eq!(reach.unreached(), []);
        pass(&mut reach, &mut wires, 10_000, 13_001, &["c"]);
        assert_eq!(reach.unreached(), [node("c")]);
        let told = members(&ALL);
        let seen = reach.effective(node("a"), &told, 2);
        assert_eq!(seen.live, members(&["a", "b", "d", "e"]).live);
        assert_eq!(seen.reachable, seen.live);
        assert_eq!(reach.unreached_by(node("a"), &told, node("c")), [node("a")]);
        pass(&mut reach, &mut wires, 13_500, 16_000, &[]);
        assert_eq!(reach.unreached(), [node("c")], "not for long enough");
        pass(&mut reach, &mut wires, 16_000, 18_000, &[]);
        assert_eq!(reach.unreached(), []);
    }

    #[test]
    fn a_link_that_is_not_made_is_noticed() {
        let (mut reach, mut wires) = (Reach::default(), linked(&["b", "d", "e"]));
        pass(&mut reach, &mut wires, 0, 2_500, &[]);
        assert_eq!(reach.unreached(), [node("c")]);
        wires.links.accept(1, &hello("c"));
        pass(&mut reach, &mut wires, 2_500, 20_000, &[]);
        assert_eq!(reach.unreached(), [node("c")], "what it says does not show that it hears");
    }

    #[test]
    fn who_reaches_nobody_is_cut_off_and_passes_nobody_over() {
        let (mut reach, mut wires) = (Reach::default(), linked(&ALL[1..]));
        pass(&mut reach, &mut wires, 0, 4_000, &["b", "c", "d"]);
        assert!(reach.is_cut_off());
        assert_eq!(reach.effective(node("a"), &members(&ALL), 2), members(&ALL));
    }

    #[test]
    fn own_stalls_condemn_nobody() {
        let (mut reach, mut wires) = (Reach::default(), linked(&ALL[1..]));
        pass(&mut reach, &mut wires, 0, 1_000, &["c"]);
        reach.forgive(ms(60_000));
        pass(&mut reach, &mut wires, 60_000, 61_500, &["c"]);
        assert_eq!(reach.unreached(), []);
    }

    #[test]
    fn who_most_others_do_not_reach_is_passed_over() {
        let reach = Reach::default();
        let mut told = members(&ALL);
        told.unreached.insert(node("c"), vec![node("b"), node("d")]);
        assert_eq!(reach.effective(node("a"), &told, 2).live, told.live, "two of four");
        told.unreached.insert(node("c"), vec![node("b"), node("d"), node("e")]);
        assert_eq!(reach.effective(node("a"), &told, 2).live.len(), 4);
        assert_eq!(reach.unreached_by(node("a"), &told, node("c")).len(), 3);
    }

    #[test]
    fn if_too_few_are_well_the_ill_ones_take_roles() {
        let reach = Reach::default();
        let mut told = members(&ALL);
        told.live = vec![node("a")];
        told.ill = ALL[1..].iter().map(|name| node(name)).collect();
        assert_eq!(reach.effective(node("a"), &told, 2).live, members(&ALL).live);
    }
}
