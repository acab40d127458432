//! What a job's home answers to clients' requests.

use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use cortado_protocol::client::{ClientError, ClientRequest, ClientResponse, ErrorKind};
use cortado_protocol::job::{JobEntry, JobSpec, Manifest};
use cortado_protocol::limits::{JOBS_PER_ANSWER, NUMBERS};
use cortado_protocol::peer::{EdgeCoverage, PeerMessage};
use cortado_protocol::{Coverage, Edge, EntryKey, JobId, META_SLOT, NodeId, SlotSet};

use crate::forwarding::{Origin, job_of};
use crate::job::BoundPlan;
use crate::search::not_found;
use crate::task::{Purpose, Task, TaskOutput};
use crate::{Core, PlantedBug};

pub(crate) fn error(kind: ErrorKind, message: impl Into<String>) -> ClientResponse {
    ClientResponse::Error(ClientError::new(kind, message))
}

/// Intervals of missing batches that a listing names of each table.
const MISSING_IN_LISTS: usize = 10;

impl Core {
    /// Answers a question of some node's client.
    pub(crate) fn answer(&mut self, origin: Origin, response: ClientResponse, tail: Bytes) {
        self.out.send_with(origin.0, PeerMessage::Answer { id: origin.1, response }, tail);
    }

    /// Some node's client asks.
    pub(crate) fn on_ask(&mut self, from: NodeId, id: u64, request: ClientRequest) {
        let origin = (from, id);
        match (&request, job_of(&request)) {
            (ClientRequest::Jobs { after }, _) => {
                let from = after.map_or(Bound::Unbounded, Bound::Excluded);
                let jobs = self.facts.jobs.range((from, Bound::Unbounded));
                let jobs = jobs.filter(|(_, log)| log.plan.is_some()).take(JOBS_PER_ANSWER);
                let jobs: Vec<_> = jobs.map(|(job, _)| *job).collect();
                let mut jobs: Vec<_> =
                    jobs.into_iter().filter_map(|job| self.status(job)).collect();
                for table in jobs.iter_mut().flat_map(|job| &mut job.tables) {
                    // Who wants to know all of them asks for the job.
                    let _ = table.missing.split_off(MISSING_IN_LISTS);
                }
                self.answer(origin, ClientResponse::Jobs(jobs), Bytes::new());
            }
            (ClientRequest::Drain(node), _) if *node == self.facts.config.node => {
                self.start_draining();
                self.answer(origin, ClientResponse::Accepted, Bytes::new());
            }
            (_, Some(job)) if self.facts.is_home(job) => {
                self.on_job_request(origin, job, request, false)
            }
            _ => {
                let response = error(ErrorKind::Unavailable, "the job's home is moving");
                self.answer(origin, response, Bytes::new());
            }
        }
    }

    /// A request about a job this node is the home of.
    pub(crate) fn on_job_request(
        &mut self,
        origin: Origin,
        job: JobId,
        request: ClientRequest,
        searched: bool,
    ) {
        if self.facts.holdings.is_gone(job) {
            let message = format!("job {job} is gone: its time to live is over");
            return self.answer(origin, error(ErrorKind::NotFound, message), Bytes::new());
        }
        if let ClientRequest::Submit(spec) = request {
            return self.on_submit(origin, spec);
        }
        if !searched && self.may_be_stale(job) {
            return self.search(job, origin, request);
        }
        let Some(plan) = self.facts.plan_of(job) else {
            if searched {
                let response = not_found(&self.facts, job);
                return self.answer(origin, response, Bytes::new());
            }
            return self.search(job, origin, request);
        };
        match request {
            ClientRequest::Spec(_) => {
                let response = ClientResponse::Spec(plan.spec.clone());
                self.answer(origin, response, Bytes::new());
            }
            ClientRequest::Coverage { table, from, .. } => {
                let response = ClientResponse::Coverage(self.coverage(job, table.into(), from));
                self.answer(origin, response, Bytes::new());
            }
            ClientRequest::Status { wait_ms, .. } => {
                self.wait_for_news(origin, job, Duration::from_millis(u64::from(wait_ms)));
            }
            ClientRequest::EndTable { table, batches, .. } => {
                self.on_end_table(origin, job, table, batches);
            }
            ClientRequest::Cancel(_) => {
                if self.facts.config.planted == Some(PlantedBug::DropCancel) {
                    return self.answer_status(origin, job);
                }
                // Too late once there is a manifest; how the job ended is said when that is durable.
                let ended = self.facts.jobs[&job].manifest.clone().map(JobEntry::Manifest);
                self.record(origin, job, &ended.unwrap_or(JobEntry::Cancel));
            }
            ClientRequest::Result { chunk, .. } => {
                self.on_result(origin, job, chunk, searched);
            }
            ClientRequest::Rejects { table, .. } => {
                let table = usize::from(table);
                if table >= plan.spec.tables.len() {
                    let response = error(ErrorKind::NotFound, "the plan has no such table");
                    return self.answer(origin, response, Bytes::new());
                }
                let ends = self.facts.jobs[&job].known_ends();
                let summaries = self.facts.located(job, table..table + 1, SlotSet::META, &ends);
                let task = Task::Rejects { plan, table, summaries };
                self.out.run(task, Purpose::Rejects(origin));
            }
            ClientRequest::Submit(_)
            | ClientRequest::Upload(_)
            | ClientRequest::Cluster
            | ClientRequest::Jobs { .. }
            | ClientRequest::Ring
            | ClientRequest::Log { .. }
            | ClientRequest::Chaos(_)
            | ClientRequest::Forget(_)
            | ClientRequest::Drain(_) => {}
        }
    }

    fn on_submit(&mut self, origin: Origin, spec: JobSpec) {
        let job = spec.job;
        if let Some(plan) = self.facts.plan_of(job) {
            if plan.spec == spec {
                // Known here does not mean durable on W nodes: the owners are asked again.
                return self.record(origin, job, &JobEntry::Spec(spec));
            }
            let message = format!("job {job} was submitted before with another plan or file list");
            return self.answer(origin, error(ErrorKind::Conflict, message), Bytes::new());
        }
        if !job.is_v7() {
            let message = format!("{job} is no UUIDv7, and a job's id must be one");
            return self.answer(origin, error(ErrorKind::BadInput, message), Bytes::new());
        }
        let (seen, expected) = (self.facts.roster.known().len(), self.facts.expected_members());
        if seen < expected {
            let message = format!("the cluster is forming: {seen} of {expected} nodes seen");
            return self.answer(origin, error(ErrorKind::Unavailable, message), Bytes::new());
        }
        if let Err(reason) = self.facts.replicas_suffice() {
            return self.answer(origin, error(ErrorKind::Unavailable, reason), Bytes::new());
        }
        match BoundPlan::new(spec.clone()) {
            Ok(bound) => match self.room_for_a_job(bound.bytes) {
                Ok(()) => self.record(origin, job, &JobEntry::Spec(spec)),
                Err(message) => {
                    self.answer(origin, error(ErrorKind::BadInput, message), Bytes::new());
                }
            },
            Err(error) => self.answer(origin, ClientResponse::Error(error), Bytes::new()),
        }
    }

    fn on_end_table(&mut self, origin: Origin, job: JobId, table: u16, batches: u64) {
        let log = &self.facts.jobs[&job];
        let response = match log.ends.get(usize::from(table)) {
            None => error(ErrorKind::NotFound, "the plan has no such table"),
            Some(_) if batches > NUMBERS => {
                error(ErrorKind::BadInput, format!("a table has at most {NUMBERS} batches"))
            }
            Some(Some(before)) if *before != batches => {
                let message = format!(
                    "the table was declared to have {before} batches before, now {batches}: the dataset changed"
                );
                error(ErrorKind::Conflict, message)
            }
            Some(_) => {
                return self.record(origin, job, &JobEntry::TableEnd { table, batches });
            }
        };
        self.answer(origin, response, Bytes::new());
    }

    /// Writes an entry of the job log and answers when it is durable.
    fn record(&mut self, origin: Origin, job: JobId, entry: &JobEntry) {
        let home = self.home_state(job);
        home.fresh |= matches!(entry, JobEntry::Spec(_));
        home.wait_for_entry(entry.number(), origin);
        self.replicate_job_entry(job, entry);
    }

    fn on_result(&mut self, origin: Origin, job: JobId, chunk: u64, searched: bool) {
        let chunks = match &self.facts.jobs[&job].manifest {
            Some(Manifest::Done { chunks, .. }) => *chunks,
            Some(Manifest::Failed { message }) => {
                let response = error(ErrorKind::Ended, message.clone());
                return self.answer(origin, response, Bytes::new());
            }
            None if self.facts.jobs[&job].cancelled => {
                let response = error(ErrorKind::Ended, "the job was cancelled");
                return self.answer(origin, response, Bytes::new());
            }
            None => {
                let message = "the job is not done yet; see `cortado status`";
                let response = error(ErrorKind::Unavailable, message);
                return self.answer(origin, response, Bytes::new());
            }
        };
        if chunk >= chunks {
            let message = format!("the result has {chunks} chunks");
            return self.answer(origin, error(ErrorKind::NotFound, message), Bytes::new());
        }
        let slots = SlotSet::META;
        let coverage = Coverage::range(chunk, chunk + 1);
        let wanted = EdgeCoverage { edge: Edge::RESULT, slots, coverage };
        let record = self
            .facts
            .holdings
            .edge(job, Edge::RESULT)
            .and_then(|edge| edge.wanted(&wanted).next().map(|(_, record, _)| record));
        match record {
            Some(record) => {
                let key = EntryKey { job, edge: Edge::RESULT, number: chunk };
                self.out.run(Task::Read(vec![(key, record, slots)]), Purpose::Chunk(origin));
            }
            None if searched => {
                let message = "no live node has this part of the result";
                self.answer(origin, error(ErrorKind::Unavailable, message), Bytes::new());
            }
            None => self.search(job, origin, ClientRequest::Result { job, chunk }),
        }
    }

    pub(crate) fn on_chunk_task(&mut self, origin: Origin, output: TaskOutput) {
        match output {
            TaskOutput::Entries(entries) => {
                let bytes = entries.first().and_then(|entry| entry.delta(META_SLOT));
                self.answer(origin, ClientResponse::Chunk, bytes.unwrap_or_default());
            }
            TaskOutput::Unreadable(entries) => {
                self.drop_unreadable(&entries);
                let response = error(ErrorKind::Unavailable, "a record was damaged; refilling");
                self.answer(origin, response, Bytes::new());
            }
            other => tracing::error!(?other, "reading a chunk gave something else"),
        }
    }

    pub(crate) fn on_rejects_task(&mut self, origin: Origin, output: TaskOutput) {
        let response = match output {
            TaskOutput::Rejects(rejects) => ClientResponse::Rejects(rejects),
            TaskOutput::Unreadable(entries) => {
                self.drop_unreadable(&entries);
                error(ErrorKind::Unavailable, "a record was damaged; refilling")
            }
            TaskOutput::Failed(message) => error(ErrorKind::Ended, message),
            other => return tracing::error!(?other, "collecting rejects gave something else"),
        };
        self.answer(origin, response, Bytes::new());
    }
}
