//! Places in the queue: what a coordinator reports to the queue keeper and answers to mappers.

use std::time::Duration;

use bytes::Bytes;
use cortado_protocol::peer::{Admission, PeerMessage, PlaceWish};
use cortado_protocol::{JobId, NodeId, frame};

use super::round::Round;
use super::{Coordination, Next};
use crate::facts::Facts;
use crate::job::JobLog;
use crate::outbox::Outbox;

/// Pause between two reports.
const REPORT_EVERY: Duration = Duration::from_secs(1);

impl Coordination {
    /// Reports to the queue keeper which jobs hold a place or want one.
    pub(crate) fn report(&mut self, facts: &Facts, out: &mut Outbox) {
        let (now, idle) = (facts.now, facts.config.upload_idle);
        let wish = |(job, round): (&JobId, &Round)| {
            let log = facts.jobs.get(*job)?;
            // Without a specification there is no time of submission, by which the queue is ordered.
            log.brief.as_ref().filter(|brief| !brief.is_stream())?;
            let wants = log.ended().is_none() && !round.is_idle(now, idle, log);
            wants.then(|| PlaceWish {
                job: *job,
                client: round.client,
                submitted_ms: log.submitted_ms,
                running: round.runs(),
            })
        };
        let jobs: Vec<_> = self.rounds.iter().filter_map(wish).collect();
        if jobs.is_empty() && !self.reported_any {
            return;
        }
        self.reported_any = !jobs.is_empty();
        self.reported_at = now;
        out.send(facts.queue_keeper(), PeerMessage::Admit { jobs });
    }

    pub(crate) fn tick_report(&mut self, facts: &Facts, out: &mut Outbox) {
        if facts.now >= self.reported_at + REPORT_EVERY {
            self.report(facts, out);
        }
    }

    /// The members changed, and perhaps the queue keeper with them.
    pub(crate) fn report_after_change(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        new_keeper: bool,
    ) {
        // A new keeper waits for a report of every member, even an empty one.
        self.reported_any |= new_keeper;
        self.report(facts, out);
    }

    /// A mapper has batches of the job and asks for its specification.
    pub(crate) fn on_job_wanted(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        from: NodeId,
        job: JobId,
        client: u64,
    ) -> Next {
        if let Some(round) = self.rounds.get_mut(&job) {
            (round.client, round.client_at) = (client, facts.now);
        }
        self.tell_mapper(facts, out, from, job)
    }

    /// Answers a mapper: the job's specification, and whether it takes batches.
    pub(crate) fn tell_mapper(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        to: NodeId,
        job: JobId,
    ) -> Next {
        let ended = facts.jobs.get(job).and_then(JobLog::ended);
        let plan = facts.plan_of(job);
        let (admission, tail) = if let Some(error) = ended {
            (Admission::Ended(error), Bytes::new())
        } else if let Some(plan) = plan.filter(|_| facts.is_coordinator(job)) {
            let round = self.open(facts.now, job);
            let place = if plan.stream.is_some() { Some(0) } else { round.place };
            match place {
                Some(0) => {
                    let schemas = facts.jobs.get(job).map(|log| &log.stream.schemas);
                    let schemas: Vec<_> = schemas.into_iter().flatten().collect();
                    (Admission::Running, frame::to_postcard(&(&plan.spec, schemas)))
                }
                Some(position) => (Admission::Queued { position }, Bytes::new()),
                None => {
                    round.wanted_by.insert(to);
                    return self.drive(facts, out, job);
                }
            }
        } else {
            (Admission::Unknown, Bytes::new())
        };
        out.send_with(to, PeerMessage::JobIs { job, admission }, tail);
        Next::Nothing
    }

    /// The queue keeper has given the job a place.
    pub(crate) fn on_admitted(
        &mut self,
        facts: &Facts,
        out: &mut Outbox,
        job: JobId,
        place: u32,
    ) -> Next {
        let Some(round) = self.rounds.get_mut(&job) else { return Next::Nothing };
        // A running job never returns to the queue.
        if round.place != Some(0) {
            round.place = Some(place);
        }
        for mapper in std::mem::take(&mut round.wanted_by) {
            let next = self.tell_mapper(facts, out, mapper, job);
            debug_assert!(
                matches!(next, Next::Nothing),
                "it has a place: nobody else is to hear of it"
            );
        }
        self.drive(facts, out, job)
    }
}
