//! What is on whose disk, and what was promised of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cortado_core::{Group, RecordRef};
use cortado_protocol::entry::EntryHead;
use cortado_protocol::{Edge, EntryKey, JobId, Slot, SlotSet};

/// A record on a disk: what it is and which slots it speaks for.
pub(super) type Copy = (RecordRef, EntryKey, SlotSet);

/// A sync after the first sign of a batch, and some: by so much a job may seem to live less long.
pub(super) const SLACK: Duration = Duration::from_secs(1);

/// What is on whose disk, intact and safe from a power cut.
#[derive(Default)]
pub(super) struct Copies {
    pub(super) held: BTreeMap<EntryKey, BTreeMap<usize, BTreeMap<RecordRef, SlotSet>>>,
    /// Batches acknowledged to a client.
    pub(super) promised: BTreeSet<EntryKey>,
    /// Copies of an entry that were lost: on which disk, for which slots, and whether with the disk.
    pub(super) lost: BTreeMap<EntryKey, BTreeMap<usize, Lost>>,
    /// When a first copy of each batch was on a disk.
    pub(super) since: BTreeMap<EntryKey, Duration>,
    /// Jobs that are done, whose batches are needed no more: the disks from which they were dropped.
    pub(super) completed: BTreeMap<JobId, BTreeSet<usize>>,
    /// Batches of streams below these numbers are retired.
    pub(super) floors: BTreeMap<(JobId, Edge), u64>,
    /// When a first node let go of each job.
    pub(super) gone_at: BTreeMap<JobId, Duration>,
}

/// A copy that was lost.
#[derive(Clone, Copy)]
pub(super) struct Lost {
    pub(super) slots: SlotSet,
    /// Whether the whole disk is gone: peers learn of that by its new log id.
    pub(super) with_disk: bool,
}

/// A node's record, as a copy, if it is an entry at all.
pub(super) fn copy_of(record: RecordRef, payload: &[u8]) -> Option<Copy> {
    let head = EntryHead::decode(payload).ok()?;
    Some((record, head.key, head.slots))
}

pub(super) fn all_slots<'s>(sets: impl IntoIterator<Item = &'s SlotSet>) -> SlotSet {
    sets.into_iter().fold(SlotSet::EMPTY, |all, set| all.or(*set))
}

impl Copies {
    pub(super) fn add(&mut self, node: usize, (record, key, slots): Copy) {
        self.held.entry(key).or_default().entry(node).or_default().insert(record, slots);
    }

    /// A copy of the entry is on a disk.
    pub(super) fn found(&mut self, key: EntryKey, now: Duration) {
        self.since.entry(key).or_insert(now);
    }

    /// Nothing of the node's disk counts any more.
    pub(super) fn remove_node(&mut self, node: usize, lost: bool) {
        if lost {
            self.completed.values_mut().for_each(|nodes| nodes.retain(|of| *of != node));
        }
        for (key, nodes) in &mut self.held {
            let Some(records) = nodes.remove(&node).filter(|_| lost) else { continue };
            let slots = all_slots(records.values());
            let copy = Lost { slots, with_disk: true };
            self.lost.entry(*key).or_default().insert(node, copy);
        }
        self.held.retain(|_, nodes| !nodes.is_empty());
    }

    pub(super) fn remove_record(&mut self, node: usize, record: RecordRef) {
        for (key, nodes) in &mut self.held {
            let Some(records) = nodes.get_mut(&node) else { continue };
            if let Some(slots) = records.remove(&record) {
                let copy = Lost { slots, with_disk: false };
                self.lost.entry(*key).or_default().insert(node, copy);
            }
        }
    }

    /// The job is over for this node: its records may go.
    pub(super) fn forget(&mut self, node: usize, job: JobId) {
        for (_, nodes) in self.held.iter_mut().filter(|(key, _)| key.job == job) {
            nodes.remove(&node);
        }
        self.promised.retain(|key| key.job != job);
        self.lost.retain(|key, _| key.job != job);
    }

    /// The job is done, as this node knows: its batches are dropped.
    pub(super) fn complete(&mut self, node: usize, job: JobId) {
        let is_batch = |key: &EntryKey| key.job == job && key.edge.is_upload();
        for (_, nodes) in self.held.iter_mut().filter(|(key, _)| is_batch(key)) {
            nodes.remove(&node);
        }
        self.promised.retain(|key| !is_batch(key));
        self.lost.retain(|key, _| !is_batch(key));
        self.completed.entry(job).or_default().insert(node);
    }

    /// Batches of streams are retired, as this node knows: they are needed no more. Returns one of the
    /// group that is not.
    pub(super) fn retire(
        &mut self,
        node: usize,
        group: Group,
        floor: impl Fn(&EntryKey) -> u64,
    ) -> Option<EntryKey> {
        let keys = self.held.keys().filter(|key| Group::of(key) == group).copied();
        let keys: Vec<_> = keys.collect();
        for key in &keys {
            let known = self.floors.entry((key.job, key.edge)).or_default();
            *known = (*known).max(floor(key));
            self.held.get_mut(key).map(|nodes| nodes.remove(&node));
        }
        let retired = |key: &EntryKey| self.is_retired(key);
        keys.iter().find(|key| !retired(key)).copied()
    }

    fn is_retired(&self, key: &EntryKey) -> bool {
        self.floors.get(&(key.job, key.edge)).is_some_and(|floor| key.number < *floor)
    }

    /// A segment whose records stand elsewhere, too, is deleted.
    pub(super) fn release(&mut self, node: usize, segment: u32) {
        for nodes in self.held.values_mut() {
            if let Some(records) = nodes.get_mut(&node) {
                records.retain(|record, _| record.segment != segment);
            }
        }
    }

    /// Copies of the slot of the entry that has fewest. `counts` says whether a node's copy of a
    /// slot counts. Slots that were lost on every disk have none.
    pub(super) fn count(&self, key: EntryKey, counts: impl Fn(usize, Slot) -> bool) -> usize {
        let nodes: BTreeMap<_, _> = self
            .held
            .get(&key)
            .into_iter()
            .flatten()
            .map(|(node, records)| (*node, all_slots(records.values())))
            .collect();
        let lost = self.lost.get(&key).into_iter().flat_map(|lost| lost.values());
        let lost = lost.fold(SlotSet::EMPTY, |all, copy| all.or(copy.slots));
        let all = all_slots(nodes.values()).or(lost);
        let held = |slot| {
            nodes.iter().filter(|(node, set)| set.contains(slot) && counts(**node, slot)).count()
        };
        all.iter().map(held).min().unwrap_or(0)
    }

    /// Whether this disk may be lost although its batches that are not acknowledged yet go with it.
    /// They may be acknowledged by what was said before, so all but one of W copies may be lost.
    pub(super) fn may_lose_unacknowledged(&self, node: usize, needed: usize) -> bool {
        let open = self.held.iter().filter(|(key, _)| !self.is_acknowledged(key));
        let mut mine = open.filter_map(|(key, nodes)| Some((key, nodes.get(&node)?)));
        mine.all(|(key, records)| {
            let slots = all_slots(records.values());
            let lost = self.lost.get(key).into_iter().flatten();
            let same = lost.filter(|(_, copy)| copy.with_disk && !copy.slots.and(slots).is_empty());
            same.count() + 1 < needed
        })
    }

    /// Nodes that are the only ones to have some batch nobody was promised yet.
    pub(super) fn sole_holders(&self) -> BTreeSet<usize> {
        let open = self.held.iter().filter(|(key, nodes)| {
            key.edge.is_upload() && nodes.len() == 1 && !self.promised.contains(key)
        });
        open.flat_map(|(_, nodes)| nodes.keys().copied()).collect()
    }

    /// Whether the entry must survive.
    pub(super) fn is_acknowledged(&self, key: &EntryKey) -> bool {
        !self.is_retired(key) && (!key.edge.is_upload() || self.promised.contains(key))
    }

    /// A node's records of what is acknowledged, in order. The others may be damaged on every disk
    /// before anyone reads them, and then nobody can know when they are acknowledged.
    pub(super) fn acknowledged_records(&self, node: usize) -> Vec<RecordRef> {
        let held = self.held.iter().filter(|(key, _)| self.is_acknowledged(key));
        let records = held.filter_map(|(_, nodes)| nodes.get(&node));
        let sorted: BTreeSet<_> = records.flat_map(|records| records.keys().copied()).collect();
        sorted.into_iter().collect()
    }
}
