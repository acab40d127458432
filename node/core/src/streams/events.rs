//! Clients that read the events of a stream, or ask which batches are whole: the owners of all slots are
//! asked for what they keep of some batches, after they have closed their gaps.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use cortado_protocol::client::{ClientResponse, ErrorKind, TableCoverage};
use cortado_protocol::limits::CLIENT_FRAME_BYTES;
use cortado_protocol::peer::{EdgeCoverage, PeerMessage};
use cortado_protocol::stream::StreamResponse;
use cortado_protocol::{Coverage, Edge, JobId, NodeId, Slot, SlotSet, frame};

use super::reading;
use crate::facts::Facts;
use crate::outbox::Outbox;
use crate::purpose::Origin;
use crate::slot_round::SlotRound;

/// Most batches in one answer.
const BATCHES: u16 = 64;
/// Most clients that are served at the same time.
const CLIENTS: usize = 32;
/// After this time the client asks again.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client's request.
struct Read {
    job: JobId,
    edge: Edge,
    slots: SlotRound,
    wanted: Wanted,
    since: Duration,
}

/// What a client wants.
enum Wanted {
    /// The events of the batches from `from` up to `next`.
    Events { from: u64, next: u64, prefix: u64 },
    /// Those of these batches that are there in all slots.
    Whole { there: TableCoverage, missing: Coverage },
}

/// See the module's description.
#[derive(Default)]
pub(super) struct Reads(BTreeMap<Origin, Read>);

impl Reads {
    /// A client asks for the events of some batches; returns the answer if there is one now.
    pub(super) fn begin(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        (origin, job): (Origin, JobId),
        (edge, from, batches): (Edge, u64, u16),
    ) -> Option<ClientResponse> {
        let (prefix, _) = reading::beyond_gap(facts, job, edge);
        let next = prefix.min(from.saturating_add(u64::from(batches.clamp(1, BATCHES))));
        if next <= from {
            let response = StreamResponse::Events { next: from, prefix };
            return Some(ClientResponse::Stream(response));
        }
        let slots = SlotRound::events(slots_of(facts, job), edge, &Coverage::range(from, next));
        let wanted = Wanted::Events { from, next, prefix };
        let since = facts.now;
        self.ask(facts, out, origin, Read { job, edge, slots, wanted, since })
    }

    /// A client asks which batches are there in all slots, so that it sends the others; returns the answer
    /// if there is one now.
    pub(super) fn check(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        (origin, job): (Origin, JobId),
        (edge, from): (Edge, u64),
    ) -> Option<ClientResponse> {
        let there = facts.coverage((job, edge), from, None);
        if there.batches.is_empty() {
            return Some(ClientResponse::Coverage(there));
        }
        let slots = SlotRound::complete(slots_of(facts, job), edge, &there.coverage());
        let wanted = Wanted::Whole { there, missing: Coverage::default() };
        let since = facts.now;
        self.ask(facts, out, origin, Read { job, edge, slots, wanted, since })
    }

    fn ask(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        origin: Origin,
        mut read: Read,
    ) -> Option<ClientResponse> {
        if self.0.len() >= CLIENTS {
            let message = "many clients read events: try again";
            return Some(ClientResponse::error(ErrorKind::Unavailable, message));
        }
        read.slots.ask(facts, out, read.job, &[]);
        self.0.insert(origin, read);
        None
    }

    /// A worker sends a part of a slot's events.
    pub(super) fn on_output(
        &mut self,
        out: &mut Outbox,
        (job, attempt, slot): (JobId, u64, Slot),
        part: (u32, u32),
        bytes: &Bytes,
    ) {
        for read in self.0.values_mut().filter(|read| read.job == job) {
            read.slots.take(attempt, slot, part, bytes.clone());
        }
        self.finish(out);
    }

    /// Answers what is complete.
    fn finish(&mut self, out: &mut Outbox) {
        for (origin, read) in self.0.extract_if(.., |_, read| read.slots.open.is_empty()) {
            read.finish(out, origin);
        }
    }

    /// A worker can't complete its slots, although it has asked all nodes: the next tick asks the next
    /// owners. Not this moment, because a node that is alone is its own worker, and would be asked
    /// again without end.
    pub(super) fn on_incomplete(&mut self, out: &mut Outbox, attempt: u64, lacks: &[EdgeCoverage]) {
        for read in self.0.values_mut() {
            match &mut read.wanted {
                Wanted::Events { .. } => drop(read.slots.pass_on(attempt)),
                Wanted::Whole { missing, .. } => {
                    if read.slots.leave_out(attempt) {
                        let of_edge = lacks.iter().filter(|part| part.edge == read.edge);
                        of_edge.for_each(|part| missing.union(&part.coverage));
                    }
                }
            }
        }
        self.finish(out);
    }

    /// Work on slots fails on every worker.
    pub(super) fn on_work_failed(&mut self, out: &mut Outbox, attempt: u64, why: &str) {
        let failed = |_: &Origin, read: &mut Read| read.slots.give_up(attempt);
        for (origin, _) in self.0.extract_if(.., failed) {
            refuse(out, origin, ErrorKind::Ended, why);
        }
    }

    /// Requests to such nodes are lost.
    pub(super) fn give_up_of(&mut self, gone: impl Fn(NodeId) -> bool) {
        self.0.values_mut().for_each(|read| read.slots.give_up_of(&gone));
    }

    /// Asks again where that is due, and gives up what takes too long.
    pub(super) fn tick(&mut self, facts: &Facts, out: &mut Outbox) {
        let late = |_: &Origin, read: &mut Read| {
            facts.now >= read.since + PATIENCE || !facts.is_coordinator(read.job)
        };
        for (origin, _) in self.0.extract_if(.., late) {
            let message = "the events could not be read in time: try again";
            refuse(out, origin, ErrorKind::Unavailable, message);
        }
        for read in self.0.values_mut() {
            read.slots.ask(facts, out, read.job, &[]);
        }
    }

    /// The job was dropped.
    pub(super) fn forget(&mut self, out: &mut Outbox, job: JobId) {
        for (origin, _) in self.0.extract_if(.., |_, read| read.job == job) {
            let message = "the stream was dropped";
            refuse(out, origin, ErrorKind::NotFound, message);
        }
    }
}

impl Read {
    fn finish(self, out: &mut Outbox, origin: Origin) {
        match self.wanted {
            Wanted::Events { from, next, prefix } => {
                let parts: Vec<Bytes> = self.slots.done.into_values().collect();
                let tail = frame::to_postcard(&parts);
                let response =
                    |next| ClientResponse::Stream(StreamResponse::Events { next, prefix });
                if tail.len() < CLIENT_FRAME_BYTES - (64 << 10) {
                    answer(out, origin, response(next), tail);
                } else {
                    // The client asks for fewer.
                    answer(out, origin, response(from), Bytes::new());
                }
            }
            Wanted::Whole { mut there, missing } => {
                there.batches.retain(|(number, _)| !missing.contains(*number));
                answer(out, origin, ClientResponse::Coverage(there), Bytes::new());
            }
        }
    }
}

/// All slots of a stream.
fn slots_of(facts: &Facts, job: JobId) -> SlotSet {
    let slots = facts.jobs.get(job).map_or(0, |log| log.slots(&facts.config));
    SlotSet::first(usize::from(slots))
}

fn refuse(out: &mut Outbox, origin: Origin, kind: ErrorKind, message: &str) {
    answer(out, origin, ClientResponse::error(kind, message), Bytes::new());
}

fn answer(out: &mut Outbox, (node, id): Origin, response: ClientResponse, tail: Bytes) {
    out.send_with(node, PeerMessage::Answer { id, response }, tail);
}
