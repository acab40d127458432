//! Streams: their coordinator, and the clients that ask about them.

use cortado_protocol::stream::StreamRequest;
use cortado_protocol::{JobId, SlotSet};

use super::Core;
use crate::answers::answer;
use crate::purpose::Origin;
use crate::replicate::Asker;
use crate::slot_tasks::{Kind, Wanted};
use crate::streams;
use crate::streams::requests::Answer;

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

    /// Whether a coordinator here works on a job: then it is alive, however long that takes.
    pub(super) fn works(&self, job: JobId) -> bool {
        self.coordination.works(job) || self.streams.works(job)
    }
}
