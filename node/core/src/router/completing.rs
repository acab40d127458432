//! The end of a job: each node drops the job's batches.

use bytes::Bytes;
use cortado_protocol::entry::Entry;
use cortado_protocol::job::{JobEntry, Manifest};
use cortado_protocol::peer::{EdgeCoverage, PeerMessage};
use cortado_protocol::{JobId, NodeId};

use super::Core;
use crate::effect::Effect;
use crate::facts::Facts;
use crate::job::{job_entry, job_log_entry};
use crate::ledger::Offered;
use crate::record::Group;

impl Core {
    /// Drops the batches of a job whose manifest is durable here. Tasks that still read batches are
    /// dropped, too; their coordinators receive the manifest when they ask again.
    pub(super) fn drop_batches(&mut self, job: JobId) {
        self.facts.ledger.complete(&mut self.out, job);
        self.slot_tasks.forget(job);
        self.out.effect(Effect::Forget(Group::batches(job)));
    }

    /// Sends the manifest or the tombstone of a job to a node; returns whether there is one.
    pub(super) fn say_ended(&mut self, to: NodeId, job: JobId) -> bool {
        if self.say_forgotten(to, job) {
            return true;
        }
        let Some(entry) = self.end_of(job) else { return false };
        self.out.send_with(to, PeerMessage::Ended { job }, entry);
        true
    }

    /// Sends the manifest of a job that is done to all members.
    pub(super) fn say_ended_to_all(&mut self, job: JobId) {
        let Some(entry) = self.end_of(job) else { return };
        for to in self.facts.others() {
            self.out.send_with(to, PeerMessage::Ended { job }, entry.clone());
        }
    }

    /// The encoded manifest of a job that is done.
    fn end_of(&self, job: JobId) -> Option<Bytes> {
        let manifest = self.facts.jobs.get(job)?.manifest.clone();
        let done = manifest.filter(|manifest| matches!(manifest, Manifest::Done { .. }))?;
        Some(job_log_entry(job, &JobEntry::Manifest(done)).encode())
    }

    /// Handles a manifest from a peer. A node that holds batches of the job, or coordinates it, appends
    /// the manifest to its log; the batches are dropped when it is durable.
    pub(super) fn on_ended(&mut self, from: NodeId, job: JobId, bytes: &Bytes) {
        if self.say_forgotten(from, job) {
            return;
        }
        let entry = match Entry::decode(bytes) {
            Ok(entry) if entry.head.key.job == job => entry,
            _ => return tracing::warn!(%from, %job, "refused the end of a job that can't be read"),
        };
        let done = matches!(job_entry(&entry), Some(JobEntry::Manifest(Manifest::Done { .. })));
        let held = self.facts.ledger.job(job).is_some_and(|held| held.has_batches());
        if done && (held || self.coordination.has(job)) {
            let Facts { config, ledger, .. } = &mut self.facts;
            let (bytes, moved, unanswered) = (bytes.clone(), true, true);
            ledger.store(config, &mut self.out, Offered { from, entry, bytes, moved, unanswered });
        }
    }

    /// Handles an offer. A peer that offers batches of a job that is done receives the manifest.
    pub(super) fn on_offer(
        &mut self,
        from: NodeId,
        job: JobId,
        round: u64,
        mut held: Vec<EdgeCoverage>,
    ) {
        if self.say_forgotten(from, job) {
            return;
        }
        let is_batches = |part: &EdgeCoverage| part.edge.is_upload();
        let complete = self.facts.ledger.job(job).is_some_and(|held| held.is_complete());
        if complete && held.iter().any(is_batches) {
            self.say_ended(from, job);
            held.retain(|part| !is_batches(part));
        }
        if held.iter().any(|part| self.reaches_below(job, part)) {
            self.say_retired(from, job);
        }
        self.handoff.on_offer(&self.facts, &mut self.out, from, job, round, held);
    }
}
