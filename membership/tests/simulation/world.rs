//! A cluster of shipped nodes (detector and election) on a simulated network, with a virtual clock
//! and one seed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use cortado_membership::{
    DetectorConfig, Effect, Identity, KnownPeer, Membership, Output, Profile, Trouble, View,
    next_generation,
};
use cortado_protocol::NodeId;
use cortado_protocol::limits::GOSSIP_BYTES;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Wall clock at virtual time zero.
const EPOCH_MS: u64 = 1_795_000_000_000;

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) member: Option<Membership>,
    pub(crate) paused: bool,
    /// How far its clock is ahead of the true time, in milliseconds.
    pub(crate) skew_ms: i64,
    /// The generation on its disk.
    pub(crate) generation: Option<u64>,
    pub(crate) known: Vec<KnownPeer>,
    pub(crate) sent: u64,
    /// The nodes that its leader has given up.
    pub(crate) crash_looping: Vec<NodeId>,
    inbox: Vec<(NodeId, Bytes)>,
}

pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) rng: StdRng,
    pub(crate) nodes: Vec<Node>,
    pub(crate) loss: f64,
    pub(crate) doubles: f64,
    /// Hash over all delivered datagrams: equal runs have equal traces.
    pub(crate) trace: u64,
    profile: Profile,
    seeds: Vec<SocketAddr>,
    cut: Vec<Vec<bool>>,
    wire: BTreeMap<(Duration, u64), (usize, usize, Bytes)>,
    packets: u64,
    view_changed: bool,
}

impl World {
    /// `count` nodes, none of which runs yet. The first two addresses are everyone's seeds.
    pub(crate) fn new(seed: u64, count: usize, profile: Profile) -> Self {
        let node = |n: usize| Node {
            id: format!("node-{}", n + 1).parse().expect("a valid node name"),
            member: None,
            paused: false,
            skew_ms: 0,
            generation: None,
            known: Vec::new(),
            sent: 0,
            crash_looping: Vec::new(),
            inbox: Vec::new(),
        };
        Self {
            now: Duration::ZERO,
            rng: StdRng::seed_from_u64(seed),
            nodes: (0..count).map(node).collect(),
            loss: 0.01,
            doubles: 0.0,
            trace: 0,
            profile,
            seeds: (0..count.min(2)).map(addr).collect(),
            cut: vec![vec![false; count]; count],
            wire: BTreeMap::new(),
            packets: 0,
            view_changed: true,
        }
    }

    pub(crate) fn forget_seeds(&mut self) {
        self.seeds.clear();
    }

    /// Starts all nodes within `spread`.
    pub(crate) fn start_all(&mut self, spread: Duration) {
        for n in 0..self.nodes.len() {
            if spread > Duration::ZERO {
                let pause = spread.mul_f64(self.rng.random()) / self.nodes.len() as u32;
                self.run_for(pause);
            }
            self.start(n);
        }
    }

    pub(crate) fn start(&mut self, n: usize) {
        let unix_ms = self.unix_ms(n);
        let node = &mut self.nodes[n];
        let generation = next_generation(node.generation, unix_ms);
        node.generation = Some(generation);
        node.paused = false;
        node.inbox.clear();
        let me = Identity {
            generation,
            leaving: false,
            draining: false,
            id: node.id,
            ip: addr(n).ip(),
            gossip_port: addr(n).port(),
            peer_port: 7001,
            client_port: 7002,
            http_addr: None,
        };
        let (profile, seeds) = (self.profile, self.seeds.clone());
        let config = DetectorConfig { profile, seed: self.rng.random(), seeds };
        node.member = Some(Membership::new(config, me, node.known.clone(), self.now, unix_ms));
        self.carry_out(n);
    }

    /// kill -9.
    pub(crate) fn crash(&mut self, n: usize) {
        self.nodes[n].member = None;
        self.view_changed = true;
    }

    pub(crate) fn leave(&mut self, n: usize) {
        let now = self.now;
        self.member(n).leave(now);
        self.carry_out(n);
        self.crash(n);
    }

    pub(crate) fn set_draining(&mut self, n: usize, draining: bool) {
        let now = self.now;
        self.member(n).set_draining(now, draining);
        self.carry_out(n);
    }

    /// Makes a leader give up nodes.
    pub(crate) fn give_up(&mut self, n: usize, nodes: Vec<NodeId>) {
        let now = self.now;
        let trouble = |node| Trouble { node, revivals: 3, counts_for_s: 300, given_up: true };
        let troubles: Vec<_> = nodes.into_iter().map(trouble).collect();
        self.member(n).add_troubles(now, &troubles);
        self.carry_out(n);
    }

    /// SIGCONT: the datagrams that arrived meanwhile are read first.
    pub(crate) fn resume(&mut self, n: usize) {
        self.nodes[n].paused = false;
        let (now, unix_ms) = (self.now, self.unix_ms(n));
        for (from, data) in std::mem::take(&mut self.nodes[n].inbox) {
            self.member(n).handle_packet(now, unix_ms, from, &data);
        }
        self.carry_out(n);
    }

    /// Cuts or mends the link from one node to another.
    pub(crate) fn set_cut(&mut self, from: usize, to: usize, cut: bool) {
        self.cut[from][to] = cut;
    }

    /// Cuts all links between groups; `group(n)` is the group of node `n`.
    pub(crate) fn split(&mut self, group: impl Fn(usize) -> usize) {
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                self.cut[from][to] = group(from) != group(to);
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        self.split(|_| 0);
    }

    pub(crate) fn member(&mut self, n: usize) -> &mut Membership {
        self.nodes[n].member.as_mut().expect("the node runs")
    }

    pub(crate) fn view(&self, n: usize) -> &View {
        self.nodes[n].member.as_ref().expect("the node runs").view()
    }

    pub(crate) fn running(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|node| node.member.is_some()).map(|node| node.id).collect()
    }

    /// Every running node sees exactly the running nodes as reachable.
    pub(crate) fn all_agree(&self) -> bool {
        let running = self.running();
        self.nodes.iter().filter_map(|n| n.member.as_ref()).all(|d| d.view().reachable() == running)
    }

    /// The leader, if all running nodes follow the same one in the same term.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        let mut leaders = self.nodes.iter().filter_map(|node| Some(node.member.as_ref()?.leader()));
        let first = leaders.next()?;
        leaders.all(|leader| leader == first).then_some(first?.0)
    }

    /// All running nodes see each other, and follow the highest of them.
    pub(crate) fn all_follow(&self) -> bool {
        self.all_agree() && self.leader() == self.running().last().copied()
    }

    pub(crate) fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        self.run_until(end, |_| false);
    }

    /// Runs until the condition holds, and returns how long that took; `None` once `limit` has
    /// passed. The condition is checked whenever a view has changed.
    pub(crate) fn until(
        &mut self,
        limit: Duration,
        holds: impl Fn(&Self) -> bool,
    ) -> Option<Duration> {
        let start = self.now;
        self.view_changed = true;
        self.run_until(start + limit, holds).then(|| self.now - start)
    }

    fn run_until(&mut self, end: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        loop {
            if std::mem::take(&mut self.view_changed) && holds(self) {
                return true;
            }
            let timer = self.nodes.iter().enumerate().filter(|(_, node)| !node.paused);
            let timer = timer
                .filter_map(|(n, node)| Some((node.member.as_ref()?.next_deadline()?, n)))
                .min();
            let packet = self.wire.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = packet.into_iter().chain(timer.map(|(at, _)| at)).min() else {
                self.now = end;
                return false;
            };
            if next > end {
                self.now = end;
                return false;
            }
            self.now = self.now.max(next);
            if packet == Some(next) {
                let (_, (from, to, data)) = self.wire.pop_first().expect("a packet is due");
                self.deliver(from, to, data);
            } else if let Some((_, n)) = timer {
                let (now, unix_ms) = (self.now, self.unix_ms(n));
                self.member(n).tick(now, unix_ms);
                self.carry_out(n);
            }
        }
    }

    fn deliver(&mut self, from: usize, to: usize, data: Bytes) {
        if self.cut[from][to] || self.nodes[to].member.is_none() {
            return;
        }
        let head = [self.trace, self.now.as_nanos() as u64, from as u64, to as u64];
        let head: Vec<u8> = head.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.trace = cortado_protocol::content_hash(&[&head[..], &data[..]].concat());

        let (now, unix_ms, id) = (self.now, self.unix_ms(to), self.nodes[from].id);
        if self.nodes[to].paused {
            self.nodes[to].inbox.push((id, data));
        } else {
            self.member(to).handle_packet(now, unix_ms, id, &data);
            self.carry_out(to);
        }
    }

    fn carry_out(&mut self, from: usize) {
        while let Some(effect) = self.member(from).poll_effect() {
            let output = match effect {
                Effect::Membership(output) => output,
                Effect::Leader(lead) => {
                    self.nodes[from].crash_looping = lead.crash_looping();
                    self.view_changed = true;
                    continue;
                }
            };
            match output {
                Output::View(_) => self.view_changed = true,
                Output::Known(known) => self.nodes[from].known = known,
                Output::Twin(at) => panic!("nobody has the name of another, as {at} seems to"),
                Output::Persist { generation } => {
                    assert!(self.nodes[from].generation < Some(generation));
                    self.nodes[from].generation = Some(generation);
                }
                Output::Send { to, node, data } => {
                    assert!(data.len() <= GOSSIP_BYTES);
                    self.nodes[from].sent += 1;
                    self.send(from, to, node, &data);
                }
            }
        }
        let persisted = self.nodes[from].generation;
        assert!(Some(self.member(from).me().generation) == persisted, "used before it is kept");
    }

    fn send(&mut self, from: usize, to: SocketAddr, node: Option<NodeId>, data: &Bytes) {
        let Some(to) = (0..self.nodes.len()).find(|n| addr(*n) == to) else { return };
        // A connection to an address is only good for the node that it names.
        if to == from || node.is_some_and(|node| node != self.nodes[to].id) {
            return;
        }
        let copies = 1 + usize::from(self.rng.random_bool(self.doubles));
        for _ in 0..copies {
            if !self.cut[from][to] && !self.rng.random_bool(self.loss) {
                self.packets += 1;
                let at = self.now + Duration::from_micros(self.rng.random_range(200..5_000));
                self.wire.insert((at, self.packets), (from, to, data.clone()));
            }
        }
    }

    fn unix_ms(&self, n: usize) -> u64 {
        let true_ms = EPOCH_MS + self.now.as_millis() as u64;
        true_ms.saturating_add_signed(self.nodes[n].skew_ms)
    }
}

pub(crate) fn addr(n: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n as u8 + 1], 7000))
}
