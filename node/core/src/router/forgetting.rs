//! Forgetting jobs: a proposal that a job is over, the members' answers, and what follows.

use std::time::Duration;

use cortado_protocol::expiry::{ExpireAnswer, Forgotten, Reason};
use cortado_protocol::peer::PeerMessage;
use cortado_protocol::{JobId, NodeId};

use super::Core;
use crate::effect::{Effect, StateFile};
use crate::expiry::{self, Heard};
use crate::jobs::Agreement;
use crate::saving::Then;

impl Core {
    /// For how long there was no sign of life of a job, if it is known.
    pub(crate) fn idle(&self, job: JobId) -> Option<Duration> {
        self.facts.idle(job, self.works(job))
    }

    pub(super) fn idle_ms(&self, job: JobId) -> Option<u64> {
        self.idle(job).map(|idle| idle.as_millis() as u64)
    }

    /// Another node says for how long there was none.
    pub(super) fn job_was_idle(&mut self, job: JobId, idle: Duration) {
        if let Some(own) = self.idle(job) {
            self.facts.jobs.was_idle(job, self.facts.now, idle, own);
        }
    }

    pub(super) fn tick_expiry(&mut self) {
        let (coordination, streams) = (&self.coordination, &self.streams);
        let works = |job| coordination.works(job) || streams.works(job);
        let looked = self.expiry.tick(&self.facts, &mut self.out, &works);
        if looked.save {
            self.saving.save(StateFile::Expiry, None);
        }
        for job in looked.undecided {
            self.answers.not_deleted(&mut self.out, job);
        }
        for agreed in looked.reopen {
            self.on_withdrawn(agreed.by, agreed.job, agreed.number);
        }
    }

    /// A coordinator proposes that the job is over. A member that agrees takes nothing new of it from here
    /// on, and says so once that is on disk.
    pub(super) fn on_expire(&mut self, from: NodeId, (job, number): (JobId, u64), reason: Reason) {
        if self.say_forgotten(from, job) {
            return;
        }
        let works = self.works(job);
        if expiry::agrees(&self.facts, &mut self.out, from, (job, number), (reason, works)) {
            self.facts.jobs.agree(job, from, number, false);
            self.saving.save(StateFile::Expiry, Some(Then::Agree { job, by: from, number }));
        }
    }

    /// A member answers a proposal of this node.
    pub(super) fn on_expiring(
        &mut self,
        from: NodeId,
        (job, number): (JobId, u64),
        answer: ExpireAnswer,
    ) {
        if self.say_forgotten(from, job) {
            return;
        }
        match self.expiry.on_answer(&self.facts, &mut self.out, from, (job, number), answer) {
            Some(Heard::Idle(idle)) => self.job_was_idle(job, idle),
            Some(Heard::Over) => self.saving.save(StateFile::Tombstones, Some(Then::Forget(job))),
            None => {}
        }
    }

    /// A proposal is given up.
    pub(super) fn on_withdrawn(&mut self, from: NodeId, job: JobId, number: u64) {
        if self.facts.jobs.reopen(job, from, number) {
            self.saving.save(StateFile::Expiry, None);
        }
    }

    /// A peer says that a job is forgotten for good, and proves it.
    pub(super) fn on_forgotten(&mut self, from: NodeId, job: JobId, proof: Forgotten) {
        if expiry::is_proof(&self.facts, from, job, &proof) && !self.is_forgotten(job) {
            self.forget(job, proof);
            self.saving.save(StateFile::Tombstones, Some(Then::DropRecords(job)));
        }
    }

    /// A file is on disk as it was handed over with this ticket, or newer: what waited for it is due.
    pub(super) fn on_saved(&mut self, ticket: u64) {
        for then in self.saving.saved(ticket) {
            match then {
                Then::Agree { job, by, number } => {
                    if self.facts.jobs.agreed_durably(job, by, number) {
                        let agreed = Agreement { job, by, number, durable: true };
                        expiry::say_agreed(&self.facts, &mut self.out, agreed);
                    }
                }
                Then::Forget(job) => {
                    let proof = self.expiry.take_decided(job);
                    if let Some(proof) = proof.filter(|_| !self.is_forgotten(job)) {
                        self.forget(job, proof.clone());
                        let told = PeerMessage::Forgotten { job, proof };
                        self.out.send_to_all(self.facts.others(), &told);
                    }
                    self.drop_records(job);
                }
                Then::DropRecords(job) => self.drop_records(job),
                Then::SayRetiring { job, to } => self.say_retiring(to, job),
                Then::SayFrozen { job, to, question } => self.say_frozen(to, job, question),
                Then::DropRetired(job) => self.drop_retired(job),
                Then::TellDeparted { ticket } => self.member_forgotten(ticket),
            }
        }
    }

    /// The log may drop all records of a job.
    pub(super) fn drop_records(&mut self, job: JobId) {
        let groups = self.facts.ledger.take_groups(job);
        groups.for_each(|group| self.out.effect(Effect::Forget(group)));
    }

    /// Tells of a job that is forgotten; returns whether it is.
    pub(super) fn say_forgotten(&mut self, to: NodeId, job: JobId) -> bool {
        expiry::say_forgotten(&self.facts, &mut self.out, to, job)
    }

    /// A job is forgotten for good: every trace of it goes. Coordination comes before replication, or the
    /// entries that fail there would start the job over.
    fn forget(&mut self, job: JobId, proof: Forgotten) {
        let reason = proof.reason;
        self.facts.ledger.forget(job, proof);
        let agreed = self.facts.jobs.forget(job);
        self.coordination.forget(job);
        self.streams.forget(&mut self.out, job);
        self.answers.forget(&mut self.out, job, reason);
        self.slot_tasks.forget(job);
        self.mapper.forget(&self.facts, &mut self.out, job, reason);
        self.handoff.forget(job);
        for key in self.replicator.of_job(job) {
            let failed = self.replicator.fail_forgotten(&mut self.out, key, reason);
            self.entry_failed(failed);
        }
        self.expiry.forget(job);
        if agreed {
            self.saving.save(StateFile::Expiry, None);
        }
        if self.facts.retention.forget(job) {
            self.saving.save(StateFile::Retention, None);
        }
    }
}
