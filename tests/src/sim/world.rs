//! The world: one heap of events over all nodes, links, disks and clients.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hash};
use std::time::Duration;

use cortado_core::task::execute;
use cortado_core::{Budget, Config, Effect, Input};
use cortado_protocol::client::{BatchOutcome, BatchReply};
use cortado_protocol::{EntryKey, JobId, LogId};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::actor::Actor;
use super::client::SimClient;
use super::copies::Copies;
use super::data::Dataset;
use super::dials::{Dials, Fault, Outcome};
use super::event::Event;
use super::net::Net;
use super::node::{SimNode, SimRecords};
use super::stream::{Feed, SimPublisher, StreamOwner, Webhook};

/// A simulated cluster with its clients.
pub struct World {
    pub(super) now: Duration,
    pub(super) rng: StdRng,
    pub(super) dials: Dials,
    pub(super) config: Config,
    pub(super) nodes: Vec<SimNode>,
    /// Until when each node stands still.
    pub(super) paused: BTreeMap<usize, Duration>,
    /// Until when each disk syncs nothing.
    pub(super) hung: BTreeMap<usize, Duration>,
    pub(super) net: Net,
    pub(super) clients: Vec<Actor>,
    pub(super) copies: Copies,
    /// The first broken promise.
    pub(super) violation: Option<String>,
    pub(super) events: BTreeMap<(Duration, u64), Event>,
    pub(super) number: u64,
    /// Whose question a ticket is.
    pub(super) tickets: BTreeMap<u64, usize>,
    /// Where rows of streams are sent.
    pub(super) webhook: Webhook,
    pub(super) trace: DefaultHasher,
    pub(super) seen: BTreeMap<Fault, u32>,
    pub(super) frames: u64,
}

/// Space the logs keep in reserve: enough that batches are refused before everything is.
const RESERVE_BYTES: u64 = 6 << 10;
/// A run of a few minutes has some ten thousand events; many more are a storm of messages.
const MOST_EVENTS: u64 = 2_000_000;
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
            upload_idle: Duration::from_secs(rng.random_range(2..=30)),
            memory: Budget { outputs: dials.outputs, ..Budget::of(1 << 30, 1) },
            job_ttl: dials.job_ttl.unwrap_or(Duration::from_secs(86_400)),
            planted: dials.planted,
        };
        let job = |client: usize| JobId::v7(START_MS, client as u32);
        let client = |number| {
            let data = Dataset::coffee(job(number), rng.random(), 8, dials.rows);
            let stop = dials.stop.filter(|_| number == 0);
            let deletes = number == 0 && dials.rows.is_multiple_of(2);
            let client = SimClient::new(data, number < dials.cancels, dials.job_ttl.is_some());
            let client = client.lasting(dials.upload).stopping(stop).deleting(deletes);
            Actor::Job(Box::new(client))
        };
        let mut clients: Vec<_> = (0..dials.clients).map(client).collect();
        if dials.publishers > 0 {
            let feeds: Vec<_> =
                (0..dials.publishers).map(|number| Feed::drawn(seed, number)).collect();
            let job = job(clients.len());
            let (leaving, after) = dials.leaving;
            clients.extend((0..).zip(&feeds).map(|(number, feed)| {
                let leaves = (number < leaving).then_some(after);
                Actor::Publisher(Box::new(SimPublisher::new(job, feed.clone(), leaves)))
            }));
            let owner = StreamOwner::new(job, feeds, 8, dials.retention, leaving);
            clients.push(Actor::Owner(Box::new(owner)));
        }
        Self {
            now: Duration::ZERO,
            rng,
            config,
            nodes: (0..dials.nodes).map(SimNode::new).collect(),
            dials,
            net: Net::default(),
            clients,
            copies: Copies::default(),
            violation: None,
            events: BTreeMap::new(),
            number: 0,
            tickets: BTreeMap::new(),
            webhook: Webhook::default(),
            paused: BTreeMap::new(),
            hung: BTreeMap::new(),
            trace: DefaultHasher::new(),
            seen: BTreeMap::new(),
            frames: 0,
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
        while !self.clients.iter().all(Actor::is_over) {
            if let Some(message) = self.clients.iter().find_map(Actor::failure) {
                return Err(format!("a client failed: {message}"));
            }
            self.step()?;
            if self.now > limit {
                return Err(format!("not done after {limit:?}:{}", self.describe()));
            }
            if self.number > MOST_EVENTS {
                return Err(format!("{MOST_EVENTS} events: a storm:{}", self.describe()));
            }
        }
        self.settle()?;
        self.compare()
    }

    /// Lets one thing happen.
    pub(super) fn step(&mut self) -> Result<(), String> {
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
        self.violation.take().map_or(Ok(()), Err)
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

    /// A node's wall clock, in milliseconds since the Unix epoch.
    pub(super) fn unix_ms(&self, node: usize) -> u64 {
        let right = START_MS + self.now.as_millis() as u64;
        right.saturating_add_signed(self.nodes[node].clock_ms)
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
            Event::Unclog { from, to } => {
                self.net.clogged.remove(&(from, to));
            }
            Event::HealData(node) => {
                self.net.cut_data.remove(&node);
            }
            Event::JudgeDisk(node) => self.judge_disk(node),
            // Unless another pause is longer.
            Event::GoOn(node) if self.paused.get(&node).is_some_and(|at| *at <= self.now) => {
                self.paused.remove(&node);
            }
            Event::CrashAgain { node, left } => self.crash_again(node, left),
            Event::SpaceBack(node) => self.nodes[node].storage.set_capacity(None),
            Event::ClockBack(node) => self.nodes[node].clock_ms = 0,
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
            Event::Refused { node, boot, ticket } if self.runs(node, boot) => {
                self.input(node, Input::AppendRefused(ticket));
            }
            Event::Delivered { node, boot, ticket, job, result } if self.runs(node, boot) => {
                self.input(node, Input::Delivered { ticket, job, result });
            }
            Event::Saved { node, boot, ticket, file, bytes } if self.runs(node, boot) => {
                self.saved(node, ticket, file, bytes);
            }
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
                self.input(from, Input::LinkDown { peer, refused: false });
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
            Event::Ask { client, life, node, sent } if self.lives(client, life) => {
                self.ask(client, node, sent);
            }
            Event::Answer { client, life, response, tail } if self.lives(client, life) => {
                self.clients[client].on_response(self.now, response, tail);
                self.client_soon(client);
            }
            Event::BatchAnswer { client, life, reply } if self.lives(client, life) => {
                self.clients[client].on_batch_reply(self.now, reply);
                self.client_soon(client);
            }
            _ => {}
        }
    }

    pub(super) fn start(&mut self, node: usize) {
        if self.nodes[node].process.is_some() {
            return;
        }
        let (count, now, unix_ms) = (self.nodes.len(), self.now, self.unix_ms(node));
        let (config, rng) = (&self.config, &mut self.rng);
        let copies = self.nodes[node].start(config, count, now, unix_ms, RESERVE_BYTES, rng);
        let Some(copies) = copies else {
            let delay = self.delay(100_000, 2_000_000);
            return self.plan(delay, Event::Start(node));
        };
        self.copies.remove_node(node, false);
        for copy in copies {
            self.copies.found(copy.1, now);
            self.copies.add(node, copy);
        }
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
        let (now, unix_ms) = (self.now, self.unix_ms(node));
        let Some(process) = &mut self.nodes[node].process else { return };
        let mut effects = Vec::new();
        process.core.handle(now, unix_ms, input, &mut effects);
        for effect in effects {
            self.note(node, &effect);
            self.carry_out(node, effect);
        }
        self.plan_tick(node, false);
    }

    /// The trace covers what nodes say and do, too: frames, records, answers and tasks.
    fn note(&mut self, node: usize, effect: &Effect) {
        node.hash(&mut self.trace);
        match effect {
            Effect::Send(to, bytes) => (to, bytes).hash(&mut self.trace),
            Effect::Append { ticket, group, reserved, bytes, head } => {
                (ticket, group, reserved, bytes, head).hash(&mut self.trace);
            }
            Effect::Save { ticket, file, bytes } => {
                (ticket, bytes).hash(&mut self.trace);
                std::mem::discriminant(file).hash(&mut self.trace);
            }
            Effect::Reply(ticket, response, tail) => {
                (ticket, tail).hash(&mut self.trace);
                let _ = write!(HashText(&mut self.trace), "{response:?}");
            }
            Effect::Run(id, task) => {
                (id, std::mem::discriminant(&**task)).hash(&mut self.trace);
            }
            other => {
                let _ = write!(HashText(&mut self.trace), "{other:?}");
            }
        }
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
            Effect::Append { ticket, group, reserved, bytes, head } => {
                self.append(node, ticket, group, reserved, (&bytes, head));
            }
            Effect::Forget(group) => self.forget(node, group),
            Effect::Release(segment) => self.release(node, segment),
            Effect::Save { ticket, file, bytes } => {
                let delay = self.delay(100, 20_000);
                self.plan(delay, Event::Saved { node, boot, ticket, file, bytes });
            }
            Effect::Deliver { ticket, job, key, body, .. } => {
                // Whether it was taken, and whether the node hears of that, are two things.
                let result = self.webhook.take(&mut self.rng, &key, &body);
                let delay = self.delay(100, 200_000);
                self.plan(delay, Event::Delivered { node, boot, ticket, job, result });
            }
            Effect::Run(id, task) => {
                let Some(process) = &self.nodes[node].process else { return };
                let output = execute(*task, &SimRecords(process.reader.clone()));
                let longest = self.dials.task_ms.unwrap_or(20);
                let took = self.delay(100, 1_000 * longest);
                let done = match self.dials.task_ms {
                    Some(_) => self.nodes[node].work(self.now, took),
                    None => self.now + took,
                };
                self.plan_at(done, Event::Task { node, boot, id, output });
            }
            Effect::Reply(ticket, response, tail) => {
                if let Some(client) = self.tickets.remove(&ticket) {
                    let delay = self.delay(100, 2_000);
                    let (life, response) = (self.clients[client].life(), *response);
                    self.plan(delay, Event::Answer { client, life, response, tail });
                }
            }
            Effect::BatchReply(ticket, reply) => {
                if let Some(client) = self.tickets.remove(&ticket) {
                    self.batch_answer(node, client, reply);
                }
            }
            Effect::Unreached { nodes, cut_off } => self.unreached(node, nodes, cut_off),
            Effect::Departed { members, .. } => {
                if let Some(process) = &mut self.nodes[node].process {
                    process.detector.forget(self.now, &members);
                }
                self.carry_detector(node);
            }
            Effect::Draining => self.draining(node),
            Effect::Drained => self.leave(node),
        }
    }

    fn batch_answer(&mut self, node: usize, client: usize, reply: BatchReply) {
        if let BatchOutcome::Durable { .. } = reply.outcome {
            let job = self.clients[client].job();
            let (edge, number) = (self.clients[client].edge(reply.table), reply.number);
            self.promise(node, EntryKey { job, edge, number });
        }
        let (delay, life) = (self.delay(100, 2_000), self.clients[client].life());
        self.plan(delay, Event::BatchAnswer { client, life, reply });
    }

    fn lives(&self, client: usize, life: u64) -> bool {
        self.clients[client].life() == life
    }
}

/// Text that is hashed, not kept.
struct HashText<'a>(&'a mut DefaultHasher);

impl fmt::Write for HashText<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.hash(self.0);
        Ok(())
    }
}
