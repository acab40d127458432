//! Membership datagrams: with any content, detector and election stay consistent and bounded.

use std::net::SocketAddr;
use std::time::Duration;

use cortado_membership::{DetectorConfig, Effect, Identity, Membership, Output, Profile};
use cortado_protocol::NodeId;
use cortado_protocol::limits::{GOSSIP_BYTES, MEMBERS};

use crate::{Pieces, pieces, sample};

const WALL_MS: u64 = 1_795_000_000_000;
const NAMES: [&str; 4] = ["node-1", "node-2", "node-3", "node-4"];

fn identity(node: usize) -> Identity {
    Identity {
        generation: WALL_MS,
        leaving: false,
        draining: false,
        id: sample::node(NAMES[node]),
        ip: [10, 0, 0, node as u8 + 1].into(),
        gossip_port: 7000,
        peer_port: 7001,
        client_port: 7002,
        http_addr: "127.0.0.1:5000".parse().ok(),
    }
}

fn member(node: usize) -> Membership {
    let seeds = [0, 1].map(|node| identity(node).gossip_addr()).into();
    let config = DetectorConfig { profile: Profile::Lan, seed: node as u64, seeds };
    Membership::new(config, identity(node), Vec::new(), Duration::ZERO, WALL_MS)
}

/// A node's membership that receives datagrams while time passes.
struct Listener {
    member: Membership,
    now: Duration,
    /// Highest version of the views so far.
    version: u64,
}

impl Listener {
    fn new() -> Self {
        Self { member: member(0), now: Duration::ZERO, version: 0 }
    }

    fn hear(&mut self, from: NodeId, datagram: &[u8]) {
        self.member.handle_packet(self.now, WALL_MS, from, datagram);
        self.drain();
    }

    fn wait(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.member.tick(self.now, WALL_MS + self.now.as_millis() as u64);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(effect) = self.member.poll_effect() {
            let Effect::Membership(output) = effect else { continue };
            match output {
                Output::Send { data, .. } => assert!(data.len() <= GOSSIP_BYTES),
                Output::View(view) => {
                    assert!(view.version > self.version, "views are numbered");
                    self.version = view.version;
                    assert!(view.members.len() <= MEMBERS);
                    let me = self.member.me().id;
                    assert!(
                        view.live().contains(&me),
                        "a node that lives is in its own view: {view:?}"
                    );
                }
                Output::Persist { generation } => assert!(generation > WALL_MS),
                Output::Known(known) => assert!(known.len() <= MEMBERS),
                // Any member can cause this output; the node only logs it.
                Output::Twin(_) => {}
            }
        }
        assert_eq!(self.member.counters().rebuilt, 0, "the protocol's state machine failed");
        assert!(self.member.next_deadline().is_some());
    }
}

/// Input for each datagram: a byte for the sender and the time that passes, then a piece.
pub fn check(bytes: &[u8]) {
    let mut listener = Listener::new();
    let mut pieces = Pieces::new(bytes);
    for _ in 0..40 {
        if pieces.is_empty() {
            break;
        }
        let choice = pieces.byte();
        let datagram = pieces.piece();
        listener.hear(sample::node(NAMES[usize::from(choice & 3)]), datagram);
        listener.wait([0, 40, 210, 700][usize::from(choice >> 2 & 3)]);
    }
    // The membership must not hang afterwards: time passes in small steps and in a long one.
    (0..10).for_each(|_| listener.wait(150));
    listener.wait(30_000);
}

/// The messages to the first node while a cluster forms and one of its nodes does not answer for a
/// while.
#[must_use]
pub fn samples() -> Vec<Vec<u8>> {
    let mut nodes: Vec<Membership> = (0..NAMES.len()).map(member).collect();
    let mut heard: Vec<(usize, Vec<u8>)> = Vec::new();
    for step in 0..400u64 {
        let now = Duration::from_millis(step * 20);
        let mut mail: Vec<(usize, SocketAddr, Vec<u8>)> = Vec::new();
        for (from, node) in nodes.iter_mut().enumerate() {
            node.tick(now, WALL_MS + step * 20);
            while let Some(effect) = node.poll_effect() {
                if let Effect::Membership(Output::Send { to, data, .. }) = effect {
                    mail.push((from, to, data.to_vec()));
                }
            }
        }
        let silent = (100..200).contains(&step);
        for (from, to, data) in mail {
            let known = (0..NAMES.len()).find(|node| identity(*node).gossip_addr() == to);
            let Some(to) = known.filter(|to| !silent || (from != 3 && *to != 3)) else { continue };
            if to == 0 {
                heard.push((from, data.clone()));
            }
            nodes[to].handle_packet(now, WALL_MS + step * 20, sample::node(NAMES[from]), &data);
        }
    }
    let conversation = |heard: &[(usize, Vec<u8>)]| {
        let mut bytes = Vec::new();
        for (from, datagram) in heard {
            bytes.push(*from as u8 | 4);
            pieces::put(&mut bytes, datagram);
        }
        bytes
    };
    let (first, middle) = (heard.chunks(1), heard.chunks(12));
    first.take(20).chain(middle.take(20)).map(conversation).collect()
}
