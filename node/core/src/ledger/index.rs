//! The index of one job: which entries are in this node's log, and where.
//!
//! A ledger is the set {batch number → delta} of a slot. Here stands where the deltas are, never the
//! deltas themselves: memory grows by some hundred bytes per batch, not with the upload.

use std::collections::BTreeMap;
use std::ops::Range;

use cortado_protocol::entry::{EMPTY_HASH, EntryHead, Source};
use cortado_protocol::peer::EdgeCoverage;
use cortado_protocol::{Coverage, Edge, Slot, SlotSet};

use crate::record::RecordRef;

/// Where a holding's record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On its way into the log, under this ticket.
    Pending(u64),
    /// In the log, fsynced.
    Durable(RecordRef),
}

/// One record: an entry, or the part of it this node was sent.
#[derive(Clone, Debug)]
pub(crate) struct Holding {
    /// The slots it speaks for.
    pub(crate) slots: SlotSet,
    /// Content hashes of those of its deltas that are not empty.
    hashes: Box<[(Slot, u64)]>,
    /// Where it is.
    pub(crate) place: Place,
}

impl Holding {
    fn hash(&self, slot: Slot) -> u64 {
        let found = self.hashes.binary_search_by_key(&slot, |(slot, _)| *slot);
        found.map_or(EMPTY_HASH, |at| self.hashes[at].1)
    }

    fn durable(&self) -> Option<RecordRef> {
        match self.place {
            Place::Durable(record) => Some(record),
            Place::Pending(_) => None,
        }
    }
}

/// The records of one batch number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbered {
    /// What it was made from.
    pub(crate) source: Source,
    /// Its records; together they speak for each slot once.
    pub(crate) holdings: Vec<Holding>,
}

impl Numbered {
    fn slots(&self, durable_only: bool) -> SlotSet {
        self.holdings
            .iter()
            .filter(|h| !durable_only || h.durable().is_some())
            .fold(SlotSet::EMPTY, |set, h| set.or(h.slots))
    }
}

/// How an entry relates to what is held.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// These of its slots are new.
    New(SlotSet),
    /// All of it is held, though some of it may still be pending.
    Known,
    /// It contradicts what is held for this slot.
    Conflict(Slot),
}

/// One edge of one job.
#[derive(Default)]
pub(crate) struct EdgeIndex {
    entries: BTreeMap<u64, Numbered>,
}

impl EdgeIndex {
    /// Compares an entry with what is held.
    pub(crate) fn compare(&self, head: &EntryHead) -> Comparison {
        let Some(numbered) = self.entries.get(&head.key.number) else {
            return Comparison::New(head.slots);
        };
        let mut fresh = head.slots;
        for holding in &numbered.holdings {
            for slot in holding.slots.and(head.slots).iter() {
                if holding.hash(slot) != head.hash(slot) {
                    return Comparison::Conflict(slot);
                }
            }
            fresh = fresh.minus(holding.slots);
        }
        if fresh.is_empty() { Comparison::Known } else { Comparison::New(fresh) }
    }

    /// Takes an entry into the index. It must speak for no slot that is held already.
    pub(crate) fn insert(&mut self, head: &EntryHead, place: Place) {
        let numbered = self.entries.entry(head.key.number).or_default();
        debug_assert!(numbered.slots(false).and(head.slots).is_empty());
        numbered.source = head.source;
        let hashes = head.parts.iter().map(|part| (part.slot, part.hash)).collect();
        numbered.holdings.push(Holding { slots: head.slots, hashes, place });
    }

    /// The record of a ticket is in the log now.
    pub(crate) fn durable(&mut self, number: u64, ticket: u64, record: RecordRef) {
        let numbered = self.entries.get_mut(&number);
        for holding in numbered.into_iter().flat_map(|n| &mut n.holdings) {
            if holding.place == Place::Pending(ticket) {
                holding.place = Place::Durable(record);
            }
        }
    }

    /// The record never reached the log, or can't be read any more. Returns whether it was here.
    pub(crate) fn remove(&mut self, number: u64, place: Place) -> bool {
        let Some(numbered) = self.entries.get_mut(&number) else { return false };
        let before = numbered.holdings.len();
        numbered.holdings.retain(|holding| holding.place != place);
        let removed = numbered.holdings.len() < before;
        if numbered.holdings.is_empty() {
            self.entries.remove(&number);
        }
        removed
    }

    /// A record stands elsewhere now. Returns whether it was here.
    pub(crate) fn moved(&mut self, number: u64, from: RecordRef, to: RecordRef) -> bool {
        let holdings = self.entries.get_mut(&number).into_iter().flat_map(|n| &mut n.holdings);
        let found = holdings.into_iter().find(|holding| holding.place == Place::Durable(from));
        found.map(|holding| holding.place = Place::Durable(to)).is_some()
    }

    /// Slots held of a number.
    pub(crate) fn slots(&self, number: u64, durable_only: bool) -> SlotSet {
        self.entries.get(&number).map_or(SlotSet::EMPTY, |n| n.slots(durable_only))
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

    fn coverage_within(
        &self,
        edge: Edge,
        slots: SlotSet,
        numbers: Range<u64>,
        durable_only: bool,
    ) -> Vec<EdgeCoverage> {
        let mut by_set: BTreeMap<SlotSet, Coverage> = BTreeMap::new();
        for (number, numbered) in self.entries.range(numbers) {
            let held = numbered.slots(durable_only).and(slots);
            if !held.is_empty() {
                by_set.entry(held).or_default().insert(*number);
            }
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
        held
    }

    /// Coverage of one slot.
    pub(crate) fn slot_coverage(&self, slot: Slot, durable_only: bool) -> Coverage {
        let held = |n: &Numbered| n.slots(durable_only).contains(slot);
        self.entries.iter().filter(|(_, n)| held(n)).map(|(number, _)| *number).collect()
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

    /// Durable records that speak for any of the slots, with their numbers, in number order. Each
    /// record counts for the slots named with it and for no other: it may hold more, of which
    /// another record speaks.
    pub(crate) fn records(
        &self,
        slots: SlotSet,
    ) -> impl Iterator<Item = (u64, RecordRef, SlotSet)> + '_ {
        self.entries.iter().flat_map(move |(number, numbered)| {
            numbered.holdings.iter().filter_map(move |holding| {
                let slots = holding.slots.and(slots);
                let record = holding.durable().filter(|_| !slots.is_empty())?;
                Some((*number, record, slots))
            })
        })
    }

    /// Durable records of the wanted numbers, and for which of the wanted slots they speak.
    pub(crate) fn wanted(
        &self,
        wanted: &EdgeCoverage,
    ) -> impl Iterator<Item = (u64, RecordRef, SlotSet)> {
        self.records_of(wanted).filter_map(|(number, holding, slots)| {
            holding.durable().map(|record| (number, record, slots))
        })
    }

    /// Whether a record of these numbers and slots is on its way into the log.
    pub(crate) fn awaits(&self, part: &EdgeCoverage) -> bool {
        self.records_of(part).any(|(_, holding, _)| holding.durable().is_none())
    }

    /// Records of some numbers, and for which of some slots they speak.
    fn records_of(&self, part: &EdgeCoverage) -> impl Iterator<Item = (u64, &Holding, SlotSet)> {
        let intervals = part.coverage.intervals().iter();
        let numbered = intervals.flat_map(|&(start, end)| self.entries.range(start..end));
        let holdings = numbered.flat_map(|(number, n)| n.holdings.iter().map(|h| (*number, h)));
        holdings.filter_map(|(number, holding)| {
            let slots = holding.slots.and(part.slots);
            (!slots.is_empty()).then_some((number, holding, slots))
        })
    }

    /// Whether a record of these slots is on its way into the log.
    pub(crate) fn has_pending(&self, slots: SlotSet) -> bool {
        let mut holdings = self.entries.values().flat_map(|numbered| &numbered.holdings);
        holdings.any(|h| h.durable().is_none() && !h.slots.and(slots).is_empty())
    }

    /// Numbers from `from` on whose meta slot is durable here, and their sources, in number order.
    pub(crate) fn sources(&self, from: u64) -> impl Iterator<Item = (u64, Source)> + '_ {
        let meta = |n: &Numbered| !n.slots(true).and(SlotSet::META).is_empty();
        self.entries
            .range(from..)
            .filter(move |(_, n)| meta(n))
            .map(|(number, n)| (*number, n.source))
    }

    /// All slots of which anything is held.
    pub(crate) fn all_slots(&self) -> SlotSet {
        self.entries.values().fold(SlotSet::EMPTY, |set, n| set.or(n.slots(false)))
    }

    /// Speaks for these slots no more. Records stay in the log until the job ends.
    fn drop_slots(&mut self, slots: SlotSet) {
        for numbered in self.entries.values_mut() {
            for holding in &mut numbered.holdings {
                if holding.durable().is_some() {
                    holding.slots = holding.slots.minus(slots);
                }
            }
            numbered.holdings.retain(|holding| !holding.slots.is_empty());
        }
        self.entries.retain(|_, numbered| !numbered.holdings.is_empty());
    }
}

/// Deltas in coverages: numbers, for all slots together.
pub(crate) fn numbers(parts: &[EdgeCoverage]) -> u64 {
    parts.iter().map(|part| part.coverage.count() * part.slots.len() as u64).sum()
}

/// One job.
#[derive(Default)]
pub(crate) struct JobIndex {
    edges: BTreeMap<Edge, EdgeIndex>,
    /// The job is done: nothing of its tables is held any more.
    complete: bool,
}

impl JobIndex {
    /// What is held of an edge.
    pub(crate) fn edge(&self, edge: Edge) -> Option<&EdgeIndex> {
        self.edges.get(&edge)
    }

    /// Drops all batches, for good.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
        self.edges.retain(|edge, _| edge.as_table().is_none());
    }

    /// Whether they were dropped.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether there are any.
    pub(crate) fn has_batches(&self) -> bool {
        self.edges.keys().any(|edge| edge.as_table().is_some())
    }

    /// An edge of which something was held, to be changed.
    pub(crate) fn edge_of(&mut self, edge: Edge) -> Option<&mut EdgeIndex> {
        self.edges.get_mut(&edge)
    }

    /// What is held of an edge, to be changed.
    pub(crate) fn edge_mut(&mut self, edge: Edge) -> &mut EdgeIndex {
        self.edges.entry(edge).or_default()
    }

    /// Coverage of the given slots on all edges.
    pub(crate) fn coverage(&self, slots: SlotSet, durable_only: bool) -> Vec<EdgeCoverage> {
        let edges = self.edges.iter();
        edges.flat_map(|(edge, held)| held.coverage(*edge, slots, durable_only)).collect()
    }

    /// Whatever of `offered` is not held.
    pub(crate) fn missing(&self, offered: &[EdgeCoverage]) -> Vec<EdgeCoverage> {
        let nothing = EdgeIndex::default();
        let held = |offer: &EdgeCoverage| self.edges.get(&offer.edge).unwrap_or(&nothing);
        offered.iter().flat_map(|offer| held(offer).missing(std::slice::from_ref(offer))).collect()
    }

    /// All slots of which anything is held.
    pub(crate) fn all_slots(&self) -> SlotSet {
        self.edges.values().fold(SlotSet::EMPTY, |set, edge| set.or(edge.all_slots()))
    }

    /// Speaks for these slots no more.
    pub(crate) fn drop_slots(&mut self, slots: SlotSet) {
        self.edges.values_mut().for_each(|edge| edge.drop_slots(slots));
    }
}

#[cfg(test)]
mod tests;
