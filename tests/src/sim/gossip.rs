//! Membership in the simulated world: detectors and their datagrams.

use std::net::SocketAddr;

use bytes::Bytes;
use cortado_core::{Input, Members};
use cortado_membership::{Effect, Output};
use cortado_protocol::NodeId;
use rand::RngExt;

use super::event::Event;
use super::node::index_of;
use super::world::World;

impl World {
    pub(super) fn probe(&mut self, node: usize) {
        let (now, unix_ms) = (self.now, self.unix_ms(node));
        if let Some(process) = &mut self.nodes[node].process {
            process.probe_at = None;
            process.detector.tick(now, unix_ms);
        }
        self.carry_detector(node);
    }

    pub(super) fn datagram(&mut self, from: usize, to: usize, data: &[u8]) {
        if !self.net.passes(from, to) {
            return;
        }
        let (now, unix_ms, sender) = (self.now, self.unix_ms(to), self.nodes[from].id);
        if let Some(process) = &mut self.nodes[to].process {
            process.detector.handle_packet(now, unix_ms, sender, data);
        }
        self.carry_detector(to);
    }

    pub(super) fn send_datagram(&mut self, from: usize, to: SocketAddr, data: Bytes) {
        let Some(to) = index_of(to).filter(|to| *to < self.nodes.len()) else { return };
        if self.rng.random_bool(self.dials.datagram_loss) {
            return;
        }
        let clogged = self.net.clogged.get(&(from, to)).copied().unwrap_or_default();
        let at = (self.now + self.delay(200, 2_000)).max(clogged);
        if self.rng.random_bool(self.dials.repeats) {
            let again = at + self.delay(0, 2_000_000);
            self.plan_at(again, Event::Datagram { from, to, data: data.clone() });
        }
        self.plan_at(at, Event::Datagram { from, to, data });
    }

    /// What a core thinks of its links goes to the others.
    pub(super) fn unreached(&mut self, node: usize, nodes: Vec<NodeId>, cut_off: bool) {
        let now = self.now;
        if let Some(process) = &mut self.nodes[node].process {
            process.detector.set_unreached(now, nodes, cut_off);
        }
        self.carry_detector(node);
    }

    pub(super) fn carry_detector(&mut self, node: usize) {
        loop {
            let Some(process) = &mut self.nodes[node].process else { return };
            let output = match process.detector.poll_effect() {
                None => break,
                Some(Effect::Leader(_)) => continue,
                Some(Effect::Membership(output)) => output,
            };
            match output {
                Output::Send { to, data, .. } => self.send_datagram(node, to, data),
                Output::View(view) => {
                    let members = Members::of(&view);
                    self.dial_members(node, &members.views);
                    if let Some(process) = &mut self.nodes[node].process {
                        process.live.clone_from(&members.live);
                    }
                    self.input(node, Input::Members(members));
                }
                Output::Persist { generation } => {
                    self.nodes[node].generation = Some(generation);
                }
                Output::Known(known) => self.nodes[node].known = known,
                Output::Twin(at) => panic!("each process has a name of its own, not that of {at}"),
            }
        }
        let boot = self.nodes[node].boot;
        let now = self.now;
        let Some(process) = &mut self.nodes[node].process else { return };
        let wanted = process.detector.next_deadline().map(|at| at.max(now));
        if let Some(at) = wanted
            && process.probe_at.is_none_or(|planned| at < planned)
        {
            process.probe_at = Some(at);
            self.plan_at(at, Event::Probe { node, boot });
        }
    }
}
