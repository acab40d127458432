//! Answers: owns the requests of clients that wait at a job's coordinator, and answers each at once
//! or when there is news. The router calls it.
//!
//! The job log of a new coordinator, or of one that stood still, may be incomplete: before such a
//! coordinator answers, it asks all members (`catch_up`).

use std::collections::BTreeMap;
use std::time::Duration;

use cortado_protocol::client::{ClientError, ClientRequest, ClientResponse, ErrorKind};
use cortado_protocol::expiry::Reason;
use cortado_protocol::job::JobEntry;
use cortado_protocol::stream::StreamRequest;
use cortado_protocol::{EntryKey, JobId};

use crate::facts::Facts;
use crate::outbox::Outbox;
use crate::progress::{Progress, ProgressOf, Step};
use crate::purpose::Origin;

mod catch_up;
mod reply;
mod requests;
mod search;
mod status;

pub(crate) use reply::{answer, on_chunk, on_rejects, on_rows, on_spec, on_stream_summary};
#[cfg(test)]
pub(crate) use status::coverage;
pub(crate) use status::of as status_of;

use search::Search;

/// Longest time a client may wait for news.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The clients that wait for one job.
#[derive(Default)]
struct Clients {
    /// They wait for news until this time.
    waiting: Vec<(Origin, Duration)>,
    /// They wait for an entry of the job log to be durable.
    entries: BTreeMap<u64, Vec<Origin>>,
    /// They wait for the job to be deleted.
    deletions: Vec<Origin>,
    /// Every reachable member was asked for the job's log since this node became the coordinator.
    fresh: bool,
}

/// The requests that wait at this coordinator, from clients of any node.
#[derive(Default)]
pub(crate) struct Answers {
    clients: BTreeMap<JobId, Clients>,
    searches: BTreeMap<JobId, Search>,
}

/// What the router has to do next.
#[must_use]
pub(crate) enum Next {
    Nothing,
    /// Write this entry to the job's log; a client waits for it.
    Record {
        job: JobId,
        entry: Box<JobEntry>,
    },
    /// Begin to coordinate the job, if this node does not do so yet: a client waits for it.
    Coordinate(JobId),
    /// Delete the job: a client waits for it.
    Delete(JobId),
    /// Handle a request about a stream.
    Stream {
        origin: Origin,
        job: JobId,
        request: Box<StreamRequest>,
    },
    /// Hand over and leave; answer the client once that has begun.
    Drain(Origin),
    /// All members were asked: handle these requests now.
    CaughtUp {
        job: JobId,
        requests: Vec<(Origin, ClientRequest)>,
    },
}

impl Answers {
    pub(crate) fn is_busy(&self) -> bool {
        !self.searches.is_empty()
    }

    /// Whether a client waits for the job.
    pub(crate) fn waits(&self, job: JobId) -> bool {
        let waits = |clients: &Clients| {
            !(clients.waiting.is_empty()
                && clients.entries.is_empty()
                && clients.deletions.is_empty())
        };
        self.clients.get(&job).is_some_and(waits)
    }

    /// Other nodes may have written entries without this one: ask them before the next answer.
    pub(crate) fn not_fresh(&mut self) {
        self.clients.values_mut().for_each(|clients| clients.fresh = false);
    }

    /// Drops the state of jobs that this node does not coordinate.
    pub(crate) fn retire(&mut self, coordinates: impl Fn(JobId) -> bool) {
        self.clients.retain(|job, _| coordinates(*job));
    }

    /// Answers all clients of a job that was dropped.
    pub(crate) fn forget(&mut self, out: &mut Outbox, job: JobId, reason: Reason) {
        let Some(mut clients) = self.clients.remove(&job) else { return };
        for origin in std::mem::take(&mut clients.deletions) {
            answer(out, origin, ClientResponse::Accepted);
        }
        clients.answer_all(out, &ClientResponse::error(ErrorKind::NotFound, reason.tell(job)));
    }

    /// Answers the clients that want the job deleted: too few members agreed in time.
    pub(crate) fn not_deleted(&mut self, out: &mut Outbox, job: JobId) {
        let Some(clients) = self.clients.get_mut(&job) else { return };
        for origin in std::mem::take(&mut clients.deletions) {
            let message = "too few members have agreed that the job can be deleted";
            answer(out, origin, ClientResponse::error(ErrorKind::Unavailable, message));
        }
    }

    /// Another node coordinates the job now: makes the entry nodes of waiting clients ask that
    /// node.
    pub(crate) fn resigned(&mut self, out: &mut Outbox, job: JobId) {
        if let Some(clients) = self.clients.remove(&job) {
            let message = "the job's coordinator is moving";
            clients.answer_all(out, &ClientResponse::error(ErrorKind::Unavailable, message));
        }
    }

    /// An entry of the job's log is durable on W nodes: sends the job's status to the clients that
    /// wait for it.
    pub(crate) fn entry_durable(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        progress: ProgressOf<'_>,
        key: EntryKey,
    ) {
        let Some(clients) = self.clients.get_mut(&key.job) else { return };
        let waiting = clients.entries.remove(&key.number).unwrap_or_default();
        let closing = progress(key.job).is_some_and(|progress| progress.step == Step::Close);
        if closing && key.number == JobEntry::Cancel.number() {
            // The manifest that is being written wins over a cancellation, so the client waits for
            // it.
            clients.wait_for_entry(JobEntry::MANIFEST, waiting);
        } else {
            self.tell(facts, out, progress, key.job, waiting);
        }
    }

    /// An entry of the job's log could not be stored.
    pub(crate) fn entry_failed(&mut self, out: &mut Outbox, key: EntryKey, error: &ClientError) {
        let Some(clients) = self.clients.get_mut(&key.job) else { return };
        for origin in clients.entries.remove(&key.number).unwrap_or_default() {
            answer(out, origin, ClientResponse::Error(error.clone()));
        }
    }

    /// Answers now if there is news, otherwise when news comes or the time is over.
    fn wait_for_news(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        progress: ProgressOf<'_>,
        (origin, job): (Origin, JobId),
        wait: Duration,
    ) {
        let wait = wait.min(LONGEST_WAIT);
        let ended = facts.jobs.get(job).is_some_and(|log| log.ended().is_some());
        let missing = |progress: Progress| !progress.missing.is_empty();
        if ended || wait.is_zero() || progress(job).is_some_and(missing) {
            self.tell(facts, out, progress, job, vec![origin]);
        } else {
            let until = facts.now + wait;
            self.clients.entry(job).or_default().waiting.push((origin, until));
        }
    }

    /// Sends the job's status to the clients that wait for news.
    pub(crate) fn news(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        progress: ProgressOf<'_>,
        job: JobId,
    ) {
        let Some(clients) = self.clients.get_mut(&job) else { return };
        let waiting = std::mem::take(&mut clients.waiting);
        let waiting = waiting.into_iter().map(|(origin, _)| origin).collect();
        self.tell(facts, out, progress, job, waiting);
    }

    /// Sends the job's status to the clients whose wait is over.
    pub(crate) fn overdue(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        progress: ProgressOf<'_>,
        job: JobId,
    ) {
        let Some(clients) = self.clients.get_mut(&job) else { return };
        let overdue = clients.waiting.extract_if(.., |(_, until)| *until <= facts.now);
        let overdue = overdue.map(|(origin, _)| origin).collect();
        self.tell(facts, out, progress, job, overdue);
    }

    fn tell(
        &self,
        facts: &Facts,
        out: &mut Outbox,
        progress: ProgressOf<'_>,
        job: JobId,
        clients: Vec<Origin>,
    ) {
        for origin in clients {
            if let Some(status) = status::of(facts, progress, job) {
                answer(out, origin, ClientResponse::Status(status));
            }
        }
    }
}

impl Clients {
    /// Answers all clients.
    fn answer_all(self, out: &mut Outbox, response: &ClientResponse) {
        let waiting = self.waiting.into_iter().map(|(origin, _)| origin);
        for origin in waiting.chain(self.entries.into_values().flatten()).chain(self.deletions) {
            answer(out, origin, response.clone());
        }
    }

    /// Lets these clients wait until this entry of the job log is durable.
    fn wait_for_entry(&mut self, number: u64, origins: impl IntoIterator<Item = Origin>) {
        let mut origins = origins.into_iter().peekable();
        if origins.peek().is_some() {
            self.entries.entry(number).or_default().extend(origins);
        }
    }
}
