//! The mapper's side of a batch: know the job, turn the batch into deltas, see them replicated.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cortado_engine::{MapError, Mapped};
use cortado_protocol::client::{BatchOutcome, BatchReply, ClientError, ErrorKind};
use cortado_protocol::entry::{Entry, Source};
use cortado_protocol::job::{BatchHeader, JobSpec};
use cortado_protocol::peer::{Admission, PeerMessage};
use cortado_protocol::{Edge, EntryKey, JobId, META_SLOT, SlotSet, frame, limits};

use crate::job::BoundPlan;
use crate::replicate::Asker;
use crate::task::{Purpose, Task};
use crate::{Core, Effect};

/// How long a batch waits for the job's home before its client is told to come back.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often the home is asked while batches wait.
const ASK_EVERY: Duration = Duration::from_millis(300);
/// How long the home's word is taken before it is asked again.
const TRUST_FOR: Duration = Duration::from_secs(2);

struct Waiting {
    ticket: u64,
    header: BatchHeader,
    payload: Bytes,
    since: Duration,
}

#[derive(Default)]
struct MapperJob {
    /// The client that sent the last batch.
    client: u64,
    plan: Option<Arc<BoundPlan>>,
    running: bool,
    queued: Option<u32>,
    ended: Option<ClientError>,
    asked_at: Option<Duration>,
    told_at: Duration,
    waiting: Vec<Waiting>,
}

/// Jobs this node maps batches of.
#[derive(Default)]
pub(crate) struct Mapper {
    jobs: BTreeMap<JobId, MapperJob>,
}

impl Mapper {
    pub(crate) fn is_waiting(&self) -> bool {
        self.jobs.values().any(|job| !job.waiting.is_empty())
    }
}

/// A batch in the mapper's hands.
#[derive(Debug)]
pub(crate) struct Mapping {
    ticket: u64,
    key: EntryKey,
    slots: u8,
    source: Source,
}

impl Core {
    pub(crate) fn on_batch(
        &mut self,
        ticket: u64,
        job: JobId,
        client: u64,
        header: BatchHeader,
        payload: Bytes,
    ) {
        if self.facts.holdings.is_gone(job) {
            let error =
                ClientError::new(ErrorKind::NotFound, "the job is gone: its time to live is over");
            return self.reply_batch(ticket, &header, BatchOutcome::Refused(error));
        }
        if let Err(reason) = self.facts.replicas_suffice() {
            return self.reply_batch(ticket, &header, BatchOutcome::Retry { reason });
        }
        let since = self.facts.now;
        let state = self.mapper.jobs.entry(job).or_default();
        state.client = client;
        if let Some(error) = state.ended.clone() {
            return self.reply_batch(ticket, &header, BatchOutcome::Refused(error));
        }
        let stale = self.facts.now >= state.told_at + TRUST_FOR;
        match &state.plan {
            Some(plan) if state.running => {
                let plan = Arc::clone(plan);
                self.map(ticket, &plan, header, payload);
            }
            _ => state.waiting.push(Waiting { ticket, header, payload, since }),
        }
        if stale {
            self.ask_for_job(job);
        }
    }

    fn ask_for_job(&mut self, job: JobId) {
        let now = self.facts.now;
        let state = self.mapper.jobs.entry(job).or_default();
        if state.asked_at.is_some_and(|asked| now < asked + ASK_EVERY) {
            return;
        }
        state.asked_at = Some(now);
        let client = state.client;
        let home = self.facts.home(job);
        self.out.send(home, PeerMessage::JobWanted { job, client });
    }

    /// The home's answer.
    pub(crate) fn on_job_is(&mut self, job: JobId, admission: Admission, tail: &Bytes) {
        // An owner of the job's log has compiled the plan already.
        let compiled = self.facts.plan_of(job);
        let Some(state) = self.mapper.jobs.get_mut(&job) else { return };
        state.asked_at = None;
        match admission {
            Admission::Unknown => return,
            Admission::Ended(error) => state.ended = Some(error),
            Admission::Queued { position } => {
                state.queued = Some(position);
                state.running = false;
            }
            Admission::Running => {
                state.plan = state.plan.take().or(compiled);
                if state.plan.is_none() {
                    let spec: Result<JobSpec, _> = frame::from_postcard(tail);
                    match spec.map(BoundPlan::new) {
                        Ok(Ok(plan)) => state.plan = Some(Arc::new(plan)),
                        Ok(Err(error)) => state.ended = Some(error),
                        Err(error) => {
                            tracing::warn!(%job, %error, "the home sent no specification");
                            return;
                        }
                    }
                }
                state.running = true;
                state.queued = None;
            }
        }
        state.told_at = self.facts.now;
        self.drain_waiting(job);
    }

    fn drain_waiting(&mut self, job: JobId) {
        let Some(state) = self.mapper.jobs.get_mut(&job) else { return };
        let (plan, running) = (state.plan.clone(), state.running);
        let (ended, queued) = (state.ended.clone(), state.queued);
        for Waiting { ticket, header, payload, .. } in std::mem::take(&mut state.waiting) {
            match (&ended, &plan, queued) {
                (Some(error), _, _) => {
                    let outcome = BatchOutcome::Refused(error.clone());
                    self.reply_batch(ticket, &header, outcome);
                }
                (None, Some(plan), _) if running => self.map(ticket, plan, header, payload),
                (None, _, place) => {
                    let reason = format!("the job is queued: place {}", place.unwrap_or(0));
                    self.reply_batch(ticket, &header, BatchOutcome::Retry { reason });
                }
            }
        }
    }

    fn map(&mut self, ticket: u64, plan: &Arc<BoundPlan>, header: BatchHeader, payload: Bytes) {
        let (table, file) = (usize::from(header.table), header.file as usize);
        if plan.layouts.get(table).is_none_or(|files| file >= files.len()) {
            let message = "the batch names a table or file that was not submitted";
            let error = ClientError::new(ErrorKind::BadInput, message);
            return self.reply_batch(ticket, &header, BatchOutcome::Refused(error));
        }
        if header.number >= limits::NUMBERS {
            let message = format!("a table has at most {} batches", limits::NUMBERS);
            let error = ClientError::new(ErrorKind::BadInput, message);
            return self.reply_batch(ticket, &header, BatchOutcome::Refused(error));
        }
        let end = self.facts.jobs.get(&plan.spec.job).and_then(|log| log.ends.get(table).copied());
        if let Some(end) = end.flatten().filter(|end| header.number >= *end) {
            let number = header.number;
            let message =
                format!("batch {number} is beyond the table's declared end, {end} batches");
            tracing::warn!(job = %plan.spec.job, table, number, end, "refused a batch beyond the end");
            let error = ClientError::new(ErrorKind::BadInput, message);
            return self.reply_batch(ticket, &header, BatchOutcome::Refused(error));
        }
        let edge = Edge::table(table);
        let key = EntryKey { job: plan.spec.job, edge, number: header.number };
        let source = Source { content: header.content, bytes: payload.len() as u32, rows: 0 };
        let mapping = Mapping { ticket, key, slots: plan.spec.slots, source };
        let task = Task::Map { plan: Arc::clone(plan), header, payload };
        self.out.run(task, Purpose::Map(mapping));
    }

    pub(crate) fn on_mapped(&mut self, mapping: Mapping, mapped: Result<Mapped, MapError>) {
        let Mapping { ticket, key, slots, source } = mapping;
        let mapped = match mapped {
            Ok(mapped) => mapped,
            Err(error) => {
                let error = ClientError::new(ErrorKind::BadInput, error.to_string());
                return self.batch_refused(key, &[ticket], &error);
            }
        };
        let slots = SlotSet::first(usize::from(slots)).or(SlotSet::META);
        let source = Source { rows: mapped.rows, ..source };
        debug_assert!(mapped.deltas.last().is_some_and(|(slot, _)| *slot == META_SLOT));
        let entry = Entry::new(key, source, slots, &mapped.deltas);
        self.replicate(entry, Asker::Batch { tickets: vec![ticket], rejected: mapped.rejected });
    }

    pub(crate) fn batch_durable(
        &mut self,
        key: EntryKey,
        tickets: &[u64],
        copies: u8,
        rejected: u32,
    ) {
        let replicas = self.facts.config.replicas;
        for ticket in tickets {
            let outcome = BatchOutcome::Durable { copies, replicas, rejected };
            self.reply_numbered(*ticket, key, outcome);
        }
    }

    pub(crate) fn batch_refused(&mut self, key: EntryKey, tickets: &[u64], error: &ClientError) {
        for ticket in tickets {
            let outcome = match error.kind {
                ErrorKind::Unavailable => BatchOutcome::Retry { reason: error.message.clone() },
                _ => BatchOutcome::Refused(error.clone()),
            };
            self.reply_numbered(*ticket, key, outcome);
        }
    }

    fn reply_numbered(&mut self, ticket: u64, key: EntryKey, outcome: BatchOutcome) {
        let reply = BatchReply { table: key.edge.0, number: key.number, outcome };
        self.out.effect(Effect::BatchReply(ticket, reply));
    }

    fn reply_batch(&mut self, ticket: u64, header: &BatchHeader, outcome: BatchOutcome) {
        let reply = BatchReply { table: header.table, number: header.number, outcome };
        self.out.effect(Effect::BatchReply(ticket, reply));
    }

    pub(crate) fn tick_mapper(&mut self) {
        let now = self.facts.now;
        let mut late = Vec::new();
        let mut asking = Vec::new();
        for (job, state) in &mut self.mapper.jobs {
            let over = |waiting: &Waiting| now >= waiting.since + PATIENCE;
            late.extend(state.waiting.extract_if(.., |waiting| over(waiting)));
            if !state.waiting.is_empty() {
                asking.push(*job);
            }
        }
        for Waiting { ticket, header, .. } in late {
            let reason = "the job's home does not answer".to_owned();
            self.reply_batch(ticket, &header, BatchOutcome::Retry { reason });
        }
        for job in asking {
            self.ask_for_job(job);
        }
        // A job nobody sends batches of costs nothing but its plan; let that go too.
        let idle = Duration::from_secs(60);
        self.mapper.jobs.retain(|_, state| {
            !state.waiting.is_empty() || state.asked_at.is_some() || now < state.told_at + idle
        });
    }

    pub(crate) fn mapper_forget(&mut self, job: JobId) {
        if let Some(state) = self.mapper.jobs.get_mut(&job) {
            state.ended = Some(ClientError::new(ErrorKind::NotFound, "the job is gone"));
            self.drain_waiting(job);
            self.mapper.jobs.remove(&job);
        }
    }
}
