//! Asking slots: sends a job's slots to workers, and handles the answers.

use bytes::Bytes;
use cortado_engine::{largest_query, mebi};
use cortado_protocol::client::ErrorKind;
use cortado_protocol::job::Manifest;
use cortado_protocol::peer::{self, EdgeCoverage, Work};
use cortado_protocol::{JobId, META_SLOT, NodeId, Slot};

use super::round::{Phase, Round, Then};
use super::{Coordination, Next, RETRY_AFTER};
use crate::facts::Facts;
use crate::job::JobLog;
use crate::outbox::Outbox;
use crate::purpose::Purpose;
use crate::slot_round::SlotRound;
use crate::task::Task;

impl Coordination {
    pub(super) fn start_slots(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        job: JobId,
        rounds: Vec<SlotRound>,
        then: Then,
    ) {
        let round = self.open(facts.now, job);
        round.phase = Phase::Slots { rounds, then };
        round.missing.clear();
        self.ask_slots(facts, out, job);
    }

    /// Sends each open slot that no worker has to one of its owners, beginning with the first.
    pub(super) fn ask_slots(&mut self, facts: &Facts, out: &mut Outbox, job: JobId) {
        let Some(ends) = facts.jobs.get(job).and_then(JobLog::all_ends) else { return };
        let Some(round) = self.rounds.get_mut(&job) else { return };
        if facts.now < round.retry_at {
            return;
        }
        let mut news = false;
        for slots in round.slots_mut() {
            news |= slots.ask(facts, out, job, &ends);
        }
        if news {
            // The workers asked now report again what is missing.
            round.missing.clear();
        }
        self.go_on(facts, out, job);
    }

    /// Starts the next step when every slot has answered.
    fn go_on(&mut self, facts: &Facts, out: &mut Outbox, job: JobId) {
        let Some(round) = self.rounds.get_mut(&job) else { return };
        let Phase::Slots { rounds, .. } = &round.phase else { return };
        if rounds.iter().any(|slots| !slots.open.is_empty()) {
            return;
        }
        match std::mem::replace(&mut round.phase, Phase::Compute) {
            Phase::Slots { rounds, then: Then::Finish } => {
                let outputs = rounds.into_iter().flat_map(|slots| slots.done).collect();
                self.compute(facts, out, job, outputs);
            }
            Phase::Slots { rounds, then: Then::Join(state) } => {
                let mut rows = Vec::new();
                for SlotRound { work, done, .. } in rounds {
                    if let Work::Lookup { table } = work {
                        let table = usize::from(table);
                        rows.extend(done.into_iter().map(|(slot, bytes)| (table, slot, bytes)));
                    }
                }
                out.run(Task::Join { state, rows }, Purpose::Coordinate(job));
            }
            other => round.phase = other,
        }
    }

    /// A worker sends a part of a slot's output.
    pub(crate) fn on_output(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        (job, attempt, slot): (JobId, u64, Slot),
        part: (u32, u32),
        bytes: &Bytes,
    ) -> Next {
        let Some(round) = self.rounds.get_mut(&job) else { return Next::Nothing };
        if slot == META_SLOT {
            if matches!(round.phase, Phase::Collect { gather: Some(of) } if of == attempt) {
                round.phase = Phase::Collect { gather: None };
                round.missing.clear();
                return self.drive(facts, out, job);
            }
            return Next::Nothing;
        }
        for slots in round.slots_mut() {
            slots.take(attempt, slot, part, bytes.clone());
        }
        let next = self.check_outputs(facts, job);
        self.go_on(facts, out, job);
        next
    }

    /// Compares the outputs held for all jobs with the limit. If together they are too large, the
    /// job with the highest id (the youngest) drops its outputs and starts over after a pause; a
    /// job whose outputs alone are too large fails.
    fn check_outputs(&mut self, facts: &Facts, job: JobId) -> Next {
        let limit = facts.config.memory.outputs;
        let mut all = 0;
        let mut youngest = job;
        for (other, round) in &self.rounds {
            let held = round.output_bytes();
            all += held;
            if held > 0 {
                youngest = youngest.max(*other);
            }
        }
        if all <= limit {
            return Next::Nothing;
        }
        if self.output_bytes(job) > limit {
            let query = self.largest_output(facts, job);
            let message = format!(
                "query '{query}' has a result that does not fit: the outputs of its slots are more \
                 than {}, which is what a job's coordinator takes (see memory_mib); let it keep fewer rows, or \
                 give the nodes more memory",
                mebi(limit)
            );
            tracing::warn!(%job, %message, "failed a job");
            return self.close(facts, job, Manifest::Failed { message });
        }
        tracing::info!(job = %youngest, "gives its outputs back: there is no room for all of them");
        self.start_over(facts.now, youngest);
        Next::Nothing
    }

    /// Bytes of slots' outputs that are held for a job.
    pub(crate) fn output_bytes(&self, job: JobId) -> usize {
        self.rounds.get(&job).map_or(0, Round::output_bytes)
    }

    /// The query with the largest outputs, for a job whose outputs are here.
    fn largest_output(&self, facts: &Facts, job: JobId) -> String {
        let Some(plan) = facts.plan_of(job) else { return String::new() };
        let slots = self.rounds.get(&job).map(Round::slots).unwrap_or_default();
        let folds = slots.iter().filter(|slots| slots.work == Work::Fold);
        largest_query(&plan.plan, folds.flat_map(|slots| slots.done.values()))
    }

    /// A worker can't complete its slots: no node has what is missing, or its disk is full. First
    /// the next owners are asked. If all owners of these slots fail, the client has to send the
    /// missing batches again.
    pub(crate) fn on_incomplete(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        job: JobId,
        attempt: u64,
        missing: &[EdgeCoverage],
    ) -> Next {
        let placement = facts.placement(job);
        let Some(round) = self.rounds.get_mut(&job) else { return Next::Nothing };
        let is_last = match &mut round.phase {
            Phase::Collect { gather } if *gather == Some(attempt) => {
                *gather = None;
                true
            }
            Phase::Slots { rounds, .. } => {
                let asked_all = rounds.iter_mut().find_map(|slots| {
                    let of = slots.pass_on(attempt)?;
                    let all = |slot| slots.passed_on[&slot] >= placement.owners(slot).len();
                    Some(of.iter().all(all))
                });
                let Some(asked_all) = asked_all else { return Next::Nothing };
                asked_all
            }
            _ => return Next::Nothing,
        };
        if !is_last {
            self.ask_slots(facts, out, job);
            return Next::Nothing;
        }
        round.retry_at = facts.now + RETRY_AFTER;
        round.missing.retain(|before| missing.iter().all(|gap| gap.edge != before.edge));
        round.missing.extend_from_slice(missing);
        // One message limits how much the client is asked for at a time.
        round.missing = peer::first_page(std::mem::take(&mut round.missing));
        Next::News(job)
    }

    /// The work fails on every worker, so the job fails.
    pub(crate) fn on_work_failed(
        &mut self,
        facts: &Facts,
        job: JobId,
        attempt: u64,
        message: String,
    ) -> Next {
        let Some(round) = self.rounds.get_mut(&job) else { return Next::Nothing };
        if round.slots_mut().iter_mut().any(|slots| slots.give_up(attempt)) {
            tracing::error!(%job, %message, kind = ?ErrorKind::Ended, "slot work failed");
            return self.close(facts, job, Manifest::Failed { message });
        }
        Next::Nothing
    }

    /// A peer was restarted: it has lost its requests, so they are given up.
    pub(crate) fn after_restart(&mut self, peer: NodeId) {
        for slots in self.rounds.values_mut().flat_map(Round::slots_mut) {
            slots.give_up_of(|node| node == peer);
        }
    }
}
