//! Storing entries: into the log, into the index, and only after the fsync the answer.

use std::collections::BTreeMap;

use bytes::Bytes;
use cortado_protocol::entry::{Entry, EntryHead};
use cortado_protocol::job::JobEntry;
use cortado_protocol::peer::{NotStored, PeerMessage};
use cortado_protocol::{Edge, EntryKey, JobId, META_SLOT, NodeId, SlotSet, frame};

use crate::holdings::{Admitted, Place};
use crate::{Core, Effect, PlantedBug, RecordRef};

/// Appends under way and who waits for them.
#[derive(Default)]
pub(crate) struct Store {
    pending: BTreeMap<u64, Pending>,
    waiting: BTreeMap<EntryKey, Vec<(NodeId, SlotSet)>>,
    /// Entries that contradicted what was held: a bug, or a dataset that changed under its job.
    pub(crate) conflicts: u64,
}

struct Pending {
    key: EntryKey,
    /// Decoded already, because the bytes are at hand here and nowhere else.
    job_entry: Option<JobEntry>,
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
        if self.holdings.is_gone(key.job) {
            self.effects.push(Effect::Forget(key.job));
            return Ok(());
        }
        let edge = self.holdings.job_mut(key.job).edge_mut(key.edge);
        if let Admitted::New(fresh) = edge.compare(&entry.head) {
            edge.insert(&entry.restrict(fresh).head, Place::Durable(record));
        }
        let log = self.jobs.entry(key.job).or_default();
        if let Some(entry) = job_entry(&entry) {
            log.apply(key.job, entry, wall_ms);
        }
        Ok(())
    }

    /// Takes in the jobs that are gone for good, before [`Core::restore`].
    pub fn restore_tombstones(&mut self, jobs: impl IntoIterator<Item = JobId>) {
        for job in jobs {
            self.holdings.bury(job);
        }
    }

    fn job_log_touched(&mut self, job: JobId, entry: Option<JobEntry>) {
        let log = self.jobs.entry(job).or_default();
        log.touched_at = Some(self.now);
        if let Some(entry) = entry {
            log.apply(job, entry, self.wall_ms);
        }
    }

    /// An entry of a job's log is durable on enough nodes: what it says holds from now on.
    pub(crate) fn job_log_durable(&mut self, entry: &Entry) {
        let decoded = job_entry(entry);
        if decoded.is_some() {
            self.job_log_touched(entry.head.key.job, decoded);
        }
    }

    /// A peer, or this node itself, wants an entry stored here.
    pub(crate) fn on_store(&mut self, from: NodeId, bytes: &Bytes) {
        let entry = match Entry::decode(bytes) {
            Ok(entry) => entry,
            Err(error) => {
                tracing::warn!(%from, %error, "refused an entry that can't be read");
                return;
            }
        };
        let key = entry.head.key;
        if self.holdings.is_gone(key.job) {
            self.send(from, PeerMessage::NotStored { key, reason: NotStored::Gone });
            self.send(from, PeerMessage::Gone { job: key.job });
            return;
        }
        let edge = self.holdings.job_mut(key.job).edge_mut(key.edge);
        let compared = match self.config.planted {
            Some(PlantedBug::SkipDuplicateCheck) => Admitted::New(entry.head.slots),
            _ => edge.compare(&entry.head),
        };
        match compared {
            Admitted::Conflict(slot) => {
                self.store.conflicts += 1;
                tracing::error!(?key, ?slot, %from, "two different entries under one number; both kept");
                // Logged but not indexed: kept for inspection, counted never.
                let ticket = self.fresh_id();
                let (job, bytes) = (key.job, bytes.clone());
                self.effects.push(Effect::Append { ticket, job, reserved: false, bytes });
                self.send(from, PeerMessage::NotStored { key, reason: NotStored::Conflict });
            }
            Admitted::Known => self.answer_when_durable(from, key, entry.head.slots),
            Admitted::New(fresh) => {
                let (slots, all) = (entry.head.slots, fresh == entry.head.slots);
                let (entry, bytes) = if all {
                    (entry, bytes.clone())
                } else {
                    let entry = entry.restrict(fresh);
                    let bytes = entry.encode();
                    (entry, bytes)
                };
                self.append(&entry, bytes);
                self.answer_when_durable(from, key, slots);
            }
        }
    }

    fn append(&mut self, entry: &Entry, bytes: Bytes) {
        let ticket = self.fresh_id();
        let key = entry.head.key;
        let head: &EntryHead = &entry.head;
        self.holdings.job_mut(key.job).edge_mut(key.edge).insert(head, Place::Pending(ticket));
        let job_entry = job_entry(entry);
        self.store.pending.insert(ticket, Pending { key, job_entry });
        // Small, and a home can't do without.
        let reserved = key.edge.as_table().is_none() || head.slots == SlotSet::META;
        self.effects.push(Effect::Append { ticket, job: key.job, reserved, bytes });
    }

    fn answer_when_durable(&mut self, to: NodeId, key: EntryKey, slots: SlotSet) {
        let synced = self.config.planted != Some(PlantedBug::AcknowledgeBeforeFsync);
        let held = self.holdings.edge(key.job, key.edge);
        let durable = held.map(|edge| edge.slots(key.number, synced));
        if durable.is_some_and(|durable| durable.contains_all(slots)) {
            let log = self.config.log;
            self.send(to, PeerMessage::Stored { log, entries: vec![(key, slots)] });
        } else {
            self.store.waiting.entry(key).or_default().push((to, slots));
        }
    }

    /// Records are fsynced: index them and tell whoever waits, one message per peer.
    pub(crate) fn on_appended(&mut self, records: &[(u64, RecordRef)]) {
        let mut stored: BTreeMap<NodeId, Vec<(EntryKey, SlotSet)>> = BTreeMap::new();
        let mut touched = Vec::new();
        for (ticket, record) in records {
            let Some(Pending { key, job_entry }) = self.store.pending.remove(ticket) else {
                continue;
            };
            if self.holdings.is_gone(key.job) {
                continue;
            }
            let edge = self.holdings.job_mut(key.job).edge_mut(key.edge);
            edge.durable(key.number, *ticket, *record);
            let durable = edge.slots(key.number, true);
            self.job_log_touched(key.job, job_entry);
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
            self.offer_foreign(*key);
        }
        let log = self.config.log;
        for (to, entries) in stored {
            self.send(to, PeerMessage::Stored { log, entries });
        }
        for key in touched {
            self.works_after_append(key.job);
            self.home_after_append(key);
        }
    }

    /// The disk is at its reserve: nothing was written, and whoever asked is told so.
    pub(crate) fn on_append_refused(&mut self, ticket: u64) {
        let Some(Pending { key, .. }) = self.store.pending.remove(&ticket) else { return };
        let edge = self.holdings.job_mut(key.job).edge_mut(key.edge);
        edge.remove(key.number, Place::Pending(ticket));
        for (to, _) in self.store.waiting.remove(&key).unwrap_or_default() {
            self.send(to, PeerMessage::NotStored { key, reason: NotStored::Full });
        }
        self.works_without_room(key.job);
        // Work that only waited for it to become durable may be complete without it.
        self.works_after_append(key.job);
    }

    /// A record of this node's log can't be read any more: it counts as missing from now on.
    pub(crate) fn on_unreadable(&mut self, key: EntryKey, record: RecordRef) {
        tracing::error!(?key, ?record, "a record can't be read; peers will refill it");
        let edge = self.holdings.job_mut(key.job).edge_mut(key.edge);
        edge.remove(key.number, Place::Durable(record));
    }

    /// The job is gone for good: drop every trace of it.
    pub(crate) fn bury(&mut self, job: JobId) {
        if !self.holdings.bury(job) {
            return;
        }
        self.jobs.remove(&job);
        self.homes.remove(&job);
        self.store.waiting.retain(|key, _| key.job != job);
        self.works_forget(job);
        self.mapper_forget(job);
        self.handoff_forget(job);
        self.replicator_forget(job);
        self.effects.push(Effect::SaveTombstones(self.holdings.tombstones().collect()));
        self.effects.push(Effect::Forget(job));
    }
}
