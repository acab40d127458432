//! Answers: what a job's coordinator says to clients, at once or when there is news.
//!
//! A coordinator that has just become one, or stood still, may not have all of the job's log: before it
//! answers, it asks all members (`catch_up`).

use std::collections::BTreeMap;
use std::time::Duration;

use cortado_protocol::client::{ClientError, ClientRequest, ClientResponse, ErrorKind};
use cortado_protocol::expiry::Reason;
use cortado_protocol::job::JobEntry;
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

pub(crate) use reply::{answer, on_chunk, on_rejects, on_spec};
#[cfg(test)]
pub(crate) use status::coverage;
pub(crate) use status::of as status_of;

use search::Search;

/// Longest time a client may wait for news.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Clients of one job.
#[derive(Default)]
struct Clients {
    /// They wait for news, until when.
    waiting: Vec<(Origin, Duration)>,
    /// They wait for an entry of the job log to be durable.
    entries: BTreeMap<u64, Vec<Origin>>,
    /// They wait for the job to be deleted.
    deletions: Vec<Origin>,
    /// Every reachable member was asked for the job's log since this node became the coordinator.
    fresh: bool,
}

/// What clients of any node wait for at this coordinator.
#[derive(Default)]
pub(crate) struct Answers {
    clients: BTreeMap<JobId, Clients>,
    searches: BTreeMap<JobId, Search>,
}

/// What the router has to lead on.
#[must_use]
pub(crate) enum Next {
    Nothing,
    /// This entry is to be written to the job's log; a client waits for it.
    Record {
        job: JobId,
        entry: Box<JobEntry>,
    },
    /// This node coordinates the job, if it did not before: a client waits for it.
    Coordinate(JobId),
    /// The job is to be deleted: a client waits for it.
    Delete(JobId),
    /// This node hands over and leaves; the client is told once that has begun.
    Drain(Origin),
    /// All members were asked: these requests can be answered now, if they can be at all.
    CaughtUp {
        job: JobId,
        requests: Vec<(Origin, ClientRequest)>,
    },
}

impl Answers {
    pub(crate) fn is_busy(&self) -> bool {
        !self.searches.is_empty()
    }

    /// Whether a client waits for something of the job.
    pub(crate) fn waits(&self, job: JobId) -> bool {
        let waits = |clients: &Clients| {
            !(clients.waiting.is_empty()
                && clients.entries.is_empty()
                && clients.deletions.is_empty())
        };
        self.clients.get(&job).is_some_and(waits)
    }

    /// Others may have gone on without this node: they are asked before the next answer.
    pub(crate) fn not_fresh(&mut self) {
        self.clients.values_mut().for_each(|clients| clients.fresh = false);
    }

    /// Lets go of jobs that this node does not coordinate.
    pub(crate) fn retire(&mut self, coordinates: impl Fn(JobId) -> bool) {
        self.clients.retain(|job, _| coordinates(*job));
    }

    /// The job is forgotten: that is what some wanted, and an answer to all others.
    pub(crate) fn forget(&mut self, out: &mut Outbox, job: JobId, reason: Reason) {
        let Some(mut clients) = self.clients.remove(&job) else { return };
        for origin in std::mem::take(&mut clients.deletions) {
            answer(out, origin, ClientResponse::Accepted);
        }
        clients.answer_all(out, &ClientResponse::error(ErrorKind::NotFound, reason.tell(job)));
    }

    /// Too few members have agreed in time that the job can go.
    pub(crate) fn not_deleted(&mut self, out: &mut Outbox, job: JobId) {
        let Some(clients) = self.clients.get_mut(&job) else { return };
        for origin in std::mem::take(&mut clients.deletions) {
            let message = "too few members have agreed that the job can be deleted";
            answer(out, origin, ClientResponse::error(ErrorKind::Unavailable, message));
        }
    }

    /// Another node coordinates the job now: the entry nodes of waiting clients ask that one.
    pub(crate) fn resigned(&mut self, out: &mut Outbox, job: JobId) {
        if let Some(clients) = self.clients.remove(&job) {
            let message = "the job's coordinator is moving";
            clients.answer_all(out, &ClientResponse::error(ErrorKind::Unavailable, message));
        }
    }

    /// An entry of the job's log is durable on W nodes: whoever waits for it is told how the job stands.
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
            // The manifest that is being written wins: that is the answer.
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

    /// Answers now if there is news, otherwise when there is or when the time is over.
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

    /// There is news of the job.
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

    /// Clients that have waited long enough are told how the job stands.
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
    /// Nobody of them waits any more.
    fn answer_all(self, out: &mut Outbox, response: &ClientResponse) {
        let waiting = self.waiting.into_iter().map(|(origin, _)| origin);
        for origin in waiting.chain(self.entries.into_values().flatten()).chain(self.deletions) {
            answer(out, origin, response.clone());
        }
    }

    /// These are told when this entry of the job log is durable.
    fn wait_for_entry(&mut self, number: u64, origins: impl IntoIterator<Item = Origin>) {
        let mut origins = origins.into_iter().peekable();
        if origins.peek().is_some() {
            self.entries.entry(number).or_default().extend(origins);
        }
    }
}
