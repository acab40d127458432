//! Expiry: the end of a job's life.
//!
//! A job that has shown no sign of life for its time to live is dropped, with all its records. Nobody
//! can take that back, so no single node decides it: its clock may be wrong about the others, or the
//! others may have gone on without it. The home *proposes* the end to all members; each writes down
//! that it agrees, unless it saw the job within its own time to live, and takes nothing new of the job
//! until it knows the outcome. The end is *in force* once enough have agreed
//! ([`cortado_protocol::expiry::needed`]): one of them would know of any acknowledged batch.
//!
//! ```text
//! home                                member
//!  │ Expire {number} ──────────────────▶ │ seen within its time to live? ──▶ Active: home withdraws
//!  │                                     │ else write down, then
//!  │ ◀────────────────────── Accepted    │ takes nothing new of the job
//!  │ enough? write the proof down, then  │
//!  │ Gone {proof} ─────────────────────▶ │ writes the proof down, drops the records
//! ```
//!
//! Only the proposer counts, and it never gives a number out twice. So what it withdraws never comes
//! into force, and a member that agreed and heard no more asks by agreeing again: the answer is `Gone`
//! or `Withdrawn`. A member that was away asks too, by offering what it has. Any two ends of one job
//! are the same, so nothing has to be ordered: this is the one-value case of lattice agreement
//! (Faleiro et al., PODC 2012).
//!
//! Time is what each process saw pass, never a wall clock. It goes on after a restart where it was last
//! written down; moving a job's entries to another node is no sign of life and takes the time along.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cortado_protocol::expiry::{ExpireAnswer, Expired, needed};
use cortado_protocol::peer::PeerMessage;
use cortado_protocol::{JobId, NodeId};

use crate::state::{IdleJob, StateFile, Then};
use crate::{Core, Effect, PlantedBug, RecordRef};

/// How long answers to a proposal are waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a member that agreed says so again while it knows no outcome.
const REPEAT_EVERY: Duration = Duration::from_secs(2);
/// Proposals of one node under way at once.
const AT_ONCE: usize = 64;

/// A sign of life.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Life {
    /// When it was; the process's start if there was none in this process.
    seen_at: Option<Duration>,
    /// How long it was ago at that moment.
    before: Duration,
    /// Nobody has said yet when it was: an entry was moved here.
    guessed: bool,
}

impl Life {
    fn now(now: Duration) -> Self {
        Self { seen_at: Some(now), ..Self::default() }
    }
}

struct Proposal {
    number: u64,
    since: Duration,
    accepted: BTreeSet<NodeId>,
    known: BTreeSet<NodeId>,
    min_copies: u8,
}

/// Proposals of this node, and what it agreed to.
#[derive(Default)]
pub(crate) struct Expiry {
    /// By job and proposer: number of the proposal, and whether that is on disk.
    accepted: BTreeMap<JobId, BTreeMap<NodeId, (u64, bool)>>,
    proposals: BTreeMap<JobId, Proposal>,
    /// Jobs that are not proposed again before.
    rest_until: BTreeMap<JobId, Duration>,
    look_at: Duration,
    repeat_at: Duration,
    save_at: Duration,
}

impl Expiry {
    pub(crate) fn restore(&mut self, accepted: &[(JobId, NodeId, u64)]) {
        for (job, by, number) in accepted {
            self.accepted.entry(*job).or_default().insert(*by, (*number, true));
        }
    }

    pub(crate) fn accepted(&self) -> Vec<(JobId, NodeId, u64)> {
        let all = self.accepted.iter();
        all.flat_map(|(job, by)| by.iter().map(|(by, (number, _))| (*job, *by, *number))).collect()
    }

    /// Whether this node agreed that the job is over, and knows no outcome: who proposed it.
    pub(crate) fn closed_by(&self, job: JobId) -> Option<NodeId> {
        self.accepted.get(&job)?.keys().next().copied()
    }

    fn forget(&mut self, job: JobId) -> bool {
        self.proposals.remove(&job);
        self.rest_until.remove(&job);
        self.accepted.remove(&job).is_some()
    }

    /// Takes back what was agreed to; returns whether there was anything.
    fn reopen(&mut self, job: JobId, by: NodeId, number: u64) -> bool {
        let Some(accepted) = self.accepted.get_mut(&job) else { return false };
        let same = accepted.get(&by).is_some_and(|(held, _)| *held == number);
        if same {
            accepted.remove(&by);
        }
        if accepted.is_empty() {
            self.accepted.remove(&job);
        }
        same
    }
}

impl Core {
    /// Something new of the job arrived; if it was only moved here, that is no sign of life.
    pub(crate) fn job_seen(&mut self, job: JobId, moved: bool) {
        let now = self.facts.now;
        let guess = || crate::job::JobLog {
            life: Life { guessed: true, ..Life::now(now) },
            ..Default::default()
        };
        let log = self.facts.jobs.entry(job).or_insert_with(guess);
        if !moved {
            log.life = Life::now(now);
        }
    }

    /// Who had the job before says for how long there was no sign of life.
    pub(crate) fn job_was_idle(&mut self, job: JobId, idle: Duration) {
        let Some(own) = self.idle(job) else { return };
        let Some(log) = self.facts.jobs.get_mut(&job) else { return };
        if log.life.guessed || idle < own {
            log.life = Life { before: idle, ..Life::now(self.facts.now) };
        }
    }

    /// For how long this node has seen no sign of life of a job it knows. A job that its home works on is
    /// alive, however long that takes, and so is one of which something new is on its way to the disk.
    pub(crate) fn idle(&self, job: JobId) -> Option<Duration> {
        let life = self.facts.jobs.get(&job)?.life;
        if self.homes.get(&job).is_some_and(crate::home::Home::works) || self.store.awaits(job) {
            return Some(Duration::ZERO);
        }
        let since = life.seen_at.or(self.facts.began).unwrap_or(self.facts.now);
        Some(self.facts.now.saturating_sub(since) + life.before)
    }

    /// A record of an earlier process: it counts as a sign of life if it is newer than what was written
    /// down of the job.
    pub(crate) fn restore_life(&mut self, job: JobId, record: RecordRef) {
        let idle = self.restoring.idle.get(&job);
        let known = idle.filter(|idle| (record.segment, record.offset) <= idle.newest);
        let before = known.map_or(Duration::ZERO, |idle| Duration::from_millis(idle.idle_ms));
        let log = self.facts.jobs.entry(job).or_insert_with(|| crate::job::JobLog {
            life: Life { before, ..Life::default() },
            ..Default::default()
        });
        log.life.before = log.life.before.min(before);
        log.newest = log.newest.max((record.segment, record.offset));
    }

    /// What is to be written down of all jobs.
    pub(crate) fn idle_jobs(&self) -> Vec<IdleJob> {
        let idle = |job: &JobId| {
            let idle_ms = self.idle(*job).unwrap_or_default().as_millis() as u64;
            IdleJob { job: *job, idle_ms, newest: self.facts.jobs[job].newest }
        };
        self.facts.jobs.keys().map(idle).collect()
    }

    /// Why a job is still there, in a line for people who look for a fault.
    #[must_use]
    pub fn describe_expiry(&self, job: JobId) -> String {
        let (idle, closed) = (self.idle(job), self.expiry.closed_by(job));
        let proposed = self.expiry.proposals.get(&job).map(|proposal| proposal.accepted.len());
        let rests =
            self.expiry.rest_until.get(&job).map(|until| until.saturating_sub(self.facts.now));
        let away = self.expiry_waits_for();
        format!(
            "idle {idle:?}, agreed with {closed:?}, proposed {proposed:?}, rests {rests:?}, away {away:?}"
        )
    }

    fn is_over(&self, job: JobId) -> bool {
        self.idle(job).is_some_and(|idle| idle >= self.facts.config.job_ttl)
    }

    pub(crate) fn tick_expiry(&mut self) {
        let (now, ttl) = (self.facts.now, self.facts.config.job_ttl);
        if now < self.expiry.look_at {
            return;
        }
        self.expiry.look_at = now + (ttl / 16).clamp(Duration::from_millis(250), PATIENCE);
        if now >= self.expiry.save_at && !self.facts.jobs.is_empty() {
            self.expiry.save_at =
                now + (ttl / 16).clamp(Duration::from_secs(1), Duration::from_secs(60));
            self.save(StateFile::Expiry, None);
        }
        self.give_up_proposals();
        self.repeat_answers();
        self.propose();
    }

    fn give_up_proposals(&mut self) {
        let now = self.facts.now;
        let proposals = self.expiry.proposals.iter();
        let late: Vec<_> = proposals
            .filter(|(_, proposal)| now >= proposal.since + PATIENCE)
            .map(|(job, _)| *job)
            .collect();
        for job in late {
            self.withdraw(job, (self.facts.config.job_ttl / 4).max(2 * PATIENCE));
        }
    }

    /// Asks those who proposed what this node agreed to for the outcome.
    fn repeat_answers(&mut self) {
        let now = self.facts.now;
        if now < self.expiry.repeat_at {
            return;
        }
        self.expiry.repeat_at = now + REPEAT_EVERY;
        for (job, by, number) in self.expiry.accepted() {
            // It handed everything over and left: what it had not told anyone is not so.
            if self.facts.roster.has_left(by) {
                self.expiry.reopen(job, by, number);
                self.save(StateFile::Expiry, None);
            } else if self.expiry.accepted[&job][&by].1 {
                self.say_accepted(job, by, number);
            }
        }
    }

    fn say_accepted(&mut self, job: JobId, to: NodeId, number: u64) {
        let (known, min_copies) =
            (self.facts.roster.known().collect(), self.facts.config.min_copies);
        let answer = ExpireAnswer::Accepted { known, min_copies };
        self.out.send(to, PeerMessage::Expiring { job, number, answer });
    }

    /// Members that are away, if so many are that nothing can be in force without them.
    pub(crate) fn expiry_waits_for(&self) -> Option<Vec<NodeId>> {
        let needed = needed(self.facts.expected_members(), self.facts.config.min_copies);
        let (here, away): (Vec<_>, Vec<_>) =
            self.facts.roster.known().partition(|node| self.facts.members.is_reachable(*node));
        (here.len() < needed).then_some(away)
    }

    /// Jobs here that would be gone if enough members were there.
    pub(crate) fn overdue(&self) -> u32 {
        let jobs = self.facts.jobs.keys().filter(|job| self.is_over(**job));
        jobs.count() as u32
    }

    fn propose(&mut self) {
        let now = self.facts.now;
        self.expiry.rest_until.retain(|_, until| now < *until);
        let over: Vec<_> =
            self.facts.jobs.keys().copied().filter(|job| self.is_over(*job)).collect();
        if over.is_empty() || self.facts.is_joining() {
            return;
        }
        let alone = self.facts.config.planted == Some(PlantedBug::ExpireAlone);
        if self.expiry_waits_for().is_some() && !alone {
            return;
        }
        for job in over {
            let asked = self.expiry.proposals.contains_key(&job)
                || self.expiry.rest_until.contains_key(&job)
                || self.saving.buries(job);
            if asked || !self.facts.is_home(job) {
                continue;
            }
            if self.expiry.proposals.len() >= AT_ONCE {
                return;
            }
            let number = self.out.fresh_id();
            let proposal = Proposal {
                number,
                since: now,
                accepted: BTreeSet::new(),
                known: self.facts.roster.known().collect(),
                min_copies: self.facts.config.min_copies,
            };
            tracing::debug!(%job, number, "its time to live seems to be over: asking all members");
            self.expiry.proposals.insert(job, proposal);
            self.out.send_to_members(&self.facts, &PeerMessage::Expire { job, number });
        }
    }

    fn withdraw(&mut self, job: JobId, rest: Duration) {
        let Some(proposal) = self.expiry.proposals.remove(&job) else { return };
        let number = proposal.number;
        self.expiry.rest_until.insert(job, self.facts.now + rest);
        self.out.send_to_members(&self.facts, &PeerMessage::Withdrawn { job, number });
    }

    /// A home proposes that the job is over.
    pub(crate) fn on_expire(&mut self, from: NodeId, job: JobId, number: u64) {
        if self.say_gone(from, job) {
            return;
        }
        let idle = self.idle(job).filter(|idle| *idle < self.facts.config.job_ttl);
        let alone = self.facts.config.planted == Some(PlantedBug::ExpireAlone);
        if let Some(idle) = idle.filter(|_| !alone) {
            let answer = ExpireAnswer::Active { idle_ms: idle.as_millis() as u64 };
            return self.out.send(from, PeerMessage::Expiring { job, number, answer });
        }
        self.expiry.accepted.entry(job).or_default().insert(from, (number, false));
        self.save(StateFile::Expiry, Some(Then::Accept { job, to: from, number }));
    }

    /// A member answers a proposal of this node.
    pub(crate) fn on_expiring(
        &mut self,
        from: NodeId,
        job: JobId,
        number: u64,
        answer: ExpireAnswer,
    ) {
        if self.say_gone(from, job) || self.saving.buries(job) {
            return;
        }
        let proposal = self.expiry.proposals.get_mut(&job).filter(|p| p.number == number);
        match (proposal, answer) {
            (None, ExpireAnswer::Accepted { .. }) => {
                self.out.send(from, PeerMessage::Withdrawn { job, number });
            }
            (None, ExpireAnswer::Active { .. }) => {}
            (Some(_), ExpireAnswer::Active { idle_ms }) => {
                let idle = Duration::from_millis(idle_ms);
                tracing::debug!(%job, %from, ?idle, "it is not over: a member has seen it");
                self.job_was_idle(job, idle);
                let rest = self.facts.config.job_ttl.saturating_sub(idle);
                self.withdraw(job, rest.max(Duration::from_secs(1)));
            }
            (Some(proposal), ExpireAnswer::Accepted { known, min_copies }) => {
                proposal.accepted.insert(from);
                proposal.known.extend(known);
                proposal.min_copies = proposal.min_copies.min(min_copies);
                self.count_proposal(job);
            }
        }
    }

    fn count_proposal(&mut self, job: JobId) {
        let Some(proposal) = self.expiry.proposals.get(&job) else { return };
        let known =
            proposal.known.iter().filter(|node| !self.facts.roster.has_left(**node)).count();
        let known = known.max(self.facts.expected_members());
        let wanted = match self.facts.config.planted {
            Some(PlantedBug::ExpireAlone) => 1,
            _ => needed(known, proposal.min_copies),
        };
        if proposal.accepted.len() < wanted {
            return;
        }
        let Some(proposal) = self.expiry.proposals.remove(&job) else { return };
        let proof = Expired {
            by: self.facts.config.node,
            number: proposal.number,
            accepted: proposal.accepted.into_iter().collect(),
            known: known as u16,
            min_copies: proposal.min_copies,
        };
        tracing::info!(%job, accepted = proof.accepted.len(), known, "the job's time to live is over");
        self.save(StateFile::Gone, Some(Then::Bury { job, proof }));
    }

    /// Tells of a job that is gone; returns whether it is.
    pub(crate) fn say_gone(&mut self, to: NodeId, job: JobId) -> bool {
        let Some(proof) = self.facts.holdings.proof(job).cloned() else { return false };
        self.out.send(to, PeerMessage::Gone { job, proof });
        true
    }

    /// A proposal is given up.
    pub(crate) fn on_withdrawn(&mut self, from: NodeId, job: JobId, number: u64) {
        if self.expiry.reopen(job, from, number) {
            self.save(StateFile::Expiry, None);
        }
    }

    /// A job is gone for good: drop every trace of it.
    pub(crate) fn on_gone(&mut self, from: NodeId, job: JobId, proof: Expired) {
        if !proof.is_in_force() && self.facts.config.planted != Some(PlantedBug::ExpireAlone) {
            tracing::warn!(%from, %job, ?proof, "too few agreed that the job is over: not believed");
            return;
        }
        if !self.facts.holdings.is_gone(job) {
            self.bury(job, proof);
            self.save(StateFile::Gone, Some(Then::Forget(job)));
        }
    }

    /// What waited for a file is due.
    pub(crate) fn expiry_saved(&mut self, then: Then) {
        match then {
            Then::Accept { job, to, number } => {
                let accepted = self.expiry.accepted.get_mut(&job);
                let held = accepted.and_then(|by| by.get_mut(&to)).filter(|held| held.0 == number);
                if let Some(held) = held {
                    held.1 = true;
                    self.say_accepted(job, to, number);
                }
            }
            Then::Bury { job, proof } => {
                if !self.facts.holdings.is_gone(job) {
                    self.bury(job, proof.clone());
                    self.out.send_to_peers(&self.facts, &PeerMessage::Gone { job, proof });
                }
                self.out.effect(Effect::Forget(job));
            }
            Then::Forget(job) => self.out.effect(Effect::Forget(job)),
            Then::TellDeparted { ticket } => self.forgotten(ticket),
        }
    }

    fn bury(&mut self, job: JobId, proof: Expired) {
        self.facts.holdings.bury(job, proof);
        self.facts.jobs.remove(&job);
        self.homes.remove(&job);
        self.store_forget(job);
        self.slot_tasks.forget(job);
        self.mapper.forget(&self.facts, &mut self.out, job);
        self.handoff.forget(job);
        for key in self.replicator.of_job(job) {
            let failed = self.replicator.fail_gone(&mut self.out, key);
            self.entry_failed(failed);
        }
        if self.expiry.forget(job) {
            self.save(StateFile::Expiry, None);
        }
    }
}
