//! The home of a job: the first live owner of its meta slot drives it from phase to phase.
//!
//! A home keeps nothing that is not in the job's ledgers or computed again from them. When it dies,
//! the next owner starts over from the first phase and comes to the same bytes; when views differ
//! and two nodes both drive a job, they write the same entries.
//!
//! ```text
//! collect ──(all tables declared, meta slot complete)──▶ slots (fold) ──▶ compute
//!    ▲                                                                      │ ▲
//!    │ retry after a failure                                        rows    ▼ │
//!    └───────────────────────────────────────────────────────────  slots (lookup)
//!                                                                           │
//!                                    ended ◀── manifest ◀── write chunks ◀──┘
//! ```

mod queue;
mod slots;
mod status;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use cortado_engine::Durability;
use cortado_protocol::client::{ClientError, ClientResponse, ErrorKind};
use cortado_protocol::entry::Entry;
use cortado_protocol::job::{JobEntry, Manifest};
use cortado_protocol::peer::{Admission, EdgeCoverage, PeerMessage};
use cortado_protocol::{Edge, EntryKey, JobId, META_SLOT, NodeId, Slot, SlotSet};

use crate::Core;
use crate::forwarding::Origin;
use crate::job::JobLog;
use crate::replicate::Asker;
use crate::slot_tasks::{Kind, Wanted};
use crate::task::{Finishing, Purpose, Task, TaskOutput};
pub(crate) use queue::Reports;
use slots::SlotRound;

/// Pause before something that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(300);
/// How long the meta slot may stand still before its gaps are closed from elsewhere.
const QUIET_BEFORE_GATHER: Duration = Duration::from_secs(1);
/// Chunks of a result on their way to the replicas at once.
const CHUNKS_IN_FLIGHT: usize = 16;

/// A result that is not that of the batches so often fails its job.
const MISMATCHES: u32 = 3;

/// How often a place is asked for while there is no answer.
const ASK_EVERY: Duration = Duration::from_millis(300);

/// Number of the manifest on the job log's edge ([`JobEntry::number`]).
const MANIFEST_NUMBER: u64 = 2;

/// Where the home is with a job.
enum Phase {
    /// Batches and ends arrive; `gather` is the work that closes gaps of the meta slot.
    Collect { gather: Option<u64> },
    /// Slots fold, or look rows up.
    Slots { rounds: Vec<SlotRound>, then: Then },
    /// A task runs here.
    Compute,
    /// The result's chunks go to the replicas.
    Write { manifest: Manifest, waiting: VecDeque<(u64, Bytes)>, in_flight: BTreeSet<u64> },
    /// The manifest goes to the replicas.
    Close,
    /// Nothing is left to do.
    Ended,
}

/// What follows when all slots have answered.
enum Then {
    Finish,
    Join(Box<Finishing>),
}

/// A job this node drives.
pub(crate) struct Home {
    /// Place in the queue: 0 runs.
    place: Option<u32>,
    /// Hash of the name of the client that sent batches last; 0 while none is known.
    pub(crate) client: u64,
    /// When a mapper last said that the client sends batches.
    client_at: Duration,
    /// Mappers that wait to hear that the job runs.
    wanted_by: BTreeSet<NodeId>,
    phase: Phase,
    /// What the client is asked to send again.
    missing: Vec<EdgeCoverage>,
    /// Clients that wait for news, until when.
    waiting: Vec<(Origin, Duration)>,
    /// Clients that wait for an entry of the job log to be durable.
    entries: BTreeMap<u64, Vec<Origin>>,
    retry_at: Duration,
    /// How often the slots' outputs were not those of the batches.
    mismatches: u32,
    /// When a place in the queue was asked for.
    asked_at: Duration,
    progress_at: Duration,
    /// Every reachable member was asked for the job's log since this node became the home.
    pub(crate) fresh: bool,
}

impl Home {
    fn new(now: Duration) -> Self {
        Self {
            place: None,
            client: 0,
            client_at: now,
            wanted_by: BTreeSet::new(),
            phase: Phase::Collect { gather: None },
            missing: Vec::new(),
            waiting: Vec::new(),
            entries: BTreeMap::new(),
            retry_at: now,
            mismatches: 0,
            asked_at: now.saturating_sub(ASK_EVERY),
            progress_at: now,
            fresh: false,
        }
    }

    /// The client is told when this entry of the job log is durable.
    pub(crate) fn wait_for_entry(&mut self, number: u64, origin: Origin) {
        self.entries.entry(number).or_default().push(origin);
    }

    /// Whether nothing is left to do or to say; `known` jobs have a specification here.
    fn is_over(&self, known: bool) -> bool {
        let ended = matches!(self.phase, Phase::Ended) || !known;
        ended && self.waiting.is_empty() && self.entries.is_empty()
    }

    /// Whether its slots fold, or its result is being made or written.
    pub(crate) fn works(&self) -> bool {
        !matches!(self.phase, Phase::Collect { .. } | Phase::Ended)
    }

    pub(crate) fn runs(&self) -> bool {
        self.place == Some(0)
    }

    /// Whether the job can't go on before its client sends something, and that has sent nothing for
    /// `limit`.
    pub(crate) fn is_idle(&self, now: Duration, limit: Duration, log: &JobLog) -> bool {
        let open = log.all_ends().is_none() || !self.missing.is_empty();
        let waits = open && matches!(self.phase, Phase::Collect { .. });
        waits && now >= self.heard_at() + limit
    }

    /// When something last arrived of the job.
    fn heard_at(&self) -> Duration {
        self.client_at.max(self.progress_at)
    }
}

impl Core {
    /// The state of a job this node is the home of.
    pub(crate) fn home_state(&mut self, job: JobId) -> &mut Home {
        let now = self.facts.now;
        self.homes.entry(job).or_insert_with(|| Home::new(now))
    }

    /// Moves a job on as far as it goes.
    pub(crate) fn drive(&mut self, job: JobId) {
        if !self.facts.is_home(job) {
            self.resign(job);
            return;
        }
        let Some(log) = self.facts.jobs.get(&job) else { return };
        let Some(plan) = log.plan.clone() else { return };
        if log.ended().is_some() {
            // A manifest is not news before W nodes have it.
            let closing = matches!(home_phase(self, job), Some(Phase::Close));
            if !closing {
                self.ended(job);
            }
            return;
        }
        let ends = log.all_ends();
        let (now, limit) = (self.facts.now, self.facts.config.upload_idle);
        let home = self.homes.entry(job).or_insert_with(|| Home::new(now));
        let idle = home.is_idle(now, limit, log);
        if home.runs() && idle && ends.is_none() {
            tracing::info!(%job, "its client is silent: the upload gives its place up");
            home.place = None;
            return self.report_jobs();
        }
        if !home.runs() {
            if home.place.is_none() && !idle && now >= home.asked_at + ASK_EVERY {
                home.asked_at = now;
                self.report_jobs();
            }
            return;
        }
        match &mut home.phase {
            Phase::Collect { gather } => {
                let Some(ends) = ends else { return };
                if gather.is_some() || now < home.retry_at {
                    return;
                }
                let quiet = now >= home.progress_at + QUIET_BEFORE_GATHER;
                if self.meta_complete(job, &ends) {
                    let all = SlotSet::first(usize::from(plan.spec.slots));
                    self.start_slots(job, vec![SlotRound::fold(all)], Then::Finish);
                } else if quiet {
                    self.gather(job, ends);
                }
            }
            Phase::Slots { .. } => self.ask_slots(job),
            Phase::Compute | Phase::Write { .. } | Phase::Close | Phase::Ended => {}
        }
    }

    fn meta_complete(&self, job: JobId, ends: &[u64]) -> bool {
        ends.iter().enumerate().all(|(table, end)| {
            *end == 0
                || self
                    .facts
                    .holdings
                    .edge(job, Edge::table(table))
                    .is_some_and(|edge| edge.slot_coverage(META_SLOT, true).is_complete(*end))
        })
    }

    fn gather(&mut self, job: JobId, ends: Vec<u64>) {
        let attempt = self.out.fresh_id();
        let home = self.home_state(job);
        home.phase = Phase::Collect { gather: Some(attempt) };
        home.missing.clear();
        let wanted = Wanted { job, slots: SlotSet::META, ends, kind: Kind::Gather };
        self.start_work((self.facts.config.node, attempt), wanted);
    }

    /// All slots have folded: put everything together.
    fn compute(&mut self, job: JobId, outputs: Vec<(Slot, Bytes)>) {
        let Some(plan) = self.facts.plan_of(job) else { return };
        let Some(ends) = self.facts.jobs.get(&job).and_then(JobLog::all_ends) else { return };
        if !self.meta_complete(job, &ends) {
            // A record was found damaged while the slots folded: it has to be fetched first.
            return self.start_over(job);
        }
        let summaries = self.facts.located(job, 0..ends.len(), SlotSet::META, &ends);
        let (replicas, min_copies) = (self.facts.config.replicas, self.facts.config.min_copies);
        let durability = Durability { replicas, min_copies };
        self.home_state(job).phase = Phase::Compute;
        let task = Task::Finish { plan, ends, durability, outputs, summaries };
        self.out.run(task, Purpose::Home(job));
    }

    pub(crate) fn on_home_task(&mut self, job: JobId, output: TaskOutput) {
        if !matches!(self.homes.get(&job).map(|home| &home.phase), Some(Phase::Compute)) {
            return;
        }
        match output {
            TaskOutput::Lookups(state, requests) => {
                let rounds = requests.into_iter().map(SlotRound::lookup).collect();
                self.start_slots(job, rounds, Then::Join(state));
            }
            TaskOutput::Results(manifest, chunks) => {
                let waiting = (0..).zip(chunks).collect();
                let in_flight = BTreeSet::new();
                self.home_state(job).phase = Phase::Write { manifest, waiting, in_flight };
                self.write_chunks(job);
            }
            TaskOutput::Unreadable(entries) => {
                self.drop_unreadable(&entries);
                self.start_over(job);
            }
            TaskOutput::Mismatch(message) => self.mismatch(job, message),
            TaskOutput::Failed(message) => self.close(job, Manifest::Failed { message }),
            other => tracing::error!(?other, "a home's task gave something else"),
        }
    }

    /// The slots folded something else than was made of the batches: that must never be published. All
    /// of it is folded again; if that does not help, the job fails rather than lies.
    fn mismatch(&mut self, job: JobId, message: String) {
        let home = self.home_state(job);
        home.mismatches += 1;
        tracing::error!(%job, %message, times = home.mismatches, "the result is not that of the batches");
        if home.mismatches >= MISMATCHES {
            let message = format!("the result could not be proved complete: {message}");
            return self.close(job, Manifest::Failed { message });
        }
        self.start_over(job);
    }

    fn write_chunks(&mut self, job: JobId) {
        let Some(home) = self.homes.get_mut(&job) else { return };
        let Phase::Write { waiting, in_flight, .. } = &mut home.phase else { return };
        let room = CHUNKS_IN_FLIGHT.saturating_sub(in_flight.len()).min(waiting.len());
        let chunks: Vec<_> = waiting.drain(..room).collect();
        in_flight.extend(chunks.iter().map(|(number, _)| *number));
        if in_flight.is_empty() {
            let done = std::mem::replace(&mut home.phase, Phase::Close);
            if let Phase::Write { manifest, .. } = done {
                self.close(job, manifest);
            }
            return;
        }
        for (number, bytes) in chunks {
            let key = EntryKey { job, edge: Edge::RESULT, number };
            self.replicate(Entry::meta(key, bytes), Asker::Home);
        }
    }

    pub(crate) fn close(&mut self, job: JobId, manifest: Manifest) {
        self.home_state(job).phase = Phase::Close;
        self.replicate_job_entry(job, &JobEntry::Manifest(manifest));
    }

    /// Sends an entry of the job log to its owners.
    pub(crate) fn replicate_job_entry(&mut self, job: JobId, entry: &JobEntry) {
        let bytes = cortado_protocol::frame::to_postcard(entry);
        let key = EntryKey { job, edge: Edge::JOB, number: entry.number() };
        self.replicate(Entry::meta(key, bytes), Asker::Home);
    }

    pub(crate) fn home_entry_durable(&mut self, key: EntryKey) {
        let job = key.job;
        if key.edge == Edge::RESULT {
            if let Some(Phase::Write { in_flight, .. }) =
                self.homes.get_mut(&job).map(|home| &mut home.phase)
            {
                in_flight.remove(&key.number);
                self.write_chunks(job);
            }
            return;
        }
        let Some(home) = self.homes.get_mut(&job) else { return };
        if matches!(home.phase, Phase::Close) && key.number == MANIFEST_NUMBER {
            home.phase = Phase::Collect { gather: None };
        }
        let waiting = home.entries.remove(&key.number).unwrap_or_default();
        if matches!(home.phase, Phase::Close) && key.number == JobEntry::Cancel.number() {
            // The manifest that is being written wins: that is the answer.
            waiting.into_iter().for_each(|origin| home.wait_for_entry(MANIFEST_NUMBER, origin));
        } else {
            waiting.into_iter().for_each(|origin| self.answer_status(origin, job));
        }
        self.drive(job);
    }

    pub(crate) fn home_entry_failed(&mut self, key: EntryKey, error: &ClientError) {
        let job = key.job;
        let Some(home) = self.homes.get_mut(&job) else { return };
        for origin in home.entries.remove(&key.number).unwrap_or_default() {
            self.answer(origin, ClientResponse::Error(error.clone()), Bytes::new());
        }
        let manifest = self.facts.jobs.get(&job).and_then(|log| log.manifest.clone());
        if key.edge == Edge::JOB && key.number != MANIFEST_NUMBER {
            return;
        }
        if let (Some(Phase::Close), Some(manifest)) = (home_phase(self, job), manifest) {
            self.close(job, manifest);
        } else if matches!(home_phase(self, job), Some(Phase::Write { .. } | Phase::Close)) {
            tracing::warn!(%job, %error, "could not write the result; trying again");
            self.start_over(job);
        }
    }

    /// Begins again from the ledgers, after a pause.
    pub(crate) fn start_over(&mut self, job: JobId) {
        let now = self.facts.now;
        let home = self.home_state(job);
        home.phase = Phase::Collect { gather: None };
        home.retry_at = now + RETRY_AFTER;
    }

    /// The job has ended: tell everyone who waits.
    fn ended(&mut self, job: JobId) {
        let home = self.home_state(job);
        let news = !matches!(home.phase, Phase::Ended) && home.place.is_some();
        home.phase = Phase::Ended;
        home.missing.clear();
        let wanted_by = std::mem::take(&mut home.wanted_by);
        self.answer_waiting(job);
        for mapper in wanted_by {
            self.tell_mapper(mapper, job);
        }
        if news {
            // Its place goes to the next in the queue.
            self.report_jobs();
        }
    }

    /// This node is not the home any more: the entry nodes of waiting clients ask the new one.
    fn resign(&mut self, job: JobId) {
        let Some(home) = self.homes.remove(&job) else { return };
        let waiting = home.waiting.into_iter().map(|(origin, _)| origin);
        let error = ClientError::new(ErrorKind::Unavailable, "the job's home is moving");
        for origin in waiting.chain(home.entries.into_values().flatten()) {
            self.answer(origin, ClientResponse::Error(error.clone()), Bytes::new());
        }
    }

    /// A mapper has batches of the job and asks for it.
    pub(crate) fn on_job_wanted(&mut self, from: NodeId, job: JobId, client: u64) {
        let now = self.facts.now;
        if let Some(home) = self.homes.get_mut(&job) {
            (home.client, home.client_at) = (client, now);
        }
        self.tell_mapper(from, job);
    }

    /// Answers a mapper: what the job is, and whether it takes batches.
    fn tell_mapper(&mut self, to: NodeId, job: JobId) {
        let ended = self.facts.jobs.get(&job).and_then(JobLog::ended);
        let plan = self.facts.plan_of(job);
        let (admission, tail) = if let Some(error) = ended {
            (Admission::Ended(error), Bytes::new())
        } else if let Some(plan) = plan.filter(|_| self.facts.is_home(job)) {
            let home = self.home_state(job);
            match home.place {
                Some(0) => (Admission::Running, cortado_protocol::frame::to_postcard(&plan.spec)),
                Some(position) => (Admission::Queued { position }, Bytes::new()),
                None => {
                    home.wanted_by.insert(to);
                    return self.drive(job);
                }
            }
        } else {
            (Admission::Unknown, Bytes::new())
        };
        self.out.send_with(to, PeerMessage::JobIs { job, admission }, tail);
    }

    /// The admission node's word on a job.
    pub(crate) fn home_admitted(&mut self, job: JobId, place: u32) {
        let Some(home) = self.homes.get_mut(&job) else { return };
        // A job that runs is never sent back into the queue.
        if home.place != Some(0) {
            home.place = Some(place);
        }
        for mapper in std::mem::take(&mut home.wanted_by) {
            self.tell_mapper(mapper, job);
        }
        self.drive(job);
    }

    pub(crate) fn home_after_append(&mut self, key: EntryKey) {
        let now = self.facts.now;
        if let Some(home) = self.homes.get_mut(&key.job) {
            home.progress_at = now;
            // It has arrived; should other slots still miss it, whoever is asked next says so.
            for gap in home.missing.iter_mut().filter(|gap| gap.edge == key.edge) {
                gap.coverage.remove(key.number);
            }
            home.missing.retain(|gap| !gap.coverage.is_empty());
            self.drive(key.job);
        } else if key.edge == Edge::JOB && self.facts.is_home(key.job) {
            self.home_state(key.job);
            self.drive(key.job);
        }
    }

    /// Others may have gone on without this node: ask them before the next answer.
    pub(crate) fn homes_not_fresh(&mut self) {
        self.homes.values_mut().for_each(|home| home.fresh = false);
    }

    pub(crate) fn homes_after_change(&mut self) {
        self.homes_not_fresh();
        let jobs: Vec<_> = self.facts.jobs.keys().copied().collect();
        for job in jobs {
            let open =
                self.facts.jobs[&job].plan.is_some() && self.facts.jobs[&job].ended().is_none();
            if open && self.facts.is_home(job) {
                self.home_state(job);
            }
            if self.homes.contains_key(&job) {
                self.slots_after_change(job);
                self.drive(job);
            }
        }
    }

    pub(crate) fn tick_homes(&mut self) {
        let jobs: Vec<_> = self.homes.keys().copied().collect();
        for job in jobs {
            self.answer_overdue(job);
            self.drive(job);
        }
        let jobs = &self.facts.jobs;
        let known = |job: &JobId| jobs.get(job).is_some_and(|log: &JobLog| log.plan.is_some());
        self.homes.retain(|job, home| !home.is_over(known(job)));
    }
}

fn home_phase(core: &Core, job: JobId) -> Option<&Phase> {
    core.homes.get(&job).map(|home| &home.phase)
}
