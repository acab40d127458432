//! Sends answers to the nodes whose clients asked.

use bytes::Bytes;
use cortado_protocol::META_SLOT;
use cortado_protocol::client::{ClientResponse, ErrorKind};
use cortado_protocol::job::JobEntry;
use cortado_protocol::peer::PeerMessage;

use crate::job::job_entry;
use crate::outbox::Outbox;
use crate::purpose::Origin;
use crate::task::TaskOutput;

/// Answers a client's request through the node that sent it.
pub(crate) fn answer(out: &mut Outbox, origin: Origin, response: ClientResponse) {
    answer_with(out, origin, response, Bytes::new());
}

fn answer_with(out: &mut Outbox, origin: Origin, response: ClientResponse, tail: Bytes) {
    out.send_with(origin.0, PeerMessage::Answer { id: origin.1, response }, tail);
}

/// Sends a chunk of a result that was read.
pub(crate) fn on_chunk(out: &mut Outbox, origin: Origin, output: TaskOutput) {
    match output {
        TaskOutput::Entries(entries) => {
            let bytes = entries.first().and_then(|entry| entry.delta(META_SLOT));
            answer_with(out, origin, ClientResponse::Chunk, bytes.unwrap_or_default());
        }
        TaskOutput::Unreadable(_) => answer(out, origin, damaged()),
        other => tracing::error!(?other, "reading a chunk gave something else"),
    }
}

/// Sends a specification that was read.
pub(crate) fn on_spec(out: &mut Outbox, origin: Origin, output: TaskOutput) {
    let response = match output {
        TaskOutput::Entries(entries) => match entries.first().and_then(job_entry) {
            Some(JobEntry::Spec(spec)) => ClientResponse::Spec(spec),
            _ => damaged(),
        },
        TaskOutput::Unreadable(_) => damaged(),
        other => return tracing::error!(?other, "reading a specification gave something else"),
    };
    answer(out, origin, response);
}

/// Sends the rejected rows that were collected.
pub(crate) fn on_rejects(out: &mut Outbox, origin: Origin, output: TaskOutput) {
    let response = match output {
        TaskOutput::Rejects(rejects) => ClientResponse::Rejects(rejects),
        TaskOutput::Unreadable(_) => damaged(),
        TaskOutput::Failed(message) => ClientResponse::error(ErrorKind::Ended, message),
        other => return tracing::error!(?other, "collecting rejects gave something else"),
    };
    answer(out, origin, response);
}

fn damaged() -> ClientResponse {
    ClientResponse::error(ErrorKind::Unavailable, "a record was damaged; refilling")
}
