//! Clients that read the events of a stream, or ask which batches are whole: the owners of all slots are
//! asked for what they keep of some batches, after they have closed their gaps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use cortado_protocol::client::{ClientResponse, ErrorKind, TableCoverage};
use cortado_protocol::limits::CLIENT_FRAME_BYTES;
use cortado_protocol::peer::EdgeCoverage;
use cortado_protocol::stream::{StoredEvent, StreamResponse};
use cortado_protocol::{Coverage, Edge, JobId, META_SLOT, NodeId, Slot, SlotSet, frame};

use super::reading;
use crate::facts::Facts;
use crate::outbox::Outbox;
use crate::purpose::Origin;
use crate::slot_round::SlotRound;

/// Most batches in one answer.
const BATCHES: u16 = 64;
/// Most clients that are served at the same time.
const CLIENTS: usize = 16;
/// After this time the client asks again.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client's request.
struct Read {
    job: JobId,
    edge: Edge,
    slots: SlotRound,
    wanted: Wanted,
    since: Duration,
    /// No client waits for it, but the stream, to seal a publisher.
    for_seal: bool,
}

/// What a client wants.
enum Wanted {
    /// The events of the batches from `from` up to `next`. Slots that no owner could complete are left out: a
    /// batch that was not acknowledged may be on no disk there.
    Events { from: u64, next: u64, prefix: u64, gone: u64, left_out: SlotSet },
    /// Those of these batches that are there in all slots, on W nodes each: the nodes that said so, and how
    /// many owners of each slot were asked.
    Whole { there: TableCoverage, holders: BTreeMap<Slot, BTreeSet<NodeId>>, turns: usize },
}

/// See the module's description.
#[derive(Default)]
pub(super) struct Reads {
    all: BTreeMap<Origin, Read>,
    /// Of publishers that are to be sealed: which batches are whole, if that could be found out.
    checked: Vec<(JobId, Edge, Option<Coverage>)>,
}

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
        let gone = facts.ledger.floor(job, edge).saturating_sub(from);
        let from = from + gone;
        let next = prefix.min(from.saturating_add(u64::from(batches.clamp(1, BATCHES))));
        if next <= from {
            let response = StreamResponse::Events { next: from, prefix, lost: 0, gone };
            return Some(ClientResponse::Stream(response));
        }
        let slots = slots_of(facts, job).or(SlotSet::META);
        let batches = facts.not_void(job, edge, Coverage::range(from, next));
        let slots = SlotRound::events(slots, edge, &batches);
        let wanted = Wanted::Events { from, next, prefix, gone, left_out: SlotSet::EMPTY };
        let since = facts.now;
        self.ask(facts, out, origin, Read { job, edge, slots, wanted, since, for_seal: false })
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
        self.ask(facts, out, origin, Read::whole_of(facts, (job, edge), there, false))
    }

    /// Checks which of some batches of a publisher that is to be sealed are there in all slots.
    pub(super) fn check_for_seal(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        job: JobId,
        (edge, doubtful): (Edge, &Coverage),
    ) {
        let from = doubtful.intervals().first().map_or(0, |(start, _)| *start);
        let mut there = facts.coverage((job, edge), from, None);
        there.batches.retain(|(number, _)| doubtful.contains(*number));
        if there.batches.is_empty() {
            return self.checked.push((job, edge, Some(Coverage::default())));
        }
        let mut read = Read::whole_of(facts, (job, edge), there, true);
        read.slots.ask(facts, out, job, &[]);
        self.all.insert((facts.config.node, out.fresh_id()), read);
    }

    /// Which batches are whole of publishers that are to be sealed.
    pub(super) fn take_checked(&mut self) -> Vec<(JobId, Edge, Option<Coverage>)> {
        std::mem::take(&mut self.checked)
    }

    fn ask(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        origin: Origin,
        mut read: Read,
    ) -> Option<ClientResponse> {
        if self.all.len() >= CLIENTS {
            let message = "many clients read events: try again";
            return Some(ClientResponse::error(ErrorKind::Unavailable, message));
        }
        read.slots.ask(facts, out, read.job, &[]);
        self.all.insert(origin, read);
        None
    }

    /// A worker sends a part of a slot's events.
    pub(super) fn on_output(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        (job, attempt, slot): (JobId, u64, Slot),
        part: (u32, u32),
        bytes: &Bytes,
    ) {
        for read in self.all.values_mut().filter(|read| read.job == job) {
            if let Wanted::Whole { holders, .. } = &mut read.wanted
                && let Some(asked) = read.slots.asked.get(&attempt)
                && asked.slots.contains(slot)
            {
                holders.entry(slot).or_default().insert(asked.node);
            }
            read.slots.take(attempt, slot, part, bytes.clone());
        }
        self.finish(facts, out);
    }

    /// Answers what is complete. Of a batch that is on fewer than W nodes the next owners are asked, who
    /// fetch it.
    fn finish(&mut self, facts: &Facts, out: &mut Outbox) {
        for read in self.all.values_mut().filter(|read| read.slots.open.is_empty()) {
            let Read { job, edge, slots, wanted, .. } = read;
            let Wanted::Whole { there, holders, turns } = wanted else { continue };
            let few = held_by_few(facts, holders);
            // All owners at most: without W of them the client asks again later.
            if !few.is_empty() && *turns < usize::from(facts.config.replicas) {
                *slots = SlotRound::complete(few, *turns, *edge, &there.coverage());
                *turns += 1;
                slots.ask(facts, out, *job, &[]);
            }
        }
        // What does not fit an answer is not kept either.
        let done =
            |_: &Origin, read: &mut Read| read.slots.open.is_empty() || !fits(read.slots.bytes);
        for (origin, read) in self.all.extract_if(.., done) {
            if read.for_seal {
                self.checked.push((read.job, read.edge, read.whole(facts)));
            } else {
                read.finish(facts, out, origin);
            }
        }
    }

    /// A worker can't complete its slots, although it has asked all nodes: the next tick asks the next
    /// owners. Not this moment, because a node that is alone is its own worker, and would be asked
    /// again without end.
    pub(super) fn on_incomplete(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        attempt: u64,
        lacks: &[EdgeCoverage],
    ) {
        for read in self.all.values_mut() {
            let Some(of) = read.slots.pass_on(attempt) else { continue };
            let lacks = || lacks.iter().filter(|part| part.edge == read.edge);
            match &mut read.wanted {
                // Once all owners were asked for a slot, it is left out.
                Wanted::Events { left_out, .. } => {
                    let tried = |slot: &Slot| {
                        let tried = read.slots.passed_on.get(slot);
                        tried.is_some_and(|tried| *tried >= usize::from(facts.config.replicas))
                    };
                    let lacked = lacks().fold(SlotSet::EMPTY, |all, part| all.or(part.slots));
                    let gone: SlotSet = of.and(lacked).iter().filter(tried).collect();
                    *left_out = left_out.or(gone);
                    read.slots.leave_out(gone);
                }
                // Batches that are not whole are no longer asked about, and all others anew.
                Wanted::Whole { there, holders, turns } => {
                    let missing = lacks().fold(Coverage::default(), |mut all, part| {
                        all.union(&part.coverage);
                        all
                    });
                    let before = there.batches.len();
                    there.batches.retain(|(number, _)| !missing.contains(*number));
                    if there.batches.len() < before {
                        let all = match there.batches.is_empty() {
                            true => SlotSet::EMPTY,
                            false => slots_of(facts, read.job),
                        };
                        read.slots = SlotRound::complete(all, 0, read.edge, &there.coverage());
                        (*holders, *turns) = (BTreeMap::new(), 1);
                        read.slots.ask(facts, out, read.job, &[]);
                    }
                }
            }
        }
        self.finish(facts, out);
    }

    /// Work on slots fails on every worker.
    pub(super) fn on_work_failed(&mut self, out: &mut Outbox, attempt: u64, why: &str) {
        let failed = |_: &Origin, read: &mut Read| read.slots.give_up(attempt);
        for (origin, read) in self.all.extract_if(.., failed) {
            match read.wanted {
                _ if read.for_seal => self.checked.push((read.job, read.edge, None)),
                // They may take too much memory.
                Wanted::Events { from, next, prefix, gone, .. } if next - from > 1 => {
                    ask_for_fewer(out, origin, from, (prefix, gone));
                }
                _ => refuse(out, origin, ErrorKind::Ended, why),
            }
        }
    }

    /// Requests about a job to such nodes, or about all jobs, are lost.
    pub(super) fn give_up_of(&mut self, job: Option<JobId>, gone: impl Fn(NodeId) -> bool) {
        for read in self.all.values_mut().filter(|read| job.is_none_or(|job| job == read.job)) {
            read.slots.give_up_of(&gone);
        }
    }

    /// Asks again where that is due, and gives up what takes too long.
    pub(super) fn tick(&mut self, facts: &Facts, out: &mut Outbox) {
        let late = |_: &Origin, read: &mut Read| {
            facts.now >= read.since + PATIENCE || !facts.is_coordinator(read.job)
        };
        for (origin, read) in self.all.extract_if(.., late) {
            if read.for_seal {
                self.checked.push((read.job, read.edge, None));
                continue;
            }
            let message = "the events could not be read in time: try again";
            refuse(out, origin, ErrorKind::Unavailable, message);
        }
        for read in self.all.values_mut() {
            read.slots.ask(facts, out, read.job, &[]);
        }
    }

    /// The job was dropped.
    pub(super) fn forget(&mut self, out: &mut Outbox, job: JobId) {
        for (origin, _) in self.all.extract_if(.., |_, read| read.job == job && !read.for_seal) {
            let message = "the stream was dropped";
            refuse(out, origin, ErrorKind::NotFound, message);
        }
    }
}

impl Read {
    /// A check which of the batches that are there are there in all slots.
    fn whole_of(
        facts: &Facts,
        (job, edge): (JobId, Edge),
        there: TableCoverage,
        for_seal: bool,
    ) -> Self {
        let slots = SlotRound::complete(slots_of(facts, job), 0, edge, &there.coverage());
        let wanted = Wanted::Whole { there, holders: BTreeMap::new(), turns: 1 };
        Self { job, edge, slots, wanted, since: facts.now, for_seal }
    }

    /// Which batches are there in all slots, on W nodes each.
    fn whole(&self, facts: &Facts) -> Option<Coverage> {
        match &self.wanted {
            Wanted::Whole { there, holders, .. } if held_by_few(facts, holders).is_empty() => {
                Some(there.coverage())
            }
            _ => None,
        }
    }

    fn finish(self, facts: &Facts, out: &mut Outbox, origin: Origin) {
        match self.wanted {
            Wanted::Events { from, prefix, gone, .. } if !fits(self.slots.bytes) => {
                ask_for_fewer(out, origin, from, (prefix, gone));
            }
            Wanted::Events { from, next, prefix, gone, left_out } => {
                let mut parts = self.slots.done;
                let counts = parts.remove(&META_SLOT).unwrap_or_default();
                let parts: Vec<Bytes> = parts.into_values().collect();
                let lost = if left_out.is_empty() { 0 } else { lacking(&counts, &parts) };
                if !left_out.is_empty() && facts.ledger.floor(self.job, self.edge) > from {
                    let message = "batches were retired meanwhile: try again";
                    return refuse(out, origin, ErrorKind::Unavailable, message);
                }
                if lost > 0 && facts.away() > 0 {
                    let message = "events are only on nodes that do not answer: try again";
                    return refuse(out, origin, ErrorKind::Unavailable, message);
                }
                let response = StreamResponse::Events { next, prefix, lost, gone };
                let tail = frame::to_postcard(&parts);
                out.answer(origin, ClientResponse::Stream(response), tail);
            }
            Wanted::Whole { holders, .. } if !held_by_few(facts, &holders).is_empty() => {
                let message = "too few nodes have the batches: try again";
                refuse(out, origin, ErrorKind::Unavailable, message);
            }
            Wanted::Whole { there, .. } => {
                out.answer(origin, ClientResponse::Coverage(there), Bytes::new());
            }
        }
    }
}

/// The slots that fewer than W nodes have said to be complete for.
fn held_by_few(facts: &Facts, holders: &BTreeMap<Slot, BTreeSet<NodeId>>) -> SlotSet {
    let copies = usize::from(facts.config.min_copies);
    holders.iter().filter(|(_, nodes)| nodes.len() < copies).map(|(slot, _)| *slot).collect()
}

/// Whether so many bytes of parts fit an answer to a client, with what is around them.
fn fits(bytes: usize) -> bool {
    bytes < CLIENT_FRAME_BYTES - (64 << 10)
}

/// An answer without batches, though there are some.
fn ask_for_fewer(out: &mut Outbox, origin: Origin, from: u64, (prefix, gone): (u64, u64)) {
    let response = StreamResponse::Events { next: from, prefix, lost: 0, gone };
    out.answer(origin, ClientResponse::Stream(response), Bytes::new());
}

/// How many events the parts of the slots lack of those that the summaries of the batches count.
fn lacking(counts: &Bytes, parts: &[Bytes]) -> u64 {
    let counts: Vec<(u64, u32)> = frame::from_postcard(counts).unwrap_or_default();
    let valid = counts.iter().map(|(_, valid)| u64::from(*valid)).sum::<u64>();
    let events = |part: &Bytes| {
        frame::from_postcard::<Vec<StoredEvent>>(part).map_or(0, |events| events.len() as u64)
    };
    valid.saturating_sub(parts.iter().map(events).sum())
}

/// All slots of a stream, without the meta slot.
fn slots_of(facts: &Facts, job: JobId) -> SlotSet {
    let slots = facts.jobs.get(job).map_or(0, |log| log.slots(&facts.config));
    SlotSet::first(usize::from(slots))
}

fn refuse(out: &mut Outbox, origin: Origin, kind: ErrorKind, message: &str) {
    out.answer(origin, ClientResponse::error(kind, message), Bytes::new());
}
