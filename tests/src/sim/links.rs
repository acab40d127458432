//! Links between the simulated nodes: dialling, hellos, frames and acknowledgements.

use std::time::Duration;

use bytes::Bytes;
use cortado_core::Input;
use cortado_protocol::client::MemberState as ShownState;
use cortado_protocol::limits::PEER_FRAME_BYTES;
use cortado_protocol::peer::LinkFrame;
use cortado_protocol::{NodeId, PROTOCOL_VERSION, frame};
use rand::RngExt;

use super::event::Event;
use super::net::Link;
use super::node::node_index;
use super::world::World;

impl World {
    pub(super) fn dial_members(
        &mut self,
        node: usize,
        members: &[cortado_protocol::client::MemberView],
    ) {
        let boot = self.nodes[node].boot;
        for member in members.iter().filter(|member| member.state != ShownState::Down) {
            let Some(to) = node_index(member.id).filter(|to| *to != node) else { continue };
            if !self.net.links.contains_key(&(node, to)) {
                let delay = self.delay(200, 5_000);
                self.plan(delay, Event::Dial { from: node, to, boot });
            }
        }
    }

    pub(super) fn dial(&mut self, from: usize, to: usize) {
        let unnoticed = self.net.unnoticed.contains(&(from, to));
        if unnoticed || self.net.links.contains_key(&(from, to)) {
            return;
        }
        let boot = self.nodes[from].boot;
        if self.nodes[to].process.is_none() || !self.net.links(from, to) {
            let delay = self.delay(100_000, 1_000_000);
            self.plan(delay, Event::Dial { from, to, boot });
            return;
        }
        let peer = self.nodes[to].id;
        let Some(process) = &self.nodes[from].process else { return };
        let hello = process.core.hello(process.core.resume(peer));
        debug_assert_eq!(hello.version, PROTOCOL_VERSION);
        self.net.next_conn += 1;
        let conn = self.net.next_conn;
        let (forward, backward) = (self.now, self.now);
        self.net.links.insert((from, to), Link { conn, up: false, hello, forward, backward });
        let at = self.forward(from, to);
        self.plan_at(at, Event::Hello { from, to, conn });
    }

    pub(super) fn dialler(&self, to: usize, conn: u64) -> Option<usize> {
        let mut links = self.net.links.iter();
        links.find(|((_, t), link)| *t == to && link.conn == conn).map(|((from, _), _)| *from)
    }

    /// When the next frame arrives at the listener.
    pub(super) fn forward(&mut self, from: usize, to: usize) -> Duration {
        let clogged = self.net.clogged.get(&(from, to)).copied().unwrap_or_default();
        let at = (self.now + self.delay(200, self.dials.travel_us)).max(clogged);
        let Some(link) = self.net.links.get_mut(&(from, to)) else { return at };
        link.forward = link.forward.max(at);
        link.forward
    }

    /// When the next frame arrives at the dialler.
    pub(super) fn backward(&mut self, from: usize, to: usize) -> Duration {
        let clogged = self.net.clogged.get(&(to, from)).copied().unwrap_or_default();
        let at = (self.now + self.delay(200, self.dials.travel_us)).max(clogged);
        let Some(link) = self.net.links.get_mut(&(from, to)) else { return at };
        link.backward = link.backward.max(at);
        link.backward
    }

    pub(super) fn send(&mut self, from: usize, peer: NodeId, bytes: Bytes) {
        let Some(to) = node_index(peer) else { return };
        let Some(link) = self.net.links.get(&(from, to)).filter(|link| link.up) else { return };
        let conn = link.conn;
        assert!(frame::fits(&bytes, PEER_FRAME_BYTES), "a frame is sent that its peer refuses");
        let at = self.forward(from, to);
        self.frames += 1;
        // A transport does not repeat frames; should one come twice all the same, it counts once.
        if self.rng.random_bool(self.dials.repeats) {
            let again = at + self.delay(0, 100_000);
            self.plan_at(again, Event::Frame { from, to, conn, bytes: bytes.clone() });
        }
        self.plan_at(at, Event::Frame { from, to, conn, bytes });
    }

    pub(super) fn ack(&mut self, from: usize, to: usize, conn: u64, next: u64) {
        if self.net.link(from, to, conn).is_some() {
            let peer = self.nodes[to].id;
            self.input(from, Input::LinkAck(peer, next));
        }
    }

    pub(super) fn frame(&mut self, from: usize, to: usize, conn: u64, bytes: &Bytes) {
        if self.net.link(from, to, conn).is_none() {
            return;
        }
        let sender = self.nodes[from].id;
        let (message, tail) = frame::decode::<LinkFrame>(&bytes.slice(frame::PREFIX_BYTES..))
            .expect("nodes send whole frames");
        if let LinkFrame::Message { seq, message } = message {
            self.input(to, Input::Message { conn, from: sender, seq, message, tail });
        }
    }
}
