//! The world: one heap of events over all nodes, links, disks and clients.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use cortado_core::task::execute;
use cortado_core::{Config, Effect, Input, Members};
use cortado_engine::Durability;
use cortado_membership::{Output, ring};
use cortado_protocol::client::MemberState as ShownState;
use cortado_protocol::frame;
use cortado_protocol::peer::LinkFrame;
use cortado_protocol::{Coverage, JobId, LogId, NodeId, PROTOCOL_VERSION};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::client::{Sent, SimClient};
use super::data::Dataset;
use super::dials::{Dials, Fault, Outcome};
use super::event::Event;
use super::net::{Link, Net};
use super::node::{SimNode, SimRecords, index_of, node_index};

/// A simulated cluster with its clients.
pub struct World {
    pub(super) now: Duration,
    pub(super) rng: StdRng,
    dials: Dials,
    config: Config,
    pub(super) nodes: Vec<SimNode>,
    /// Until when each node stands still.
    pub(super) paused: BTreeMap<usize, Duration>,
    pub(super) net: Net,
    clients: Vec<SimClient>,
    events: BTreeMap<(Duration, u64), Event>,
    number: u64,
    tickets: BTreeMap<u64, usize>,
    trace: DefaultHasher,
    seen: BTreeMap<Fault, u32>,
}

/// How long owners may take to hold what they should once everything has healed: a sweep and some.
const SETTLE: Duration = Duration::from_secs(45);
const START_MS: u64 = 1_700_000_000_000;

impl World {
    /// A world drawn from a seed. Nothing runs yet.
    #[must_use]
    pub fn new(seed: u64, dials: Dials) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let copies = dials.nodes.min(3) as u8;
        let config = Config {
            node: "node-1".parse().expect("a valid node name"),
            cluster: "sim".to_owned(),
            boot: 0,
            log: LogId::default(),
            replicas: copies,
            min_copies: copies.min(2),
            slots: 8,
            expected_nodes: dials.nodes as u16,
            max_running_jobs: 4,
            job_ttl: Duration::from_secs(86_400),
            planted: dials.planted,
        };
        let job = |client: usize| JobId((u128::from(START_MS) << 80) | (0x7000 + client as u128));
        let client = |client| {
            let data = Dataset::coffee(job(client), rng.random(), 8);
            SimClient::new(data, client < dials.cancels)
        };
        let clients = (0..dials.clients).map(client).collect();
        Self {
            now: Duration::ZERO,
            rng,
            config,
            nodes: (0..dials.nodes).map(SimNode::new).collect(),
            dials,
            net: Net::default(),
            clients,
            events: BTreeMap::new(),
            number: 0,
            tickets: BTreeMap::new(),
            paused: BTreeMap::new(),
            trace: DefaultHasher::new(),
            seen: BTreeMap::new(),
        }
    }

    /// Runs until every client has its result, and compares each with the reference model.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    pub fn run(mut self, limit: Duration) -> Result<Outcome, String> {
        for node in 0..self.nodes.len() {
            let delay = self.delay(0, 50_000);
            self.plan(delay, Event::Start(node));
        }
        for client in 0..self.clients.len() {
            let delay = self.delay(50_000, 1_500_000);
            self.plan(delay, Event::ClientTick(client));
        }
        for (at, fault) in self.dials.faults.clone() {
            self.plan(at, Event::Fault(fault));
        }
        while !self.clients.iter().all(SimClient::is_over) {
            if let Some(message) = self.clients.iter().find_map(SimClient::failure) {
                return Err(format!("a client failed: {message}"));
            }
            self.step()?;
            if self.now > limit {
                return Err(format!("not done after {limit:?}:{}", self.describe()));
            }
        }
        self.settle()?;
        self.compare()
    }

    /// Lets one thing happen.
    fn step(&mut self) -> Result<(), String> {
        let Some(((at, number), event)) = self.events.pop_first() else {
            return Err("nothing happens any more".to_owned());
        };
        self.now = at;
        if tracing::enabled!(tracing::Level::TRACE) {
            let name = event.name();
            if !name.is_empty() {
                tracing::trace!("{at:?} #{number} {name}");
            }
        }
        (at, number, std::mem::discriminant(&event)).hash(&mut self.trace);
        match event.node().and_then(|node| self.paused.get(&node).copied()) {
            // What happens to a node that stands still happens when it goes on, in order.
            Some(until) if until > self.now => self.plan_at(until, event),
            _ => self.happen(event),
        }
        Ok(())
    }

    /// When everything has healed, every owner of a slot comes to hold all that any node holds of
    /// it (I3), as long as the job lives.
    fn settle(&mut self) -> Result<(), String> {
        self.events.retain(|_, event| !matches!(event, Event::Fault(_)));
        self.net.cut.clear();
        let until = self.now + SETTLE;
        let mut look_at = self.now;
        loop {
            self.step()?;
            if self.now < look_at {
                continue;
            }
            look_at = self.now + Duration::from_millis(500);
            let missing = self.missing_copies();
            if missing.is_none() && self.nodes.iter().all(|node| node.process.is_some()) {
                return Ok(());
            }
            if self.now > until {
                return Err(missing.unwrap_or_else(|| "a node never came back".to_owned()));
            }
        }
    }

    /// A copy that an owner lacks, in a sentence.
    fn missing_copies(&self) -> Option<String> {
        let live: Vec<_> =
            self.nodes.iter().filter(|node| node.process.is_some()).map(|node| node.id).collect();
        let copies = usize::from(self.config.replicas);
        for client in self.clients.iter().filter(|client| client.result().is_some()) {
            let job = client.data.spec.job;
            let mut held = BTreeMap::new();
            for node in &self.nodes {
                let Some(process) = &node.process else { continue };
                for part in process.core.held(job) {
                    for slot in part.slots.iter() {
                        held.insert((slot, part.edge, node.id), part.coverage.clone());
                    }
                }
            }
            let mut all: BTreeMap<_, Coverage> = BTreeMap::new();
            for ((slot, edge, _), coverage) in &held {
                all.entry((*slot, *edge)).or_default().union(coverage);
            }
            for ((slot, edge), coverage) in all {
                let owners = ring::owners(ring::slot_key(job, slot), &live);
                for owner in owners.into_iter().take(copies) {
                    if held.get(&(slot, edge, owner)).is_none_or(|own| *own != coverage) {
                        return Some(format!("{owner} lacks some of {edge:?}, {slot:?} of {job}"));
                    }
                }
            }
        }
        None
    }

    /// Who stands where, for a failing run's report.
    fn describe(&mut self) -> String {
        let mut text = String::new();
        for client in &self.clients {
            let job = client.data.spec.job;
            text += &format!("\nclient of {job}: {}", client.describe());
            for node in &mut self.nodes {
                if let Some(process) = node.process.as_mut().filter(|_| !client.is_over()) {
                    text += &format!("\n  {}: {}", node.id, process.core.describe(job));
                }
            }
        }
        text
    }

    fn compare(self) -> Result<Outcome, String> {
        let Config { replicas, min_copies, .. } = self.config;
        for (number, client) in self.clients.iter().enumerate() {
            let expected = client.data.answer(Durability { replicas, min_copies });
            let expected: Vec<u8> =
                expected.iter().flat_map(|file| file.bytes.iter().copied()).collect();
            let cancelled = client.is_over() && client.result().is_none();
            if !cancelled && client.result().is_none_or(|result| result[..] != expected[..]) {
                let got = String::from_utf8_lossy(client.result().map_or(&[][..], |bytes| bytes));
                let want = String::from_utf8_lossy(&expected);
                let mut lines = want.lines().zip(got.lines());
                let differs = lines.find(|(want, got)| want != got);
                return Err(format!(
                    "client {number}: the result is not the model's: expected and got {differs:?}"
                ));
            }
        }
        Ok(Outcome {
            trace: self.trace.finish(),
            took: self.now,
            seen: self.seen,
            acknowledged: self.clients.iter().map(|client| client.acknowledged.len()).sum(),
        })
    }

    pub(super) fn plan(&mut self, after: Duration, event: Event) {
        self.plan_at(self.now + after, event);
    }

    pub(super) fn plan_at(&mut self, at: Duration, event: Event) {
        self.number += 1;
        self.events.insert((at, self.number), event);
    }

    pub(super) fn delay(&mut self, from_us: u64, to_us: u64) -> Duration {
        Duration::from_micros(self.rng.random_range(from_us..=to_us.max(from_us)))
    }

    pub(super) fn unix_ms(&self) -> u64 {
        START_MS + self.now.as_millis() as u64
    }

    fn runs(&self, node: usize, boot: u64) -> bool {
        self.nodes[node].boot == boot && self.nodes[node].process.is_some()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Start(node) => self.start(node),
            Event::Fault(fault) => {
                let happened = self.fault(fault);
                *self.seen.entry(fault).or_default() += u32::from(happened);
            }
            Event::Heal => self.net.cut.clear(),
            Event::Resume(node) => {
                self.paused.remove(&node);
            }
            Event::DrainLimit { node, boot } if self.runs(node, boot) => self.leave(node),
            Event::Tick { node, boot } if self.runs(node, boot) => {
                let planned = self.nodes[node].process.as_ref().map(|process| process.tick_at);
                if planned.is_some_and(|at| at <= self.now) {
                    self.input(node, Input::Tick);
                    self.plan_tick(node, true);
                }
            }
            Event::Probe { node, boot } if self.runs(node, boot) => self.probe(node),
            Event::Sync { node, boot } if self.runs(node, boot) => self.sync(node),
            Event::Task { node, boot, id, output } if self.runs(node, boot) => {
                self.input(node, Input::TaskDone(id, output));
            }
            Event::Datagram { from, to, data } => self.datagram(from, to, &data),
            Event::Dial { from, to, boot } if self.runs(from, boot) => self.dial(from, to),
            Event::Hello { from, to, conn } => {
                if let Some(link) = self.net.link(from, to, conn) {
                    let hello = link.hello.clone();
                    self.input(to, Input::Inbound(conn, hello));
                }
            }
            Event::Welcome { from, to, conn, hello } => {
                if let Some(link) = self.net.link(from, to, conn) {
                    link.up = true;
                    self.input(from, Input::LinkUp(hello));
                }
            }
            Event::Frame { from, to, conn, bytes } => self.frame(from, to, conn, &bytes),
            Event::Ack { from, to, conn, next } => self.ack(from, to, conn, next),
            Event::Broken { from, to, boot } if self.runs(from, boot) => {
                self.net.unnoticed.remove(&(from, to));
                let peer = self.nodes[to].id;
                self.input(from, Input::LinkDown(peer));
                let delay = self.delay(50_000, 300_000);
                self.plan(delay, Event::Dial { from, to, boot });
            }
            Event::Client(client) => self.client(client),
            Event::ClientTick(client) => {
                self.client(client);
                if !self.clients[client].is_over() {
                    self.plan(Duration::from_millis(100), Event::ClientTick(client));
                }
            }
            Event::Ask { client, node, sent } => self.ask(client, node, sent),
            Event::Answer { client, response, tail } => {
                self.clients[client].on_response(self.now, response, tail);
                self.client_soon(client);
            }
            Event::BatchAnswer { client, reply } => {
                self.clients[client].on_batch_reply(self.now, reply);
                self.client_soon(client);
            }
            _ => {}
        }
    }

    // --- nodes

    pub(super) fn start(&mut self, node: usize) {
        if self.nodes[node].process.is_some() {
            return;
        }
        let (count, now, unix_ms) = (self.nodes.len(), self.now, self.unix_ms());
        self.nodes[node].start(&self.config, count, now, unix_ms, &mut self.rng);
        self.plan_tick(node, true);
        self.carry_detector(node);
    }

    fn plan_tick(&mut self, node: usize, ticked: bool) {
        let (now, boot) = (self.now, self.nodes[node].boot);
        let Some(process) = &mut self.nodes[node].process else { return };
        let wanted = now + process.core.tick_interval();
        if ticked || wanted < process.tick_at {
            process.tick_at = wanted;
            self.plan_at(wanted, Event::Tick { node, boot });
        }
    }

    pub(super) fn input(&mut self, node: usize, input: Input) {
        let (now, unix_ms) = (self.now, self.unix_ms());
        let Some(process) = &mut self.nodes[node].process else { return };
        let mut effects = Vec::new();
        process.core.handle(now, unix_ms, input, &mut effects);
        for effect in effects {
            self.carry_out(node, effect);
        }
        self.plan_tick(node, false);
    }

    fn carry_out(&mut self, node: usize, effect: Effect) {
        let boot = self.nodes[node].boot;
        match effect {
            Effect::Send(peer, bytes) => self.send(node, peer, bytes),
            Effect::Welcome(conn, next) => {
                let Some(from) = self.dialler(node, conn) else { return };
                let Some(process) = &self.nodes[node].process else { return };
                let hello = process.core.hello(next);
                let at = self.backward(from, node);
                self.plan_at(at, Event::Welcome { from, to: node, conn, hello });
            }
            Effect::Ack(conn, next) => {
                let Some(from) = self.dialler(node, conn) else { return };
                let at = self.backward(from, node);
                self.plan_at(at, Event::Ack { from, to: node, conn, next });
            }
            Effect::Append { ticket, job, bytes, .. } => self.append(node, ticket, job, &bytes),
            Effect::Forget(job) => {
                if let Some(process) = &mut self.nodes[node].process {
                    process.log.forget(job.0).expect("the simulated disk does not fail");
                }
            }
            Effect::SaveTombstones(jobs) => self.nodes[node].tombstones = jobs,
            Effect::Run(id, task) => {
                let Some(process) = &self.nodes[node].process else { return };
                let output = execute(*task, &SimRecords(process.reader.clone()));
                let delay = self.delay(100, 20_000);
                self.plan(delay, Event::Task { node, boot, id, output });
            }
            Effect::Reply(ticket, response, tail) => {
                if let Some(client) = self.tickets.remove(&ticket) {
                    let delay = self.delay(100, 2_000);
                    let response = *response;
                    self.plan(delay, Event::Answer { client, response, tail });
                }
            }
            Effect::BatchReply(ticket, reply) => {
                if let Some(client) = self.tickets.remove(&ticket) {
                    let delay = self.delay(100, 2_000);
                    self.plan(delay, Event::BatchAnswer { client, reply });
                }
            }
            Effect::Draining => self.draining(node),
            Effect::Drained => self.leave(node),
        }
    }

    fn append(&mut self, node: usize, ticket: u64, job: JobId, bytes: &Bytes) {
        let (unix_ms, boot) = (self.unix_ms(), self.nodes[node].boot);
        let delay = self.delay(100, self.dials.sync_ms * 1_000);
        let Some(process) = &mut self.nodes[node].process else { return };
        let record = process
            .log
            .append(1, job.0, unix_ms, &[bytes])
            .expect("the simulated disk is not full");
        let cortado_log::RecordRef { segment, offset, len } = record;
        process.unsynced.push((ticket, cortado_core::RecordRef { segment, offset, len }));
        if !process.sync_planned {
            process.sync_planned = true;
            self.plan(delay, Event::Sync { node, boot });
        }
    }

    fn sync(&mut self, node: usize) {
        let Some(process) = &mut self.nodes[node].process else { return };
        process.sync_planned = false;
        process.log.sync().expect("the simulated disk does not fail");
        let records = std::mem::take(&mut process.unsynced);
        self.input(node, Input::Appended(records));
    }

    // --- membership

    fn probe(&mut self, node: usize) {
        let (now, unix_ms) = (self.now, self.unix_ms());
        if let Some(process) = &mut self.nodes[node].process {
            process.probe_at = None;
            process.detector.tick(now, unix_ms);
        }
        self.carry_detector(node);
    }

    fn datagram(&mut self, from: usize, to: usize, data: &[u8]) {
        if !self.net.passes(from, to) {
            return;
        }
        let (now, unix_ms, sender) = (self.now, self.unix_ms(), self.nodes[from].id);
        if let Some(process) = &mut self.nodes[to].process {
            process.detector.handle_packet(now, unix_ms, sender, data);
        }
        self.carry_detector(to);
    }

    pub(super) fn send_datagram(&mut self, from: usize, to: SocketAddr, data: Bytes) {
        let Some(to) = index_of(to).filter(|to| *to < self.nodes.len()) else { return };
        if !self.rng.random_bool(self.dials.datagram_loss) {
            let delay = self.delay(200, 2_000);
            self.plan(delay, Event::Datagram { from, to, data });
        }
    }

    pub(super) fn carry_detector(&mut self, node: usize) {
        loop {
            let Some(process) = &mut self.nodes[node].process else { return };
            match process.detector.poll_output() {
                None => break,
                Some(Output::Send { to, data, .. }) => self.send_datagram(node, to, data),
                Some(Output::View(view)) => {
                    let members = Members::of(&view, &mut self.nodes[node].ever_seen);
                    self.dial_members(node, &members.views);
                    self.input(node, Input::Members(members));
                }
                Some(Output::Persist { generation }) => {
                    self.nodes[node].generation = Some(generation);
                }
                Some(Output::Known(known)) => self.nodes[node].known = known,
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

    // --- links

    fn dial_members(&mut self, node: usize, members: &[cortado_protocol::client::MemberView]) {
        let boot = self.nodes[node].boot;
        for member in members.iter().filter(|member| member.state != ShownState::Down) {
            let Some(to) = node_index(member.id).filter(|to| *to != node) else { continue };
            if !self.net.links.contains_key(&(node, to)) {
                let delay = self.delay(200, 5_000);
                self.plan(delay, Event::Dial { from: node, to, boot });
            }
        }
    }

    fn dial(&mut self, from: usize, to: usize) {
        let unnoticed = self.net.unnoticed.contains(&(from, to));
        if unnoticed || self.net.links.contains_key(&(from, to)) {
            return;
        }
        let boot = self.nodes[from].boot;
        let passes = self.net.passes(from, to) && self.net.passes(to, from);
        if self.nodes[to].process.is_none() || !passes {
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

    fn dialler(&self, to: usize, conn: u64) -> Option<usize> {
        let mut links = self.net.links.iter();
        links.find(|((_, t), link)| *t == to && link.conn == conn).map(|((from, _), _)| *from)
    }

    /// When the next frame arrives at the listener.
    fn forward(&mut self, from: usize, to: usize) -> Duration {
        let at = self.now + self.delay(200, 3_000);
        let Some(link) = self.net.links.get_mut(&(from, to)) else { return at };
        link.forward = link.forward.max(at);
        link.forward
    }

    /// When the next frame arrives at the dialler.
    fn backward(&mut self, from: usize, to: usize) -> Duration {
        let at = self.now + self.delay(200, 3_000);
        let Some(link) = self.net.links.get_mut(&(from, to)) else { return at };
        link.backward = link.backward.max(at);
        link.backward
    }

    fn send(&mut self, from: usize, peer: NodeId, bytes: Bytes) {
        let Some(to) = node_index(peer) else { return };
        let Some(link) = self.net.links.get(&(from, to)).filter(|link| link.up) else { return };
        let conn = link.conn;
        let at = self.forward(from, to);
        self.plan_at(at, Event::Frame { from, to, conn, bytes });
    }

    fn ack(&mut self, from: usize, to: usize, conn: u64, next: u64) {
        if self.net.link(from, to, conn).is_some() {
            let peer = self.nodes[to].id;
            self.input(from, Input::LinkAck(peer, next));
        }
    }

    fn frame(&mut self, from: usize, to: usize, conn: u64, bytes: &Bytes) {
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

    // --- clients

    fn client_soon(&mut self, client: usize) {
        let delay = self.delay(10, 500);
        self.plan(delay, Event::Client(client));
    }

    fn client(&mut self, client: usize) {
        let running: Vec<_> =
            (0..self.nodes.len()).filter(|n| self.nodes[*n].process.is_some()).collect();
        let live: Vec<_> = running.iter().map(|n| self.nodes[*n].id).collect();
        for (to, sent) in self.clients[client].poll(self.now, &live) {
            let any = running.get(self.rng.random_range(0..running.len().max(1))).copied();
            if let Some(node) = to.and_then(node_index).or(any) {
                let delay = self.delay(100, 2_000);
                self.plan(delay, Event::Ask { client, node, sent });
            }
        }
    }

    fn ask(&mut self, client: usize, node: usize, sent: Sent) {
        let ticket = self.number;
        self.number += 1;
        if self.nodes[node].process.is_none() {
            return;
        }
        self.tickets.insert(ticket, client);
        let input = match sent {
            Sent::Request(request) => Input::Request(ticket, request),
            Sent::Batch { table, number } => {
                let data = &self.clients[client].data;
                let (header, payload) = data.tables[table][number as usize].clone();
                Input::Batch { ticket, job: data.spec.job, header, payload }
            }
        };
        self.input(node, input);
    }
}
