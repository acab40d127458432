//! Handles the requests of clients that a job's coordinator answers.

use std::time::Duration;

use cortado_engine::mebi;
use cortado_protocol::client::{ClientError, ClientRequest, ClientResponse, ErrorKind};
use cortado_protocol::expiry::Reason;
use cortado_protocol::job::{JobEntry, JobSpec, Manifest};
use cortado_protocol::limits::{JOBS_PER_ANSWER, NUMBERS};
use cortado_protocol::{Edge, JobId, SlotSet};

use super::catch_up::not_found;
use super::reply::answer;
use super::status::{self, coverage};
use super::{Answers, Next};
use crate::config::PlantedBug;
use crate::facts::Facts;
use crate::job::{BoundPlan, up_to};
use crate::outbox::Outbox;
use crate::placement::names_of;
use crate::progress::{ProgressOf, Step};
use crate::purpose::{Origin, Purpose};
use crate::record::Located;
use crate::task::Task;

/// A listing names at most so many intervals of missing batches for each table.
const MISSING_IN_LISTS: usize = 10;
/// Limit of the jobs that are kept, including ended ones.
const JOBS: usize = 10_000;

impl Answers {
    /// A node passes on a client's request.
    pub(crate) fn on_ask(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        progress: ProgressOf<'_>,
        origin: Origin,
        request: ClientRequest,
    ) -> Next {
        match (&request, request.job()) {
            (ClientRequest::Jobs { after }, _) => {
                let jobs = list(facts, progress, *after);
                answer(out, origin, ClientResponse::Jobs(jobs));
                Next::Nothing
            }
            (ClientRequest::Drain(node), _) if *node == facts.config.node => Next::Drain(origin),
            (_, Some(job)) if facts.is_coordinator(job) => {
                self.on_job_request(facts, out, progress, (origin, job), request, false)
            }
            _ => {
                let message = "the job's coordinator is moving";
                answer(out, origin, ClientResponse::error(ErrorKind::Unavailable, message));
                Next::Nothing
            }
        }
    }

    /// A request about a job that this node coordinates. `searched` says whether a catch-up has
    /// just ended.
    pub(crate) fn on_job_request(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        progress: ProgressOf<'_>,
        (origin, job): (Origin, JobId),
        request: ClientRequest,
        searched: bool,
    ) -> Next {
        if let Some(proof) = facts.ledger.tombstone(job) {
            let response = match (&request, proof.reason) {
                // The client may not have received the first answer.
                (ClientRequest::Delete(_), Reason::Deleted) => ClientResponse::Accepted,
                (_, reason) => ClientResponse::error(ErrorKind::NotFound, reason.tell(job)),
            };
            answer(out, origin, response);
            return Next::Nothing;
        }
        if let ClientRequest::Submit(spec) = request {
            return match submitted(facts, &spec) {
                Ok(()) => self.record(origin, job, JobEntry::Spec(spec)),
                Err(refused) => {
                    answer(out, origin, ClientResponse::Error(refused));
                    Next::Nothing
                }
            };
        }
        if !searched && self.may_be_stale(facts, job) {
            return self.search(facts, out, (origin, job), request);
        }
        let log = facts.jobs.get(job);
        let Some((log, brief)) = log.and_then(|log| Some((log, log.brief.as_ref()?))) else {
            if searched {
                answer(out, origin, not_found(facts, job));
                return Next::Nothing;
            }
            return self.search(facts, out, (origin, job), request);
        };
        match request {
            ClientRequest::Spec(_) => {
                if let Some(plan) = &log.plan {
                    answer(out, origin, ClientResponse::Spec(plan.spec.clone()));
                    return Next::Nothing;
                }
                let read = facts
                    .located_at(job, Edge::JOB, 0)
                    .map(|record| (Task::Read(vec![record]), Purpose::Spec(origin)));
                let missing = "no live node has the job's specification";
                let asked = (request, searched);
                return self.read_or_search(facts, out, (origin, job), asked, read, missing);
            }
            ClientRequest::Stream(..) if !brief.is_stream() => {
                let message = format!("job {job} is no stream");
                answer(out, origin, ClientResponse::error(ErrorKind::BadInput, message));
            }
            ClientRequest::Stream(_, request) => {
                return Next::Stream { origin, job, request: Box::new(request) };
            }
            ClientRequest::Coverage { table, from, .. } => {
                let coverage = coverage(facts, job, table.into(), from);
                answer(out, origin, ClientResponse::Coverage(coverage));
            }
            ClientRequest::Status { wait_ms, .. } => {
                let wait = Duration::from_millis(u64::from(wait_ms));
                self.wait_for_news(facts, out, progress, (origin, job), wait);
                return Next::Coordinate(job);
            }
            ClientRequest::EndTable { table, batches, .. } => {
                match ended(facts, job, table, batches) {
                    Ok(()) => {
                        let entry = JobEntry::TableEnd { table, batches };
                        return self.record(origin, job, entry);
                    }
                    Err(refused) => answer(out, origin, ClientResponse::Error(refused)),
                }
            }
            ClientRequest::Cancel(_) => {
                if facts.config.planted == Some(PlantedBug::DropCancel) {
                    self.tell(facts, out, progress, job, vec![origin]);
                    return Next::Nothing;
                }
                // With a manifest it is too late to cancel. The client then gets the job's outcome
                // when the manifest is durable.
                let ended = facts.jobs[job].manifest.clone().map(JobEntry::Manifest);
                return self.record(origin, job, ended.unwrap_or(JobEntry::Cancel));
            }
            // While views differ, another coordinator may have just ended the job.
            ClientRequest::Delete(_) if !searched && facts.jobs[job].ended().is_none() => {
                return self.search(facts, out, (origin, job), request);
            }
            ClientRequest::Delete(_) => {
                return match deletable(facts, progress, job) {
                    Ok(()) => {
                        self.clients.entry(job).or_default().deletions.push(origin);
                        Next::Delete(job)
                    }
                    Err(refused) => {
                        answer(out, origin, ClientResponse::Error(refused));
                        Next::Nothing
                    }
                };
            }
            ClientRequest::Result { chunk, .. } => match result(facts, job, chunk) {
                Ok(record) => {
                    let read =
                        record.map(|record| (Task::Read(vec![record]), Purpose::Chunk(origin)));
                    let missing = "no live node has this part of the result";
                    let asked = (request, searched);
                    return self.read_or_search(facts, out, (origin, job), asked, read, missing);
                }
                Err(refused) => answer(out, origin, ClientResponse::Error(refused)),
            },
            ClientRequest::Rejects { table, .. } => {
                let table = usize::from(table);
                if table >= brief.tables.len() {
                    answer(out, origin, ClientResponse::Error(no_such_table()));
                    return Next::Nothing;
                }
                if let Some(chunks) = log.manifest.as_ref().and_then(|m| m.rejects(table)) {
                    let chunks = chunks.map(|chunk| facts.located_at(job, Edge::RESULT, chunk));
                    let chunks: Option<Vec<_>> = chunks.collect();
                    let read =
                        chunks.map(|chunks| (Task::KeptRejects(chunks), Purpose::Rejects(origin)));
                    let missing = "no live node has all of the rejected rows";
                    let asked = (request, searched);
                    return self.read_or_search(facts, out, (origin, job), asked, read, missing);
                }
                let Some(plan) = log.plan.clone() else {
                    let message = "this node can't read the job's plan";
                    answer(out, origin, ClientResponse::error(ErrorKind::Unavailable, message));
                    return Next::Nothing;
                };
                let batches = up_to(&log.known_ends());
                let of_table = batches.get(table).into_iter();
                let summaries = facts.located(job, of_table, SlotSet::META);
                let task = Task::Rejects { plan, table, summaries };
                out.run(task, Purpose::Rejects(origin));
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
        Next::Nothing
    }

    /// Reads entries for a client. If some are not here, all members are searched for them first;
    /// after that the client is answered that they are `missing`.
    fn read_or_search(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        (origin, job): (Origin, JobId),
        (request, searched): (ClientRequest, bool),
        read: Option<(Task, Purpose)>,
        missing: &str,
    ) -> Next {
        match read {
            Some((task, purpose)) => out.run(task, purpose),
            None if searched => {
                answer(out, origin, ClientResponse::error(ErrorKind::Unavailable, missing));
            }
            None => return self.search(facts, out, (origin, job), request),
        }
        Next::Nothing
    }

    /// Asks the router to write an entry to the job log, and lets the client wait for it.
    pub(crate) fn record(&mut self, origin: Origin, job: JobId, entry: JobEntry) -> Next {
        let clients = self.clients.entry(job).or_default();
        clients.fresh |= matches!(entry, JobEntry::Spec(_));
        clients.wait_for_entry(entry.number(), [origin]);
        Next::Record { job, entry: Box::new(entry) }
    }
}

/// The status of the jobs with an id above `after`, as this node sees them.
fn list(
    facts: &Facts,
    progress: ProgressOf<'_>,
    after: Option<JobId>,
) -> Vec<cortado_protocol::job::JobStatus> {
    let jobs = facts.jobs.after(after).filter(|(_, log)| log.brief.is_some());
    let jobs = jobs.take(JOBS_PER_ANSWER);
    let mut jobs: Vec<_> = jobs.filter_map(|(job, _)| status::of(facts, progress, job)).collect();
    for table in jobs.iter_mut().flat_map(|job| &mut job.tables) {
        // The status of a single job lists all intervals.
        let _ = table.missing.split_off(MISSING_IN_LISTS);
    }
    jobs
}

fn no_such_table() -> ClientError {
    ClientError::new(ErrorKind::NotFound, "the plan has no such table")
}

/// Checks whether a job can be accepted.
fn submitted(facts: &Facts, spec: &JobSpec) -> Result<(), ClientError> {
    let job = spec.job;
    let refuse = |kind, message: String| Err(ClientError::new(kind, message));
    if let Some(brief) = facts.jobs.get(job).and_then(|log| log.brief.as_ref()) {
        if brief.is_of(spec) {
            // This node has the entry, but perhaps fewer than W nodes: the owners are asked again.
            return Ok(());
        }
        let message = format!("job {job} was submitted before with another plan or file list");
        return refuse(ErrorKind::Conflict, message);
    }
    if !job.is_v7() {
        let message = format!("{job} is no UUIDv7, and a job's id must be one");
        return refuse(ErrorKind::BadInput, message);
    }
    let (seen, expected) = (facts.roster.known().len(), facts.expected_members());
    if seen < expected {
        let message = format!("the cluster is forming: {seen} of {expected} nodes seen");
        return refuse(ErrorKind::Unavailable, message);
    }
    if let Err(reason) = facts.replicas_suffice() {
        return refuse(ErrorKind::Unavailable, reason);
    }
    let bound = BoundPlan::new(spec.clone())?;
    room_for_a_job(facts, bound.bytes).or_else(|message| refuse(ErrorKind::BadInput, message))
}

/// Checks whether there is room for one more job.
fn room_for_a_job(facts: &Facts, bytes: usize) -> Result<(), String> {
    let (mut jobs, mut all) = (0, bytes);
    for (_, log) in facts.jobs.iter() {
        let Some(brief) = &log.brief else { continue };
        jobs += 1;
        all += log.plan.as_ref().map_or(brief.bytes(), |plan| plan.bytes);
    }
    if jobs >= JOBS {
        return Err(format!(
            "{jobs} jobs are kept, and no more can be: wait until some are past their time to live"
        ));
    }
    let limit = facts.config.memory.jobs;
    if all > limit {
        return Err(format!(
            "the plans and file lists of {jobs} jobs and of this one take {}, and {} are for them: \
             name fewer files, or wait until some jobs are past their time to live",
            mebi(all),
            mebi(limit)
        ));
    }
    Ok(())
}

/// Checks whether a table can end with so many batches.
fn ended(facts: &Facts, job: JobId, table: u16, batches: u64) -> Result<(), ClientError> {
    match facts.jobs[job].ends.get(usize::from(table)) {
        None => Err(no_such_table()),
        Some(_) if batches > NUMBERS => {
            let message = format!("a table has at most {NUMBERS} batches");
            Err(ClientError::new(ErrorKind::BadInput, message))
        }
        Some(Some(before)) if *before != batches => {
            let message = format!(
                "the table was declared to have {before} batches before, now {batches}: the dataset changed"
            );
            Err(ClientError::new(ErrorKind::Conflict, message))
        }
        Some(_) => Ok(()),
    }
}

/// Checks whether a job can be deleted now.
fn deletable(facts: &Facts, progress: ProgressOf<'_>, job: JobId) -> Result<(), ClientError> {
    // If too many members are away, the job may also have ended without this node's knowledge.
    if let Some(away) = facts.lacks_members() {
        let message = format!(
            "a job is deleted when a majority agrees, and one of the holders of all it had; too many \
             members are away: {}",
            names_of(&away)
        );
        return Err(ClientError::new(ErrorKind::Unavailable, message));
    }
    if progress(job).is_some_and(|progress| progress.step == Step::Close) {
        // Another node may have reported the job as ended already.
        let message = "the job's end is being written to the replicas";
        return Err(ClientError::new(ErrorKind::Unavailable, message));
    }
    if facts.jobs[job].ended().is_none() {
        let message = format!(
            "job {job} has not ended, and only an ended one can be deleted: `cortado cancel {job}` \
             ends it"
        );
        return Err(ClientError::new(ErrorKind::Conflict, message));
    }
    Ok(())
}

/// The location of a chunk of the job's result; `None` if it is not here, an error if there is
/// none.
fn result(facts: &Facts, job: JobId, chunk: u64) -> Result<Option<Located>, ClientError> {
    let log = &facts.jobs[job];
    let chunks = match &log.manifest {
        Some(Manifest::Done { chunks, .. }) => *chunks,
        Some(Manifest::Failed { message }) => {
            return Err(ClientError::new(ErrorKind::Ended, message.clone()));
        }
        None if log.cancelled => {
            return Err(ClientError::new(ErrorKind::Ended, "the job was cancelled"));
        }
        None => {
            let message = "the job is not done yet; see `cortado status`";
            return Err(ClientError::new(ErrorKind::Unavailable, message));
        }
    };
    if chunk >= chunks {
        let message = format!("the result has {chunks} chunks");
        return Err(ClientError::new(ErrorKind::NotFound, message));
    }
    Ok(facts.located_at(job, Edge::RESULT, chunk))
}
