//! Jobs: their coordinator, the clients that wait for them, and the tasks of both.

use cortado_protocol::JobId;
use cortado_protocol::SlotSet;
use cortado_protocol::client::{ClientRequest, ClientResponse};

use super::Core;
use crate::answers::{self, answer};
use crate::coordination::{self, Coordination};
use crate::facts::Facts;
use crate::job::{job_log_entry, up_to};
use crate::progress::Progress;
use crate::purpose::{Origin, Purpose, WorkKey};
use crate::replicate::Asker;
use crate::slot_tasks::{Kind, Wanted};
use crate::task::TaskOutput;

/// How far jobs are, for the answers to clients.
pub(super) fn progress_of(
    facts: &Facts,
    coordination: &Coordination,
) -> impl Fn(JobId) -> Option<Progress> {
    |job| coordination.progress(facts, job)
}

impl Core {
    /// The keeper's word on the place of a job.
    pub(crate) fn on_admitted(&mut self, job: JobId, place: u32) {
        let next = self.coordination.on_admitted(&self.facts, &mut self.out, job, place);
        self.lead_coordination(next);
    }

    /// Leads on what coordination wants done.
    pub(super) fn lead_coordination(&mut self, next: coordination::Next) {
        use coordination::Next::{Ended, Gather, News, Nothing, Replicate, Resigned};
        match next {
            Nothing => {}
            Replicate(entries) => {
                for entry in entries {
                    self.replicate(entry, Asker::Coordinator);
                }
            }
            Gather { job, attempt, ends } => {
                let needs = up_to(&ends);
                let wanted = Wanted { job, slots: SlotSet::META, needs, kind: Kind::Gather };
                self.start_work((self.facts.config.node, attempt), wanted);
            }
            News(job) => self.tell_clients(job),
            Ended { job, mappers, freed, news } => {
                self.tell_clients(job);
                if news {
                    self.say_ended_to_all(job);
                }
                for mapper in mappers {
                    let next =
                        self.coordination.tell_mapper(&self.facts, &mut self.out, mapper, job);
                    self.lead_coordination(next);
                }
                if freed {
                    // Its place goes to the next in the queue.
                    self.coordination.report(&self.facts, &mut self.out);
                }
            }
            Resigned(job) => self.answers.resigned(&mut self.out, job),
        }
    }

    fn tell_clients(&mut self, job: JobId) {
        self.answers.news(
            &self.facts,
            &mut self.out,
            &progress_of(&self.facts, &self.coordination),
            job,
        );
    }

    /// Some node's client asks this coordinator.
    pub(super) fn on_ask(&mut self, origin: Origin, request: ClientRequest) {
        let next = self.answers.on_ask(
            &self.facts,
            &mut self.out,
            &progress_of(&self.facts, &self.coordination),
            origin,
            request,
        );
        self.lead_answers(next);
    }

    /// Leads on what answers want done.
    pub(super) fn lead_answers(&mut self, next: answers::Next) {
        use answers::Next::{CaughtUp, Coordinate, Delete, Drain, Nothing, Record, Stream};
        match next {
            Nothing => {}
            Record { job, entry } => {
                self.coordination.open(self.facts.now, job);
                self.replicate(job_log_entry(job, &entry), Asker::Coordinator);
            }
            Coordinate(job) => {
                self.coordination.open(self.facts.now, job);
            }
            Delete(job) => {
                self.coordination.open(self.facts.now, job);
                self.expiry.delete(&self.facts, &mut self.out, job);
            }
            Stream { origin, job, request } => self.on_stream_request((origin, job), *request),
            Drain(origin) => {
                self.start_draining();
                answer(&mut self.out, origin, ClientResponse::Accepted);
            }
            CaughtUp { job, requests } => {
                if self.facts.knows(job) {
                    self.coordination.open(self.facts.now, job);
                }
                for (origin, request) in requests {
                    let (facts, out, of) = (&self.facts, &mut self.out, (origin, job));
                    let next = self.answers.on_job_request(
                        facts,
                        out,
                        &progress_of(&self.facts, &self.coordination),
                        of,
                        request,
                        true,
                    );
                    self.lead_answers(next);
                }
            }
        }
    }

    pub(super) fn tick_catch_up(&mut self) {
        for job in self.answers.searched() {
            let next = self.answers.go_on(&self.facts, &mut self.out, job);
            self.lead_answers(next);
        }
    }

    pub(super) fn tick_coordination(&mut self) {
        for job in self.coordination.jobs() {
            self.answers.overdue(
                &self.facts,
                &mut self.out,
                &progress_of(&self.facts, &self.coordination),
                job,
            );
            let next = self.coordination.drive(&self.facts, &mut self.out, job);
            self.lead_coordination(next);
        }
        self.streams.tick(&self.facts, &mut self.out);
        for job in self.streams.jobs() {
            let next = self.streams.drive(&self.facts, &mut self.out, job);
            self.lead_streams(next);
        }
        self.coordination.retire(&self.facts, |job| self.answers.waits(job));
        self.answers.retire(|job| self.coordination.has(job));
    }

    pub(crate) fn start_work(&mut self, key: WorkKey, wanted: Wanted) {
        let losses = self.links.losses(key.0);
        self.slot_tasks.start(&self.facts, &mut self.out, key, wanted, losses);
    }

    /// A task's output goes to whoever wanted it. Records it could not read count as missing from here
    /// on, whoever that is.
    pub(super) fn on_task_done(&mut self, id: u64, output: TaskOutput) {
        let Some(purpose) = self.tasks.remove(&id) else { return };
        if let TaskOutput::Unreadable(entries) = &output {
            self.facts.ledger.unreadable(entries);
        }
        match purpose {
            Purpose::Map(mapping) => match output {
                TaskOutput::Mapped(mapped) => self.on_mapped(mapping, mapped),
                other => tracing::error!(?other, "mapping gave something else"),
            },
            Purpose::Work(key) => {
                let losses = self.links.losses(key.0);
                self.slot_tasks.on_task(&self.facts, &mut self.out, key, losses, output);
            }
            Purpose::Coordinate(job) => {
                let next = self.coordination.on_task(&self.facts, &mut self.out, job, output);
                self.lead_coordination(next);
            }
            Purpose::Fetch(fetch) => {
                let idle_ms = self.idle_ms(fetch.job);
                fetch.send(&mut self.out, output, idle_ms);
            }
            Purpose::Chunk(origin) => answers::on_chunk(&mut self.out, origin, output),
            Purpose::Spec(origin) => answers::on_spec(&mut self.out, origin, output),
            Purpose::Rejects(origin) => answers::on_rejects(&mut self.out, origin, output),
            Purpose::StreamSummary(origin) => {
                answers::on_stream_summary(&mut self.out, origin, output);
            }
            Purpose::Rows(origin) => answers::on_rows(&mut self.out, origin, output),
            Purpose::Deliver(job, webhook) => {
                let of = (job, webhook);
                self.streams.on_delivery_rows(&self.facts, &mut self.out, of, output);
            }
            Purpose::DeliverAgain(origin, job) => self.deliver_again(origin, job, output),
            Purpose::Stream(job) => {
                let next = self.streams.on_task(&self.facts, &mut self.out, job, output);
                self.lead_streams(next);
            }
        }
    }
}
