//! A publisher: it opens its edge, compares what has arrived, and sends the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use cortado_membership::ring;
use cortado_protocol::client::{
    BatchOutcome, BatchReply, ClientRequest, ClientResponse, ErrorKind,
};
use cortado_protocol::job::BatchHeader;
use cortado_protocol::stream::{Seal, StreamRequest, StreamResponse};
use cortado_protocol::{Edge, JobId, NodeId};

use super::asking::{Asking, PATIENCE};
use super::feed::Feed;
use crate::sim::client::Sent;

/// Batches of a publisher without an answer.
const WINDOW: usize = 4;

enum Publishing {
    /// The stream is not there yet.
    Look,
    Open,
    Compare {
        from: u64,
    },
    Send,
    /// A batch was refused because the publisher was silent: asks whether it was sealed.
    Refused,
    Over,
}

/// A publisher.
pub(crate) struct SimPublisher {
    job: JobId,
    feed: Feed,
    step: Publishing,
    asking: Asking,
    todo: BTreeSet<u64>,
    in_flight: BTreeMap<u64, Duration>,
    tries: BTreeMap<u64, usize>,
    /// It goes for good after so many acknowledgements.
    leaves: Option<usize>,
    pub(crate) failed: Option<String>,
    pub(crate) life: u64,
    pub(crate) acknowledged: BTreeSet<u64>,
}

impl SimPublisher {
    pub(crate) fn new(job: JobId, feed: Feed, leaves: Option<usize>) -> Self {
        Self {
            job,
            feed,
            leaves,
            step: Publishing::Look,
            asking: Asking::default(),
            todo: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            tries: BTreeMap::new(),
            failed: None,
            life: 0,
            acknowledged: BTreeSet::new(),
        }
    }

    pub(crate) fn job(&self) -> JobId {
        self.job
    }

    pub(crate) fn edge(&self) -> Edge {
        self.feed.publisher.edge()
    }

    pub(crate) fn batch(&self, number: u64) -> (BatchHeader, Bytes) {
        self.feed.batch(number)
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.step, Publishing::Over)
    }

    /// The process dies; the next one knows its name, and makes the same batches again.
    pub(crate) fn resume(&mut self) -> bool {
        if self.is_over() {
            return false;
        }
        let acknowledged = std::mem::take(&mut self.acknowledged);
        let fresh = Self::new(self.job, self.feed.clone(), self.leaves);
        *self = Self { life: self.life + 1, acknowledged, ..fresh };
        true
    }

    pub(crate) fn describe(&self) -> String {
        let step = match self.step {
            Publishing::Look => "looking",
            Publishing::Open => "opening",
            Publishing::Compare { .. } => "comparing",
            Publishing::Send => "sending",
            Publishing::Refused => "refused",
            Publishing::Over => "over",
        };
        let name = &self.feed.publisher.name;
        format!("publisher {name} {step}, {} to send", self.todo.len() + self.in_flight.len())
    }

    pub(crate) fn poll(&mut self, now: Duration, live: &[NodeId]) -> Vec<(Option<NodeId>, Sent)> {
        if matches!(self.step, Publishing::Send) {
            return self.send(now, live);
        }
        // Who leaves at once opens its edge, and that is all.
        if matches!(self.step, Publishing::Compare { .. }) && self.leaves == Some(0) {
            self.step = Publishing::Over;
        }
        if self.is_over() || !self.asking.may_ask(now) {
            return Vec::new();
        }
        let request = match &self.step {
            Publishing::Open => StreamRequest::Open(self.feed.publisher.clone()),
            Publishing::Compare { from } => {
                StreamRequest::Coverage { edge: self.edge(), from: *from, whole: true }
            }
            _ => StreamRequest::Status,
        };
        self.asking.ask(now, ClientRequest::Stream(self.job, request))
    }

    fn send(&mut self, now: Duration, live: &[NodeId]) -> Vec<(Option<NodeId>, Sent)> {
        let late = self.in_flight.extract_if(.., |_, at| now >= *at + PATIENCE);
        self.todo.extend(late.map(|(number, _)| number));
        let mut out = Vec::new();
        while now >= self.asking.rest_until && self.in_flight.len() < WINDOW {
            let Some(number) = self.todo.pop_first() else { break };
            self.in_flight.insert(number, now);
            let tries = self.tries.entry(number).or_default();
            let owners = ring::owners(ring::batch_key(self.job, 0, number), live);
            let to = owners.get(*tries % owners.len().max(1)).copied();
            *tries += 1;
            out.push((to, Sent::Batch { table: 0, number }));
        }
        out
    }

    pub(crate) fn on_batch_reply(&mut self, now: Duration, reply: BatchReply) {
        if self.in_flight.remove(&reply.number).is_none() {
            return;
        }
        match reply.outcome {
            BatchOutcome::Durable { .. } => {
                self.acknowledged.insert(reply.number);
                if self.leaves.is_some_and(|after| self.acknowledged.len() > after) {
                    self.step = Publishing::Over;
                }
            }
            // It has gone.
            _ if self.is_over() => {}
            BatchOutcome::Retry { .. } => {
                self.todo.insert(reply.number);
                self.asking.rest_until = now + Duration::from_millis(100);
            }
            BatchOutcome::Refused(error) if error.message.contains("silent") => {
                self.todo.insert(reply.number);
                self.step = Publishing::Refused;
                self.asking.rest_until = now + Duration::from_millis(300);
                return;
            }
            // A stream that has ended has had the batch.
            BatchOutcome::Refused(error) if error.kind == ErrorKind::Ended => {}
            BatchOutcome::Refused(error) => self.failed = Some(error.message),
        }
        if self.todo.is_empty() && self.in_flight.is_empty() {
            self.step = Publishing::Over;
        }
    }

    /// Checks that every acknowledged batch counts; `seal` says which ones do, if it was sealed.
    pub(crate) fn compare(&self, seal: Option<&Seal>) -> Result<(), String> {
        let Some(seal) = seal else { return Ok(()) };
        let lost = self.acknowledged.iter().find(|number| !seal.counts(**number));
        lost.map_or(Ok(()), |lost| {
            Err(format!("batch {lost} was acknowledged and does not count: {seal:?}"))
        })
    }

    pub(crate) fn on_response(&mut self, now: Duration, response: ClientResponse) {
        match self.asking.answered(now, &response) {
            Ok(true) => {}
            Ok(false) => return,
            // It had ended, and the process that resumed it did not know.
            Err(message) if message.contains("done") || message.contains("is to end") => {
                self.step = Publishing::Over;
                return;
            }
            Err(message) => {
                self.failed = Some(message);
                return;
            }
        }
        match (&mut self.step, response) {
            (Publishing::Look, ClientResponse::Stream(StreamResponse::Status(status))) => {
                if status.schema_set.is_some() {
                    self.step = Publishing::Open;
                } else {
                    self.asking.rest_until = now + Duration::from_millis(100);
                }
            }
            (Publishing::Refused, ClientResponse::Stream(StreamResponse::Status(status))) => {
                let edge = self.feed.publisher.edge();
                let own = status.publishers.iter().find(|of| of.publisher.edge() == edge);
                self.step = match own.is_some_and(|own| own.ended) {
                    true => Publishing::Over,
                    false => Publishing::Send,
                };
            }
            (Publishing::Open, ClientResponse::Status(_)) => {
                self.todo = (0..=self.feed.end()).collect();
                self.step = Publishing::Compare { from: 0 };
            }
            (Publishing::Compare { from }, ClientResponse::Coverage(there)) => {
                there.batches.iter().for_each(|(number, _)| {
                    self.todo.remove(number);
                });
                match there.next {
                    Some(next) => *from = next,
                    None if self.todo.is_empty() => self.step = Publishing::Over,
                    None => self.step = Publishing::Send,
                }
            }
            _ => {}
        }
    }
}
