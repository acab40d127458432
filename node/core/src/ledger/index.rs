//! The index of one job: which entries are in this node's log, and where.
//!
//! A ledger is the set {batch number → delta} of a slot. The index says where the deltas are and
//! holds none of them. Numbers stand in chunks of 64, with about 40 bytes for each number.

use std::collections::BTreeMap;
use std::ops::Range;

use cortado_protocol::entry::{EntryHead, Source};
use cortado_protocol::peer::EdgeCoverage;
use cortado_protocol::{Coverage, Edge, JobId, META_SLOT, Slot, SlotSet};

use crate::record::{Group, RecordRef};

mod chunk;

pub(crate) use chunk::Place;
use chunk::{Chunk, Held};

/// How an entry relates to what is held.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// These of its slots are new.
    New(SlotSet),
    /// All of it is held, though some of it may still be pending.
    Known,
    /// It contradicts what is held for some slots, of which this is the first.
    Conflict(Slot),
}

/// One edge of one job.
#[derive(Default)]
pub(crate) struct EdgeIndex {
    /// By number / 64, in order.
    chunks: Vec<(u64, Chunk)>,
    /// Records on their way into the log.
    pending: usize,
    /// Numbers whose meta slot is durable here, and all below the floor.
    meta: Coverage,
    /// Batches below it are retired: they count as held, and are not.
    floor: u64,
    /// Groups of which the log has records, by number / 64.
    logged: Coverage,
}

impl EdgeIndex {
    /// Where the chunk of a number stands, or would.
    fn place(&self, number: u64) -> Result<usize, usize> {
        self.chunks.binary_search_by_key(&(number / chunk::NUMBERS), |(at, _)| *at)
    }

    /// Compares an entry with what is held.
    ///
    /// Two entries of one number differ if their sources do, or the deltas of the slots that both
    /// speak for. If the entry leaves out slots of a record that is held, the record's deltas can't
    /// be compared one by one, and the source alone decides: equal batches are mapped to equal
    /// deltas.
    pub(crate) fn compare(&self, head: &EntryHead) -> Comparison {
        if head.key.number < self.floor {
            return Comparison::Known;
        }
        let mut fresh = head.slots;
        for (held, slots) in self.of_number(head.key.number) {
            let both = slots.and(head.slots);
            let Some(first) = both.iter().next() else { continue };
            if held.source != head.source || !held.agrees(slots, head) {
                return Comparison::Conflict(first);
            }
            fresh = fresh.minus(slots);
        }
        if fresh.is_empty() { Comparison::Known } else { Comparison::New(fresh) }
    }

    /// The first number that is not retired.
    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    /// The number behind the last one of which anything is here, or on its way.
    pub(crate) fn end(&self) -> u64 {
        let last = self.chunks.last().and_then(|(at, chunk)| Some((at, chunk.last()?)));
        last.map_or(0, |(at, low)| at * chunk::NUMBERS + u64::from(low) + 1).max(self.floor)
    }

    /// Batches below this number are retired: drops those that are durable. Those on their way are dropped
    /// when they have arrived.
    fn retire(&mut self, floor: u64) {
        if floor <= self.floor {
            return;
        }
        self.floor = floor;
        for (at, chunk) in &mut self.chunks {
            let first = *at * chunk::NUMBERS;
            if first < floor {
                chunk.drop_below(floor - first);
            }
        }
        self.chunks.retain(|(_, chunk)| !chunk.is_empty());
        self.meta.insert_range(0, floor);
    }

    /// A record of this number is in the log, or on its way there.
    pub(crate) fn log(&mut self, number: u64) {
        self.logged.insert(number / chunk::NUMBERS);
    }

    /// The first number of each group of which the log has records.
    fn groups(&self) -> impl Iterator<Item = u64> + '_ {
        let groups = self.logged.intervals().iter().flat_map(|(start, end)| *start..*end);
        groups.map(|group| group * chunk::NUMBERS)
    }

    /// The same, of those that are needed no more: all their numbers are retired. They are told once.
    pub(crate) fn take_retired(&mut self) -> Vec<u64> {
        let retired = Coverage::range(0, self.floor / chunk::NUMBERS);
        let groups =
            self.groups().take_while(|first| first + chunk::NUMBERS <= self.floor).collect();
        self.logged = self.logged.minus(&retired);
        groups
    }

    fn of_number(&self, number: u64) -> impl Iterator<Item = (&Held, SlotSet)> {
        let chunk = self.place(number).ok().map(|at| &self.chunks[at].1);
        chunk.into_iter().flat_map(move |chunk| chunk.of(number))
    }

    /// Takes an entry into the index. It must speak for no slot that is held already.
    pub(crate) fn insert(&mut self, head: &EntryHead, place: Place) {
        debug_assert!(self.slots(head.key.number, false).and(head.slots).is_empty());
        let number = head.key.number;
        self.log(number);
        let at = self.place(number).unwrap_or_else(|at| {
            self.chunks.insert(at, (number / chunk::NUMBERS, Chunk::default()));
            at
        });
        self.chunks[at].1.insert(head, place);
        match place {
            Place::Pending(_) => self.pending += 1,
            Place::Durable(_) => self.note_meta(head.key.number),
        }
    }

    /// The meta slot of a number may be durable now, or no more.
    fn note_meta(&mut self, number: u64) {
        if number < self.floor || self.slots(number, true).contains(META_SLOT) {
            self.meta.insert(number);
        } else {
            self.meta.remove(number);
        }
    }

    /// The record of a ticket is in the log now.
    pub(crate) fn durable(&mut self, number: u64, ticket: u64, record: RecordRef) {
        if self.replace(number, Place::Pending(ticket), Some(Place::Durable(record))) {
            self.pending -= 1;
            self.note_meta(number);
        }
    }

    /// The record never reached the log, or can't be read any more. Returns whether it was here.
    pub(crate) fn remove(&mut self, number: u64, place: Place) -> bool {
        let removed = self.replace(number, place, None);
        if removed && matches!(place, Place::Pending(_)) {
            self.pending -= 1;
        }
        self.note_meta(number);
        removed
    }

    /// A record stands elsewhere now. Returns whether it was here.
    pub(crate) fn moved(&mut self, number: u64, from: RecordRef, to: RecordRef) -> bool {
        self.replace(number, Place::Durable(from), Some(Place::Durable(to)))
    }

    fn replace(&mut self, number: u64, from: Place, to: Option<Place>) -> bool {
        let Ok(at) = self.place(number) else { return false };
        let chunk = &mut self.chunks[at].1;
        let replaced = chunk.replace(number, from, to);
        if chunk.is_empty() {
            self.chunks.remove(at);
        }
        replaced
    }

    /// Slots held of a number.
    pub(crate) fn slots(&self, number: u64, durable_only: bool) -> SlotSet {
        let held = self.of_number(number).filter(|(held, _)| !durable_only || held.is_durable());
        held.fold(SlotSet::EMPTY, |all, (_, slots)| all.or(slots))
    }

    /// Coverage of the given slots; slots with the same coverage stand together, and slots with no
    /// coverage are left out.
    pub(crate) fn coverage(
        &self,
        edge: Edge,
        slots: SlotSet,
        durable_only: bool,
    ) -> Vec<EdgeCoverage> {
        self.coverage_within(edge, slots, 0..u64::MAX, durable_only)
    }

    /// The chunks that hold any of these numbers, and the first number of each.
    fn chunks(&self, numbers: Range<u64>) -> impl Iterator<Item = (u64, &Chunk)> {
        let from = self.chunks.partition_point(|(at, _)| *at < numbers.start / chunk::NUMBERS);
        let chunks = self.chunks[from..].iter().map(|(at, chunk)| (at * chunk::NUMBERS, chunk));
        chunks.take_while(move |(first, _)| *first < numbers.end)
    }

    fn coverage_within(
        &self,
        edge: Edge,
        slots: SlotSet,
        numbers: Range<u64>,
        durable_only: bool,
    ) -> Vec<EdgeCoverage> {
        let mut by_set: BTreeMap<SlotSet, Coverage> = BTreeMap::new();
        for (first, chunk) in self.chunks(numbers.clone()) {
            chunk.runs(first, durable_only, |run, held| {
                let (start, end) = (run.start.max(numbers.start), run.end.min(numbers.end));
                let held = held.and(slots);
                if !held.is_empty() && start < end {
                    by_set.entry(held).or_default().insert_range(start, end);
                }
            });
        }
        let mut by_pattern: BTreeMap<Vec<SlotSet>, SlotSet> = BTreeMap::new();
        for slot in slots.iter() {
            let pattern: Vec<_> = by_set.keys().filter(|set| set.contains(slot)).copied().collect();
            if !pattern.is_empty() {
                by_pattern.entry(pattern).or_default().insert(slot);
            }
        }
        let mut all = Vec::with_capacity(by_pattern.len());
        for (pattern, slots) in by_pattern {
            let mut coverage = Coverage::default();
            for set in &pattern {
                coverage.union(&by_set[set]);
            }
            all.push(EdgeCoverage { edge, slots, coverage });
        }
        all
    }

    /// What is held of an offer, and of nothing else.
    pub(crate) fn held_of(&self, offer: &EdgeCoverage, durable_only: bool) -> Vec<EdgeCoverage> {
        let intervals = offer.coverage.intervals();
        let (Some(&(start, _)), Some(&(_, end))) = (intervals.first(), intervals.last()) else {
            return Vec::new();
        };
        let mut held = self.coverage_within(offer.edge, offer.slots, start..end, durable_only);
        held.iter_mut().for_each(|part| part.coverage = part.coverage.and(&offer.coverage));
        held.retain(|part| !part.coverage.is_empty());
        let retired = Coverage::range(0, self.floor).and(&offer.coverage);
        if !retired.is_empty() {
            let mut rest = offer.slots;
            for part in &mut held {
                part.coverage.union(&retired);
                rest = rest.minus(part.slots);
            }
            if !rest.is_empty() {
                held.push(EdgeCoverage { edge: offer.edge, slots: rest, coverage: retired });
            }
        }
        held
    }

    /// The numbers whose meta slot is durable here.
    pub(crate) fn meta(&self) -> &Coverage {
        &self.meta
    }

    /// Numbers from `from` on whose meta slot is durable here, and the records, in number order.
    pub(crate) fn meta_from(&self, from: u64) -> impl Iterator<Item = (u64, RecordRef)> + '_ {
        let of_meta = self.within(from..u64::MAX).filter(|(_, _, slots)| slots.contains(META_SLOT));
        of_meta.filter_map(|(number, held, _)| Some((number, held.durable()?)))
    }

    /// Whether the meta slot is durable here for all numbers below `end`.
    pub(crate) fn has_meta_below(&self, end: u64) -> bool {
        end == 0 || self.meta.is_complete(end)
    }

    /// Whatever of `offered` is not held; pending records count as held.
    pub(crate) fn missing(&self, offered: &[EdgeCoverage]) -> Vec<EdgeCoverage> {
        let mut all = Vec::new();
        for offer in offered {
            let held = self.held_of(offer, false);
            let mut rest = offer.slots;
            for part in held {
                rest = rest.minus(part.slots);
                let coverage = offer.coverage.minus(&part.coverage);
                if !coverage.is_empty() {
                    all.push(EdgeCoverage { edge: offer.edge, slots: part.slots, coverage });
                }
            }
            if !rest.is_empty() && !offer.coverage.is_empty() {
                let coverage = offer.coverage.clone();
                all.push(EdgeCoverage { edge: offer.edge, slots: rest, coverage });
            }
        }
        all
    }

    fn within(&self, numbers: Range<u64>) -> impl Iterator<Item = (u64, &Held, SlotSet)> {
        let all = self.chunks(numbers.clone()).flat_map(|(first, chunk)| chunk.all(first));
        all.filter(move |(number, ..)| numbers.contains(number))
    }

    /// Durable records of the wanted numbers, in number order, and for which of the wanted slots they
    /// speak. Each record counts for the slots named with it and for no other: it may hold more, and
    /// another record speaks for those.
    pub(crate) fn wanted(
        &self,
        wanted: &EdgeCoverage,
    ) -> impl Iterator<Item = (u64, RecordRef, SlotSet)> {
        self.records_of(wanted).filter_map(|(number, held, slots)| {
            held.durable().map(|record| (number, record, slots))
        })
    }

    /// Whether a record of these numbers and slots is on its way into the log.
    pub(crate) fn awaits(&self, part: &EdgeCoverage) -> bool {
        self.pending > 0 && self.records_of(part).any(|(_, held, _)| !held.is_durable())
    }

    /// Records of some numbers, and for which of some slots they speak.
    fn records_of(&self, part: &EdgeCoverage) -> impl Iterator<Item = (u64, &Held, SlotSet)> {
        let intervals = part.coverage.intervals().iter();
        let held = intervals.flat_map(|&(start, end)| self.within(start..end));
        held.filter_map(|(number, held, of)| {
            let slots = of.and(part.slots);
            (!slots.is_empty()).then_some((number, held, slots))
        })
    }

    /// Whether a record of these slots is on its way into the log.
    pub(crate) fn has_pending(&self, slots: SlotSet) -> bool {
        let pending =
            |(_, held, of): (u64, &Held, SlotSet)| !held.is_durable() && !of.and(slots).is_empty();
        self.pending > 0 && self.within(0..u64::MAX).any(pending)
    }

    /// Numbers from `from` on whose meta slot is durable here, and their sources, in number order.
    pub(crate) fn sources(&self, from: u64) -> impl Iterator<Item = (u64, Source)> + '_ {
        self.within(from..u64::MAX)
            .filter(|(_, held, slots)| held.is_durable() && slots.contains(META_SLOT))
            .map(|(number, held, _)| (number, held.source))
    }

    /// All slots of which anything is held.
    pub(crate) fn all_slots(&self) -> SlotSet {
        self.chunks.iter().fold(SlotSet::EMPTY, |all, (_, chunk)| all.or(chunk.all_slots()))
    }

    /// Speaks for these slots no more. Records stay in the log until their group is forgotten.
    fn drop_slots(&mut self, slots: SlotSet) {
        self.chunks.iter_mut().for_each(|(_, chunk)| chunk.drop_slots(slots));
        self.chunks.retain(|(_, chunk)| !chunk.is_empty());
        if slots.contains(META_SLOT) {
            self.meta = Coverage::range(0, self.floor);
        }
    }
}

/// Deltas in coverages: numbers, for all slots together.
pub(crate) fn numbers(parts: &[EdgeCoverage]) -> u64 {
    parts.iter().map(|part| part.coverage.count() * part.slots.len() as u64).sum()
}

/// One job.
#[derive(Default)]
pub(crate) struct JobIndex {
    /// Ordered by edge. A job has few.
    edges: Vec<(Edge, EdgeIndex)>,
    /// The job is done: nothing of its tables is held any more.
    complete: bool,
}

impl JobIndex {
    fn place(&self, edge: Edge) -> Result<usize, usize> {
        self.edges.binary_search_by_key(&edge, |(edge, _)| *edge)
    }

    /// What is held of an edge.
    pub(crate) fn edge(&self, edge: Edge) -> Option<&EdgeIndex> {
        self.place(edge).ok().map(|at| &self.edges[at].1)
    }

    /// What is held, by edge.
    pub(crate) fn edges(&self) -> impl Iterator<Item = (Edge, &EdgeIndex)> {
        self.edges.iter().map(|(edge, held)| (*edge, held))
    }

    /// Drops all batches, for good.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
        self.edges.retain(|(edge, _)| !edge.is_upload());
        self.edges.shrink_to_fit();
    }

    /// Whether they were dropped.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether there are any.
    pub(crate) fn has_batches(&self) -> bool {
        self.edges.iter().any(|(edge, _)| edge.is_upload())
    }

    /// An edge of which something was held, to be changed.
    pub(crate) fn edge_of(&mut self, edge: Edge) -> Option<&mut EdgeIndex> {
        self.place(edge).ok().map(|at| &mut self.edges[at].1)
    }

    /// What is held of an edge, to be changed.
    pub(crate) fn edge_mut(&mut self, edge: Edge) -> &mut EdgeIndex {
        let at = self.place(edge).unwrap_or_else(|at| {
            self.edges.insert(at, (edge, EdgeIndex::default()));
            at
        });
        &mut self.edges[at].1
    }

    /// Coverage of the given slots on all edges.
    pub(crate) fn coverage(&self, slots: SlotSet, durable_only: bool) -> Vec<EdgeCoverage> {
        let edges = self.edges.iter();
        edges.flat_map(|(edge, held)| held.coverage(*edge, slots, durable_only)).collect()
    }

    /// Whatever of `offered` is not held.
    pub(crate) fn missing(&self, offered: &[EdgeCoverage]) -> Vec<EdgeCoverage> {
        let nothing = EdgeIndex::default();
        let held = |offer: &EdgeCoverage| self.edge(offer.edge).unwrap_or(&nothing);
        offered.iter().flat_map(|offer| held(offer).missing(std::slice::from_ref(offer))).collect()
    }

    /// Batches of an edge below this number are retired.
    pub(crate) fn retire(&mut self, edge: Edge, floor: u64) {
        self.edge_mut(edge).retire(floor);
    }

    /// The groups of a stream's batches that are held.
    pub(crate) fn groups(&self, job: JobId) -> impl Iterator<Item = Group> + '_ {
        let edges = self.edges.iter().filter(|(edge, _)| edge.is_of_stream());
        edges.flat_map(move |(edge, held)| {
            held.groups().map(move |first| Group::of_stream(job, *edge, first))
        })
    }

    /// All slots of which anything is held.
    pub(crate) fn all_slots(&self) -> SlotSet {
        self.edges.iter().fold(SlotSet::EMPTY, |set, (_, held)| set.or(held.all_slots()))
    }

    /// Speaks for these slots no more.
    pub(crate) fn drop_slots(&mut self, slots: SlotSet) {
        self.edges.iter_mut().for_each(|(_, held)| held.drop_slots(slots));
    }
}

#[cfg(test)]
mod tests;
