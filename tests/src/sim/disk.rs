//! Disks of the simulated nodes, and what stands on them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cortado_core::{Input, RecordRef};
use cortado_log::AppendError;
use cortado_protocol::entry::Entry;
use cortado_protocol::{EntryKey, JobId, SlotSet};

use super::event::Event;
use super::world::World;

/// A record on a disk: what it is and which slots it speaks for.
pub(super) type Copy = (RecordRef, EntryKey, SlotSet);

/// What is on whose disk, intact and safe from a power cut.
#[derive(Default)]
pub(super) struct Copies {
    held: BTreeMap<EntryKey, BTreeMap<usize, BTreeMap<RecordRef, SlotSet>>>,
    /// Batches acknowledged to a client.
    promised: BTreeSet<EntryKey>,
    /// Copies of an entry that were lost: on which disk, and whether with all of it.
    lost: BTreeMap<EntryKey, BTreeMap<usize, bool>>,
}

/// A node's record, as a copy, if it is an entry at all.
pub(super) fn copy_of(record: RecordRef, payload: &Bytes) -> Option<Copy> {
    let head = Entry::decode(payload).ok()?.head;
    Some((record, head.key, head.slots))
}

impl Copies {
    pub(super) fn add(&mut self, node: usize, (record, key, slots): Copy) {
        self.held.entry(key).or_default().entry(node).or_default().insert(record, slots);
    }

    /// Nothing of the node's disk counts any more.
    pub(super) fn remove_node(&mut self, node: usize, lost: bool) {
        for (key, nodes) in &mut self.held {
            if nodes.remove(&node).is_some() && lost {
                self.lost.entry(*key).or_default().insert(node, true);
            }
        }
        self.held.retain(|_, nodes| !nodes.is_empty());
    }

    fn remove_record(&mut self, node: usize, record: RecordRef) {
        for (key, nodes) in &mut self.held {
            let Some(records) = nodes.get_mut(&node) else { continue };
            if records.remove(&record).is_some() {
                self.lost.entry(*key).or_default().insert(node, false);
            }
        }
    }

    /// The job is over for this node: its records may go.
    pub(super) fn forget(&mut self, node: usize, job: JobId) {
        for (_, nodes) in self.held.iter_mut().filter(|(key, _)| key.job == job) {
            nodes.remove(&node);
        }
        self.promised.retain(|key| key.job != job);
    }

    /// Nodes that have every slot of the entry that anybody has, each slot counted by itself: the
    /// smallest number over the slots.
    pub(super) fn count(&self, key: EntryKey, counts: impl Fn(usize) -> bool) -> usize {
        let Some(nodes) = self.held.get(&key) else { return 0 };
        let sets: Vec<_> = nodes
            .iter()
            .filter(|(node, _)| counts(**node))
            .map(|(_, records)| records.values().fold(SlotSet::EMPTY, |all, set| all.or(*set)))
            .collect();
        let all = nodes.values().flat_map(|records| records.values());
        let all = all.fold(SlotSet::EMPTY, |all, set| all.or(*set));
        let held = |slot| sets.iter().filter(|set| set.contains(slot)).count();
        all.iter().map(held).min().unwrap_or(0)
    }

    /// Nodes that are the only ones to have some batch nobody was promised yet.
    pub(super) fn sole_holders(&self) -> BTreeSet<usize> {
        let open = self.held.iter().filter(|(key, nodes)| {
            key.edge.as_table().is_some() && nodes.len() == 1 && !self.promised.contains(key)
        });
        open.flat_map(|(_, nodes)| nodes.keys().copied()).collect()
    }

    /// Whether the entry must survive.
    fn is_acknowledged(&self, key: &EntryKey) -> bool {
        key.edge.as_table().is_none() || self.promised.contains(key)
    }

    /// A node's records of what is acknowledged, in order. The others may be damaged on every disk
    /// before anyone reads them, and then nobody can know when they are acknowledged.
    fn acknowledged_records(&self, node: usize) -> Vec<RecordRef> {
        let held = self.held.iter().filter(|(key, _)| self.is_acknowledged(key));
        let records = held.filter_map(|(_, nodes)| nodes.get(&node));
        let sorted: BTreeSet<_> = records.flat_map(|records| records.keys().copied()).collect();
        sorted.into_iter().collect()
    }
}

impl World {
    pub(super) fn append(
        &mut self,
        node: usize,
        ticket: u64,
        job: JobId,
        reserved: bool,
        bytes: &Bytes,
    ) {
        let (unix_ms, boot) = (self.unix_ms(node), self.nodes[node].boot);
        let delay = self.delay(100, self.dials.sync_ms * 1_000);
        let Some(process) = &mut self.nodes[node].process else { return };
        let appended = if reserved {
            process.log.append_reserved(1, job.0, unix_ms, &[bytes])
        } else {
            process.log.append(1, job.0, unix_ms, &[bytes])
        };
        match appended {
            Ok(cortado_log::RecordRef { segment, offset, len }) => {
                let record = RecordRef { segment, offset, len };
                process.unsynced.push((ticket, copy_of(record, bytes).expect("nodes log entries")));
                if !process.sync_planned {
                    process.sync_planned = true;
                    self.plan(delay, Event::Sync { node, boot });
                }
            }
            Err(AppendError::Full | AppendError::TooLarge { .. }) => {
                self.plan(delay, Event::Refused { node, boot, ticket });
            }
            Err(AppendError::Io(_) | AppendError::Poisoned) => self.abort(node),
        }
    }

    pub(super) fn sync(&mut self, node: usize) {
        let Some(process) = &mut self.nodes[node].process else { return };
        process.sync_planned = false;
        if process.log.sync().is_err() {
            return self.abort(node);
        }
        let mut records = Vec::new();
        for (ticket, copy) in std::mem::take(&mut process.unsynced) {
            records.push((ticket, copy.0));
            self.copies.add(node, copy);
        }
        self.input(node, Input::Appended(records));
    }

    pub(super) fn forget(&mut self, node: usize, job: JobId) {
        let Some(process) = &mut self.nodes[node].process else { return };
        if process.log.forget(job.0).is_err() {
            return self.abort(node);
        }
        self.copies.forget(node, job);
    }

    /// A batch is acknowledged: from now on it must survive.
    pub(super) fn promise(&mut self, node: usize, key: EntryKey) {
        if let Some(message) = self.false_acknowledgement(node, key) {
            self.violation.get_or_insert(message);
        }
        self.copies.promised.insert(key);
    }

    /// Whether a disk may be lost now without breaking more than is promised: everything that was
    /// acknowledged is on as many disks as an acknowledgement needs.
    pub(super) fn may_lose_a_disk(&self) -> bool {
        let needed = usize::from(self.config.min_copies);
        needed > 1
            && self
                .copies
                .held
                .keys()
                .filter(|key| self.copies.is_acknowledged(key))
                .all(|key| self.copies.count(*key, |node| self.indexes(node, *key)) >= needed)
    }

    /// Whether the node, if it runs, knows that it holds the entry.
    fn indexes(&self, node: usize, key: EntryKey) -> bool {
        let Some(process) = &self.nodes[node].process else { return true };
        let parts = process.core.held(key.job);
        let all = parts.iter().filter(|part| part.edge == key.edge && !part.slots.is_empty());
        all.clone().any(|part| part.coverage.contains(key.number))
    }

    /// Damages one bit of a record. Returns whether there was one that may be damaged.
    pub(super) fn flip_bit(&mut self, node: usize, pick: u64) -> bool {
        let records = self.copies.acknowledged_records(node);
        if records.is_empty() || !self.may_lose_a_disk() {
            return false;
        }
        let record = records[pick as usize % records.len()];
        let RecordRef { segment, offset, len } = record;
        let (name, bytes) = cortado_log::RecordRef { segment, offset, len }.file_range();
        let offset = bytes.start + (pick >> 8) % (bytes.end - bytes.start);
        let flipped = self.nodes[node].storage.flip_bit(&name, offset as usize, (pick % 8) as u8);
        if flipped {
            self.copies.remove_record(node, record);
        }
        flipped
    }

    /// What is wrong with acknowledging this batch now, if anything is: fewer disks have it than an
    /// acknowledgement needs. Disks lost since are excused while the acknowledging node can't know.
    fn false_acknowledgement(&self, node: usize, key: EntryKey) -> Option<String> {
        let needed = usize::from(self.config.min_copies);
        let copies = self.copies.count(key, |_| true);
        let core = self.nodes[node].process.as_ref().map(|process| &process.core);
        let excused = |(disk, whole): (&usize, &bool)| {
            let told = core.and_then(|core| core.log_of(self.nodes[*disk].id));
            !whole || told.is_none() || told != self.nodes[*disk].log_id
        };
        let lost = self.copies.lost.get(&key).into_iter().flatten();
        let excused = lost.filter(|lost| excused(*lost)).count();
        (copies + excused < needed).then(|| {
            format!("{} acknowledged {key:?}, which {copies} disks have", self.nodes[node].id)
        })
    }
}
