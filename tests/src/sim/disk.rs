//! Disks of the simulated nodes, and what stands on them.

use std::collections::BTreeMap;

use bytes::Bytes;
use cortado_core::{Group, Input, MovedRecord, RecordRef, StateFile};
use cortado_log::AppendError;
use cortado_protocol::job::JobEntry;
use cortado_protocol::{Edge, EntryKey, JobId, Slot, SlotSet};

use super::actor::Actor;
use super::copies::{Lost, SLACK, copy_of};
use super::event::Event;
use super::node::record_ref;
use super::world::World;

impl World {
    pub(super) fn append(
        &mut self,
        node: usize,
        ticket: u64,
        group: Group,
        reserved: bool,
        (bytes, head): (&Bytes, usize),
    ) {
        let (unix_ms, boot) = (self.unix_ms(node), self.nodes[node].boot);
        let delay = self.delay(100, self.dials.sync_ms * 1_000);
        let Some(process) = &mut self.nodes[node].process else { return };
        let (head, rest) = bytes.split_at(head.min(bytes.len()));
        let (group, payload) = (group.number(), [head, rest]);
        let appended = if reserved {
            process.log.append_reserved(1, group, unix_ms, &payload)
        } else {
            process.log.append(1, group, unix_ms, &payload)
        };
        match appended {
            Ok(record) => {
                let record = record_ref(record);
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
        if let Some(until) = self.hung.get(&node).copied().filter(|until| *until > self.now) {
            let boot = self.nodes[node].boot;
            return self.plan_at(until, Event::Sync { node, boot });
        }
        process.sync_planned = false;
        if process.log.sync().is_err() {
            return self.abort(node);
        }
        let mut records = Vec::new();
        for (ticket, copy) in std::mem::take(&mut process.unsynced) {
            records.push((ticket, copy.0));
            self.copies.add(node, copy);
            self.copies.found(copy.1, self.now);
        }
        let moved = self.collect(node);
        if !records.is_empty() {
            self.input(node, Input::Appended(records));
        }
        for moved in moved {
            self.input(node, moved);
        }
    }

    /// Gives space of the node's log back, and tells what was moved for that.
    fn collect(&mut self, node: usize) -> Vec<Input> {
        let mut inputs = Vec::new();
        loop {
            let Some(process) = &mut self.nodes[node].process else { return Vec::new() };
            let collected = match process.log.collect() {
                Ok(Some(collected)) => collected,
                Ok(None) => return inputs,
                Err(_) => {
                    self.abort(node);
                    return Vec::new();
                }
            };
            let moved = collected.moved.into_iter().map(|moved| MovedRecord {
                from: record_ref(moved.from),
                to: record_ref(moved.to),
                head: moved.head,
            });
            let records: Vec<_> = moved.collect();
            for moved in &records {
                let copy = copy_of(moved.to, &moved.head).expect("nodes log entries");
                self.copies.add(node, copy);
            }
            inputs.push(Input::Moved { segment: collected.segment, records });
        }
    }

    pub(super) fn release(&mut self, node: usize, segment: u32) {
        let Some(process) = &mut self.nodes[node].process else { return };
        if process.log.release(segment).is_err() {
            return self.abort(node);
        }
        self.copies.release(node, segment);
    }

    /// A state file is on the node's disk.
    pub(super) fn saved(&mut self, node: usize, ticket: u64, file: StateFile, bytes: Bytes) {
        self.nodes[node].files.insert(file, bytes);
        self.input(node, Input::Saved(ticket));
    }

    pub(super) fn forget(&mut self, node: usize, group: Group) {
        let jobs = || self.clients.iter().map(Actor::job);
        if let Some(job) = jobs().find(|job| Group::batches(*job) == group) {
            self.check_completion(node, job);
            self.copies.complete(node, job);
        } else if let Some(job) = jobs().find(|job| Group::kept(*job) == group) {
            self.forget_job(node, job);
        } else if let Some(process) = &self.nodes[node].process {
            let (core, id) = (&process.core, self.nodes[node].id);
            let floor = |key: &EntryKey| core.floor(key.job, key.edge);
            if let Some(key) = self.copies.retire(node, group, floor) {
                let message = format!("{id} dropped {key:?}, which is not retired");
                self.violation.get_or_insert(message);
            }
        }
        let delay = self.delay(100, self.dials.sync_ms * 1_000);
        let boot = self.nodes[node].boot;
        let Some(process) = &mut self.nodes[node].process else { return };
        if process.log.forget(group.number()).is_err() {
            return self.abort(node);
        }
        // Space is given back when the log's thread has synced what it is at.
        if !process.sync_planned {
            process.sync_planned = true;
            self.plan(delay, Event::Sync { node, boot });
        }
    }

    /// A node that drops a job's batches has written down that the job is done, and its result is on
    /// some disk. Later that record may rot, while the footer of its segment still has what it says.
    fn check_completion(&mut self, node: usize, job: JobId) {
        let gone = self.copies.gone_at.contains_key(&job);
        let end = EntryKey { job, edge: Edge::JOB, number: JobEntry::MANIFEST };
        let before = self.copies.completed.get(&job).is_some_and(|nodes| nodes.contains(&node));
        let written = self.copies.held.get(&end).is_some_and(|nodes| nodes.contains_key(&node));
        let known = before || written;
        let lost = |key: &&EntryKey| {
            key.job == job && key.edge == Edge::RESULT && self.copies.count(**key, |_, _| true) == 0
        };
        let lost = self.copies.held.keys().find(lost);
        if !gone && (!known || lost.is_some()) {
            let id = self.nodes[node].id;
            let message =
                format!("{id} dropped the batches of {job}: lost {lost:?}, end known {known}");
            self.violation.get_or_insert(message);
        }
    }

    fn forget_job(&mut self, node: usize, job: JobId) {
        let now = self.now;
        let copies = &self.copies;
        let alive = |key: &&EntryKey| {
            let since = copies.since.get(key).copied().unwrap_or(now);
            key.job == job && now + SLACK < since + self.config.job_ttl
        };
        let early = copies.promised.iter().find(alive);
        if let Some(key) = early.filter(|_| !self.is_deleted(job)) {
            let message = format!("{} dropped {key:?} too early", self.nodes[node].id);
            self.violation.get_or_insert(message);
        }
        self.copies.gone_at.entry(job).or_insert(now);
        self.copies.forget(node, job);
    }

    /// Whether its client has asked for the job to be deleted.
    fn is_deleted(&self, job: JobId) -> bool {
        self.clients.iter().any(|client| client.job() == job && client.asked_to_delete())
    }

    /// A batch is acknowledged: from now on it must survive.
    pub(super) fn promise(&mut self, node: usize, key: EntryKey) {
        let core = self.nodes[node].process.as_ref().map(|process| &process.core);
        let retired = core.is_some_and(|core| key.number < core.floor(key.job, key.edge));
        if retired || self.copies.completed.contains_key(&key.job) {
            return;
        }
        if let Some(message) = self.false_acknowledgement(node, key) {
            self.violation.get_or_insert(message);
        }
        let since = self.copies.since.get(&key).copied().unwrap_or(self.now);
        let gone = self.copies.gone_at.get(&key.job);
        let early = gone.is_some_and(|gone| *gone + SLACK < since + self.config.job_ttl);
        if early && !self.is_deleted(key.job) {
            let message = format!("{} acknowledged {key:?} of a job gone", self.nodes[node].id);
            self.violation.get_or_insert(message);
        }
        self.copies.promised.insert(key);
    }

    /// Whether a copy may be lost now without breaking more than is promised: everything that was
    /// acknowledged is on as many disks as an acknowledgement needs.
    fn may_lose_a_copy(&self) -> bool {
        let needed = usize::from(self.config.min_copies);
        let mut acknowledged = self.copies.held.keys().chain(self.copies.lost.keys());
        needed > 1
            && acknowledged.all(|key| {
                !self.copies.is_acknowledged(key)
                    || self.copies.count(*key, |node, slot| self.indexes(node, *key, slot))
                        >= needed
            })
    }

    /// Whether this node's disk may be lost now without breaking more than is promised.
    pub(super) fn may_lose_the_disk_of(&self, node: usize) -> bool {
        let needed = usize::from(self.config.min_copies);
        self.may_lose_a_copy() && self.copies.may_lose_unacknowledged(node, needed)
    }

    /// Whether the node, if it runs, knows that it holds the slot of the entry.
    fn indexes(&self, node: usize, key: EntryKey, slot: Slot) -> bool {
        let Some(process) = &self.nodes[node].process else { return true };
        let parts = process.core.held(key.job);
        let mut all =
            parts.iter().filter(|part| part.edge == key.edge && part.slots.contains(slot));
        all.any(|part| part.coverage.contains(key.number))
    }

    /// Damages one bit of a record. Returns whether there was one that may be damaged.
    pub(super) fn flip_bit(&mut self, node: usize, pick: u64) -> bool {
        let records = self.copies.acknowledged_records(node);
        if records.is_empty() || !self.may_lose_a_copy() {
            return false;
        }
        let record = records[pick as usize % records.len()];
        if self.is_damaged_elsewhere(node, record) {
            return false;
        }
        let RecordRef { segment, offset, len } = record;
        let (name, bytes) = cortado_log::RecordRef { segment, offset, len }.file_range();
        let offset = bytes.start + (pick >> 8) % (bytes.end - bytes.start);
        let flipped = self.nodes[node].storage.flip_bit(&name, offset as usize, (pick % 8) as u8);
        if flipped {
            self.copies.remove_record(node, record);
        }
        flipped
    }

    /// Whether another node has a damaged copy of what this record holds and has not read it since.
    /// By its index that copy counts, so a good copy elsewhere may be dropped for it: together that
    /// would be more losses than are promised to be survived.
    fn is_damaged_elsewhere(&self, node: usize, record: RecordRef) -> bool {
        let needed = usize::from(self.config.min_copies);
        let records = |nodes: &BTreeMap<usize, BTreeMap<RecordRef, SlotSet>>| {
            nodes.get(&node).and_then(|records| records.get(&record)).copied()
        };
        self.copies.held.iter().filter_map(|(key, nodes)| Some((key, records(nodes)?))).any(
            |(key, slots)| {
                let lost = self.copies.lost.get(key).into_iter().flatten();
                let unnoticed = lost.filter(|(disk, copy)| {
                    let same = copy.slots.and(slots);
                    !copy.with_disk && same.iter().any(|slot| self.indexes(**disk, *key, slot))
                });
                unnoticed.count() + 1 >= needed
            },
        )
    }

    /// What is wrong with acknowledging this batch now, if anything is: fewer disks have it than an
    /// acknowledgement needs. Disks lost since are excused while the acknowledging node can't know, and
    /// so are all of them when the job's time is over and the node, which stood still, has not heard it:
    /// its word might as well have been on its way.
    fn false_acknowledgement(&self, node: usize, key: EntryKey) -> Option<String> {
        let needed = usize::from(self.config.min_copies);
        let copies = self.copies.count(key, |_, _| true);
        let core = self.nodes[node].process.as_ref().map(|process| &process.core);
        if self.copies.gone_at.contains_key(&key.job)
            && core.is_some_and(|core| !core.is_forgotten(key.job))
        {
            return None;
        }
        let excused = |(disk, copy): (&usize, &Lost)| {
            let told = core.and_then(|core| core.log_of(self.nodes[*disk].id));
            !copy.with_disk || told.is_none() || told != self.nodes[*disk].log_id
        };
        let lost = self.copies.lost.get(&key).into_iter().flatten();
        let excused = lost.filter(|lost| excused(*lost)).count();
        (copies + excused < needed).then(|| {
            format!("{} acknowledged {key:?}, which {copies} disks have", self.nodes[node].id)
        })
    }
}
