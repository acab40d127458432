//! Expiry: the end of a job's life. Owns this node's proposals to drop jobs, and answers those of
//! other nodes. The router calls it.
//!
//! A job without a sign of life for its time to live is dropped, with all its records. This is
//! irreversible, so no single node decides it: other members may have seen the job later. The job's
//! coordinator *proposes* the end to all members. A member refuses if it saw the job within its own
//! time to live. Otherwise it writes down that it agrees, and takes nothing new of the job until it
//! knows the outcome. The end is *in force* once enough members have agreed
//! ([`cortado_protocol::expiry::needed`]): so many that one of them has each acknowledged batch.
//!
//! ```text
//! coordinator                         member
//!  │ Expire {number} ──────────────────▶ │ seen within its time to live? ──▶ Active: withdrawn
//!  │                                     │ else write down, then
//!  │ ◀────────────────────── Accepted    │ takes nothing new of the job
//!  │ enough? write the proof down, then  │
//!  │ Forgotten {proof} ────────────────▶ │ writes the proof down, drops the records
//! ```
//!
//! Only the proposer counts the answers, and it never uses a number twice. So a withdrawn proposal
//! never comes into force. A member that agreed and received no outcome sends its agreement again;
//! the answer is `Forgotten` or `Withdrawn`. A member that was away learns the outcome when it
//! offers its entries. All proofs for one job mean the same, so nothing has to be ordered: this is
//! the one-value case of lattice agreement (Faleiro et al., PODC 2012).
//!
//! A client may want to delete a job that has ended. The members agree to that in the same way, but
//! none refuses, because an ended job gets no new entries. The proof contains the reason.
//!
//! Each process measures elapsed time and uses no wall clock. After a restart it continues from the
//! last value on disk. Moving a job's entries to another node is no sign of life; the elapsed time
//! moves with them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cortado_protocol::expiry::{ExpireAnswer, Forgotten, Reason, needed};
use cortado_protocol::peer::PeerMessage;
use cortado_protocol::{JobId, NodeId};

use crate::config::PlantedBug;
use crate::facts::Facts;
use crate::jobs::Agreement;
use crate::outbox::Outbox;

/// Time limit for the answers to a proposal.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same limit if a client waits for the outcome.
const CLIENT_PATIENCE: Duration = Duration::from_millis(2_500);
/// Pause between two repeats of an agreement while the outcome is unknown.
const REPEAT_EVERY: Duration = Duration::from_secs(2);
/// Limit of one node's proposals at a time.
const AT_ONCE: usize = 64;

/// Whether this node, as the job's coordinator, works on the job.
pub(crate) type Works<'a> = &'a dyn Fn(JobId) -> bool;

struct Proposal {
    number: u64,
    reason: Reason,
    since: Duration,
    accepted: BTreeSet<NodeId>,
    known: BTreeSet<NodeId>,
    min_copies: u8,
}

/// Proposals of this node.
#[derive(Default)]
pub(crate) struct Expiry {
    proposals: BTreeMap<JobId, Proposal>,
    /// Jobs that enough members agreed to drop. This node drops them once the proof is on disk.
    decided: BTreeMap<JobId, Forgotten>,
    /// Jobs that are not proposed again before this time.
    rest_until: BTreeMap<JobId, Duration>,
    look_at: Duration,
    repeat_at: Duration,
    save_at: Duration,
}

/// The result of a look at all jobs.
#[derive(Default)]
pub(crate) struct Looked {
    /// The idle times of the jobs have to be written to disk.
    pub(crate) save: bool,
    /// Jobs that a client wants deleted, and that too few members agreed to drop in time.
    pub(crate) undecided: Vec<JobId>,
    /// Agreements to undo: their proposer has left without an outcome.
    pub(crate) reopen: Vec<Agreement>,
}

/// The effect of an answer to a proposal of this node.
pub(crate) enum Heard {
    /// A member saw the job so long ago, so the job is not dropped.
    Idle(Duration),
    /// Enough members have agreed: the job is dropped once the proof is on disk.
    Over,
}

impl Expiry {
    /// The job was dropped.
    pub(crate) fn forget(&mut self, job: JobId) {
        self.proposals.remove(&job);
        self.rest_until.remove(&job);
    }

    /// Jobs that enough members agreed to drop, and the proofs.
    pub(crate) fn decided(&self) -> impl Iterator<Item = (JobId, &Forgotten)> {
        self.decided.iter().map(|(job, proof)| (*job, proof))
    }

    /// The proof is on disk: removes and returns it.
    pub(crate) fn take_decided(&mut self, job: JobId) -> Option<Forgotten> {
        self.decided.remove(&job)
    }

    /// The job's state here, in one line for diagnosis.
    pub(crate) fn describe(&self, facts: &Facts, job: JobId) -> String {
        let proposed = self.proposals.get(&job).map(|proposal| proposal.accepted.len());
        let rests = self.rest_until.get(&job).map(|until| until.saturating_sub(facts.now));
        format!("proposed {proposed:?}, rests {rests:?}")
    }

    pub(crate) fn tick(&mut self, facts: &Facts, out: &mut Outbox, works: Works<'_>) -> Looked {
        let (now, ttl) = (facts.now, facts.config.job_ttl);
        let undecided = self.give_up_proposals(facts, out, Reason::Deleted, CLIENT_PATIENCE);
        let mut looked = Looked { undecided, ..Looked::default() };
        if now < self.look_at {
            return looked;
        }
        self.look_at = now + (ttl / 16).clamp(Duration::from_millis(250), PATIENCE);
        if now >= self.save_at && facts.jobs.iter().next().is_some() {
            self.save_at = now + (ttl / 16).clamp(Duration::from_secs(1), Duration::from_secs(60));
            looked.save = true;
        }
        self.give_up_proposals(facts, out, Reason::Expired, PATIENCE);
        looked.reopen = self.repeat_answers(facts, out);
        self.propose(facts, out, works);
        looked
    }

    /// Withdraws proposals that too few members answered in time; returns their jobs.
    fn give_up_proposals(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        reason: Reason,
        patience: Duration,
    ) -> Vec<JobId> {
        let late = |proposal: &Proposal| {
            proposal.reason == reason && facts.now >= proposal.since + patience
        };
        let proposals = self.proposals.iter().filter(|(_, proposal)| late(proposal));
        let late: Vec<_> = proposals.map(|(job, _)| *job).collect();
        for job in &late {
            self.withdraw(facts, out, *job, (facts.config.job_ttl / 4).max(2 * PATIENCE));
        }
        late
    }

    /// Sends this node's agreements to their proposers again, to get the outcome. Returns the
    /// agreements whose proposer has handed everything over and left: they get no outcome.
    fn repeat_answers(&mut self, facts: &Facts, out: &mut Outbox) -> Vec<Agreement> {
        if facts.now < self.repeat_at {
            return Vec::new();
        }
        self.repeat_at = facts.now + REPEAT_EVERY;
        let (left, open): (Vec<_>, Vec<_>) =
            facts.jobs.agreements().partition(|agreed| facts.roster.has_left(agreed.by));
        for agreed in open.into_iter().filter(|agreed| agreed.durable) {
            say_agreed(facts, out, agreed);
        }
        left
    }

    fn propose(&mut self, facts: &Facts, out: &mut Outbox, works: Works<'_>) {
        let now = facts.now;
        self.rest_until.retain(|_, until| now < *until);
        let over = facts.jobs.iter().map(|(job, _)| job);
        let over: Vec<_> = over.filter(|job| is_over(facts, *job, works)).collect();
        if over.is_empty() || facts.is_joining() {
            return;
        }
        let alone = facts.config.planted == Some(PlantedBug::ExpireAlone);
        if facts.lacks_members().is_some() && !alone {
            return;
        }
        for job in over {
            let asked = self.proposals.contains_key(&job)
                || self.rest_until.contains_key(&job)
                || self.decided.contains_key(&job);
            if asked || !facts.is_coordinator(job) {
                continue;
            }
            if self.proposals.len() >= AT_ONCE {
                return;
            }
            tracing::debug!(%job, "its time to live seems to be over: asking all members");
            self.ask(facts, out, job, Reason::Expired);
        }
    }

    /// A client wants to delete a job that this node coordinates.
    pub(crate) fn delete(&mut self, facts: &Facts, out: &mut Outbox, job: JobId) {
        let asked = self.proposals.get(&job).is_some_and(|p| p.reason == Reason::Deleted);
        if asked || self.decided.contains_key(&job) {
            return;
        }
        // A proposal for another reason may be refused, so it is withdrawn and the members are
        // asked again.
        self.withdraw(facts, out, job, Duration::ZERO);
        tracing::info!(%job, "to be deleted: asking all members");
        self.ask(facts, out, job, Reason::Deleted);
    }

    fn ask(&mut self, facts: &Facts, out: &mut Outbox, job: JobId, reason: Reason) {
        let number = out.fresh_id();
        let proposal = Proposal {
            number,
            reason,
            since: facts.now,
            accepted: BTreeSet::new(),
            known: facts.roster.known().collect(),
            min_copies: facts.config.min_copies,
        };
        self.proposals.insert(job, proposal);
        let ask = PeerMessage::Expire { job, number, reason };
        out.send_to_all(facts.roster.known(), &ask);
    }

    fn withdraw(&mut self, facts: &Facts, out: &mut Outbox, job: JobId, rest: Duration) {
        let Some(proposal) = self.proposals.remove(&job) else { return };
        let number = proposal.number;
        self.rest_until.insert(job, facts.now + rest);
        out.send_to_all(facts.roster.known(), &PeerMessage::Withdrawn { job, number });
    }

    /// A member answers a proposal of this node.
    pub(crate) fn on_answer(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        from: NodeId,
        (job, number): (JobId, u64),
        answer: ExpireAnswer,
    ) -> Option<Heard> {
        if self.decided.contains_key(&job) {
            return None;
        }
        let proposal = self.proposals.get_mut(&job).filter(|p| p.number == number);
        match (proposal, answer) {
            (None, ExpireAnswer::Accepted { .. }) => {
                out.send(from, PeerMessage::Withdrawn { job, number });
                None
            }
            (None, ExpireAnswer::Active { .. }) => None,
            (Some(_), ExpireAnswer::Active { idle_ms }) => {
                let idle = Duration::from_millis(idle_ms);
                tracing::debug!(%job, %from, ?idle, "it is not over: a member has seen it");
                let rest = facts.config.job_ttl.saturating_sub(idle);
                self.withdraw(facts, out, job, rest.max(Duration::from_secs(1)));
                Some(Heard::Idle(idle))
            }
            (Some(proposal), ExpireAnswer::Accepted { known, min_copies }) => {
                proposal.accepted.insert(from);
                proposal.known.extend(known);
                proposal.min_copies = proposal.min_copies.min(min_copies);
                self.count(facts, job)
            }
        }
    }

    /// Checks whether enough members have agreed.
    fn count(&mut self, facts: &Facts, job: JobId) -> Option<Heard> {
        let proposal = self.proposals.get(&job)?;
        let known = proposal.known.iter().filter(|node| !facts.roster.has_left(**node)).count();
        let known = known.max(facts.expected_members());
        let wanted = match facts.config.planted {
            Some(PlantedBug::ExpireAlone) => 1,
            _ => needed(known, proposal.min_copies),
        };
        if proposal.accepted.len() < wanted {
            return None;
        }
        let proposal = self.proposals.remove(&job)?;
        let proof = Forgotten {
            by: facts.config.node,
            number: proposal.number,
            accepted: proposal.accepted.into_iter().collect(),
            known: known as u16,
            min_copies: proposal.min_copies,
            reason: proposal.reason,
        };
        let (accepted, reason) = (proof.accepted.len(), proof.reason);
        tracing::info!(%job, accepted, known, ?reason, "the job is over");
        self.decided.insert(job, proof);
        Some(Heard::Over)
    }
}

/// Whether this node has seen no sign of life of the job for its time to live.
fn is_over(facts: &Facts, job: JobId, works: Works<'_>) -> bool {
    facts.idle(job, works(job)).is_some_and(|idle| idle >= facts.config.job_ttl)
}

/// A coordinator proposes to drop the job. Refuses if this node saw a sign of life within its time
/// to live, unless a client wants the job deleted. Returns whether this node agrees.
pub(crate) fn agrees(
    facts: &Facts,
    out: &mut Outbox,
    from: NodeId,
    (job, number): (JobId, u64),
    (reason, works): (Reason, bool),
) -> bool {
    if reason == Reason::Deleted {
        return true;
    }
    let idle = facts.idle(job, works).filter(|idle| *idle < facts.config.job_ttl);
    let alone = facts.config.planted == Some(PlantedBug::ExpireAlone);
    if let Some(idle) = idle.filter(|_| !alone) {
        let answer = ExpireAnswer::Active { idle_ms: idle.as_millis() as u64 };
        out.send(from, PeerMessage::Expiring { job, number, answer });
        return false;
    }
    true
}

/// Sends this node's agreement to the proposer.
pub(crate) fn say_agreed(facts: &Facts, out: &mut Outbox, agreed: Agreement) {
    let Agreement { job, by, number, .. } = agreed;
    let (known, min_copies) = (facts.roster.known().collect(), facts.config.min_copies);
    let answer = ExpireAnswer::Accepted { known, min_copies };
    out.send(by, PeerMessage::Expiring { job, number, answer });
}

/// Sends the proof that a job was dropped, if there is one; returns whether there is.
pub(crate) fn say_forgotten(facts: &Facts, out: &mut Outbox, to: NodeId, job: JobId) -> bool {
    let Some(proof) = facts.ledger.tombstone(job).cloned() else { return false };
    out.send(to, PeerMessage::Forgotten { job, proof });
    true
}

/// Whether a peer's proof that a job was dropped is valid.
pub(crate) fn is_proof(facts: &Facts, from: NodeId, job: JobId, proof: &Forgotten) -> bool {
    let holds = proof.is_in_force() || facts.config.planted == Some(PlantedBug::ExpireAlone);
    if !holds {
        tracing::warn!(%from, %job, ?proof, "too few agreed that the job is over: not believed");
    }
    holds
}

/// Number of jobs here that would be dropped if enough members answered.
pub(crate) fn overdue(facts: &Facts, works: Works<'_>) -> u32 {
    let jobs = facts.jobs.iter().filter(|(job, _)| is_over(facts, *job, works));
    jobs.count() as u32
}
