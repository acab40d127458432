//! Faults of the simulated world.

use std::time::Duration;

use cortado_core::Input;
use cortado_membership::{Effect, Output};
use rand::RngExt;
use rand::seq::SliceRandom;

use cortado_protocol::health::Illness;

use super::dials::Fault;
use super::event::Event;
use super::node::SimNode;
use super::world::World;

/// A disk that stands still for so long makes its node ill.
const ILL_AFTER: Duration = Duration::from_secs(2);

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
            Fault::CrashLoop => self.some_running().map(|node| self.crash_again(node, 5)).is_some(),
            Fault::Wipe => {
                let victim = self.some_first_copy().or_else(|| self.some_running());
                let victim = victim.filter(|node| self.may_lose_the_disk_of(*node));
                victim.map(|node| self.wipe(node)).is_some()
            }
            Fault::FlipBit => {
                let pick = self.rng.random();
                let node = self.rng.random_range(0..self.nodes.len());
                self.flip_bit(node, pick)
            }
            Fault::FullDisk => self.fill_disks(),
            Fault::FailSync => {
                let node = self.some_running();
                node.map(|node| self.nodes[node].storage.fail_syncs(1)).is_some()
            }
            Fault::ClockJump => self.some_running().map(|node| self.jump_clock(node)).is_some(),
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
            Fault::Clog => {
                let count = self.nodes.len();
                let (from, to) = (self.rng.random_range(0..count), self.rng.random_range(0..count));
                let delay = self.delay(100_000, 5_000_000);
                self.net.clogged.insert((from, to), self.now + delay);
                self.plan(delay, Event::Unclog { from, to });
                from != to
            }
            Fault::HangSync => self.some_running().map(|node| self.hang(node)).is_some(),
            Fault::CutData => {
                let node = self.some_running();
                node.map(|node| self.cut_data(node)).is_some() && self.nodes.len() > 1
            }
            Fault::Resume => {
                let client = self.rng.random_range(0..self.clients.len());
                self.resume_client(client)
            }
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

    /// Often, if there is one, a node whose disk has the first copy of a batch that is not
    /// acknowledged yet: that copy must not count once it is lost.
    fn some_first_copy(&mut self) -> Option<usize> {
        let running = self.running();
        let mut holders: Vec<_> = self.copies.sole_holders().into_iter().collect();
        holders.retain(|node| running.contains(node));
        let pick = self.rng.random_range(0..2 * holders.len().max(1));
        holders.get(pick).copied()
    }

    fn crash(&mut self, node: usize) {
        self.end(node);
        let delay = self.delay(10_000, 6_000_000);
        self.plan(delay, Event::Start(node));
    }

    /// Ends the process, and often its machine.
    fn end(&mut self, node: usize) {
        if self.rng.random() {
            self.nodes[node].cut_power(&mut self.rng);
        } else {
            self.nodes[node].kill();
        }
        self.gone(node);
    }

    /// The log failed: the process ends itself.
    pub(super) fn abort(&mut self, node: usize) {
        self.nodes[node].kill();
        self.gone(node);
        let delay = self.delay(100_000, 2_000_000);
        self.plan(delay, Event::Start(node));
    }

    pub(super) fn crash_again(&mut self, node: usize, left: u32) {
        if self.nodes[node].process.is_some() {
            self.end(node);
        }
        let delay = self.delay(10_000, 200_000);
        self.plan(delay, Event::Start(node));
        if left > 0 {
            let delay = delay + self.delay(10_000, 500_000);
            self.plan(delay, Event::CrashAgain { node, left: left - 1 });
        }
    }

    /// A new machine in its place, often at once: others may still wait for acknowledgements that
    /// the old one took part in.
    fn wipe(&mut self, node: usize) {
        self.end(node);
        let longest = if self.rng.random() { 100_000 } else { 6_000_000 };
        let delay = self.delay(10_000, longest);
        self.plan(delay, Event::Start(node));
        let SimNode { boot, clock_ms, .. } = self.nodes[node];
        self.nodes[node] = SimNode { boot, clock_ms, ..SimNode::new(node) };
        self.copies.remove_node(node, true);
    }

    /// One disk, all of them, or all but one.
    fn fill_disks(&mut self) -> bool {
        let Some(one) = self.some_running() else { return false };
        let which = self.rng.random_range(0..4);
        for node in self.running() {
            let full = match which {
                0 => true,
                1 => node != one,
                _ => node == one,
            };
            if full {
                self.fill_disk(node);
            }
        }
        true
    }

    fn fill_disk(&mut self, node: usize) {
        let storage = &self.nodes[node].storage;
        let left = self.rng.random_range(0..16 << 10);
        storage.set_capacity(Some(storage.used_bytes() + left));
        let delay = self.delay(100_000, 10_000_000);
        self.plan(delay, Event::SpaceBack(node));
    }

    fn jump_clock(&mut self, node: usize) {
        let hours: i64 = [-72, -1, 1, 72][self.rng.random_range(0..4)];
        self.nodes[node].clock_ms = hours * 3_600_000;
        if self.rng.random() {
            let delay = self.delay(100_000, 10_000_000);
            self.plan(delay, Event::ClockBack(node));
        }
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
        let now = self.now;
        if let Some(process) = &mut self.nodes[node].process {
            process.detector.set_draining(now, true);
        }
        self.carry_detector(node);
    }

    /// The node leaves, and comes back later.
    pub(super) fn leave(&mut self, node: usize) {
        let now = self.now;
        let Some(process) = &mut self.nodes[node].process else { return };
        if process.log.sync().is_err() {
            return self.abort(node);
        }
        process.detector.leave(now);
        let mut farewells = Vec::new();
        while let Some(effect) = process.detector.poll_effect() {
            if let Effect::Membership(Output::Send { to, data, .. }) = effect {
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
        // A node that stands still already goes on no earlier: what waits for it would come out of order.
        let until = self.paused.get(&node).map_or(until, |before| until.max(*before));
        self.paused.insert(node, until);
        self.plan_at(until, Event::GoOn(node));
    }

    fn hang(&mut self, node: usize) {
        let until = self.now + self.delay(100_000, 12_000_000);
        self.hung.insert(node, until);
        self.plan(ILL_AFTER, Event::JudgeDisk(node));
        self.plan_at(until, Event::JudgeDisk(node));
    }

    /// What the node's own watch would find: the shell's part, which is not simulated.
    pub(super) fn judge_disk(&mut self, node: usize) {
        let now = self.now;
        let hangs = self.hung.get(&node).is_some_and(|until| *until > now);
        if let Some(process) = &mut self.nodes[node].process {
            let waits = !process.unsynced.is_empty();
            process.detector.set_ill(now, Illness::Disk, hangs && waits);
        }
        self.carry_detector(node);
    }

    fn cut_data(&mut self, node: usize) {
        self.net.cut_data.insert(node);
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.break_link(node, other);
            self.break_link(other, node);
        }
        let delay = self.delay(500_000, 15_000_000);
        self.plan(delay, Event::HealData(node));
    }

    /// Cuts the network where `apart` says so, for some seconds.
    fn cut_if(&mut self, apart: impl Fn(usize, usize) -> bool) -> bool {
        let count = self.nodes.len();
        let mut any = false;
        for from in 0..count {
            for to in (0..count).filter(|to| apart(from, *to)) {
                any = true;
                self.net.cut.insert((from, to));
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
