//! The router: leads each input through the components, in the order that stands here.
//!
//! [`Core`] owns the facts, the components and the outbox. A component is given one event with `&Facts`
//! and `&mut Outbox`; what others have to hear of it, it returns. So every flow stands in one function,
//! from top to bottom, and nothing else changes the facts.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use cortado_protocol::client::{ClientRequest, ClientResponse, ErrorKind};
use cortado_protocol::peer::{PeerMessage, Work};
use cortado_protocol::{LogId, NodeId};

use crate::admission::Queue;
use crate::answers::Answers;
use crate::completion::Completion;
use crate::config::{Config, PlantedBug};
use crate::coordination::Coordination;
use crate::effect::{Effect, StateFile};
use crate::expiry::Expiry;
use crate::facts::Facts;
use crate::forwarding::Forwarding;
use crate::handoff::{Handoff, Have};
use crate::input::Input;
use crate::link::Links;
use crate::mapper::Mapper;
use crate::outbox::Outbox;
use crate::purpose::{Fetch, Purpose};
use crate::replicate::Replicator;
use crate::saving::{Question, Saving};
use crate::slot_tasks::{self, SlotTasks, Wanted};
use crate::streams::Streams;

mod carry_out;
mod completing;
mod entries;
mod forgetting;
mod inspect;
mod jobs;
mod members;
mod restore;
mod restoring;
mod retiring;
mod streams;
#[cfg(test)]
mod tests;

use restoring::Restoring;

/// Ticks come at least every half second; after this long without any input the node stood still.
const STALL: Duration = Duration::from_millis(1500);

/// The state machine. See the crate's documentation.
pub struct Core {
    facts: Facts,
    links: Links,
    mapper: Mapper,
    replicator: Replicator,
    handoff: Handoff,
    slot_tasks: SlotTasks,
    coordination: Coordination,
    streams: Streams,
    answers: Answers,
    completion: Completion,
    queue: Queue,
    forwarding: Forwarding,
    expiry: Expiry,
    saving: Saving,
    /// What is needed until the log was read.
    restoring: Restoring,
    /// What the tasks under way are for.
    tasks: BTreeMap<u64, Purpose>,
    out: Outbox,
    /// Messages to this node itself, or answers in place of a peer.
    local: VecDeque<(NodeId, PeerMessage, Bytes)>,
    effects: Vec<Effect>,
}

impl Core {
    /// A core that holds nothing yet. Give it the files with [`Core::restore_state`], and then the log's
    /// records with [`Core::restore`], before the first input.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            links: Links::new(config.planted == Some(PlantedBug::ReuseNumbers)),
            mapper: Mapper::default(),
            replicator: Replicator::default(),
            handoff: Handoff::default(),
            slot_tasks: SlotTasks::default(),
            coordination: Coordination::default(),
            streams: Streams::default(),
            answers: Answers::default(),
            completion: Completion::default(),
            queue: Queue::default(),
            forwarding: Forwarding::default(),
            expiry: Expiry::default(),
            saving: Saving::default(),
            restoring: Restoring::default(),
            tasks: BTreeMap::new(),
            out: Outbox::new(config.boot),
            local: VecDeque::new(),
            effects: Vec::new(),
            facts: Facts::new(config),
        }
    }

    /// Names the log, which is known only once it was opened. To be called before the first input.
    pub fn set_log(&mut self, log: LogId) {
        self.facts.config.log = log;
    }

    /// Takes one input at a time `now` (since any fixed start, never going back) and a wall clock in
    /// milliseconds since the Unix epoch (which may jump), and appends what is to be done.
    pub fn handle(&mut self, now: Duration, wall_ms: u64, input: Input, out: &mut Vec<Effect>) {
        if now > self.facts.now + STALL {
            // Paused, or starved: the others may have gone on without this node.
            self.answers.not_fresh();
            self.facts.reach.forgive(now);
        }
        self.facts.now = self.facts.now.max(now);
        if self.facts.began.is_none() {
            self.facts.began = Some(now);
            self.restored();
        }
        self.facts.wall_ms = wall_ms;
        self.on_input(input);
        self.carry_out();
        while let Some((from, message, tail)) = self.local.pop_front() {
            self.on_message(from, message, tail);
            self.carry_out();
        }
        self.flush_state();
        self.carry_out();
        out.append(&mut self.effects);
    }

    fn on_input(&mut self, input: Input) {
        match input {
            Input::Tick => self.tick(),
            Input::Members(members) => self.on_members(members),
            Input::LinkUp(hello) => self.on_link_up(&hello),
            Input::LinkDown { peer, refused } => {
                self.facts.peers.set_linked(peer, false);
                self.links.down(peer, refused);
            }
            Input::LinkAck(peer, next) => self.links.acked(peer, next),
            Input::Inbound(conn, hello) => self.on_inbound(conn, hello),
            Input::Message { conn, from, seq, message, tail } => {
                if self.links.expects(conn, from, seq) {
                    self.on_message(from, message, tail);
                }
                self.out.effect(Effect::Ack(conn, self.links.expected(from)));
            }
            // Nothing else follows: the peer dials again, and its numbers go on.
            Input::InboundClosed(conn) => self.links.closed(conn),
            Input::Request(ticket, request) => self.on_request(ticket, request),
            Input::Batch { ticket, job, client, header, payload } => {
                let (of, batch) = ((job, client), (header, payload));
                self.mapper.on_batch(&self.facts, &mut self.out, ticket, of, batch);
            }
            Input::ClientLeft(ticket) => self.forwarding.client_left(ticket),
            Input::Appended(records) => self.on_appended(&records),
            Input::Moved { segment, records } => self.on_moved(segment, &records),
            Input::Damaged(record, head) => self.facts.ledger.damaged(record, &head),
            Input::AppendRefused(ticket) => self.on_append_refused(ticket),
            Input::Certified(node, certificates) => {
                if self.facts.roster.certified(node, certificates) {
                    self.saving.save(StateFile::Members, None);
                }
            }
            Input::Saved(ticket) => self.on_saved(ticket),
            Input::Delivered { ticket, job, result } => self.on_delivered((job, ticket), result),
            Input::TaskDone(id, output) => self.on_task_done(id, output),
            Input::Drain => self.start_draining(),
        }
    }

    /// A client of this node asks.
    fn on_request(&mut self, ticket: u64, request: ClientRequest) {
        let response = match request {
            ClientRequest::Cluster => ClientResponse::Cluster(self.cluster_view()),
            ClientRequest::Ring => ClientResponse::Ring(self.ring_view()),
            ClientRequest::Forget(node) => return self.forget_member(ticket, node),
            ClientRequest::Jobs { after } => {
                return self.forwarding.list(&self.facts, &mut self.out, ticket, after);
            }
            // The shell keeps these.
            ClientRequest::Upload(_) | ClientRequest::Log { .. } | ClientRequest::Chaos(_) => {
                ClientResponse::error(ErrorKind::BadInput, "not a request for the core")
            }
            request => {
                return self.forwarding.request(&self.facts, &mut self.out, ticket, request);
            }
        };
        self.out.reply(ticket, response, Bytes::new());
    }

    /// What waits is tried again, what took too long is given up. The order is of no weight.
    fn tick(&mut self) {
        self.look_at_links();
        self.tick_replicator();
        self.mapper.tick(&self.facts, &mut self.out);
        self.forwarding.tick(&self.facts, &mut self.out);
        self.tick_catch_up();
        self.tick_coordination();
        self.slot_tasks.tick(&self.facts, &mut self.out);
        self.handoff.tick(&self.facts, &mut self.out);
        self.check_drained();
        self.completion.tick(&self.facts, &mut self.out);
        self.coordination.tick_report(&self.facts, &mut self.out);
        self.queue.tick(&self.facts, &mut self.out);
        self.tick_expiry();
    }

    /// A peer, or this node itself, says something.
    fn on_message(&mut self, from: NodeId, message: PeerMessage, tail: Bytes) {
        match message {
            PeerMessage::Store => self.on_store(from, &tail, false),
            PeerMessage::Moved => self.on_store(from, &tail, true),
            PeerMessage::Stored { log, entries } => self.on_stored(from, log, entries),
            PeerMessage::NotStored { key, reason } => {
                let failed = self.replicator.on_not_stored(&mut self.out, from, key, reason);
                self.entry_failed(failed);
            }
            PeerMessage::Offer { job, round, held } => self.on_offer(from, job, round, held),
            PeerMessage::Have { job, round, done, log, held } => {
                let have = Have { job, round, done, log, held };
                let released = self.handoff.on_have(&self.facts, from, have);
                self.release(job, released);
            }
            PeerMessage::Fetch { job, round, wanted } => {
                self.on_fetch(Fetch { from, job, round }, &wanted);
            }
            PeerMessage::Fetched { job, round, idle_ms } => {
                self.on_fetched(from, job, round, idle_ms.map(Duration::from_millis));
            }
            PeerMessage::Expire { job, number, reason } => {
                self.on_expire(from, (job, number), reason);
            }
            PeerMessage::Expiring { job, number, answer } => {
                self.on_expiring(from, (job, number), answer);
            }
            PeerMessage::Withdrawn { job, number } => self.on_withdrawn(from, job, number),
            PeerMessage::Forgotten { job, proof } => self.on_forgotten(from, job, proof),
            PeerMessage::Ended { job } => self.on_ended(from, job, &tail),
            PeerMessage::HaveEnded { jobs } => {
                for job in jobs {
                    self.say_ended(from, job);
                    self.say_retired(from, job);
                }
            }
            PeerMessage::Retire { job, before_ms } => self.on_retire(from, job, before_ms),
            PeerMessage::Retiring { job, before_ms, outputs } => {
                self.on_retiring(from, (job, before_ms), &outputs);
            }
            PeerMessage::Freeze { job, edge, from: first, round } => {
                self.on_freeze(from, job, Question { edge, from: first, round });
            }
            PeerMessage::Frozen { job, edge: _, round, held } => {
                self.on_frozen(from, job, (round, held));
            }
            PeerMessage::Retired { job, floors } => self.on_retired(from, job, floors),
            PeerMessage::Departed { members, barred } => self.on_departed(members, &barred),
            PeerMessage::Work { job, attempt, slots, ends, work } => {
                let over = match work {
                    Work::Events | Work::Complete => self.say_forgotten(from, job),
                    Work::Fold | Work::Lookup { .. } | Work::Windows => self.say_ended(from, job),
                };
                if over {
                    // There is nothing to work on.
                } else if let Some((kind, needs)) =
                    slot_tasks::wanted_of(from, work, (&ends, &tail))
                {
                    self.start_work((from, attempt), Wanted { job, slots, needs, kind });
                }
            }
            PeerMessage::Ask { id, request } => self.on_ask((from, id), request),
            PeerMessage::Answer { id, response } => {
                let answer = (id, response, tail);
                self.forwarding.on_answer(&self.facts, &mut self.out, from, answer);
            }
            PeerMessage::JobIs { job, admission } => {
                self.mapper.on_job_is(&self.facts, &mut self.out, job, admission, &tail);
            }
            PeerMessage::Admit { jobs } => {
                self.queue.on_admit(&self.facts, &mut self.out, from, &jobs);
            }
            // Its acknowledgement is the answer.
            PeerMessage::Ping => {}
            PeerMessage::Output { job, attempt, slot, part, parts } => {
                let (of, part) = ((job, attempt, slot), (part, parts));
                let (facts, out) = (&self.facts, &mut self.out);
                let next = self.coordination.on_output(facts, out, of, part, &tail);
                self.lead_coordination(next);
                let (facts, out) = (&self.facts, &mut self.out);
                let next = self.streams.on_output(facts, out, of, part, &tail);
                self.lead_streams(next);
            }
            PeerMessage::Incomplete { job, attempt, missing } => {
                let (facts, out) = (&self.facts, &mut self.out);
                let next = self.coordination.on_incomplete(facts, out, job, attempt, &missing);
                self.lead_coordination(next);
                let (facts, out) = (&self.facts, &mut self.out);
                self.streams.on_incomplete(facts, out, (job, attempt), &missing);
            }
            PeerMessage::WorkFailed { job, attempt, message } => {
                let (facts, out) = (&self.facts, &mut self.out);
                self.streams.on_work_failed(facts, out, (job, attempt), &message);
                let next = self.coordination.on_work_failed(&self.facts, job, attempt, message);
                self.lead_coordination(next);
            }
            PeerMessage::JobWanted { job, client } => {
                let (facts, out) = (&self.facts, &mut self.out);
                let next = self.coordination.on_job_wanted(facts, out, from, job, client);
                self.lead_coordination(next);
            }
            PeerMessage::Admitted { jobs } => {
                for (job, place) in jobs {
                    self.on_admitted(job, place);
                }
            }
        }
    }
}
