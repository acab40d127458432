//! What this node knows of all jobs: what their own entries say, when there was a sign of life of each
//! last, and what this node agreed to that can't be taken back alone.

use std::collections::BTreeMap;
use std::ops::{Bound, Index};
use std::time::Duration;

use cortado_protocol::job::JobEntry;
use cortado_protocol::{JobId, NodeId};

use crate::job::{JobLog, Life};

/// See the module's description.
#[derive(Default)]
pub(crate) struct Jobs {
    logs: BTreeMap<JobId, Box<JobLog>>,
    /// Agreements that a job is over, by job and who proposed it: number of the proposal, and whether
    /// the agreement is on disk.
    agreed: BTreeMap<JobId, BTreeMap<NodeId, (u64, bool)>>,
}

/// An agreement of this node that a job is over.
#[derive(Clone, Copy)]
pub(crate) struct Agreement {
    pub(crate) job: JobId,
    /// Who proposed it.
    pub(crate) by: NodeId,
    /// Number of the proposal.
    pub(crate) number: u64,
    /// Whether it is on disk.
    pub(crate) durable: bool,
}

impl Jobs {
    /// What is known of a job.
    pub(crate) fn get(&self, job: JobId) -> Option<&JobLog> {
        self.logs.get(&job).map(|log| &**log)
    }

    /// The same, to be changed.
    pub(crate) fn get_mut(&mut self, job: JobId) -> Option<&mut JobLog> {
        self.logs.get_mut(&job).map(|log| &mut **log)
    }

    /// All jobs, in id order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (JobId, &JobLog)> {
        self.logs.iter().map(|(job, log)| (*job, &**log))
    }

    /// All jobs after one, in id order.
    pub(crate) fn after(&self, job: Option<JobId>) -> impl Iterator<Item = (JobId, &JobLog)> {
        let from = job.map_or(Bound::Unbounded, Bound::Excluded);
        self.logs.range((from, Bound::Unbounded)).map(|(job, log)| (*job, &**log))
    }

    /// Something new of a job arrived; if it was only moved here, that is no sign of life.
    pub(crate) fn seen(&mut self, job: JobId, now: Duration, moved: bool) {
        let guess = || {
            Box::new(JobLog { life: Life { guessed: true, ..Life::now(now) }, ..JobLog::default() })
        };
        let log = self.logs.entry(job).or_insert_with(guess);
        if !moved {
            log.life = Life::now(now);
        }
    }

    /// An entry of a job's log is durable here: what it says holds.
    pub(crate) fn apply(&mut self, job: JobId, now: Duration, wall_ms: u64, entry: JobEntry) {
        self.seen(job, now, true);
        let log = self.logs.entry(job).or_default();
        log.apply(entry, wall_ms);
        log.compile(job);
    }

    /// A record of a job that an earlier process wrote, where it stands, and what it says; `before` is
    /// how long there had been no sign of life when it was known last.
    pub(crate) fn restore(
        &mut self,
        job: JobId,
        at: (u32, u32),
        before: Duration,
        wall_ms: u64,
        entry: Option<JobEntry>,
    ) {
        let known =
            || Box::new(JobLog { life: Life { before, ..Life::default() }, ..JobLog::default() });
        let log = self.logs.entry(job).or_insert_with(known);
        log.life.before = log.life.before.min(before);
        log.newest = log.newest.max(at);
        if let Some(entry) = entry {
            log.apply(entry, wall_ms);
        }
    }

    /// Everything was restored: plans of jobs that are not done are compiled.
    pub(crate) fn restored(&mut self) {
        self.logs.iter_mut().for_each(|(job, log)| log.compile(*job));
    }

    /// Who had the job before says for how long there was no sign of life; `own` is what this node
    /// would say.
    pub(crate) fn was_idle(&mut self, job: JobId, now: Duration, idle: Duration, own: Duration) {
        if let Some(log) = self.logs.get_mut(&job)
            && (log.life.guessed || idle < own)
        {
            log.life = Life { before: idle, ..Life::now(now) };
        }
    }

    /// Drops all that is known of a job; returns whether anything was agreed to.
    pub(crate) fn forget(&mut self, job: JobId) -> bool {
        self.logs.remove(&job);
        self.agreed.remove(&job).is_some()
    }

    /// This node agrees that the job is over. It holds as soon as it is on disk; until then nothing may
    /// be taken in already.
    pub(crate) fn agree(&mut self, job: JobId, by: NodeId, number: u64, durable: bool) {
        self.agreed.entry(job).or_default().insert(by, (number, durable));
    }

    /// An agreement is on disk; returns whether it still stands.
    pub(crate) fn agreed_durably(&mut self, job: JobId, by: NodeId, number: u64) -> bool {
        let agreed = self.agreed.get_mut(&job).and_then(|all| all.get_mut(&by));
        let Some(agreed) = agreed.filter(|agreed| agreed.0 == number) else { return false };
        agreed.1 = true;
        true
    }

    /// What this node has agreed to.
    pub(crate) fn agreements(&self) -> impl Iterator<Item = Agreement> + '_ {
        self.agreed.iter().flat_map(|(job, all)| {
            let agreement = |(by, (number, durable)): (&NodeId, &(u64, bool))| Agreement {
                job: *job,
                by: *by,
                number: *number,
                durable: *durable,
            };
            all.iter().map(agreement)
        })
    }

    /// Whether this node agreed that the job is over, and knows no outcome: who proposed it.
    pub(crate) fn closed_by(&self, job: JobId) -> Option<NodeId> {
        self.agreed.get(&job)?.keys().next().copied()
    }

    /// Takes back what was agreed to; returns whether there was anything.
    pub(crate) fn reopen(&mut self, job: JobId, by: NodeId, number: u64) -> bool {
        let Some(agreed) = self.agreed.get_mut(&job) else { return false };
        let same = agreed.get(&by).is_some_and(|(held, _)| *held == number);
        if same {
            agreed.remove(&by);
        }
        if agreed.is_empty() {
            self.agreed.remove(&job);
        }
        same
    }
}

impl Index<JobId> for Jobs {
    type Output = JobLog;

    /// A job that is known.
    fn index(&self, job: JobId) -> &JobLog {
        &self.logs[&job]
    }
}

#[cfg(test)]
mod tests {
    use cortado_protocol::job::JobEntry;

    use super::*;

    const JOB: JobId = JobId(1);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_was_moved_here_is_no_sign_of_life_and_who_had_it_knows_better() {
        let mut jobs = Jobs::default();
        jobs.seen(JOB, seconds(5), true);
        assert!(jobs[JOB].life.guessed);
        jobs.was_idle(JOB, seconds(6), seconds(100), seconds(1));
        assert_eq!((jobs[JOB].life.before, jobs[JOB].life.guessed), (seconds(100), false));
        jobs.was_idle(JOB, seconds(6), seconds(200), seconds(100));
        assert_eq!(jobs[JOB].life.before, seconds(100), "the shorter one holds");
        jobs.seen(JOB, seconds(7), false);
        assert_eq!(jobs[JOB].life.before, Duration::ZERO);
    }

    #[test]
    fn a_job_is_closed_while_any_proposal_is_agreed_to() {
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        let mut jobs = Jobs::default();
        jobs.agree(JOB, a, 1, false);
        jobs.agree(JOB, b, 2, false);
        assert!(!jobs.agreed_durably(JOB, a, 9), "another proposal");
        assert!(jobs.agreed_durably(JOB, a, 1));
        assert!(!jobs.reopen(JOB, a, 9));
        assert!(jobs.reopen(JOB, a, 1) && jobs.closed_by(JOB) == Some(b));
        assert!(jobs.reopen(JOB, b, 2) && jobs.closed_by(JOB).is_none());
    }

    #[test]
    fn entries_may_come_in_any_order_and_again() {
        let mut jobs = Jobs::default();
        for entry in [JobEntry::TableEnd { table: 1, batches: 4 }, JobEntry::Cancel] {
            jobs.apply(JOB, seconds(1), 0, entry.clone());
            jobs.apply(JOB, seconds(2), 0, entry);
        }
        assert_eq!(jobs[JOB].ends, [None, Some(4)]);
        assert!(jobs[JOB].cancelled && !jobs.forget(JOB) && jobs.get(JOB).is_none());
    }
}
