//! Coordination: the first live owner of a job's meta slot drives the job from phase to phase. The
//! router calls it.
//!
//! A coordinator keeps only state that is in the job's ledgers or can be computed again from them.
//! When it dies, the next owner starts over from the first phase and computes the same bytes. When
//! views differ and two nodes drive a job, both write the same entries.
//!
//! ```text
//! collect ──(all tables declared, meta slot complete)──▶ slots (fold) ──▶ compute
//!    ▲                                                                      │ ▲
//!    │ retry after a failure                                        rows    ▼ │
//!    └───────────────────────────────────────────────────────────  slots (lookup)
//!                                                                           │
//!                                    ended ◀── manifest ◀── write chunks ◀──┘
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use cortado_engine::Durability;
use cortado_protocol::client::ClientError;
use cortado_protocol::entry::Entry;
use cortado_protocol::job::{JobEntry, Manifest};
use cortado_protocol::{Edge, EntryKey, JobId, NodeId, Slot, SlotSet};

use crate::facts::Facts;
use crate::job::{JobLog, job_log_entry, up_to};
use crate::outbox::Outbox;
use crate::progress::Progress;
use crate::purpose::Purpose;
use crate::slot_round::SlotRound;
use crate::task::{Task, TaskOutput};

mod asking;
mod places;
mod round;

use round::{ASK_EVERY, Phase, Round, Then};

/// Pause before a failed step is repeated.
const RETRY_AFTER: Duration = Duration::from_millis(300);
/// Time without a new entry in the meta slot after which its gaps are fetched from other nodes.
const QUIET_BEFORE_GATHER: Duration = Duration::from_secs(1);
/// Chunks of a result that are replicated at the same time.
const CHUNKS_IN_FLIGHT: usize = 16;

/// A job fails after so many results that do not match its batches.
const MISMATCHES: u32 = 3;

/// The jobs this node coordinates.
#[derive(Default)]
pub(crate) struct Coordination {
    rounds: BTreeMap<JobId, Round>,
    /// Time of the last report to the queue keeper, and whether it named any job.
    reported_at: Duration,
    reported_any: bool,
}

/// What the router has to do next.
#[must_use]
pub(crate) enum Next {
    Nothing,
    /// Send these entries to their owners, in this order.
    Replicate(Vec<Entry>),
    /// Close the gaps of the meta slot here up to these ends, under this attempt number.
    Gather {
        job: JobId,
        attempt: u64,
        ends: Vec<u64>,
    },
    /// Send the job's status to the clients that wait for news.
    News(JobId),
    /// The job has ended. Answer the waiting clients and these mappers; if this is `news`, notify
    /// all members. `freed` says that it gave up a place in the queue, which has to be reported.
    Ended {
        job: JobId,
        mappers: BTreeSet<NodeId>,
        freed: bool,
        news: bool,
    },
    /// Another node coordinates the job now.
    Resigned(JobId),
}

impl Coordination {
    pub(crate) fn is_empty(&self) -> bool {
        self.rounds.is_empty()
    }

    /// The jobs, in id order.
    pub(crate) fn jobs(&self) -> Vec<JobId> {
        self.rounds.keys().copied().collect()
    }

    pub(crate) fn has(&self, job: JobId) -> bool {
        self.rounds.contains_key(&job)
    }

    /// Whether slots of the job fold, or its result is computed or written.
    pub(crate) fn works(&self, job: JobId) -> bool {
        self.rounds.get(&job).is_some_and(Round::works)
    }

    /// The progress of a job, if this node coordinates it.
    pub(crate) fn progress(&self, facts: &Facts, job: JobId) -> Option<Progress> {
        let (now, limit) = (facts.now, facts.config.upload_idle);
        self.rounds.get(&job).map(|round| round.progress(now, limit, facts.jobs.get(job)))
    }

    /// The job's state here, in one line for diagnosis.
    pub(crate) fn describe(&self, job: JobId) -> String {
        let round = self.rounds.get(&job);
        let (phase, place) = (round.map(Round::describe), round.and_then(|round| round.place));
        format!("phase {phase:?}, place {place:?}")
    }

    /// Begins to coordinate a job, unless this node does so already.
    pub(crate) fn open(&mut self, now: Duration, job: JobId) -> &mut Round {
        self.rounds.entry(job).or_insert_with(|| Round::new(now))
    }

    /// The job was dropped.
    pub(crate) fn forget(&mut self, job: JobId) {
        self.rounds.remove(&job);
    }

    /// Drops the state of ended and unknown jobs, except those for which a client `waits`.
    pub(crate) fn retire(&mut self, facts: &Facts, waits: impl Fn(JobId) -> bool) {
        let known = |job| facts.knows(job);
        self.rounds.retain(|job, round| waits(*job) || known(*job) && !round.has_ended());
    }

    /// Performs the steps of a job that are possible now.
    pub(crate) fn drive(&mut self, facts: &Facts, out: &mut Outbox, job: JobId) -> Next {
        if !facts.is_coordinator(job) {
            let resigned = self.rounds.remove(&job).is_some();
            return if resigned { Next::Resigned(job) } else { Next::Nothing };
        }
        let Some(log) = facts.jobs.get(job) else { return Next::Nothing };
        if log.brief.is_some() && log.ended().is_some() {
            // A manifest is not published before W nodes have it.
            let closing = self.rounds.get(&job).is_some_and(Round::closes);
            return if closing { Next::Nothing } else { self.ended(facts, job) };
        }
        let Some(plan) = log.plan.clone() else { return Next::Nothing };
        if plan.stream.is_some() {
            // It takes no place in the queue, and its rounds are not those of a job.
            return Next::Nothing;
        }
        let ends = log.all_ends();
        let (now, limit) = (facts.now, facts.config.upload_idle);
        let round = self.open(now, job);
        let idle = round.is_idle(now, limit, log);
        if round.runs() && idle && ends.is_none() {
            tracing::info!(%job, "its client is silent: the upload gives its place up");
            round.place = None;
            self.report(facts, out);
            return Next::Nothing;
        }
        if !round.runs() {
            if round.place.is_none() && !idle && now >= round.asked_at + ASK_EVERY {
                round.asked_at = now;
                self.report(facts, out);
            }
            return Next::Nothing;
        }
        match &mut round.phase {
            Phase::Collect { gather } => {
                let Some(ends) = ends else { return Next::Nothing };
                if gather.is_some() || now < round.retry_at {
                    return Next::Nothing;
                }
                let quiet = now >= round.progress_at + QUIET_BEFORE_GATHER;
                if meta_complete(facts, job, &ends) {
                    let all = SlotSet::first(usize::from(plan.spec.slots));
                    self.start_slots(facts, out, job, vec![SlotRound::fold(all)], Then::Finish);
                } else if quiet {
                    return self.gather(now, out, job, ends);
                }
            }
            Phase::Slots { .. } => self.ask_slots(facts, out, job),
            Phase::Compute | Phase::Write { .. } | Phase::Close | Phase::Ended => {}
        }
        Next::Nothing
    }

    fn gather(&mut self, now: Duration, out: &mut Outbox, job: JobId, ends: Vec<u64>) -> Next {
        let attempt = out.fresh_id();
        let round = self.open(now, job);
        round.phase = Phase::Collect { gather: Some(attempt) };
        round.missing.clear();
        Next::Gather { job, attempt, ends }
    }

    /// All slots have folded: computes the result.
    fn compute(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        job: JobId,
        outputs: Vec<(Slot, Bytes)>,
    ) {
        let Some(plan) = facts.plan_of(job) else { return };
        let Some(ends) = facts.jobs.get(job).and_then(JobLog::all_ends) else { return };
        if !meta_complete(facts, job, &ends) {
            // A record was found damaged while the slots folded: it has to be fetched first.
            return self.start_over(facts.now, job);
        }
        let summaries = facts.located(job, up_to(&ends).iter(), SlotSet::META);
        let (replicas, min_copies) = (facts.config.replicas, facts.config.min_copies);
        let durability = Durability { replicas, min_copies };
        self.open(facts.now, job).phase = Phase::Compute;
        let task = Task::Finish { plan, ends, durability, outputs, summaries };
        out.run(task, Purpose::Coordinate(job));
    }

    /// The result, or a step towards it, was computed.
    pub(crate) fn on_task(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        job: JobId,
        output: TaskOutput,
    ) -> Next {
        if !matches!(self.rounds.get(&job).map(|round| &round.phase), Some(Phase::Compute)) {
            return Next::Nothing;
        }
        match output {
            TaskOutput::Lookups(state, requests) => {
                let rounds = requests.into_iter().map(SlotRound::lookup).collect();
                self.start_slots(facts, out, job, rounds, Then::Join(state));
            }
            TaskOutput::Results(manifest, chunks) => {
                let waiting: VecDeque<_> = (0..).zip(chunks).collect();
                let in_flight = BTreeSet::new();
                let phase = Phase::Write { manifest, waiting, in_flight };
                self.open(facts.now, job).phase = phase;
                return self.write_chunks(facts, job);
            }
            TaskOutput::Unreadable(_) => self.start_over(facts.now, job),
            TaskOutput::Mismatch(message) => return self.mismatch(facts, job, message),
            TaskOutput::Failed(message) => {
                return self.close(facts, job, Manifest::Failed { message });
            }
            other => tracing::error!(?other, "a coordinator's task gave something else"),
        }
        Next::Nothing
    }

    /// The slots' outputs do not match the batches, so the result must not be published. All slots
    /// fold again; after [`MISMATCHES`] times the job fails.
    fn mismatch(&mut self, facts: &Facts, job: JobId, message: String) -> Next {
        let round = self.open(facts.now, job);
        round.mismatches += 1;
        tracing::error!(%job, %message, times = round.mismatches, "the result is not that of the batches");
        if round.mismatches >= MISMATCHES {
            let message = format!("the result could not be proved complete: {message}");
            return self.close(facts, job, Manifest::Failed { message });
        }
        self.start_over(facts.now, job);
        Next::Nothing
    }

    fn write_chunks(&mut self, facts: &Facts, job: JobId) -> Next {
        let Some(round) = self.rounds.get_mut(&job) else { return Next::Nothing };
        let Phase::Write { waiting, in_flight, .. } = &mut round.phase else {
            return Next::Nothing;
        };
        let room = CHUNKS_IN_FLIGHT.saturating_sub(in_flight.len()).min(waiting.len());
        let chunks: Vec<_> = waiting.drain(..room).collect();
        in_flight.extend(chunks.iter().map(|(number, _)| *number));
        if in_flight.is_empty() {
            let done = std::mem::replace(&mut round.phase, Phase::Close);
            return match done {
                Phase::Write { manifest, .. } => self.close(facts, job, manifest),
                _ => Next::Nothing,
            };
        }
        let chunk = |(number, bytes)| {
            let key = EntryKey { job, edge: Edge::RESULT, number };
            Entry::meta(key, bytes)
        };
        Next::Replicate(chunks.into_iter().map(chunk).collect())
    }

    /// Writes the job's manifest.
    fn close(&mut self, facts: &Facts, job: JobId, manifest: Manifest) -> Next {
        self.open(facts.now, job).phase = Phase::Close;
        Next::Replicate(vec![job_log_entry(job, &JobEntry::Manifest(manifest))])
    }

    /// An entry this node wrote as a coordinator is durable on W nodes.
    pub(crate) fn entry_durable(&mut self, facts: &Facts, key: EntryKey) -> Next {
        let Some(round) = self.rounds.get_mut(&key.job) else { return Next::Nothing };
        match &mut round.phase {
            Phase::Write { in_flight, .. } if key.edge == Edge::RESULT => {
                in_flight.remove(&key.number);
                return self.write_chunks(facts, key.job);
            }
            Phase::Close if key.edge == Edge::JOB && key.number == JobEntry::MANIFEST => {
                round.phase = Phase::Collect { gather: None };
            }
            _ => {}
        }
        Next::Nothing
    }

    /// An entry this node wrote as a coordinator could not be stored.
    pub(crate) fn entry_failed(
        &mut self,
        facts: &Facts,
        key: EntryKey,
        error: &ClientError,
    ) -> Next {
        let job = key.job;
        let Some(round) = self.rounds.get(&job) else { return Next::Nothing };
        if key.edge == Edge::JOB && key.number != JobEntry::MANIFEST {
            return Next::Nothing;
        }
        let manifest = facts.jobs.get(job).and_then(|log| log.manifest.clone());
        match (&round.phase, manifest) {
            (Phase::Close, Some(manifest)) => return self.close(facts, job, manifest),
            (Phase::Write { .. } | Phase::Close, _) => {
                tracing::warn!(%job, %error, "could not write the result; trying again");
                self.start_over(facts.now, job);
            }
            _ => {}
        }
        Next::Nothing
    }

    /// Starts over from the ledgers, after a pause.
    fn start_over(&mut self, now: Duration, job: JobId) {
        let round = self.open(now, job);
        round.phase = Phase::Collect { gather: None };
        round.retry_at = now + RETRY_AFTER;
    }

    fn ended(&mut self, facts: &Facts, job: JobId) -> Next {
        let round = self.open(facts.now, job);
        let news = !round.has_ended();
        let freed = news && round.place.is_some();
        round.phase = Phase::Ended;
        round.missing.clear();
        let mappers = std::mem::take(&mut round.wanted_by);
        Next::Ended { job, mappers, freed, news }
    }

    /// An entry is durable here.
    pub(crate) fn appended(&mut self, facts: &Facts, out: &mut Outbox, key: EntryKey) -> Next {
        if let Some(round) = self.rounds.get_mut(&key.job) {
            round.progress_at = facts.now;
            // The entry has arrived. If other slots still miss it, the next worker reports that.
            for gap in round.missing.iter_mut().filter(|gap| gap.edge == key.edge) {
                gap.coverage.remove(key.number);
            }
            round.missing.retain(|gap| !gap.coverage.is_empty());
            self.drive(facts, out, key.job)
        } else if key.edge == Edge::JOB && facts.is_coordinator(key.job) {
            self.open(facts.now, key.job);
            self.drive(facts, out, key.job)
        } else {
            Next::Nothing
        }
    }

    /// The members changed: this node may have become or ceased to be a job's coordinator.
    pub(crate) fn after_change(&mut self, facts: &Facts, out: &mut Outbox, job: JobId) -> Next {
        let log = facts.jobs.get(job);
        let open = log.is_some_and(|log| log.plan.is_some() && log.ended().is_none());
        if open && facts.is_coordinator(job) {
            self.open(facts.now, job);
        }
        let Some(round) = self.rounds.get_mut(&job) else { return Next::Nothing };
        for slots in round.slots_mut() {
            slots.give_up_of(|node| !facts.members.is_reachable(node));
        }
        self.drive(facts, out, job)
    }
}

/// Whether the meta slot is complete here up to these ends.
fn meta_complete(facts: &Facts, job: JobId, ends: &[u64]) -> bool {
    let complete = |(table, end): (usize, &u64)| {
        let held = facts.ledger.edge(job, Edge::table(table));
        *end == 0 || held.is_some_and(|edge| edge.has_meta_below(*end))
    };
    ends.iter().enumerate().all(complete)
}
