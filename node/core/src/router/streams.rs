//! Streams: their coordinator, and the clients that ask about them.

use cortado_protocol::client::{ClientResponse, ErrorKind};
use cortado_protocol::stream::{StreamRequest, StreamResponse};
use cortado_protocol::{JobId, SlotSet};
use cortado_stream::OutputRow;

use super::Core;
use crate::answers::answer;
use crate::purpose::Origin;
use crate::replicate::Asker;
use crate::slot_tasks::{Kind, Wanted};
use crate::stream_task::StreamOutput;
use crate::streams;
use crate::streams::requests::Answer;
use crate::task::TaskOutput;

impl Core {
    /// Leads on what streams want done.
    pub(super) fn lead_streams(&mut self, next: streams::Next) {
        match next {
            streams::Next::Nothing => {}
            streams::Next::Replicate(entry) => self.replicate(*entry, Asker::Coordinator),
            streams::Next::Gather { job, attempt, needs } => {
                let wanted = Wanted { job, slots: SlotSet::META, needs, kind: Kind::Gather };
                self.start_work((self.facts.config.node, attempt), wanted);
            }
        }
    }

    /// A client asks about a stream that this node coordinates. What it wants recorded is answered
    /// once it is durable.
    pub(super) fn on_stream_request(
        &mut self,
        (origin, job): (Origin, JobId),
        request: StreamRequest,
    ) {
        match self.streams.on_request(&self.facts, &mut self.out, (origin, job), request) {
            Answer::Now(response) => answer(&mut self.out, origin, *response),
            Answer::Later => {}
            Answer::Record(entry) => {
                let next = self.answers.record(origin, job, *entry);
                self.lead_answers(next);
            }
        }
    }

    /// A row was read that a client wants delivered once more.
    pub(super) fn deliver_again(&mut self, origin: Origin, job: JobId, output: TaskOutput) {
        let response = match output {
            TaskOutput::Stream(StreamOutput::Row(place, Some(OutputRow { output, json }))) => {
                let row = (place, output.as_str(), json);
                match self.streams.deliver_again(&self.facts, &mut self.out, job, row) {
                    true => ClientResponse::Stream(StreamResponse::Sending),
                    false => {
                        let message = format!("no webhook of the stream gets rows of '{output}'");
                        ClientResponse::error(ErrorKind::NotFound, message)
                    }
                }
            }
            _ => ClientResponse::error(ErrorKind::NotFound, "there is no such row"),
        };
        answer(&mut self.out, origin, response);
    }

    /// An attempt to deliver a row to a webhook has ended.
    pub(super) fn on_delivered(&mut self, of: (JobId, u64), result: Result<(), String>) {
        self.streams.on_delivered(&self.facts, &mut self.out, of, result);
        let next = self.streams.drive(&self.facts, &mut self.out, of.0);
        self.lead_streams(next);
    }

    /// Whether a coordinator here works on a job: then it is alive, however long that takes.
    pub(super) fn works(&self, job: JobId) -> bool {
        self.coordination.works(job) || self.streams.works(job)
    }
}
