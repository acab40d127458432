//! What a stream's coordinator answers to clients.

use cortado_protocol::client::{ClientError, ClientResponse, ErrorKind};
use cortado_protocol::job::JobEntry;
use cortado_protocol::limits::NAME_BYTES;
use cortado_protocol::stream::{
    Cursor, Place, Publisher, SchemaFile, StreamRequest, StreamResponse, StreamStatus,
};
use cortado_protocol::{Edge, JobId};
use cortado_stream::SchemaSet;

use super::status::{status_of, waits_for};
use super::{Streams, reading};
use crate::facts::Facts;
use crate::job::JobLog;
use crate::outbox::Outbox;
use crate::purpose::{Origin, Purpose};
use crate::stream_task::StreamTask;
use crate::task::Task;

/// Most publishers of a stream, all generations counted.
const PUBLISHERS: usize = 10_000;

/// What becomes of a request.
#[must_use]
pub(crate) enum Answer {
    /// The answer.
    Now(Box<ClientResponse>),
    /// A task will answer.
    Later,
    /// The job's status, once this entry of the job log is durable.
    Record(Box<JobEntry>),
}

fn now(response: ClientResponse) -> Answer {
    Answer::Now(Box::new(response))
}

impl Streams {
    /// Handles a request of a client about a stream that this node coordinates.
    pub(crate) fn on_request(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        (origin, job): (Origin, JobId),
        request: StreamRequest,
    ) -> Answer {
        let log = &facts.jobs[job];
        let checked = match request {
            StreamRequest::Status if log.is_done() => {
                let Some(summary) = facts.located_at(job, Edge::RESULT, 0) else {
                    let message = "this node lacks the stream's summary";
                    return now(ClientResponse::error(ErrorKind::Unavailable, message));
                };
                out.run(Task::Read(vec![summary]), Purpose::StreamSummary(origin));
                return Answer::Later;
            }
            StreamRequest::Status => {
                return now(self.status(facts, job));
            }
            StreamRequest::Rows { output, after } => {
                let known = log.plan.as_ref().and_then(|plan| plan.stream.as_ref());
                if let Some(plan) = known.filter(|plan| plan.outputs().all(|name| name != output)) {
                    let names = plan.outputs().collect::<Vec<_>>().join(", ");
                    let message = format!("there is no output '{output}': expected {names}");
                    return now(ClientResponse::error(ErrorKind::NotFound, message));
                }
                let task = rows(facts, job, output, after);
                out.run(Task::Stream(task), Purpose::Rows(origin));
                return Answer::Later;
            }
            StreamRequest::Latest { windows } => {
                let cursor = self.latest(facts, job, windows.into());
                let ended = false;
                let rows = StreamResponse::Rows { ended, cursor, gone: 0 };
                return now(ClientResponse::Stream(rows));
            }
            StreamRequest::Dead(place) | StreamRequest::Deliver(place) => {
                let Place { edge, batch, position } = place;
                let Some(located) = facts.located_at(job, edge, batch) else {
                    let message = "there is no such dead letter";
                    return now(ClientResponse::error(ErrorKind::NotFound, message));
                };
                let purpose = match request {
                    StreamRequest::Deliver(_) => Purpose::DeliverAgain(origin, job),
                    _ => Purpose::Rows(origin),
                };
                // What was not delivered is a row.
                let task = match edge.is_output() {
                    true => StreamTask::Row { located, row: position },
                    false => StreamTask::Dead { located, position },
                };
                out.run(Task::Stream(task), purpose);
                return Answer::Later;
            }
            StreamRequest::Events { edge, from, batches } => {
                let wanted = (edge, from, batches);
                let answer = self.reads.begin(facts, out, (origin, job), wanted);
                return answer.map_or(Answer::Later, now);
            }
            StreamRequest::Cut { edge, batch } => {
                let found = facts.located_at(job, edge, batch).filter(|_| edge.is_output());
                let Some(located) = found else {
                    let message = "nothing was published under this number";
                    return now(ClientResponse::error(ErrorKind::NotFound, message));
                };
                out.run(Task::Stream(StreamTask::Cut(located)), Purpose::Rows(origin));
                return Answer::Later;
            }
            StreamRequest::Coverage { edge, from, whole: true } => {
                let answer = self.reads.check(facts, out, (origin, job), (edge, from));
                return answer.map_or(Answer::Later, now);
            }
            StreamRequest::Coverage { edge, from, whole: false } => {
                let coverage = facts.coverage((job, edge), from, None);
                return now(ClientResponse::Coverage(coverage));
            }
            StreamRequest::PutSchemas { set, files } => {
                may_put(log, set, &files).map(|()| JobEntry::Schemas { set, files })
            }
            StreamRequest::Open(publisher) => {
                let state = self.all.get(&job).map(|stream| &stream.state);
                let has_ended =
                    |before: &Publisher| state.is_some_and(|state| state.has_ended(before));
                may_open(log, &publisher, has_ended).map(|()| JobEntry::Publisher(publisher))
            }
            // It may have ended before the answer to the first request arrived.
            StreamRequest::Stop => match &log.manifest {
                Some(manifest) => Ok(JobEntry::Manifest(manifest.clone())),
                None => not_ended(log).map(|()| JobEntry::Stop),
            },
        };
        match checked {
            Ok(entry) => Answer::Record(Box::new(entry)),
            Err(refused) => now(ClientResponse::Error(refused)),
        }
    }

    /// Where the rows of the newest windows begin. Of a stream that has ended, or that this node has just begun
    /// to coordinate, the newest batches of each coordinator are read instead.
    fn latest(&self, facts: &Facts, job: JobId, windows: usize) -> Cursor {
        let stream = self.all.get(&job).filter(|stream| stream.is_settled_here(facts, job));
        if let Some(stream) = stream {
            return stream.state.latest(windows);
        }
        let mut cursor = Cursor::default();
        let held = facts.ledger.job(job).into_iter().flat_map(|held| held.edges());
        for (edge, index) in held.filter(|(edge, _)| edge.is_output()) {
            let end = index.meta().intervals().last().map_or(0, |(_, end)| *end);
            cursor.advance(edge, end.saturating_sub(windows as u64), 0);
        }
        cursor
    }

    /// How the streams that are driven here stand, by name; those that have read what was published before.
    pub(crate) fn statuses(&self, facts: &Facts) -> Vec<(String, StreamStatus)> {
        let known = self.all.iter().filter(|(_, stream)| stream.state.has_caught_up());
        let status = |(job, stream): (&JobId, &super::stream::Stream)| {
            let log = facts.jobs.get(*job)?;
            let name = log.brief.as_ref()?.plan_name.clone();
            Some((name, status_of(facts, *job, (log, stream))))
        };
        known.filter_map(status).collect()
    }

    fn status(&self, facts: &Facts, job: JobId) -> ClientResponse {
        let log = &facts.jobs[job];
        if let Some(ended) = log.ended() {
            return ClientResponse::Error(ended);
        }
        let Some(stream) = self.all.get(&job) else {
            let message = "the stream's coordinator has just begun";
            return ClientResponse::error(ErrorKind::Unavailable, message);
        };
        if !stream.state.has_caught_up() {
            let message = "the stream's coordinator still reads batches that were published before";
            return ClientResponse::error(ErrorKind::Unavailable, message);
        }
        let status = status_of(facts, job, (log, stream));
        let waits_for = waits_for(facts, (log, stream), &status);
        let status = StreamStatus { coordinator: Some(facts.config.node), waits_for, ..status };
        ClientResponse::Stream(StreamResponse::Status(Box::new(status)))
    }
}

/// Reads the rows that follow a reader's cursor.
pub(super) fn rows(facts: &Facts, job: JobId, output: String, mut after: Cursor) -> StreamTask {
    let mut gone = 0;
    let held = facts.ledger.job(job).into_iter().flat_map(|held| held.edges());
    for (edge, index) in held.filter(|(edge, _)| edge.is_output()) {
        let (read, floor) = (after.of(edge).0, index.floor());
        gone += floor.saturating_sub(read);
        if read < floor {
            after.advance(edge, floor, 0);
        }
    }
    let (entries, all) = reading::following(facts, job, Edge::is_output, |edge| after.of(edge).0);
    let mut ends = Vec::new();
    if all && facts.jobs.get(job).is_some_and(|log| log.ended().is_some()) {
        let held = facts.ledger.job(job).into_iter().flat_map(|held| held.edges());
        for (edge, index) in held.filter(|(edge, _)| edge.is_output()) {
            let end = index.meta().intervals().last().map_or(0, |(_, end)| *end);
            ends.extend(facts.located_at(job, edge, end.saturating_sub(1)));
        }
    }
    StreamTask::Rows { output, after, gone, entries, ends }
}

/// Checks whether a publisher can be opened. An earlier generation must have ended, so that no batch of
/// it can come after the stream has.
fn may_open(
    log: &JobLog,
    publisher: &Publisher,
    has_ended: impl Fn(&Publisher) -> bool,
) -> Result<(), ClientError> {
    not_ended(log)?;
    let refuse = |kind, message: String| Err(ClientError::new(kind, message));
    let Publisher { name, generation, .. } = publisher;
    if name.is_empty() || name.len() > NAME_BYTES || name.chars().any(char::is_control) {
        let message = format!(
            "the name of a publisher has 1 to {NAME_BYTES} bytes, and no control characters"
        );
        return refuse(ErrorKind::BadInput, message);
    }
    if let Some(known) = log.stream.publishers.get(&publisher.edge()) {
        if known == publisher {
            return Ok(());
        }
        let message = format!("publisher '{name}' was opened before, with other options");
        return refuse(ErrorKind::Conflict, message);
    }
    if log.stream.stopping {
        return refuse(ErrorKind::Ended, "the stream is to end".to_owned());
    }
    let newest = log.stream.newest_of(name);
    if let Some(newest) = newest.filter(|newest| !has_ended(newest)) {
        let message = format!("publisher '{name}' is open: generation {}", newest.generation);
        return refuse(ErrorKind::Unavailable, message);
    }
    let next = newest.map_or(0, |newest| newest.generation + 1);
    if *generation != next {
        let message = format!("the next generation of publisher '{name}' is {next}");
        return refuse(ErrorKind::Conflict, message);
    }
    if log.stream.publishers.len() >= PUBLISHERS {
        let message = format!("a stream has at most {PUBLISHERS} publishers");
        return refuse(ErrorKind::BadInput, message);
    }
    Ok(())
}

/// Checks whether a schema set can be put in force.
fn may_put(log: &JobLog, set: u32, files: &[SchemaFile]) -> Result<(), ClientError> {
    not_ended(log)?;
    let refuse = |kind, message: String| Err(ClientError::new(kind, message));
    let plan = log.plan.as_ref().and_then(|plan| plan.stream.as_ref());
    let Some(stream) = plan else {
        return refuse(ErrorKind::Unavailable, "this node can't read the plan".to_owned());
    };
    if let Some(known) = log.stream.schemas.get(&set) {
        if known == files {
            return Ok(());
        }
        let message = format!("schema set {set} is there already, with other content");
        return refuse(ErrorKind::Conflict, message);
    }
    let next = log.stream.newest_set().map_or(0, |newest| newest + 1);
    if set != next {
        return refuse(ErrorKind::Conflict, format!("the next schema set is {next}"));
    }
    match SchemaSet::compile(stream, files) {
        Ok(_) => Ok(()),
        Err(error) => refuse(ErrorKind::BadInput, error.to_string()),
    }
}

/// Refuses what comes after the end.
fn not_ended(log: &JobLog) -> Result<(), ClientError> {
    log.ended().map_or(Ok(()), Err)
}
