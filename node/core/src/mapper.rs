//! Mapper: turns clients' batches into entries of deltas for replication. It first asks the job's
//! coordinator for the job. The router calls it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cortado_engine::{MapError, Mapped};
use cortado_protocol::client::{BatchOutcome, ClientError, ErrorKind};
use cortado_protocol::entry::{Entry, Source};
use cortado_protocol::expiry::Reason;
use cortado_protocol::job::{BatchHeader, JobSpec};
use cortado_protocol::peer::{Admission, PeerMessage};
use cortado_protocol::stream::SchemaFile;
use cortado_protocol::{Edge, EntryKey, JobId, META_SLOT, SlotSet, frame, limits};
use cortado_stream::SchemaSet;

use crate::facts::Facts;
use crate::job::{BoundPlan, SEALED};
use crate::ledger::index::JobIndex;
use crate::outbox::Outbox;
use crate::purpose::{Mapping, Purpose};
use crate::task::Task;

/// How long a batch waits for the coordinator's answer before the client has to send it again.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pause between two requests to the coordinator while batches wait.
const ASK_EVERY: Duration = Duration::from_millis(300);
/// How long an answer of the coordinator is valid.
const TRUST_FOR: Duration = Duration::from_secs(2);

struct Waiting {
    ticket: u64,
    header: BatchHeader,
    payload: Bytes,
    since: Duration,
}

/// Schema sets, as the coordinator sends them.
type Sets = Vec<(u32, Vec<SchemaFile>)>;

/// What a job's batches are mapped with.
#[derive(Clone)]
struct Known {
    plan: Arc<BoundPlan>,
    /// The schema sets of a stream.
    schemas: BTreeMap<u32, Arc<SchemaSet>>,
}

#[derive(Default)]
struct MapperJob {
    /// The client that sent the last batch.
    client: u64,
    known: Option<Known>,
    running: bool,
    queued: Option<u32>,
    ended: Option<ClientError>,
    asked_at: Option<Duration>,
    told_at: Duration,
    waiting: Vec<Waiting>,
}

/// The jobs whose batches this node maps.
#[derive(Default)]
pub(crate) struct Mapper {
    jobs: BTreeMap<JobId, MapperJob>,
}

impl Mapper {
    pub(crate) fn is_waiting(&self) -> bool {
        self.jobs.values().any(|job| !job.waiting.is_empty())
    }

    /// Batches that wait until their job may run.
    pub(crate) fn waiting(&self) -> u64 {
        self.jobs.values().map(|job| job.waiting.len() as u64).sum()
    }
}

impl Mapper {
    /// A client sends a batch.
    pub(crate) fn on_batch(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        ticket: u64,
        (job, client): (JobId, u64),
        (header, payload): (BatchHeader, Bytes),
    ) {
        if let Some(proof) = facts.ledger.tombstone(job) {
            let error = ClientError::new(ErrorKind::NotFound, proof.reason.tell(job));
            return out.answer_batch(ticket, &header, BatchOutcome::Refused(error));
        }
        if let Err(reason) = facts.replicas_suffice() {
            return out.answer_batch(ticket, &header, BatchOutcome::Retry { reason });
        }
        let since = facts.now;
        let state = self.jobs.entry(job).or_default();
        state.client = client;
        if let Some(error) = state.ended.clone() {
            return out.answer_batch(ticket, &header, BatchOutcome::Refused(error));
        }
        let stale = facts.now >= state.told_at + TRUST_FOR;
        let mut lacks = false;
        match &state.known {
            Some(known) if state.running && known.has(&header) => {
                map(facts, out, ticket, known, (header, payload));
            }
            known => {
                lacks = known.is_some();
                state.waiting.push(Waiting { ticket, header, payload, since });
            }
        }
        if stale || lacks {
            self.ask_for_job(facts, out, job);
        }
    }

    fn ask_for_job(&mut self, facts: &Facts, out: &mut Outbox, job: JobId) {
        let now = facts.now;
        let state = self.jobs.entry(job).or_default();
        if state.asked_at.is_some_and(|asked| now < asked + ASK_EVERY) {
            return;
        }
        state.asked_at = Some(now);
        let client = state.client;
        let coordinator = facts.coordinator(job);
        out.send(coordinator, PeerMessage::JobWanted { job, client });
    }

    /// The coordinator's answer.
    pub(crate) fn on_job_is(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        job: JobId,
        admission: Admission,
        tail: &Bytes,
    ) {
        // An owner of the job's log has compiled the plan already.
        let compiled = facts.plan_of(job);
        let Some(state) = self.jobs.get_mut(&job) else { return };
        state.asked_at = None;
        match admission {
            Admission::Unknown => return,
            Admission::Ended(error) => {
                state.ended = Some(error);
                state.known = None;
            }
            Admission::Queued { position } => {
                state.queued = Some(position);
                state.running = false;
            }
            Admission::Running => {
                let Ok((spec, schemas)) = frame::from_postcard::<(JobSpec, Sets)>(tail) else {
                    return tracing::warn!(%job, "the coordinator sent no specification");
                };
                let known = state.known.take();
                let plan = known.as_ref().map(|known| Arc::clone(&known.plan)).or(compiled);
                let plan = plan.map_or_else(|| BoundPlan::new(spec).map(Arc::new), Ok);
                match plan {
                    Ok(plan) => {
                        let before = known.map(|known| known.schemas).unwrap_or_default();
                        state.known = Some(Known::new(plan, before, schemas));
                    }
                    Err(error) => state.ended = Some(error),
                }
                state.running = true;
                state.queued = None;
            }
        }
        state.told_at = facts.now;
        self.drain_waiting(facts, out, job);
    }

    fn drain_waiting(&mut self, facts: &Facts, out: &mut Outbox, job: JobId) {
        let Some(state) = self.jobs.get_mut(&job) else { return };
        let (known, running) = (state.known.clone(), state.running);
        let (ended, queued) = (state.ended.clone(), state.queued);
        for Waiting { ticket, header, payload, .. } in std::mem::take(&mut state.waiting) {
            match (&ended, &known, queued) {
                (Some(error), _, _) => {
                    let outcome = BatchOutcome::Refused(error.clone());
                    out.answer_batch(ticket, &header, outcome);
                }
                (None, Some(known), _) if running && known.has(&header) => {
                    map(facts, out, ticket, known, (header, payload));
                }
                (None, Some(_), _) if running => {
                    let reason = "the batch's schema set is not in force yet".to_owned();
                    out.answer_batch(ticket, &header, BatchOutcome::Retry { reason });
                }
                (None, _, place) => {
                    let reason = format!("the job is queued: place {}", place.unwrap_or(0));
                    out.answer_batch(ticket, &header, BatchOutcome::Retry { reason });
                }
            }
        }
    }

    pub(crate) fn tick(&mut self, facts: &Facts, out: &mut Outbox) {
        let now = facts.now;
        let mut late = Vec::new();
        let mut asking = Vec::new();
        for (job, state) in &mut self.jobs {
            let over = |waiting: &Waiting| now >= waiting.since + PATIENCE;
            late.extend(state.waiting.extract_if(.., |waiting| over(waiting)));
            if !state.waiting.is_empty() {
                asking.push(*job);
            }
        }
        for Waiting { ticket, header, .. } in late {
            let reason = "the job's coordinator does not answer".to_owned();
            out.answer_batch(ticket, &header, BatchOutcome::Retry { reason });
        }
        for job in asking {
            self.ask_for_job(facts, out, job);
        }
        // Drops jobs without batches, to free their plans.
        let idle = Duration::from_secs(60);
        self.jobs.retain(|job, state| {
            let done = facts.ledger.job(*job).is_some_and(JobIndex::is_complete);
            let recent = state.asked_at.is_some() || now < state.told_at + idle;
            !state.waiting.is_empty() || recent && !done
        });
    }

    /// The job was dropped.
    pub(crate) fn forget(&mut self, facts: &Facts, out: &mut Outbox, job: JobId, reason: Reason) {
        if let Some(state) = self.jobs.get_mut(&job) {
            state.ended = Some(ClientError::new(ErrorKind::NotFound, reason.tell(job)));
            self.drain_waiting(facts, out, job);
            self.jobs.remove(&job);
        }
    }
}

impl Known {
    /// What the coordinator says; sets that are compiled already are kept.
    fn new(plan: Arc<BoundPlan>, mut schemas: BTreeMap<u32, Arc<SchemaSet>>, told: Sets) -> Self {
        let Some(stream) = &plan.stream else { return Self { plan, schemas } };
        for (set, files) in told {
            if schemas.contains_key(&set) {
                continue;
            }
            match SchemaSet::compile(stream, &files) {
                Ok(compiled) => drop(schemas.insert(set, Arc::new(compiled))),
                // It was compiled before it was put in force; a node of another version may differ.
                Err(error) => tracing::error!(set, %error, "can't read an accepted schema set"),
            }
        }
        Self { plan, schemas }
    }

    /// Whether a batch can be mapped: whether the schema set that it names is known.
    fn has(&self, header: &BatchHeader) -> bool {
        header.stream.as_ref().is_none_or(|stream| {
            self.plan.stream.is_none() || self.schemas.contains_key(&stream.schema_set)
        })
    }
}

fn map(
    facts: &Facts,
    out: &mut Outbox,
    ticket: u64,
    known: &Known,
    (header, payload): (BatchHeader, Bytes),
) {
    let plan = &known.plan;
    if plan.stream.is_some() || header.stream.is_some() {
        return map_events(facts, out, ticket, known, (header, payload));
    }
    let (table, file) = (usize::from(header.table), header.file as usize);
    if plan.layouts.get(table).is_none_or(|files| file >= files.len()) {
        let message = "the batch names a table or file that was not submitted".to_owned();
        return refuse(out, ticket, &header, message);
    }
    if header.number >= limits::NUMBERS {
        let message = format!("a table has at most {} batches", limits::NUMBERS);
        return refuse(out, ticket, &header, message);
    }
    let end = facts.jobs.get(plan.spec.job).and_then(|log| log.ends.get(table).copied());
    if let Some(end) = end.flatten().filter(|end| header.number >= *end) {
        let number = header.number;
        let message = format!("batch {number} is beyond the table's declared end, {end} batches");
        tracing::warn!(job = %plan.spec.job, table, number, end, "refused a batch beyond the end");
        return refuse(out, ticket, &header, message);
    }
    let mapping = mapping(plan, Edge::table(table), ticket, (&header, &payload));
    let task = Task::Map { plan: Arc::clone(plan), header, payload };
    out.run(task, Purpose::Map(mapping));
}

/// Maps a batch of events, if it is one that the stream takes.
fn map_events(
    facts: &Facts,
    out: &mut Outbox,
    ticket: u64,
    known: &Known,
    (header, payload): (BatchHeader, Bytes),
) {
    let plan = &known.plan;
    let (Some(stream), Some(of)) = (&plan.stream, &header.stream) else {
        let message = "only a stream takes events, and it takes nothing else".to_owned();
        return refuse(out, ticket, &header, message);
    };
    let Some(schemas) = known.schemas.get(&of.schema_set) else { return };
    let ahead_ms = of.sent_at_ms.saturating_sub_unsigned(facts.wall_ms);
    let wrong = if header.number >= limits::NUMBERS {
        Some(format!("a publisher has at most {} batches", limits::NUMBERS))
    } else if payload.len() > limits::EVENTS_BATCH_BYTES {
        Some(format!("a batch of events has at most {} bytes", limits::EVENTS_BATCH_BYTES))
    } else if of.publisher.is_empty() || of.publisher.len() > limits::NAME_BYTES {
        Some(format!("the name of a publisher has 1 to {} bytes", limits::NAME_BYTES))
    } else if ahead_ms > stream.skew_ms() {
        Some(format!(
            "the publisher's clock is {ahead_ms} ms ahead of this node's, and {} ms are allowed: set it \
             right and start the publisher again",
            stream.skew_ms()
        ))
    } else {
        None
    };
    if let Some(message) = wrong {
        return refuse(out, ticket, &header, message);
    }
    if facts.retention.is_frozen(plan.spec.job, of.edge()) {
        // The coordinator may not know, because another one asked for the promise.
        let job = plan.spec.job;
        let ask = PeerMessage::Freeze { job, edge: of.edge(), from: 0, round: 0 };
        out.send(facts.coordinator(job), ask);
        let error = ClientError::new(ErrorKind::Ended, SEALED);
        return out.answer_batch(ticket, &header, BatchOutcome::Refused(error));
    }
    if header.number < facts.ledger.floor(plan.spec.job, of.edge()) {
        // It was durable, and is retired.
        let (copies, replicas) = (facts.config.min_copies, facts.config.replicas);
        let outcome = BatchOutcome::Durable { copies, replicas, rejected: 0 };
        return out.answer_batch(ticket, &header, outcome);
    }
    let mapping = mapping(plan, of.edge(), ticket, (&header, &payload));
    let (slots, schemas) = (usize::from(plan.spec.slots), Arc::clone(schemas));
    let plan = Arc::clone(stream);
    let task = Task::MapEvents { plan, slots, schemas, header: of.clone(), payload };
    out.run(task, Purpose::Map(mapping));
}

/// Refuses a batch that a client must not send.
fn refuse(out: &mut Outbox, ticket: u64, header: &BatchHeader, message: String) {
    let error = ClientError::new(ErrorKind::BadInput, message);
    out.answer_batch(ticket, header, BatchOutcome::Refused(error));
}

/// What is kept of a batch while it is mapped.
fn mapping(
    plan: &BoundPlan,
    edge: Edge,
    ticket: u64,
    (header, payload): (&BatchHeader, &Bytes),
) -> Mapping {
    let key = EntryKey { job: plan.spec.job, edge, number: header.number };
    let source = Source { content: header.content, bytes: payload.len() as u32, rows: 0 };
    Mapping { ticket, key, slots: plan.spec.slots, source }
}

/// A batch was mapped: returns its entry, its client's ticket and the number of rejected rows.
/// Refuses a batch that can't be mapped.
pub(crate) fn mapped(
    out: &mut Outbox,
    mapping: Mapping,
    mapped: Result<Mapped, MapError>,
) -> Option<(Entry, u64, u32)> {
    let Mapping { ticket, key, slots, source } = mapping;
    let mapped = match mapped {
        Ok(mapped) => mapped,
        Err(error) => {
            let error = ClientError::new(ErrorKind::BadInput, error.to_string());
            out.refuse_batches(key, &[ticket], &error);
            return None;
        }
    };
    let slots = SlotSet::first(usize::from(slots)).or(SlotSet::META);
    let source = Source { rows: mapped.rows, ..source };
    debug_assert!(mapped.deltas.last().is_some_and(|(slot, _)| *slot == META_SLOT));
    Some((Entry::new(key, source, slots, &mapped.deltas), ticket, mapped.rejected))
}
