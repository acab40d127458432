//! What this node's log has, and what is on its way into it: an entry is answered after its fsync.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cortado_protocol::entry::{Entry, EntryHead};
use cortado_protocol::expiry::Forgotten;
use cortado_protocol::job::JobEntry;
use cortado_protocol::peer::{NotStored, PeerMessage};
use cortado_protocol::{Edge, EntryKey, JobId, NodeId, SlotSet};

use crate::config::{Config, PlantedBug};
use crate::effect::Effect;
use crate::job::job_entry;
use crate::outbox::Outbox;
use crate::record::{Group, Located, MovedRecord, RecordRef};

pub(crate) mod index;

use index::{Comparison, EdgeIndex, JobIndex, Place};

/// Tombstones kept at most. Beyond it the oldest job ids are let go: ids are UUIDv7, so these are
/// the ones whose records no node can still have.
const TOMBSTONES: usize = 100_000;

/// See the module's description.
#[derive(Default)]
pub(crate) struct Ledger {
    jobs: BTreeMap<JobId, JobIndex>,
    /// Jobs that are forgotten for good, and why.
    tombstones: BTreeMap<JobId, Forgotten>,
    /// Appends under way.
    pending: BTreeMap<u64, Pending>,
    /// Appends under way of what is new in the cluster, by job.
    fresh: BTreeMap<JobId, usize>,
    /// Groups of the batches of streams that are forgotten, until the log may drop them.
    leaving: BTreeMap<JobId, BTreeSet<Group>>,
    /// Who waits for an entry to be durable here, and for which slots.
    waiting: BTreeMap<EntryKey, Vec<(NodeId, SlotSet)>>,
}

struct Pending {
    key: EntryKey,
    /// Acknowledged before, or by others: no sign of life.
    moved: bool,
    /// Decoded already, because the bytes are at hand here and nowhere else.
    job_entry: Option<JobEntry>,
}

/// An entry that somebody wants stored here.
pub(crate) struct Offered {
    pub(crate) from: NodeId,
    pub(crate) entry: Entry,
    /// The entry, encoded.
    pub(crate) bytes: Bytes,
    /// It was acknowledged before, or will be by others.
    pub(crate) moved: bool,
    /// Nobody is told that it is stored.
    pub(crate) unanswered: bool,
}

/// A record that is durable now.
pub(crate) struct Durable {
    pub(crate) key: EntryKey,
    pub(crate) record: RecordRef,
    /// It was acknowledged before, or by others.
    pub(crate) moved: bool,
    /// What it says, if it belongs to the job's log.
    pub(crate) job_entry: Option<JobEntry>,
}

impl Ledger {
    /// What is held of a job.
    pub(crate) fn job(&self, job: JobId) -> Option<&JobIndex> {
        self.jobs.get(&job)
    }

    /// What is held of a job, to be changed.
    pub(crate) fn job_mut(&mut self, job: JobId) -> &mut JobIndex {
        self.jobs.entry(job).or_default()
    }

    /// What is held of an edge of a job.
    pub(crate) fn edge(&self, job: JobId, edge: Edge) -> Option<&EdgeIndex> {
        self.jobs.get(&job).and_then(|held| held.edge(edge))
    }

    fn edge_of(&mut self, key: EntryKey) -> &mut EdgeIndex {
        self.job_mut(key.job).edge_mut(key.edge)
    }

    /// All jobs, in id order.
    pub(crate) fn jobs(&self) -> impl Iterator<Item = (JobId, &JobIndex)> {
        self.jobs.iter().map(|(job, held)| (*job, held))
    }

    /// Forgets a job for good; returns whether that is news.
    pub(crate) fn forget(&mut self, job: JobId, proof: Forgotten) -> bool {
        if let Some(held) = self.jobs.remove(&job) {
            self.leaving.entry(job).or_default().extend(held.groups(job));
        }
        self.waiting.retain(|key, _| key.job != job);
        let news = self.tombstones.insert(job, proof).is_none();
        while self.tombstones.len() > TOMBSTONES {
            self.tombstones.pop_first();
        }
        news
    }

    /// The groups in which records of a forgotten job stand.
    pub(crate) fn take_groups(&mut self, job: JobId) -> impl Iterator<Item = Group> + use<> {
        let of_stream = self.leaving.remove(&job).unwrap_or_default();
        Group::all(job).into_iter().chain(of_stream)
    }

    /// Batches of a stream below these numbers are retired: the log may drop them.
    pub(crate) fn retire(&mut self, out: &mut Outbox, job: JobId, floors: &[(Edge, u64)]) {
        self.restore_floors(job, floors);
        let held = self.job_mut(job);
        for (edge, _) in floors.iter().filter(|(edge, _)| edge.is_of_stream()) {
            for first in held.edge_mut(*edge).take_retired() {
                out.effect(Effect::Forget(Group::of_stream(job, *edge, first)));
            }
        }
    }

    /// The same, of what an earlier process has written down: what of it is still in the log is found when
    /// that is read.
    pub(crate) fn restore_floors(&mut self, job: JobId, floors: &[(Edge, u64)]) {
        let held = self.job_mut(job);
        let floors = floors.iter().filter(|(edge, _)| edge.is_of_stream());
        floors.for_each(|(edge, floor)| held.retire(*edge, *floor));
    }

    /// The first number of an edge that is not retired.
    pub(crate) fn floor(&self, job: JobId, edge: Edge) -> u64 {
        self.edge(job, edge).map_or(0, EdgeIndex::floor)
    }

    /// Whether the job is forgotten for good.
    pub(crate) fn is_forgotten(&self, job: JobId) -> bool {
        self.tombstones.contains_key(&job)
    }

    /// Why the job is forgotten for good, if it is.
    pub(crate) fn tombstone(&self, job: JobId) -> Option<&Forgotten> {
        self.tombstones.get(&job)
    }

    /// The jobs that are forgotten for good, and why.
    pub(crate) fn tombstones(&self) -> impl Iterator<Item = (JobId, &Forgotten)> {
        self.tombstones.iter().map(|(job, proof)| (*job, proof))
    }

    /// Takes in a record that was in the log when the process started. Returns the group of a retired one, if
    /// nothing of the group is needed any more.
    pub(crate) fn restore(&mut self, head: &EntryHead, record: RecordRef) -> Option<Group> {
        let edge = self.edge_of(head.key);
        let (number, floor) = (head.key.number, edge.floor());
        if number < floor {
            let whole = number / Group::BATCHES < floor / Group::BATCHES;
            return whole.then(|| Group::of(&head.key));
        }
        if let Comparison::New(fresh) = edge.compare(head) {
            edge.insert(&head.restrict(fresh), Place::Durable(record));
        }
        edge.log(number);
        None
    }

    /// Drops the batches of a job that is done, and refuses to store more of them. Nodes that wait
    /// for a batch to be durable receive a refusal.
    pub(crate) fn complete(&mut self, out: &mut Outbox, job: JobId) {
        self.job_mut(job).complete();
        let of_batches = |key: &EntryKey| key.job == job && key.edge.is_upload();
        let waiting = self.waiting.extract_if(.., |key, _| of_batches(key));
        for (key, waiting) in waiting {
            for (to, _) in waiting {
                out.send(to, PeerMessage::NotStored { key, reason: NotStored::Ended });
            }
        }
    }

    /// Whether the job is done, and no entry of this edge is stored any more.
    pub(crate) fn is_complete(&self, key: &EntryKey) -> bool {
        key.edge.is_upload() && self.jobs.get(&key.job).is_some_and(JobIndex::is_complete)
    }

    /// Jobs of which batches are held.
    pub(crate) fn with_batches(&self) -> impl Iterator<Item = JobId> {
        self.jobs.iter().filter(|(_, held)| held.has_batches()).map(|(job, _)| *job)
    }

    /// Changes the place of a record that was copied. If a start read both copies of a record, the
    /// index has the first one.
    pub(crate) fn moved(&mut self, moved: &MovedRecord) -> Option<EntryKey> {
        let key = EntryHead::decode(&moved.head).ok()?.key;
        let edge = self.jobs.get_mut(&key.job)?.edge_of(key.edge)?;
        edge.moved(key.number, moved.from, moved.to).then_some(key)
    }

    /// Whether something new of the job is on its way to the disk: until then it is not acknowledged, and
    /// it may be soon.
    pub(crate) fn awaits(&self, job: JobId) -> bool {
        self.fresh.contains_key(&job)
    }

    /// Stores an entry, and answers once it is durable. Returns whether any of it is new.
    pub(crate) fn store(&mut self, config: &Config, out: &mut Outbox, offered: Offered) -> bool {
        let Offered { from, entry, bytes, moved, unanswered } = offered;
        let (key, slots) = (entry.head.key, entry.head.slots);
        if self.is_complete(&key) {
            out.send(from, PeerMessage::NotStored { key, reason: NotStored::Ended });
            return false;
        }
        let edge = self.edge_of(key);
        let compared = match config.planted {
            Some(PlantedBug::SkipDuplicateCheck) => Comparison::New(slots),
            _ => edge.compare(&entry.head),
        };
        match compared {
            Comparison::Conflict(slot) => {
                tracing::error!(?key, ?slot, %from, "two different entries under one number; both kept");
                // Logged but not indexed: kept for inspection, counted never.
                self.edge_of(key).log(key.number);
                log(out, &key, false, bytes);
                out.send(from, PeerMessage::NotStored { key, reason: NotStored::Conflict });
                return false;
            }
            Comparison::Known => {}
            Comparison::New(fresh) if fresh == slots => self.append(out, &entry, bytes, moved),
            Comparison::New(fresh) => {
                let entry = entry.restrict(fresh);
                self.append(out, &entry, entry.encode(), moved);
            }
        }
        if !unanswered {
            self.answer_when_durable(config, out, from, (key, slots));
        }
        matches!(compared, Comparison::New(_))
    }

    fn append(&mut self, out: &mut Outbox, entry: &Entry, bytes: Bytes, moved: bool) {
        let head: &EntryHead = &entry.head;
        let key = head.key;
        // Small, and a coordinator can't do without.
        let reserved = !key.edge.is_upload() || head.slots == SlotSet::META;
        let ticket = log(out, &key, reserved, bytes);
        self.edge_of(key).insert(head, Place::Pending(ticket));
        if !moved {
            *self.fresh.entry(key.job).or_default() += 1;
        }
        let job_entry = job_entry(entry);
        self.pending.insert(ticket, Pending { key, moved, job_entry });
    }

    fn answer_when_durable(
        &mut self,
        config: &Config,
        out: &mut Outbox,
        to: NodeId,
        (key, slots): (EntryKey, SlotSet),
    ) {
        if key.number < self.floor(key.job, key.edge) {
            let (log, entries) = (config.log, vec![(key, slots)]);
            return out.send(to, PeerMessage::Stored { log, entries });
        }
        let synced = config.planted != Some(PlantedBug::AcknowledgeBeforeFsync);
        let held = self.edge(key.job, key.edge).map(|edge| edge.slots(key.number, synced));
        if held.is_some_and(|durable| durable.contains_all(slots)) {
            let (log, entries) = (config.log, vec![(key, slots)]);
            out.send(to, PeerMessage::Stored { log, entries });
        } else {
            self.waiting.entry(key).or_default().push((to, slots));
        }
    }

    fn ended(&mut self, ticket: u64) -> Option<Pending> {
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

    /// Records are fsynced: whoever waits for them is told, in one message for each. Returns the records
    /// of jobs that are not forgotten.
    pub(crate) fn appended(
        &mut self,
        config: &Config,
        out: &mut Outbox,
        records: &[(u64, RecordRef)],
    ) -> Vec<Durable> {
        let mut answers: BTreeMap<NodeId, Vec<(EntryKey, SlotSet)>> = BTreeMap::new();
        let mut all = Vec::with_capacity(records.len());
        for (ticket, record) in records {
            let Some(Pending { key, moved, job_entry }) = self.ended(*ticket) else { continue };
            if self.is_forgotten(key.job) || self.is_complete(&key) {
                continue;
            }
            let edge = self.edge_of(key);
            edge.durable(key.number, *ticket, *record);
            let mut durable = edge.slots(key.number, true);
            if key.number < edge.floor() {
                // It was retired on its way: it counts as held, and is not.
                edge.remove(key.number, Place::Durable(*record));
                durable = SlotSet::ALL;
            }
            let waiting = self.waiting.remove(&key).unwrap_or_default().into_iter();
            let (done, open): (Vec<_>, Vec<_>) =
                waiting.partition(|(_, slots)| durable.contains_all(*slots));
            for (to, slots) in done {
                answers.entry(to).or_default().push((key, slots));
            }
            if !open.is_empty() {
                self.waiting.insert(key, open);
            }
            all.push(Durable { key, record: *record, moved, job_entry });
        }
        for (to, entries) in answers {
            out.send(to, PeerMessage::Stored { log: config.log, entries });
        }
        all
    }

    /// The disk is at its reserve: nothing was written, and whoever asked is told so. Returns of what.
    pub(crate) fn refused(&mut self, out: &mut Outbox, ticket: u64) -> Option<EntryKey> {
        let key = self.ended(ticket)?.key;
        if self.is_forgotten(key.job) || self.is_complete(&key) {
            return None;
        }
        self.edge_of(key).remove(key.number, Place::Pending(ticket));
        for (to, _) in self.waiting.remove(&key).unwrap_or_default() {
            out.send(to, PeerMessage::NotStored { key, reason: NotStored::Full });
        }
        Some(key)
    }

    /// Removes a damaged record, given with its head, from the index.
    pub(crate) fn damaged(&mut self, record: RecordRef, head: &[u8]) {
        if let Ok(head) = EntryHead::decode(head) {
            self.unreadable(&[(head.key, record, head.slots)]);
        }
    }

    /// Records that can't be read any more count as missing from now on; peers refill them.
    pub(crate) fn unreadable(&mut self, entries: &[Located]) {
        for (key, record, _) in entries {
            let edge = self.jobs.get_mut(&key.job).and_then(|held| held.edge_of(key.edge));
            // The record may have been dropped or moved meanwhile.
            if edge.is_some_and(|edge| edge.remove(key.number, Place::Durable(*record))) {
                tracing::error!(?key, ?record, "a record can't be read; peers will refill it");
            }
        }
    }
}

/// Has an entry appended to the log; returns the ticket for the answer.
fn log(out: &mut Outbox, key: &EntryKey, reserved: bool, bytes: Bytes) -> u64 {
    let (ticket, group) = (out.fresh_id(), Group::of(key));
    // A start needs the whole content of a job's own entries.
    let all = key.edge == Edge::JOB;
    let head = if all { bytes.len() } else { Entry::head_len(&bytes) };
    out.effect(Effect::Append { ticket, group, reserved, bytes, head });
    ticket
}

#[cfg(test)]
mod tests;
