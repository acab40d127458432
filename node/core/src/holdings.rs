//! Holdings: the index of what this node's log has, job by job.
//!
//! A ledger is the set {batch number → delta} of a slot. Here stands where the deltas are, never the
//! deltas themselves: memory grows by some hundred bytes per batch, not with the upload.

use std::collections::BTreeMap;
use std::ops::Range;

use cortado_protocol::entry::{EMPTY_HASH, EntryHead, Source};
use cortado_protocol::expiry::Expired;
use cortado_protocol::peer::EdgeCoverage;
use cortado_protocol::{Coverage, Edge, JobId, Slot, SlotSet};

use crate::RecordRef;

/// Where a holding's record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On its way into the log, under this ticket.
    Pending(u64),
    /// In the log, fsynced.
    Durable(RecordRef),
}

/// One record: an entry, or the part of it this node was sent.
#[derive(Clone, Debug)]
pub struct Holding {
    /// The slots it speaks for.
    pub slots: SlotSet,
    /// Content hashes of those of its deltas that are not empty.
    hashes: Box<[(Slot, u64)]>,
    /// Where it is.
    pub place: Place,
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
pub struct Numbered {
    /// What it was made from.
    pub source: Source,
    /// Its records; together they speak for each slot once.
    pub holdings: Vec<Holding>,
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
pub enum Admitted {
    /// These of its slots are new.
    New(SlotSet),
    /// All of it is held, though some of it may still be pending.
    Known,
    /// It contradicts what is held for this slot.
    Conflict(Slot),
}

/// One edge of one job.
#[derive(Default)]
pub struct EdgeHolding {
    entries: BTreeMap<u64, Numbered>,
}

impl EdgeHolding {
    /// Compares an entry with what is held.
    #[must_use]
    pub fn compare(&self, head: &EntryHead) -> Admitted {
        let Some(numbered) = self.entries.get(&head.key.number) else {
            return Admitted::New(head.slots);
        };
        let mut fresh = head.slots;
        for holding in &numbered.holdings {
            for slot in holding.slots.and(head.slots).iter() {
                if holding.hash(slot) != head.hash(slot) {
                    return Admitted::Conflict(slot);
                }
            }
            fresh = fresh.minus(holding.slots);
        }
        if fresh.is_empty() { Admitted::Known } else { Admitted::New(fresh) }
    }

    /// Takes an entry into the index. It must speak for no slot that is held already.
    pub fn insert(&mut self, head: &EntryHead, place: Place) {
        let numbered = self.entries.entry(head.key.number).or_default();
        debug_assert!(numbered.slots(false).and(head.slots).is_empty());
        numbered.source = head.source;
        let hashes = head.parts.iter().map(|part| (part.slot, part.hash)).collect();
        numbered.holdings.push(Holding { slots: head.slots, hashes, place });
    }

    /// The record of a ticket is in the log now.
    pub fn durable(&mut self, number: u64, ticket: u64, record: RecordRef) {
        let numbered = self.entries.get_mut(&number);
        for holding in numbered.into_iter().flat_map(|n| &mut n.holdings) {
            if holding.place == Place::Pending(ticket) {
                holding.place = Place::Durable(record);
            }
        }
    }

    /// The record never reached the log, or can't be read any more.
    pub fn remove(&mut self, number: u64, place: Place) {
        if let Some(numbered) = self.entries.get_mut(&number) {
            numbered.holdings.retain(|holding| holding.place != place);
            if numbered.holdings.is_empty() {
                self.entries.remove(&number);
            }
        }
    }

    /// Slots held of a number.
    #[must_use]
    pub fn slots(&self, number: u64, durable_only: bool) -> SlotSet {
        self.entries.get(&number).map_or(SlotSet::EMPTY, |n| n.slots(durable_only))
    }

    /// Coverage of the given slots; slots with the same coverage stand together, and slots with no
    /// coverage are left out.
    #[must_use]
    pub fn coverage(&self, edge: Edge, slots: SlotSet, durable_only: bool) -> Vec<EdgeCoverage> {
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
    #[must_use]
    pub fn held_of(&self, offer: &EdgeCoverage, durable_only: bool) -> Vec<EdgeCoverage> {
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
    #[must_use]
    pub fn slot_coverage(&self, slot: Slot, durable_only: bool) -> Coverage {
        let held = |n: &Numbered| n.slots(durable_only).contains(slot);
        self.entries.iter().filter(|(_, n)| held(n)).map(|(number, _)| *number).collect()
    }

    /// Whatever of `offered` is not held; pending records count as held.
    #[must_use]
    pub fn missing(&self, offered: &[EdgeCoverage]) -> Vec<EdgeCoverage> {
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
    pub fn records(&self, slots: SlotSet) -> impl Iterator<Item = (u64, RecordRef, SlotSet)> + '_ {
        self.entries.iter().flat_map(move |(number, numbered)| {
            numbered.holdings.iter().filter_map(move |holding| {
                let slots = holding.slots.and(slots);
                let record = holding.durable().filter(|_| !slots.is_empty())?;
                Some((*number, record, slots))
            })
        })
    }

    /// Durable records of the wanted numbers, and for which of the wanted slots they speak.
    pub fn wanted(&self, wanted: &EdgeCoverage) -> impl Iterator<Item = (u64, RecordRef, SlotSet)> {
        self.records_of(wanted).filter_map(|(number, holding, slots)| {
            holding.durable().map(|record| (number, record, slots))
        })
    }

    /// Whether a record of these numbers and slots is on its way into the log.
    #[must_use]
    pub fn awaits(&self, part: &EdgeCoverage) -> bool {
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
    #[must_use]
    pub fn has_pending(&self, slots: SlotSet) -> bool {
        let mut holdings = self.entries.values().flat_map(|numbered| &numbered.holdings);
        holdings.any(|h| h.durable().is_none() && !h.slots.and(slots).is_empty())
    }

    /// Numbers from `from` on whose meta slot is durable here, and their sources, in number order.
    pub fn sources(&self, from: u64) -> impl Iterator<Item = (u64, Source)> + '_ {
        let meta = |n: &Numbered| !n.slots(true).and(SlotSet::META).is_empty();
        self.entries
            .range(from..)
            .filter(move |(_, n)| meta(n))
            .map(|(number, n)| (*number, n.source))
    }

    /// All slots of which anything is held.
    #[must_use]
    pub fn all_slots(&self) -> SlotSet {
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
pub struct JobHolding {
    edges: BTreeMap<Edge, EdgeHolding>,
}

impl JobHolding {
    /// What is held of an edge.
    #[must_use]
    pub fn edge(&self, edge: Edge) -> Option<&EdgeHolding> {
        self.edges.get(&edge)
    }

    /// What is held of an edge, to be changed.
    pub fn edge_mut(&mut self, edge: Edge) -> &mut EdgeHolding {
        self.edges.entry(edge).or_default()
    }

    /// Coverage of the given slots on all edges.
    #[must_use]
    pub fn coverage(&self, slots: SlotSet, durable_only: bool) -> Vec<EdgeCoverage> {
        let edges = self.edges.iter();
        edges.flat_map(|(edge, held)| held.coverage(*edge, slots, durable_only)).collect()
    }

    /// Whatever of `offered` is not held.
    #[must_use]
    pub fn missing(&self, offered: &[EdgeCoverage]) -> Vec<EdgeCoverage> {
        let nothing = EdgeHolding::default();
        let held = |offer: &EdgeCoverage| self.edges.get(&offer.edge).unwrap_or(&nothing);
        offered.iter().flat_map(|offer| held(offer).missing(std::slice::from_ref(offer))).collect()
    }

    /// All slots of which anything is held.
    #[must_use]
    pub fn all_slots(&self) -> SlotSet {
        self.edges.values().fold(SlotSet::EMPTY, |set, edge| set.or(edge.all_slots()))
    }

    /// Speaks for these slots no more.
    pub fn drop_slots(&mut self, slots: SlotSet) {
        self.edges.values_mut().for_each(|edge| edge.drop_slots(slots));
    }

    /// Number of records.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.edges.values().map(|edge| edge.entries.len() as u64).sum()
    }
}

/// All jobs, and the ones that are gone for good.
#[derive(Default)]
pub struct Holdings {
    jobs: BTreeMap<JobId, JobHolding>,
    gone: BTreeMap<JobId, Expired>,
}

/// Tombstones kept at most. Beyond it the oldest job ids are let go: ids are UUIDv7, so these are
/// the ones whose records no node can still have.
const TOMBSTONES: usize = 100_000;

impl Holdings {
    /// What is held of a job.
    #[must_use]
    pub fn job(&self, job: JobId) -> Option<&JobHolding> {
        self.jobs.get(&job)
    }

    /// What is held of a job, to be changed.
    pub fn job_mut(&mut self, job: JobId) -> &mut JobHolding {
        self.jobs.entry(job).or_default()
    }

    /// What is held of an edge of a job.
    #[must_use]
    pub fn edge(&self, job: JobId, edge: Edge) -> Option<&EdgeHolding> {
        self.jobs.get(&job).and_then(|held| held.edge(edge))
    }

    /// All jobs, in id order.
    pub fn jobs(&self) -> impl Iterator<Item = (JobId, &JobHolding)> {
        self.jobs.iter().map(|(job, held)| (*job, held))
    }

    /// Forgets a job for good; returns whether that is news.
    pub fn bury(&mut self, job: JobId, proof: Expired) -> bool {
        self.jobs.remove(&job);
        let news = self.gone.insert(job, proof).is_none();
        while self.gone.len() > TOMBSTONES {
            self.gone.pop_first();
        }
        news
    }

    /// Whether the job is gone for good.
    #[must_use]
    pub fn is_gone(&self, job: JobId) -> bool {
        self.gone.contains_key(&job)
    }

    /// Why the job is gone for good, if it is.
    #[must_use]
    pub fn proof(&self, job: JobId) -> Option<&Expired> {
        self.gone.get(&job)
    }

    /// The jobs that are gone for good, and why.
    pub fn tombstones(&self) -> impl Iterator<Item = (JobId, &Expired)> {
        self.gone.iter().map(|(job, proof)| (*job, proof))
    }
}

#[cfg(test)]
mod tests;
