//! The announce loop: the nodes and seeds that this node announces itself to, and when.
//!
//! SWIM alone does not always heal: a node without any live member sends nothing, two halves that
//! renewed their identities at the same moment ignore each other's messages, and a single lost
//! announcement keeps a node out. So every node announces itself again and again to all known nodes
//! that it does not reach. The detector owns the loop.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use cortado_protocol::NodeId;
use cortado_protocol::limits::MEMBERS;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::packet::ANYONE;
use crate::{Identity, KnownPeer, View};

/// Most announcements in one round: they must not flood a large cluster that lost most of its
/// nodes.
const ROUND: usize = 32;

pub(super) struct Announcer {
    seeds: Vec<SocketAddr>,
    known: BTreeMap<NodeId, SocketAddr>,
    /// When the next round is due.
    pub(super) next: Duration,
}

impl Announcer {
    pub(super) fn new(seeds: Vec<SocketAddr>, known: Vec<KnownPeer>, next: Duration) -> Self {
        let known = known.into_iter().take(MEMBERS).map(|peer| (peer.id, peer.gossip)).collect();
        Self { seeds, known, next }
    }

    pub(super) fn set_seeds(&mut self, seeds: Vec<SocketAddr>) {
        self.seeds = seeds;
    }

    /// Records a node's address; returns whether that changed anything.
    pub(super) fn learn(&mut self, identity: &Identity) -> bool {
        if self.known.len() >= MEMBERS && !self.known.contains_key(&identity.id) {
            return false;
        }
        let addr = identity.gossip_addr();
        self.known.insert(identity.id, addr) != Some(addr)
    }

    /// Removes a node that left for good; returns whether it was known.
    pub(super) fn forget(&mut self, id: NodeId) -> bool {
        self.known.remove(&id).is_some()
    }

    pub(super) fn known(&self) -> Vec<KnownPeer> {
        self.known.iter().map(|(id, gossip)| KnownPeer { id: *id, gossip: *gossip }).collect()
    }

    /// Sets the next round to a random moment in `from..to` milliseconds from `now`.
    pub(super) fn schedule(&mut self, now: Duration, from: u64, to: u64, rng: &mut StdRng) {
        self.next = now + Duration::from_micros(rng.random_range(from * 1000..to * 1000));
    }

    /// The addressees: every known node that is not reachable in the view, and every seed that is
    /// not the address of a reachable node. If `all`, every known node: no node has confirmed our
    /// identity yet.
    pub(super) fn targets(
        &self,
        me: &Identity,
        view: &View,
        all: bool,
        rng: &mut StdRng,
    ) -> Vec<Identity> {
        let reachable: BTreeSet<NodeId> = view.reachable().into_iter().collect();
        let mut taken = BTreeSet::from([me.gossip_addr()]);
        let mut targets = Vec::new();
        for (id, addr) in self.known.iter().filter(|(id, _)| **id != me.id) {
            if all || !reachable.contains(id) {
                targets.push(Identity::addressee(*id, *addr));
            }
            if all || reachable.contains(id) {
                taken.insert(*addr);
            }
        }
        let anyone = ANYONE.parse().expect("a valid node name");
        // A seed at the address of a node that is down stays a target: another node may run there.
        let seeds = self.seeds.iter().filter(|seed| taken.insert(**seed));
        targets.extend(seeds.map(|seed| Identity::addressee(anyone, *seed)));
        if targets.len() > ROUND {
            targets.shuffle(rng);
            targets.truncate(ROUND);
        }
        targets
    }
}
