//! Storing entries: into the log, into the index, and only after the fsync the answer.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cortado_protocol::entry::{Entry, EntryHead};
use cortado_protocol::job::JobEntry;
use cortado_protocol::peer::{NotStored, PeerMessage};
use cortado_protocol::{Edge, EntryKey, JobId, META_SLOT, NodeId, SlotSet, frame};

use crate::holdings::{Admitted, Place};
use crate::task::Located;
use crate::{Core, Effect, PlantedBug, RecordRef};

/// Appends under way and who waits for them.
#[derive(Default)]
pub(crate) struct Store {
    pending: BTreeMap<u64, Pending>,
    /// Appends under way of what is new in the cluster, by job.
    fresh: BTreeMap<JobId, usize>,
    waiting: BTreeMap<EntryKey, Vec<(NodeId, SlotSet)>>,
    /// Entries that contradicted what was held: a bug, or a dataset that changed under its job.
    pub(crate) conflicts: u64,
}

struct Pending {
    key: EntryKey,
    /// Acknowledged before, or by others: no sign of life.
    moved: bool,
    /// Decoded already, because the bytes are at hand here and nowhere else.
    job_entry: Option<JobEntry>,
}

impl Store {
    /// Whether something new of the job is on its way to the disk: until then it is not acknowledged, and
    /// it may be soon.
    pub(crate) fn awaits(&self, job: JobId) -> bool {
        self.fresh.contains_key(&job)
    }

    fn begin(&mut self, ticket: u64, pending: Pending) {
        if !pending.moved {
            *self.fresh.entry(pending.key.job).or_default() += 1;
        }
        self.pending.insert(ticket, pending);
    }

    fn end(&mut self, ticket: u64) -> Option<Pending> {
        let pending = self.pending.remove(&ticket)?;
        if !pending.moved
            && let Some(count) = self.fresh.get_mut(&pending.key.job)
        {
            *count -= 1;
            if *count == 0 {
                self.fresh.remove(&pending.key.job);
            }
        }
        Some(pending)
    }
}

/// The job log's entry inside an entry of that edge.
fn job_entry(entry: &Entry) -> Option<JobEntry> {
    if entry.head.key.edge != Edge::JOB {
        return None;
    }
    let bytes = entry.delta(META_SLOT)?;
    let decoded: JobEntry = frame::from_postcard(&bytes).ok()?;
    (decoded.number() == entry.head.key.number).then_some(decoded)
}

impl Core {
    /// Takes in a record of this node's own log, in log order, before the first input.
    ///
    /// # Errors
    /// If the payload is no entry; the record is then not indexed, and peers refill what it was.
    pub fn restore(
        &mut self,
        record: RecordRef,
        wall_ms: u64,
        payload: &Bytes,
    ) -> Result<(), frame::FrameError> {
        let entry = Entry::decode(payload)?;
        let key = entry.head.key;
        if self.facts.holdings.is_gone(key.job) {
            if self.restoring.gone.insert(key.job) {
                self.out.effect(Effect::Forget(key.job));
            }
            return Ok(());
        }
        let edge = self.facts.holdings.job_mut(key.job).edge_mut(key.edge);
        if let Admitted::New(fresh) = edge.compare(&entry.head) {
            edge.insert(&entry.restrict(fresh).head, Place::Durable(record));
        }
        self.restore_life(key.job, record);
        let log = self.facts.jobs.entry(key.job).or_default();
        if let Some(entry) = job_entry(&entry) {
            log.apply(key.job, entry, wall_ms);
        }
        Ok(())
    }

    fn apply_job_entry(&mut self, job: JobId, entry: JobEntry) {
        self.job_seen(job, true);
        let log = self.facts.jobs.entry(job).or_default();
        log.apply(job, entry, self.facts.wall_ms);
    }

    /// An entry of a job's log is durable on enough nodes: what it says holds from now on.
    pub(crate) fn job_log_durable(&mut self, entry: &Entry) {
        if let Some(decoded) = job_entry(entry) {
            self.job_seen(entry.head.key.job, false);
            self.apply_job_entry(entry.head.key.job, decoded);
        }
    }

    /// A peer, or this node itself, wants an entry stored here; `moved` ones were acknowledged before,
    /// or will be by others.
    pub(crate) fn on_store(&mut self, from: NodeId, bytes: &Bytes, moved: bool) {
        let entry = match Entry::decode(bytes) {
            Ok(entry) => entry,
            Err(error) => {
                tracing::warn!(%from, %error, "refused an entry that can't be read");
                return;
            }
        };
        let key = entry.head.key;
        if self.facts.holdings.is_gone(key.job) {
            self.out.send(from, PeerMessage::NotStored { key, reason: NotStored::Gone });
            self.say_gone(from, key.job);
            return;
        }
        // What is new now would be lost if the job is over; what is only moved here is lost with it, and
        // kept without a word: whoever sent it may count the answer for a batch that is new.
        let closed = self.expiry.closed_by(key.job).is_some();
        if !moved && closed {
            return self
                .out
                .send(from, PeerMessage::NotStored { key, reason: NotStored::Expiring });
        }
        let edge = self.facts.holdings.job_mut(key.job).edge_mut(key.edge);
        let compared = match self.facts.config.planted {
            Some(PlantedBug::SkipDuplicateCheck) => Admitted::New(entry.head.slots),
            _ => edge.compare(&entry.head),
        };
        let slots = entry.head.slots;
        match compared {
            Admitted::Conflict(slot) => {
                self.store.conflicts += 1;
                tracing::error!(?key, ?slot, %from, "two different entries under one number; both kept");
                // Logged but not indexed: kept for inspection, counted never.
                let ticket = self.out.fresh_id();
                let (job, bytes) = (key.job, bytes.clone());
                self.out.effect(Effect::Append { ticket, job, reserved: false, bytes });
                let reason = NotStored::Conflict;
                return self.out.send(from, PeerMessage::NotStored { key, reason });
            }
            Admitted::Known => {}
            Admitted::New(fresh) => {
                self.job_seen(key.job, moved);
                let (entry, bytes) = if fresh == slots {
                    (entry, bytes.clone())
                } else {
                    let entry = entry.restrict(fresh);
                    let bytes = entry.encode();
                    (entry, bytes)
                };
                self.append(&entry, bytes, moved);
            }
        }
        if !closed {
            self.answer_when_durable(from, key, slots);
        }
    }

    fn append(&mut self, entry: &Entry, bytes: Bytes, moved: bool) {
        let ticket = self.out.fresh_id();
        let key = entry.head.key;
        let head: &EntryHead = &entry.head;
        self.facts
            .holdings
            .job_mut(key.job)
            .edge_mut(key.edge)
            .insert(head, Place::Pending(ticket));
        let job_entry = job_entry(entry);
        self.store.begin(ticket, Pending { key, moved, job_entry });
        // Small, and a home can't do without.
        let reserved = key.edge.as_table().is_none() || head.slots == SlotSet::META;
        self.out.effect(Effect::Append { ticket, job: key.job, reserved, bytes });
    }

    fn answer_when_durable(&mut self, to: NodeId, key: EntryKey, slots: SlotSet) {
        let synced = self.facts.config.planted != Some(PlantedBug::AcknowledgeBeforeFsync);
        let held = self.facts.holdings.edge(key.job, key.edge);
        let durable = held.map(|edge| edge.slots(key.number, synced));
        if durable.is_some_and(|durable| durable.contains_all(slots)) {
            let log = self.facts.config.log;
            self.out.send(to, PeerMessage::Stored { log, entries: vec![(key, slots)] });
        } else {
            self.store.waiting.entry(key).or_default().push((to, slots));
        }
    }

    /// Records are fsynced: index them and tell whoever waits, one message per peer.
    pub(crate) fn on_appended(&mut self, records: &[(u64, RecordRef)]) {
        let mut stored: BTreeMap<NodeId, Vec<(EntryKey, SlotSet)>> = BTreeMap::new();
        let mut touched = Vec::new();
        for (ticket, record) in records {
            let Some(Pending { key, moved, job_entry }) = self.store.end(*ticket) else {
                continue;
            };
            if self.facts.holdings.is_gone(key.job) {
                continue;
            }
            if !moved {
                // Its client hears of it now, however long the disk took.
                self.job_seen(key.job, false);
            }
            let edge = self.facts.holdings.job_mut(key.job).edge_mut(key.edge);
            edge.durable(key.number, *ticket, *record);
            let durable = edge.slots(key.number, true);
            if let Some(entry) = job_entry {
                self.apply_job_entry(key.job, entry);
            }
            if let Some(log) = self.facts.jobs.get_mut(&key.job) {
                log.newest = log.newest.max((record.segment, record.offset));
            }
            if let Some(waiting) = self.store.waiting.get_mut(&key) {
                waiting.retain(|(to, slots)| {
                    let done = durable.contains_all(*slots);
                    if done {
                        stored.entry(*to).or_default().push((key, *slots));
                    }
                    !done
                });
                if waiting.is_empty() {
                    self.store.waiting.remove(&key);
                }
            }
            if touched.last() != Some(&key) {
                touched.push(key);
            }
        }
        for key in &touched {
            self.handoff.offer_foreign(&self.facts, *key);
        }
        let log = self.facts.config.log;
        for (to, entries) in stored {
            self.out.send(to, PeerMessage::Stored { log, entries });
        }
        let jobs: BTreeSet<_> = touched.iter().map(|key| key.job).collect();
        for key in touched {
            self.slot_tasks.after_append(&self.facts, &mut self.out, key.job);
            self.home_after_append(key);
        }
        for job in jobs {
            self.handoff.go_on_fetching(&self.facts, &mut self.out, job);
        }
    }

    /// The disk is at its reserve: nothing was written, and whoever asked is told so.
    pub(crate) fn on_append_refused(&mut self, ticket: u64) {
        let Some(Pending { key, .. }) = self.store.end(ticket) else { return };
        let edge = self.facts.holdings.job_mut(key.job).edge_mut(key.edge);
        edge.remove(key.number, Place::Pending(ticket));
        for (to, _) in self.store.waiting.remove(&key).unwrap_or_default() {
            self.out.send(to, PeerMessage::NotStored { key, reason: NotStored::Full });
        }
        self.slot_tasks.without_room(&self.facts, &mut self.out, key.job);
        // Work that only waited for it to become durable may be complete without it.
        self.slot_tasks.after_append(&self.facts, &mut self.out, key.job);
        self.handoff.go_on_fetching(&self.facts, &mut self.out, key.job);
    }

    /// A record of this node's log can't be read any more: it counts as missing from now on.
    pub(crate) fn on_unreadable(&mut self, key: EntryKey, record: RecordRef) {
        tracing::error!(?key, ?record, "a record can't be read; peers will refill it");
        let edge = self.facts.holdings.job_mut(key.job).edge_mut(key.edge);
        edge.remove(key.number, Place::Durable(record));
    }

    /// Records that a task could not read.
    pub(crate) fn drop_unreadable(&mut self, entries: &[Located]) {
        for (key, record, _) in entries {
            self.on_unreadable(*key, *record);
        }
    }

    pub(crate) fn store_forget(&mut self, job: JobId) {
        self.store.waiting.retain(|key, _| key.job != job);
    }
}
