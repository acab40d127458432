//! A simulated client: submits, uploads with a window, declares ends, waits, fetches the result.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use cortado_membership::ring;
use cortado_protocol::client::{
    BatchOutcome, BatchReply, ClientError, ClientRequest, ClientResponse, ErrorKind,
};
use cortado_protocol::job::{JobState, Manifest};
use cortado_protocol::{NodeId, content_hash};

use super::data::Dataset;

/// Batches unanswered at once.
const WINDOW: usize = 6;
/// A request or batch without an answer is sent again after this.
const PATIENCE: Duration = Duration::from_secs(12);

/// What a client sends.
#[derive(Clone, Debug)]
pub(crate) enum Sent {
    Request(ClientRequest),
    Batch { table: usize, number: u64 },
}

enum Step {
    Submit,
    /// Somebody had begun: what is there already?
    Compare {
        table: u16,
        from: u64,
    },
    Upload,
    Wait,
    Fetch {
        chunks: u64,
        hash: u64,
        received: BTreeMap<u64, Bytes>,
    },
    Cancel,
    Done(Bytes),
    /// It was cancelled, and the cluster says so.
    Cancelled,
    /// It is over, with this result, and shall be forgotten.
    Delete(Option<Bytes>),
    Deleted(Option<Bytes>),
    /// Its job was gone first.
    Expired,
    Failed(String),
}

/// A client with one job.
pub(crate) struct SimClient {
    pub(crate) data: Dataset,
    step: Step,
    /// Batches still to send, and those without an answer: when, and how often tried.
    todo: BTreeSet<(usize, u64)>,
    in_flight: BTreeMap<(usize, u64), Duration>,
    tries: BTreeMap<(usize, u64), usize>,
    ends: BTreeSet<usize>,
    asked_at: Option<Duration>,
    rest_until: Duration,
    /// Cancels when it has so many acknowledgements.
    cancel_at: Option<usize>,
    cancels: bool,
    /// Has its job deleted when that is over.
    deletes: bool,
    /// Whether it has asked for that.
    pub(crate) asked_to_delete: bool,
    /// Jobs live for so short a time that this one may be gone before it is done.
    may_expire: bool,
    resumed: bool,
    /// Stops when it has so many acknowledgements, for so long.
    stop: Option<(usize, Duration)>,
    /// Pause after each batch that is sent.
    pace: Duration,
    next_at: Duration,
    /// Number of the process: answers to an earlier one are nobody's.
    pub(crate) life: u64,
    /// Batches acknowledged. They are never sent again: acknowledged means durable.
    pub(crate) acknowledged: BTreeSet<(usize, u64)>,
}

impl SimClient {
    pub(crate) fn new(data: Dataset, cancels: bool, may_expire: bool) -> Self {
        let numbers = |(table, batches): (usize, &Vec<_>)| {
            (0..batches.len() as u64).map(move |number| (table, number)).collect::<Vec<_>>()
        };
        let todo = data.tables.iter().enumerate().flat_map(numbers).collect();
        Self {
            data,
            step: Step::Submit,
            todo,
            in_flight: BTreeMap::new(),
            tries: BTreeMap::new(),
            ends: BTreeSet::new(),
            asked_at: None,
            rest_until: Duration::ZERO,
            cancel_at: cancels.then_some(3),
            cancels,
            deletes: false,
            asked_to_delete: false,
            may_expire,
            resumed: false,
            stop: None,
            pace: Duration::ZERO,
            next_at: Duration::ZERO,
            life: 0,
            acknowledged: BTreeSet::new(),
        }
    }

    /// Takes so long for its upload, if nothing goes wrong.
    pub(crate) fn lasting(self, upload: Duration) -> Self {
        let pace = upload / self.todo.len().max(1) as u32;
        Self { pace, ..self }
    }

    /// Stops in the middle and goes on, as somebody does who closes a laptop.
    pub(crate) fn stopping(self, stop: Option<(usize, Duration)>) -> Self {
        Self { stop, ..self }
    }

    /// Has its job deleted in the end.
    pub(crate) fn deleting(self, deletes: bool) -> Self {
        Self { deletes, ..self }
    }

    /// Whether it was told that its job is deleted.
    pub(crate) fn has_deleted(&self) -> bool {
        matches!(self.step, Step::Deleted(_))
    }

    /// Whether it wants nothing more.
    pub(crate) fn is_over(&self) -> bool {
        match self.step {
            Step::Done(_) | Step::Cancelled => !self.deletes,
            Step::Expired | Step::Deleted(_) => true,
            _ => false,
        }
    }

    /// The result's bytes, once there.
    pub(crate) fn result(&self) -> Option<&Bytes> {
        match &self.step {
            Step::Done(bytes) | Step::Delete(Some(bytes)) | Step::Deleted(Some(bytes)) => {
                Some(bytes)
            }
            _ => None,
        }
    }

    pub(crate) fn failure(&self) -> Option<&str> {
        match &self.step {
            Step::Failed(message) => Some(message),
            _ => None,
        }
    }

    /// The process dies; the next one knows the job's id and the dataset. Not for one that cancels:
    /// whether it did is its user's to know.
    pub(crate) fn resume(&mut self) -> bool {
        let deletes = matches!(self.step, Step::Delete(_));
        if self.cancels || deletes || self.is_over() || self.failure().is_some() {
            return false;
        }
        let mut fresh = Self::new(self.data.clone(), false, self.may_expire);
        fresh.acknowledged = std::mem::take(&mut self.acknowledged);
        fresh.todo.retain(|key| !fresh.acknowledged.contains(key));
        *self = Self { life: self.life + 1, resumed: true, pace: self.pace, ..fresh };
        true
    }

    /// Where it stands, for a failing run's report.
    pub(crate) fn describe(&self) -> String {
        let step = match &self.step {
            Step::Submit => "submitting",
            Step::Compare { .. } => "comparing",
            Step::Upload => "uploading",
            Step::Wait => "waiting",
            Step::Fetch { .. } => "fetching",
            Step::Cancel => "cancelling",
            Step::Cancelled => "cancelled",
            Step::Delete(_) => "deleting",
            Step::Deleted(_) => "deleted",
            Step::Done(_) => "done",
            Step::Expired => "expired",
            Step::Failed(_) => "failed",
        };
        format!("{step}, {} to send, {} in flight", self.todo.len(), self.in_flight.len())
    }

    /// What to send now, and to whom (`None`: any node).
    pub(crate) fn poll(&mut self, now: Duration, live: &[NodeId]) -> Vec<(Option<NodeId>, Sent)> {
        let mut out = Vec::new();
        if let Some((after, pause)) = self.stop
            && self.acknowledged.len() >= after
        {
            self.stop = None;
            self.rest_until = now + pause;
        }
        if now < self.rest_until {
            return out;
        }
        let enough = self.cancel_at.is_some_and(|at| self.acknowledged.len() >= at);
        // Late acknowledgements may come after the result.
        let has_ended = matches!(self.step, Step::Done(_) | Step::Cancelled | Step::Delete(_));
        if enough && self.asked_at.is_none() && !has_ended && !self.is_over() {
            self.cancel_at = None;
            self.step = Step::Cancel;
        }
        if self.deletes && matches!(self.step, Step::Done(_) | Step::Cancelled) {
            self.asked_to_delete = true;
            self.step = Step::Delete(self.result().cloned());
        }
        let late = |at: &Duration| now >= *at + PATIENCE;
        let lost: Vec<_> =
            self.in_flight.iter().filter(|(_, at)| late(at)).map(|(key, _)| *key).collect();
        for key in lost {
            self.in_flight.remove(&key);
            self.todo.insert(key);
        }
        if !matches!(
            self.step,
            Step::Submit
                | Step::Compare { .. }
                | Step::Cancel
                | Step::Cancelled
                | Step::Expired
                | Step::Delete(_)
                | Step::Deleted(_)
        ) {
            while self.in_flight.len() < WINDOW && now >= self.next_at {
                let Some((table, number)) = self.todo.pop_first() else { break };
                self.in_flight.insert((table, number), now);
                self.next_at = now + self.pace;
                let tries = self.tries.entry((table, number)).or_default();
                let key = ring::batch_key(self.data.spec.job, table as u16, number);
                let owners = ring::owners(key, live);
                let to = owners.get(*tries % owners.len().max(1)).copied();
                *tries += 1;
                out.push((to, Sent::Batch { table, number }));
            }
        }
        if self.asked_at.is_some_and(|at| !late(&at)) {
            return out;
        }
        if let Some(request) = self.next_request() {
            self.asked_at = Some(now);
            out.push((None, Sent::Request(request)));
        }
        out
    }

    fn next_request(&self) -> Option<ClientRequest> {
        let job = self.data.spec.job;
        match &self.step {
            Step::Submit => Some(ClientRequest::Submit(self.data.spec.clone())),
            Step::Compare { table, from } => {
                Some(ClientRequest::Coverage { job, table: *table, from: *from })
            }
            Step::Upload => {
                let table = (0..self.data.tables.len()).find(|t| !self.ends.contains(t))?;
                let batches = self.data.tables[table].len() as u64;
                Some(ClientRequest::EndTable { job, table: table as u16, batches })
            }
            Step::Wait => Some(ClientRequest::Status { job, wait_ms: 1_000 }),
            Step::Fetch { chunks, received, .. } => {
                let chunk = (0..*chunks).find(|chunk| !received.contains_key(chunk))?;
                Some(ClientRequest::Result { job, chunk })
            }
            Step::Cancel => Some(ClientRequest::Cancel(job)),
            Step::Delete(_) => Some(ClientRequest::Delete(job)),
            Step::Done(_)
            | Step::Cancelled
            | Step::Expired
            | Step::Deleted(_)
            | Step::Failed(_) => None,
        }
    }

    pub(crate) fn on_batch_reply(&mut self, now: Duration, reply: BatchReply) {
        let key = (usize::from(reply.table), reply.number);
        if self.in_flight.remove(&key).is_none() {
            return;
        }
        match reply.outcome {
            BatchOutcome::Durable { .. } => {
                self.acknowledged.insert(key);
            }
            BatchOutcome::Retry { .. } => {
                self.todo.insert(key);
                self.rest_until = now + Duration::from_millis(100);
            }
            // A job that is done or cancelled needs no more batches.
            BatchOutcome::Refused(error) if error.kind == ErrorKind::Ended => {}
            BatchOutcome::Refused(error) => self.refused(&error),
        }
    }

    fn is_expiry(&self, error: &ClientError) -> bool {
        self.may_expire && error.kind == ErrorKind::NotFound && error.message.contains("gone")
    }

    fn refused(&mut self, error: &ClientError) {
        // What is still on its way is nobody's any more.
        if self.is_over() || self.asked_to_delete {
            return;
        }
        self.step =
            if self.is_expiry(error) { Step::Expired } else { Step::Failed(error.message.clone()) };
    }

    pub(crate) fn on_response(&mut self, now: Duration, response: ClientResponse, tail: Bytes) {
        if self.asked_at.take().is_none() {
            return;
        }
        if let ClientResponse::Status(status) = &response
            && status.job != self.data.spec.job
        {
            self.step = Step::Failed(format!("answered with the status of job {}", status.job));
            return;
        }
        if let ClientResponse::Error(error) = &response
            && self.is_expiry(error)
        {
            // Perhaps before it could be deleted.
            if !self.is_over() {
                self.step = Step::Expired;
            }
            return;
        }
        match (&mut self.step, response) {
            (_, ClientResponse::Error(error)) if error.kind == ErrorKind::Unavailable => {
                self.rest_until = now + Duration::from_millis(200);
            }
            // A node that joined a moment ago may not know how many others there are; the job was
            // acknowledged, so it is asked for again. Jobs that are lost run into the time limit.
            (step, ClientResponse::Error(error))
                if error.kind == ErrorKind::NotFound && !matches!(step, Step::Submit) =>
            {
                self.rest_until = now + Duration::from_millis(500);
            }
            (_, ClientResponse::Error(error)) => self.step = Step::Failed(error.message),
            (Step::Delete(result), ClientResponse::Accepted) => {
                self.step = Step::Deleted(result.take());
            }
            (Step::Cancel, ClientResponse::Status(status)) => match status.state {
                JobState::Cancelled => self.step = Step::Cancelled,
                JobState::Done => self.step = Step::Wait,
                other => {
                    self.step = Step::Failed(format!("cancelled, and told it is {other:?}"));
                }
            },
            (Step::Submit, ClientResponse::Status(_)) if self.resumed => {
                self.step = Step::Compare { table: 0, from: 0 };
            }
            (Step::Submit, ClientResponse::Status(_)) => self.step = Step::Upload,
            (Step::Compare { table, from }, ClientResponse::Coverage(there)) => {
                for (number, _) in &there.batches {
                    self.todo.remove(&(usize::from(*table), *number));
                }
                match there.next {
                    Some(next) => *from = next,
                    None => (*table, *from) = (*table + 1, 0),
                }
                if usize::from(*table) == self.data.tables.len() {
                    self.step = Step::Upload;
                }
            }
            (Step::Upload, ClientResponse::Status(status)) => {
                for (table, told) in status.tables.iter().enumerate() {
                    if told.declared.is_some() {
                        self.ends.insert(table);
                    }
                }
                if self.ends.len() == self.data.tables.len() {
                    self.step = Step::Wait;
                }
            }
            (Step::Wait, ClientResponse::Status(status)) => match (status.state, status.manifest) {
                (JobState::Done, Some(Manifest::Done { chunks, hash, .. })) => {
                    self.todo.clear();
                    self.step = Step::Fetch { chunks, hash, received: BTreeMap::new() };
                }
                (JobState::Failed { message }, _) => self.step = Step::Failed(message),
                // What is on its way may be what is missed.
                _ if !self.todo.is_empty() || !self.in_flight.is_empty() => {}
                _ => {
                    for (table, told) in status.tables.iter().enumerate() {
                        for number in told.missing.iter() {
                            if !self.acknowledged.contains(&(table, number)) {
                                self.todo.insert((table, number));
                            }
                        }
                    }
                }
            },
            (Step::Fetch { chunks, hash, received }, ClientResponse::Chunk) => {
                let next = (0..*chunks).find(|chunk| !received.contains_key(chunk));
                received.extend(next.map(|chunk| (chunk, tail)));
                if received.len() as u64 == *chunks {
                    let all: Vec<u8> = received.values().flatten().copied().collect();
                    self.step = if content_hash(&all) == *hash {
                        Step::Done(all.into())
                    } else {
                        Step::Failed("the chunks are not the manifest's".to_owned())
                    };
                }
            }
            _ => {}
        }
    }
}
