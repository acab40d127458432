//! The pure core of a Cortado node: what it decides, without sockets, files, threads or clocks.
//!
//! A [`Core`] is a state machine: [`Core::handle`] takes the time and one [`Input`] and appends
//! [`Effect`]s. The shell moves bytes, reads clocks and files, and runs [`task::Task`]s; a simulator
//! does the same with a virtual clock. Same inputs, same effects.
//!
//! | module | decides |
//! |---|---|
//! | [`link`] | which message is new, which must be sent again |
//! | [`holdings`] | what this node's log has |
//! | `store` | when an entry is durable here, and who is told |
//! | `replicate` | when an entry is durable on W nodes |
//! | `mapper` | what becomes of a client's batch |
//! | `forwarding` | where a client's request goes |
//! | `views` | what a node tells its clients by itself |
//! | `request` | what a job's home answers |
//! | `search` | whether a home knows enough to answer |
//! | `home` | what a job needs next |
//! | `slot_tasks` | when slots are complete, and closing their gaps |
//! | `handoff` | what moves where after a change of view |
//! | `admission` | which jobs may run |
//! | `memory` | how much of it each thing may take |
//! | `reach` | which members are passed over, because no data link to them works |
//! | `roster` | who belongs to the cluster, whether it answers or not |
//! | `expiry` | when a job is gone for good |
//! | `state` | what is kept beside the log, and what waits for it |

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use cortado_engine::{MapError, Mapped};
use cortado_protocol::client::{BatchReply, ClientError, ClientRequest, ClientResponse, ErrorKind};
use cortado_protocol::entry::Entry;
use cortado_protocol::job::BatchHeader;
use cortado_protocol::peer::{EdgeCoverage, Hello, PeerMessage};
use cortado_protocol::{EntryKey, JobId, LogId, NodeId, SlotSet};

mod admission;
mod expiry;
mod facts;
mod forwarding;
mod handoff;
pub mod holdings;
mod home;
mod job;
pub mod link;
mod mapper;
mod memory;
mod outbox;
mod placement;
mod reach;
mod replicate;
mod request;
mod roster;
mod search;
mod slot_tasks;
mod state;
mod store;
pub mod task;
#[cfg(test)]
mod tests;
mod transfer;
mod views;

pub use job::BoundPlan;
pub use memory::Budget;
pub use placement::Members;
pub use state::StateFile;

use handoff::Have;
use outbox::{Out, Outbox};
use replicate::{Asker, Failed};
use slot_tasks::{Wanted, WorkKey};
use transfer::Fetch;

/// Where a record is in this node's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordRef {
    /// The segment's number.
    pub segment: u32,
    /// Where the record starts in it, in bytes.
    pub offset: u32,
    /// Its length, in bytes.
    pub len: u32,
}

/// What does not change while a node runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// The cluster's name.
    pub cluster: String,
    /// Number of this process start: larger than any before it on this disk.
    pub boot: u64,
    /// The log this node writes to.
    pub log: LogId,
    /// Copies aimed at (R).
    pub replicas: u8,
    /// Copies needed before an acknowledgement (W).
    pub min_copies: u8,
    /// Slots of new jobs.
    pub slots: u8,
    /// Members that must have been seen before the first job is accepted.
    pub expected_nodes: u16,
    /// Jobs that run at once; others wait.
    pub max_running_jobs: u32,
    /// Time without a batch after which an upload gives its place in the queue up.
    pub upload_idle: Duration,
    /// Memory that jobs may take at this node.
    pub memory: Budget,
    /// How long a job is kept after it ended, or after the last sign of it.
    pub job_ttl: Duration,
    /// A fault for the simulator to find. The daemon has no way to set it.
    pub planted: Option<PlantedBug>,
}

/// Faults that a simulator worth its name finds: each breaks one promise on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedBug {
    /// Say that an entry is stored before it is synced.
    AcknowledgeBeforeFsync,
    /// Index an entry that is held already once more.
    SkipDuplicateCheck,
    /// Offer nothing to new owners.
    ForgetHandoff,
    /// Fold a slot that misses batches.
    FinishWithGap,
    /// Say that a job is cancelled, and forget it.
    DropCancel,
    /// Count what a node acknowledged before it lost its disk.
    CountLostCopies,
    /// Number messages from zero after every start, and say that it is the same start as before.
    ReuseNumbers,
    /// Add up in floating point.
    FloatSums,
    /// Drop a job when its home alone thinks that its time is over.
    ExpireAlone,
}

impl PlantedBug {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::AcknowledgeBeforeFsync,
        Self::SkipDuplicateCheck,
        Self::ForgetHandoff,
        Self::FinishWithGap,
        Self::DropCancel,
        Self::CountLostCopies,
        Self::ReuseNumbers,
        Self::FloatSums,
        Self::ExpireAlone,
    ];
}

/// What happens to a core.
#[derive(Debug)]
pub enum Input {
    /// Time passes; see [`Core::tick_interval`].
    Tick,
    /// The membership changed.
    Members(Members),
    /// The link this node dialled is ready, with the peer's hello.
    LinkUp(Hello),
    /// The link this node dialled broke.
    LinkDown {
        /// To whom.
        peer: NodeId,
        /// The peer closed it, and said that what it was sent is misbehaviour.
        refused: bool,
    },
    /// The peer has handled everything below this number.
    LinkAck(NodeId, u64),
    /// A peer dialled; the answer is [`Effect::Welcome`], once the peer is a member that can be reached.
    Inbound(u64, Hello),
    /// A message arrived on a connection that was welcomed.
    Message {
        /// The connection.
        conn: u64,
        /// The node of its certificate.
        from: NodeId,
        /// The message's number.
        seq: u64,
        /// The message.
        message: PeerMessage,
        /// Its tail.
        tail: Bytes,
    },
    /// A connection that a peer had dialled is gone.
    InboundClosed(u64),
    /// A client asks; the answer is [`Effect::Reply`] with the ticket.
    Request(u64, ClientRequest),
    /// A client sends a batch; the answer is [`Effect::BatchReply`] with the ticket.
    Batch {
        /// For the answer.
        ticket: u64,
        /// The job.
        job: JobId,
        /// Hash of the client's name ([`cortado_protocol::client_key`]).
        client: u64,
        /// What the payload is.
        header: BatchHeader,
        /// The records.
        payload: Bytes,
    },
    /// The client of this ticket is gone; no answer is wanted.
    Gone(u64),
    /// These appends are fsynced.
    Appended(Vec<(u64, RecordRef)>),
    /// This append was refused: the disk is at its reserve.
    AppendRefused(u64),
    /// A member has shown these certificates (hashes of them).
    Certified(NodeId, Vec<u64>),
    /// A file is on disk as it was with this ticket, or newer.
    Saved(u64),
    /// A task has ended.
    TaskDone(u64, task::TaskOutput),
    /// The operator wants this node to hand over and leave.
    Drain,
}

/// What a core wants done. Effects are to be carried out in order; none of them answers at once.
#[derive(Debug)]
pub enum Effect {
    /// Write this frame on the link to the peer.
    Send(NodeId, Bytes),
    /// Answer the inbound hello of this connection: this number is expected next.
    Welcome(u64, u64),
    /// Tell the peer on this connection that everything below the number is handled.
    Ack(u64, u64),
    /// Append to the log and answer [`Input::Appended`] after the fsync.
    Append {
        /// For the answer.
        ticket: u64,
        /// Whose record it is: it can go when the job is gone.
        job: JobId,
        /// Whether it may use the disk's reserve: everything but batches.
        reserved: bool,
        /// The record.
        bytes: Bytes,
    },
    /// The log may drop the job's records.
    Forget(JobId),
    /// Write this file and sync it, then answer [`Input::Saved`]. A newer one for the same file takes
    /// the place of one that waits.
    Save {
        /// For the answer.
        ticket: u64,
        /// Which file.
        file: StateFile,
        /// All of it.
        bytes: Bytes,
    },
    /// Run this and answer [`Input::TaskDone`].
    Run(u64, Box<task::Task>),
    /// Answer a client; the tail belongs to it.
    Reply(u64, Box<ClientResponse>, Bytes),
    /// Answer a batch.
    BatchReply(u64, BatchReply),
    /// Everything this node held is elsewhere: it may leave.
    Drained,
    /// This node takes no new roles from now on: tell the members so.
    Draining,
    /// These are no members any more, each up to a generation, and these certificates open nothing.
    Departed {
        /// Members.
        members: Vec<(NodeId, u64)>,
        /// Hashes of certificates.
        barred: Vec<u64>,
    },
    /// Tell the members which of them this node does not reach with data, and whether that makes it
    /// ill itself: it does not reach most of them.
    Unreached {
        /// Whom.
        nodes: Vec<NodeId>,
        /// Whether this node is the one that is cut off.
        cut_off: bool,
    },
}

/// The state machine. See the crate's documentation.
pub struct Core {
    facts: facts::Facts,
    links: link::Links,
    store: store::Store,
    replicator: replicate::Replicator,
    mapper: mapper::Mapper,
    forwarding: forwarding::Forwarding,
    searches: search::Searches,
    homes: BTreeMap<JobId, home::Home>,
    slot_tasks: slot_tasks::SlotTasks,
    handoff: handoff::Handoff,
    queue: admission::Queue,
    reports: home::Reports,
    expiry: expiry::Expiry,
    saving: state::Saving,
    /// What is needed until the log was read.
    restoring: state::Restoring,
    tasks: BTreeMap<u64, task::Purpose>,
    out: Outbox,
    /// Messages to this node itself, or answers in place of a peer.
    local: VecDeque<(NodeId, PeerMessage, Bytes)>,
    effects: Vec<Effect>,
}

/// Ticks come at least every half second; after this long without any input the node stood still.
const STALL: Duration = Duration::from_millis(1500);

impl Core {
    /// A core that holds nothing yet. Give it the files with [`Core::restore_state`], and then the log's
    /// records with [`Core::restore`], before the first input.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            links: link::Links::new(config.planted == Some(PlantedBug::ReuseNumbers)),
            store: store::Store::default(),
            replicator: replicate::Replicator::default(),
            mapper: mapper::Mapper::default(),
            forwarding: forwarding::Forwarding::default(),
            searches: search::Searches::default(),
            homes: BTreeMap::new(),
            slot_tasks: slot_tasks::SlotTasks::default(),
            handoff: handoff::Handoff::default(),
            queue: admission::Queue::default(),
            reports: home::Reports::default(),
            expiry: expiry::Expiry::default(),
            saving: state::Saving::default(),
            restoring: state::Restoring::default(),
            tasks: BTreeMap::new(),
            out: Outbox::new(config.boot),
            local: VecDeque::new(),
            effects: Vec::new(),
            facts: facts::Facts::new(config),
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
            self.homes_not_fresh();
            self.facts.reach.forgive(now);
        }
        self.facts.now = self.facts.now.max(now);
        if self.facts.began.is_none() {
            self.facts.began = Some(now);
            self.restoring = state::Restoring::default();
        }
        self.facts.wall_ms = wall_ms;
        match input {
            Input::Tick => self.tick(),
            Input::Members(members) => self.on_members(members),
            Input::LinkUp(hello) => self.on_link_up(&hello),
            Input::LinkDown { peer, refused } => self.links.down(peer, refused),
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
            Input::Gone(ticket) => self.forwarding.gone(ticket),
            Input::Appended(records) => self.on_appended(&records),
            Input::AppendRefused(ticket) => self.on_append_refused(ticket),
            Input::Certified(node, certificates) => {
                if self.facts.roster.certified(node, certificates) {
                    self.save(StateFile::Members, None);
                }
            }
            Input::Saved(ticket) => self.on_saved(ticket),
            Input::TaskDone(id, output) => self.on_task_done(id, output),
            Input::Drain => self.start_draining(),
        }
        self.carry_out();
        while let Some((from, message, tail)) = self.local.pop_front() {
            self.on_message(from, message, tail);
            self.carry_out();
        }
        self.flush_state();
        self.carry_out();
        out.append(&mut self.effects);
    }

    /// How often [`Input::Tick`] is wanted. Ticks drive retries and time-outs only; everything else
    /// follows from events.
    #[must_use]
    pub fn tick_interval(&self) -> Duration {
        let asked = self.forwarding.is_busy() || self.searches.is_busy();
        let busy = self.replicator.is_busy() || asked || self.slot_tasks.is_busy();
        if busy || self.handoff.is_busy() || !self.homes.is_empty() || self.mapper.is_waiting() {
            Duration::from_millis(50)
        } else {
            Duration::from_millis(500)
        }
    }

    /// The lowest link number not yet acknowledged by the peer, for the hello.
    #[must_use]
    pub fn resume(&self, peer: NodeId) -> u64 {
        self.links.resume(peer)
    }

    /// The hello this node says to a peer it dials.
    #[must_use]
    pub fn hello(&self, seq: u64) -> Hello {
        Hello {
            version: cortado_protocol::PROTOCOL_VERSION,
            cluster: self.facts.config.cluster.clone(),
            node: self.facts.config.node,
            boot: match self.facts.config.planted {
                Some(PlantedBug::ReuseNumbers) => 0,
                _ => self.facts.config.boot,
            },
            log: self.facts.config.log,
            seq,
        }
    }

    fn tick(&mut self) {
        self.look_at_links();
        self.tick_replicator();
        self.mapper.tick(&self.facts, &mut self.out);
        self.forwarding.tick(&self.facts, &mut self.out);
        self.tick_searches();
        self.tick_homes();
        self.slot_tasks.tick(&self.facts, &mut self.out);
        self.handoff.tick(&self.facts, &self.links, &mut self.out);
        self.check_drained();
        self.tick_reports();
        self.queue.tick(&self.facts, &mut self.out);
        self.tick_expiry();
    }

    fn on_members(&mut self, told: Members) {
        self.facts.told = told;
        if self.facts.roster.see(&self.facts.told) {
            self.save(StateFile::Members, None);
        }
        self.take_members();
        for (conn, hello) in self.links.take_early(&self.facts.told.reachable) {
            self.welcome(conn, &hello);
        }
    }

    /// Tries idle links, and passes members over whose links do not work.
    fn look_at_links(&mut self) {
        let looked = self.facts.reach.look(
            self.facts.now,
            self.facts.config.node,
            &self.facts.told,
            &self.links,
        );
        for peer in looked.ping {
            let ping = self.links.push(peer, PeerMessage::Ping, &[], false);
            if let link::Pushed::Write(frame) = ping {
                self.out.effect(Effect::Send(peer, frame));
            }
        }
        // A member that is down is judged no more, which may change the judgement, too.
        if let Some((nodes, cut_off)) = looked.news {
            tracing::info!(?nodes, cut_off, "other data links work or fail");
            self.out.effect(Effect::Unreached { nodes, cut_off });
            self.take_members();
        }
    }

    /// The members changed, or what this node thinks of them.
    fn take_members(&mut self) {
        let min_copies = usize::from(self.facts.config.min_copies);
        let members =
            self.facts.reach.effective(self.facts.config.node, &self.facts.told, min_copies);
        let before = self.facts.set_members(members);
        for peer in &before.reachable {
            if !self.facts.members.is_reachable(*peer) {
                self.links.give_up(*peer);
            }
        }
        // A new generation of its own: the others had given this node up for a while.
        let renewed = before.generation(self.facts.config.node)
            != self.facts.members.generation(self.facts.config.node);
        let same = before.live == self.facts.members.live
            && before.reachable == self.facts.members.reachable;
        if same && !renewed {
            return;
        }
        tracing::info!(live = ?self.facts.members.live, "the ring changed");
        self.replicator.after_change(&self.facts, &mut self.out);
        self.forwarding.after_change(&self.facts, &mut self.out);
        self.searches.after_change(&self.facts);
        self.homes_after_change();
        self.slot_tasks.after_change(&self.facts, &mut self.out);
        self.handoff.after_change(&self.facts);
        let new_keeper = self.queue.after_change(&self.facts);
        self.reports_after_change(new_keeper);
    }

    /// A peer may hear of this node before this node hears of it. What it said until then could not
    /// be answered, so it is not let speak yet.
    fn on_inbound(&mut self, conn: u64, hello: Hello) {
        self.on_identity(&hello);
        if self.facts.told.is_reachable(hello.node) {
            self.welcome(conn, &hello);
        } else {
            self.links.keep_early(conn, hello);
        }
    }

    fn welcome(&mut self, conn: u64, hello: &Hello) {
        let next = self.links.accept(conn, hello);
        self.out.effect(Effect::Welcome(conn, next));
    }

    fn on_link_up(&mut self, hello: &Hello) {
        let (frames, refused) = self.links.up(hello.node, hello.seq);
        for frame in frames {
            self.out.effect(Effect::Send(hello.node, frame));
        }
        if let Some(message) = refused {
            let why = format!("was taken for misbehaviour by {} twice", hello.node);
            self.undeliverable(hello.node, message, &why);
        }
        self.on_identity(hello);
        self.handoff.offer_to(&self.facts, hello.node);
        let (members, barred) = self.departed();
        if !members.is_empty() {
            self.out.send(hello.node, PeerMessage::Departed { members, barred });
        }
    }

    /// Members handed everything over and left.
    fn on_departed(&mut self, members: Vec<(NodeId, u64)>, barred: &[u64]) {
        let me = self.facts.config.node;
        let mut news = false;
        for (node, generation) in members.into_iter().filter(|(node, _)| *node != me) {
            news |= self.facts.roster.depart(node, generation);
        }
        news |= self.facts.roster.bar(barred);
        if news {
            self.save(StateFile::Members, None);
            self.tell_departed();
        }
    }

    /// Tells the shell who is gone for good.
    fn tell_departed(&mut self) {
        let (members, barred) = self.departed();
        self.out.effect(Effect::Departed { members, barred });
    }

    /// Members that are gone for good, and the certificates that must not come back, for the shell to
    /// begin with.
    #[must_use]
    pub fn departed(&self) -> (Vec<(NodeId, u64)>, Vec<u64>) {
        (self.facts.roster.departed(), self.facts.roster.barred())
    }

    fn on_identity(&mut self, hello: &Hello) {
        use link::IdentityChange::{New, OtherLog, Restarted, Same};
        match self.links.identify(hello) {
            Same | New => {}
            Restarted => {
                self.slots_after_restart(hello.node);
                self.replicator.resend_to(&self.facts, &mut self.out, hello.node);
                self.handoff.offer_again(&self.facts, hello.node);
            }
            OtherLog => {
                tracing::warn!(peer = %hello.node, "returned with another log: its copies count no more");
                self.slots_after_restart(hello.node);
                self.replicator.void(&self.facts, hello.node);
                self.handoff.void(hello.node);
                self.replicator.resend_to(&self.facts, &mut self.out, hello.node);
                self.handoff.offer_again(&self.facts, hello.node);
            }
        }
    }

    fn on_message(&mut self, from: NodeId, message: PeerMessage, tail: Bytes) {
        match message {
            PeerMessage::Store => self.on_store(from, &tail, false),
            PeerMessage::Moved => self.on_store(from, &tail, true),
            PeerMessage::Stored { log, entries } => self.on_stored(from, log, entries),
            PeerMessage::NotStored { key, reason } => {
                let failed = self.replicator.on_not_stored(&mut self.out, from, key, reason);
                self.entry_failed(failed);
            }
            PeerMessage::Offer { job, round, held } => {
                if !self.say_gone(from, job) {
                    self.handoff.on_offer(&self.facts, &mut self.out, from, job, round, held);
                }
            }
            PeerMessage::Have { job, round, done, log, held } => {
                let have = Have { job, round, done, log, held };
                let released = self.handoff.on_have(&self.facts, &self.links, from, have);
                self.release(job, released);
            }
            PeerMessage::Fetch { job, round, wanted } => {
                self.on_fetch(Fetch { from, job, round }, &wanted);
            }
            PeerMessage::Fetched { job, round, idle_ms } => {
                if let Some(idle_ms) = idle_ms {
                    self.job_was_idle(job, Duration::from_millis(idle_ms));
                }
                let of_work = self.slot_tasks.fetched(&self.facts, &mut self.out, from, round);
                if !of_work && !self.search_fetched(from, job, round) {
                    self.handoff.on_fetched(&self.facts, &mut self.out, job, round);
                }
            }
            PeerMessage::Expire { job, number } => self.on_expire(from, job, number),
            PeerMessage::Expiring { job, number, answer } => {
                self.on_expiring(from, job, number, answer);
            }
            PeerMessage::Withdrawn { job, number } => self.on_withdrawn(from, job, number),
            PeerMessage::Gone { job, proof } => self.on_gone(from, job, proof),
            PeerMessage::Departed { members, barred } => self.on_departed(members, &barred),
            PeerMessage::Work { job, attempt, slots, ends, work } => {
                if let Some(kind) = slot_tasks::kind_of(from, work, &tail) {
                    self.start_work((from, attempt), Wanted { job, slots, ends, kind });
                }
            }
            PeerMessage::Output { job, attempt, slot, part, parts } => {
                self.on_output(job, attempt, slot, (part, parts), tail);
            }
            PeerMessage::Incomplete { job, attempt, missing } => {
                self.on_incomplete(job, attempt, &missing);
            }
            PeerMessage::WorkFailed { job, attempt, message } => {
                self.on_work_failed(job, attempt, message);
            }
            PeerMessage::Ask { id, request } => self.on_ask(from, id, request),
            PeerMessage::Answer { id, response } => {
                let answer = (id, response, tail);
                self.forwarding.on_answer(&self.facts, &mut self.out, from, answer);
            }
            PeerMessage::JobWanted { job, client } => self.on_job_wanted(from, job, client),
            PeerMessage::JobIs { job, admission } => {
                self.mapper.on_job_is(&self.facts, &mut self.out, job, admission, &tail);
            }
            PeerMessage::Admit { jobs } => {
                self.queue.on_admit(&self.facts, &mut self.out, from, &jobs);
            }
            PeerMessage::Admitted { jobs } => {
                for (job, place) in jobs {
                    self.home_admitted(job, place);
                }
            }
            // Its acknowledgement is the answer.
            PeerMessage::Ping => {}
        }
    }

    fn start_work(&mut self, key: WorkKey, wanted: Wanted) {
        let losses = self.links.losses(key.0);
        self.slot_tasks.start(&self.facts, &mut self.out, key, wanted, losses);
    }

    fn on_work_task(&mut self, key: WorkKey, output: task::TaskOutput) {
        let losses = self.links.losses(key.0);
        let unreadable = self.slot_tasks.on_task(&self.facts, &mut self.out, key, losses, output);
        if let Some(unreadable) = unreadable {
            self.drop_unreadable(&unreadable);
            self.slot_tasks.refill(&self.facts, &mut self.out, key);
        }
    }

    /// A peer wants entries.
    fn on_fetch(&mut self, fetch: Fetch, wanted: &[EdgeCoverage]) {
        if self.say_gone(fetch.from, fetch.job) {
            return fetch.end(&mut self.out, None);
        }
        let idle_ms = self.idle_ms(fetch.job);
        fetch.read(&self.facts, &mut self.out, wanted, idle_ms);
    }

    fn idle_ms(&self, job: JobId) -> Option<u64> {
        self.idle(job).map(|idle| idle.as_millis() as u64)
    }

    /// A batch was mapped: its entry is stored.
    fn on_mapped(&mut self, mapping: mapper::Mapping, mapped: Result<Mapped, MapError>) {
        if let Some((entry, ticket, rejected)) = mapper::mapped(&mut self.out, mapping, mapped) {
            self.replicate(entry, Asker::Batch { tickets: vec![ticket], rejected });
        }
    }

    fn replicate(&mut self, entry: Entry, asker: Asker) {
        let failed = self.replicator.replicate(&self.facts, &mut self.out, entry, asker);
        self.entry_failed(failed);
    }

    /// A node has entries in this log. What W nodes have holds before anybody is told.
    fn on_stored(&mut self, from: NodeId, log: LogId, entries: Vec<(EntryKey, SlotSet)>) {
        if self.log_of(from) != Some(log) {
            return;
        }
        for (key, slots) in entries {
            let (node, of) = ((from, log), (key, slots));
            let done = self.replicator.stored(&self.facts, &mut self.out, node, of);
            let Some((entry, own)) = done else { continue };
            self.job_log_durable(&entry);
            if own {
                self.home_entry_durable(key);
            }
        }
    }

    /// An entry of a home could not be stored.
    fn entry_failed(&mut self, failed: Option<Failed>) {
        if let Some((key, error)) = failed {
            self.home_entry_failed(key, &error);
        }
    }

    fn tick_replicator(&mut self) {
        for key in self.replicator.tick(&self.facts, &mut self.out) {
            let failed = self.replicator.give_up(&self.facts, &mut self.out, key);
            self.entry_failed(failed);
        }
    }

    /// Owners confirmed what they hold: copies of others go, or this node does.
    fn release(&mut self, job: JobId, released: Option<SlotSet>) {
        let Some(slots) = released else { return };
        if !slots.is_empty() {
            self.facts.holdings.job_mut(job).drop_slots(slots);
        }
        self.check_drained();
    }

    fn start_draining(&mut self) {
        self.handoff.drain(&mut self.out);
        self.check_drained();
    }

    fn check_drained(&mut self) {
        let replicating = self.replicator.is_busy();
        if self.handoff.is_drained(&self.facts, replicating, &mut self.out) {
            self.carry_out();
            self.handoff.leave(&self.facts, &self.links, &mut self.out);
        }
    }

    /// A task's output goes to whoever wanted it.
    fn on_task_done(&mut self, id: u64, output: task::TaskOutput) {
        let Some(purpose) = self.tasks.remove(&id) else { return };
        match purpose {
            task::Purpose::Map(mapping) => match output {
                task::TaskOutput::Mapped(mapped) => self.on_mapped(mapping, mapped),
                other => tracing::error!(?other, "mapping gave something else"),
            },
            task::Purpose::Work(key) => self.on_work_task(key, output),
            task::Purpose::Home(job) => self.on_home_task(job, output),
            task::Purpose::Fetch(fetch) => {
                let idle_ms = self.idle_ms(fetch.job);
                let unreadable = fetch.send(&mut self.out, output, idle_ms);
                self.drop_unreadable(&unreadable);
            }
            task::Purpose::Chunk(origin) => self.on_chunk_task(origin, output),
            task::Purpose::Rejects(origin) => self.on_rejects_task(origin, output),
        }
    }

    /// Carries out what the components want done, in order.
    fn carry_out(&mut self) {
        while let Some(out) = self.out.next() {
            match out {
                Out::Send(to, message, tail) => self.post(to, message, tail),
                Out::Run(id, task, purpose) => {
                    self.tasks.insert(id, purpose);
                    self.effects.push(Effect::Run(id, task));
                }
                Out::Effect(effect) => self.effects.push(effect),
            }
        }
    }

    fn post(&mut self, to: NodeId, message: PeerMessage, tail: Bytes) {
        if to == self.facts.config.node {
            self.local.push_back((to, message, tail));
            return;
        }
        if !self.facts.members.is_reachable(to) {
            return;
        }
        let bulk = matches!(message, PeerMessage::Store | PeerMessage::Moved);
        match self.links.push(to, message, &tail, bulk) {
            link::Pushed::Write(frame) => self.effects.push(Effect::Send(to, frame)),
            link::Pushed::Waits => {}
            link::Pushed::Dropped => self.handoff.offer_to(&self.facts, to),
            link::Pushed::TooLarge(message) => {
                let why = "is too large for one message between nodes (2 MiB, or 16 MiB with data)";
                self.undeliverable(to, *message, why);
            }
        }
    }

    /// A peer does not take a message: whoever waits for an answer gets an error.
    fn undeliverable(&mut self, to: NodeId, message: PeerMessage, why: &str) {
        let failed = |what: &str| {
            let error = ClientError::new(ErrorKind::BadInput, format!("{what} {why}"));
            ClientResponse::Error(error)
        };
        match message {
            PeerMessage::Ask { id, .. } => {
                let response = failed("the request (the plan, or the list of files and headers)");
                self.local.push_back((to, PeerMessage::Answer { id, response }, Bytes::new()));
            }
            PeerMessage::Answer { id, .. } => {
                let response = failed("the answer");
                self.out.send(to, PeerMessage::Answer { id, response });
            }
            PeerMessage::Work { job, attempt, .. } => {
                let message = format!("the work for one node {why}");
                self.local.push_back((
                    to,
                    PeerMessage::WorkFailed { job, attempt, message },
                    Bytes::new(),
                ));
            }
            message => {
                // Entries and outputs are limited before; coverages travel in pages.
                let kind = format!("{message:?}");
                let kind = kind.split([' ', '{']).next().unwrap_or_default();
                tracing::error!(peer = %to, kind, "a message {why}; it is not sent");
            }
        }
    }

    /// What this node holds durably of a job, for checks from outside.
    #[must_use]
    pub fn held(&self, job: JobId) -> Vec<cortado_protocol::peer::EdgeCoverage> {
        let held = self.facts.holdings.job(job);
        held.map(|held| held.coverage(SlotSet::ALL, true)).unwrap_or_default()
    }

    /// Whether the job is gone for good, for checks from outside.
    #[must_use]
    pub fn is_gone(&self, job: JobId) -> bool {
        self.facts.holdings.is_gone(job)
    }

    /// The log this node knows a member to write to, for checks from outside.
    #[must_use]
    pub fn log_of(&self, node: NodeId) -> Option<LogId> {
        if node == self.facts.config.node {
            return Some(self.facts.config.log);
        }
        self.links.identity(node).map(|identity| identity.log)
    }
}
