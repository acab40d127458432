//! Entries: from a batch to W logs, into this node's log, and between nodes.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use cortado_engine::{MapError, Mapped};
use cortado_protocol::entry::Entry;
use cortado_protocol::job::JobEntry;
use cortado_protocol::peer::{EdgeCoverage, NotStored, PeerMessage};
use cortado_protocol::{Edge, EntryKey, JobId, LogId, NodeId, SlotSet};

use super::Core;
use super::jobs::progress_of;
use crate::effect::{Effect, StateFile};
use crate::facts::Facts;
use crate::job::{JobLog, job_entry};
use crate::ledger::Offered;
use crate::mapper;
use crate::purpose::{Fetch, Mapping};
use crate::record::{MovedRecord, RecordRef};
use crate::replicate::{Asker, Failed};

impl Core {
    /// A batch was mapped: its entry is stored.
    pub(super) fn on_mapped(&mut self, mapping: Mapping, mapped: Result<Mapped, MapError>) {
        if let Some((entry, ticket, rejected)) = mapper::mapped(&mut self.out, mapping, mapped) {
            self.replicate(entry, Asker::Batch { tickets: vec![ticket], rejected });
        }
    }

    pub(super) fn replicate(&mut self, entry: Entry, asker: Asker) {
        let failed = self.replicator.replicate(&self.facts, &mut self.out, entry, asker);
        self.entry_failed(failed);
    }

    pub(super) fn tick_replicator(&mut self) {
        for key in self.replicator.tick(&self.facts, &mut self.out) {
            let failed = self.replicator.give_up(&self.facts, &mut self.out, key);
            self.entry_failed(failed);
        }
    }

    /// A peer, or this node itself, wants an entry stored here; `moved` ones were acknowledged before,
    /// or will be by others.
    pub(super) fn on_store(&mut self, from: NodeId, bytes: &Bytes, moved: bool) {
        let entry = match Entry::decode(bytes) {
            Ok(entry) => entry,
            Err(error) => {
                tracing::warn!(%from, %error, "refused an entry that can't be read");
                return;
            }
        };
        let key = entry.head.key;
        if self.facts.ledger.is_forgotten(key.job) {
            self.out.send(from, PeerMessage::NotStored { key, reason: NotStored::Forgotten });
            self.say_forgotten(from, key.job);
            return;
        }
        if self.facts.ledger.is_complete(&key) {
            self.say_ended(from, key.job);
        }
        // The batches of a stream are kept, so its ledger does not refuse them.
        let done = self.facts.jobs.get(key.job).is_some_and(JobLog::is_done);
        if done && key.edge.is_upload() && !moved {
            return self.out.send(from, PeerMessage::NotStored { key, reason: NotStored::Ended });
        }
        if !moved && self.is_too_late(&entry) {
            self.out.send(from, PeerMessage::NotStored { key, reason: NotStored::Retired });
            let before_ms = self.facts.retention.promised(key.job).unwrap_or(i64::MIN);
            return self.out.send(from, PeerMessage::Retire { job: key.job, before_ms });
        }
        if !moved && self.facts.retention.is_frozen(key.job, key.edge) {
            // The coordinator may not know, because another one asked for the promise.
            let ask = PeerMessage::Freeze { job: key.job, edge: key.edge, from: 0, round: 0 };
            self.out.send(self.facts.coordinator(key.job), ask);
            return self.out.send(from, PeerMessage::NotStored { key, reason: NotStored::Frozen });
        }
        // What is new now would be lost if the job is over; what is only moved here is lost with it, and
        // kept without a word: whoever sent it may count the answer for a batch that is new.
        let closed = self.facts.jobs.closed_by(key.job).is_some();
        if closed && !moved {
            return self
                .out
                .send(from, PeerMessage::NotStored { key, reason: NotStored::Expiring });
        }
        let bytes = bytes.clone();
        let offered = Offered { from, entry, bytes, moved, unanswered: closed };
        let Facts { config, ledger, jobs, now, .. } = &mut self.facts;
        if ledger.store(config, &mut self.out, offered) {
            jobs.seen(key.job, *now, moved);
        }
    }

    /// Records are durable here. A slot's task waits for a durable record, a coordinator for a durable
    /// prefix: so slot tasks come first.
    pub(super) fn on_appended(&mut self, records: &[(u64, RecordRef)]) {
        let Facts { config, ledger, jobs, now, wall_ms, .. } = &mut self.facts;
        let mut keys: Vec<EntryKey> = Vec::new();
        let mut done = BTreeSet::new();
        for durable in ledger.appended(config, &mut self.out, records) {
            let job = durable.key.job;
            if !durable.moved {
                // Its client hears of it now, however long the disk took.
                jobs.seen(job, *now, false);
            }
            if let Some(entry) = durable.job_entry {
                if matches!(&entry, JobEntry::Manifest(manifest) if manifest.drops_batches()) {
                    done.insert(job);
                }
                jobs.apply(job, *now, *wall_ms, entry);
            }
            if let Some(log) = jobs.get_mut(job) {
                log.newest = log.newest.max((durable.record.segment, durable.record.offset));
            }
            if keys.last() != Some(&durable.key) {
                keys.push(durable.key);
            }
        }
        for job in done {
            self.drop_batches(job);
        }
        for key in &keys {
            self.handoff.offer_foreign(&self.facts, *key);
        }
        let touched: BTreeSet<_> = keys.iter().map(|key| key.job).collect();
        for key in keys {
            self.slot_tasks.after_append(&self.facts, &mut self.out, key.job);
            let next = self.coordination.appended(&self.facts, &mut self.out, key);
            self.lead_coordination(next);
            let next = self.streams.appended(&self.facts, &mut self.out, key);
            self.lead_streams(next);
        }
        for job in touched {
            self.handoff.go_on_fetching(&self.facts, &mut self.out, job);
        }
    }

    /// Updates the places of records that the log has copied. A copied record has a later place, which
    /// is no sign of life of its job.
    pub(super) fn on_moved(&mut self, segment: u32, records: &[MovedRecord]) {
        let Facts { ledger, jobs, .. } = &mut self.facts;
        for moved in records {
            let Some(key) = ledger.moved(moved) else { continue };
            if let Some(log) = jobs.get_mut(key.job) {
                log.newest = log.newest.max((moved.to.segment, moved.to.offset));
            }
        }
        self.saving.save(StateFile::Expiry, None);
        self.out.effect(Effect::Release(segment));
    }

    /// The disk is at its reserve: nothing was written.
    pub(super) fn on_append_refused(&mut self, ticket: u64) {
        let Some(key) = self.facts.ledger.refused(&mut self.out, ticket) else { return };
        if !key.edge.is_upload() {
            self.answers.without_room(key.job);
        }
        self.slot_tasks.without_room(&self.facts, &mut self.out, key.job);
        // Work that only waited for it to become durable may be complete without it.
        self.slot_tasks.after_append(&self.facts, &mut self.out, key.job);
        self.handoff.go_on_fetching(&self.facts, &mut self.out, key.job);
    }

    /// A node has entries in this log. What W nodes have holds before anybody is told.
    pub(super) fn on_stored(
        &mut self,
        from: NodeId,
        log: LogId,
        entries: Vec<(EntryKey, SlotSet)>,
    ) {
        if self.log_of(from) != Some(log) {
            return;
        }
        for (key, slots) in entries {
            let (node, of) = ((from, log), (key, slots));
            let done = self.replicator.stored(&self.facts, &mut self.out, node, of);
            let Some((entry, own)) = done else { continue };
            if let Some(says) = job_entry(&entry) {
                let Facts { jobs, now, wall_ms, .. } = &mut self.facts;
                jobs.seen(key.job, *now, false);
                jobs.apply(key.job, *now, *wall_ms, says);
            }
            if own {
                self.own_entry_durable(key);
            }
        }
    }

    /// An entry that a coordinator wrote is durable on W nodes. Clients that wait for it are told how the
    /// job stands before it goes on.
    fn own_entry_durable(&mut self, key: EntryKey) {
        let next = self.streams.entry_durable(&self.facts, &mut self.out, key);
        self.lead_streams(next);
        if !self.coordination.has(key.job) {
            return;
        }
        let next = self.coordination.entry_durable(&self.facts, key);
        self.lead_coordination(next);
        if key.edge == Edge::JOB {
            self.answers.entry_durable(
                &self.facts,
                &mut self.out,
                &progress_of(&self.facts, &self.coordination),
                key,
            );
            let next = self.coordination.drive(&self.facts, &mut self.out, key.job);
            self.lead_coordination(next);
        }
    }

    /// An entry that a coordinator wrote could not be stored.
    pub(super) fn entry_failed(&mut self, failed: Option<Failed>) {
        let Some((key, error)) = failed else { return };
        self.answers.entry_failed(&mut self.out, key, &error);
        self.streams.entry_failed(&self.facts, key, &error);
        let next = self.coordination.entry_failed(&self.facts, key, &error);
        self.lead_coordination(next);
    }

    /// A peer wants entries.
    pub(super) fn on_fetch(&mut self, fetch: Fetch, wanted: &[EdgeCoverage]) {
        if self.say_forgotten(fetch.from, fetch.job) {
            return fetch.end(&mut self.out, None);
        }
        if wanted.iter().any(|part| part.edge.is_upload()) {
            self.say_ended(fetch.from, fetch.job);
        }
        if wanted.iter().any(|part| self.reaches_below(fetch.job, part)) {
            self.say_retired(fetch.from, fetch.job);
        }
        let idle_ms = self.idle_ms(fetch.job);
        fetch.read(&self.facts, &mut self.out, wanted, idle_ms);
    }

    /// A peer has sent what it had; one of these three had asked for it.
    pub(super) fn on_fetched(
        &mut self,
        from: NodeId,
        job: JobId,
        round: u64,
        idle: Option<Duration>,
    ) {
        if let Some(idle) = idle {
            self.job_was_idle(job, idle);
        }
        if self.slot_tasks.fetched(&self.facts, &mut self.out, from, round) {
            return;
        }
        match self.answers.fetched(&self.facts, &mut self.out, from, job, round) {
            Some(next) => self.lead_answers(next),
            None => self.handoff.on_fetched(&self.facts, &mut self.out, job, round),
        }
    }

    /// Owners confirmed what they hold: copies of others go, or this node does.
    pub(super) fn release(&mut self, job: JobId, released: Option<SlotSet>) {
        let Some(slots) = released else { return };
        if !slots.is_empty() {
            self.facts.ledger.job_mut(job).drop_slots(slots);
        }
        self.check_drained();
    }

    pub(super) fn start_draining(&mut self) {
        self.handoff.drain(&mut self.out);
        self.check_drained();
    }

    /// This node leaves once the others have everything, and have heard what was said to them, in this
    /// breath, too: so that is carried out before.
    pub(super) fn check_drained(&mut self) {
        let replicating = self.replicator.is_busy();
        if self.handoff.is_drained(&self.facts, replicating, &mut self.out) {
            self.carry_out();
            let mut peers = self.facts.members.reachable.iter();
            let heard = peers.all(|peer| self.links.oldest_unacknowledged(*peer).is_none());
            self.handoff.leave(&self.facts, heard, &mut self.out);
        }
    }
}
