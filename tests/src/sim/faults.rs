//! Faults of the simulated world.

use std::sync::Arc;
use std::time::Duration;

use cortado_core::Input;
use cortado_log::MemStorage;
use cortado_membership::Output;
use rand::RngExt;
use rand::seq::SliceRandom;

use super::dials::Fault;
use super::event::Event;
use super::node::SimNode;
use super::world::World;

impl World {
    /// Lets something go wrong; returns whether there was anything it could happen to.
    pub(super) fn fault(&mut self, fault: Fault) -> bool {
        match fault {
            Fault::Crash => self.some_running().map(|node| self.crash(node)).is_some(),
            Fault::CrashAll => {
                let mut running = self.running();
                running.shuffle(&mut self.rng);
                running.iter().for_each(|node| self.crash(*node));
                !running.is_empty()
            }
            Fault::Wipe => self.some_running().map(|node| self.wipe(node)).is_some(),
            Fault::Drain => self.some_running().map(|node| self.drain(node)).is_some(),
            Fault::Join => {
                let node = self.nodes.len();
                self.nodes.push(SimNode::new(node));
                self.start(node);
                true
            }
            Fault::Pause => self.some_running().map(|node| self.pause(node)).is_some(),
            Fault::Cut => {
                let side: Vec<bool> = self.nodes.iter().map(|_| self.rng.random()).collect();
                self.cut_if(|from, to| side[from] != side[to])
            }
            Fault::OneWay => {
                let count = self.nodes.len();
                let (one, other) =
                    (self.rng.random_range(0..count), self.rng.random_range(0..count));
                one != other && self.cut_if(|from, to| (from, to) == (one, other))
            }
            Fault::Isolate => self.cut_if(|from, to| from != to),
            Fault::BreakLink => {
                let up: Vec<_> = self.net.links.keys().copied().collect();
                let some = up.get(self.rng.random_range(0..up.len().max(1))).copied();
                some.map(|(from, to)| self.break_link(from, to)).is_some()
            }
        }
    }

    fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].process.is_some()).collect()
    }

    fn some_running(&mut self) -> Option<usize> {
        let running = self.running();
        running.get(self.rng.random_range(0..running.len().max(1))).copied()
    }

    fn crash(&mut self, node: usize) {
        self.nodes[node].crash(&mut self.rng);
        self.gone(node);
        let delay = self.delay(10_000, 6_000_000);
        self.plan(delay, Event::Start(node));
    }

    fn wipe(&mut self, node: usize) {
        self.crash(node);
        let boot = self.nodes[node].boot;
        self.nodes[node] = SimNode { boot, ..SimNode::new(node) };
        self.nodes[node].storage = Arc::new(MemStorage::new());
    }

    /// The process is gone: its links are, too.
    fn gone(&mut self, node: usize) {
        self.paused.remove(&node);
        self.net.unnoticed.retain(|(from, _)| *from != node);
        let links = self.net.links.keys().copied();
        let touching: Vec<_> = links.filter(|(from, to)| *from == node || *to == node).collect();
        for (from, to) in touching {
            self.break_link(from, to);
        }
    }

    fn drain(&mut self, node: usize) {
        let boot = self.nodes[node].boot;
        self.plan(Duration::from_secs(8), Event::DrainLimit { node, boot });
        self.input(node, Input::Drain);
    }

    /// The node takes no new roles, and says so.
    pub(super) fn draining(&mut self, node: usize) {
        let (now, unix_ms) = (self.now, self.unix_ms());
        if let Some(process) = &mut self.nodes[node].process {
            process.detector.set_draining(now, unix_ms, true);
        }
        self.carry_detector(node);
    }

    /// The node leaves, and comes back later.
    pub(super) fn leave(&mut self, node: usize) {
        let now = self.now;
        let Some(process) = &mut self.nodes[node].process else { return };
        process.log.sync().expect("the simulated disk does not fail");
        process.detector.leave(now);
        let mut farewells = Vec::new();
        while let Some(output) = process.detector.poll_output() {
            if let Output::Send { to, data, .. } = output {
                farewells.push((to, data));
            }
        }
        for (to, data) in farewells {
            self.send_datagram(node, to, data);
        }
        self.nodes[node].process = None;
        self.nodes[node].boot += 1;
        self.gone(node);
        let delay = self.delay(100_000, 6_000_000);
        self.plan(delay, Event::Start(node));
    }

    fn pause(&mut self, node: usize) {
        let until = self.now + self.delay(100_000, 8_000_000);
        self.paused.insert(node, until);
        self.plan_at(until, Event::Resume(node));
    }

    /// Cuts the network where `apart` says so, for some seconds.
    fn cut_if(&mut self, apart: impl Fn(usize, usize) -> bool) -> bool {
        let count = self.nodes.len();
        let mut any = false;
        for from in 0..count {
            for to in (0..count).filter(|to| apart(from, *to)) {
                any = true;
                self.net.cut.insert((from, to), true);
                self.break_link(from, to);
                self.break_link(to, from);
            }
        }
        let delay = self.delay(100_000, 10_000_000);
        self.plan(delay, Event::Heal);
        any
    }

    fn break_link(&mut self, from: usize, to: usize) {
        if self.net.links.remove(&(from, to)).is_some() {
            let boot = self.nodes[from].boot;
            if self.nodes[from].process.is_some() {
                self.net.unnoticed.insert((from, to));
            }
            let delay = self.delay(1_000, 200_000);
            self.plan(delay, Event::Broken { from, to, boot });
        }
    }
}
