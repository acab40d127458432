//! Sends answers to the nodes whose clients asked.

use bytes::Bytes;
use cortado_protocol::client::{ClientResponse, ErrorKind};
use cortado_protocol::job::JobEntry;
use cortado_protocol::stream::StreamResponse;
use cortado_protocol::{META_SLOT, frame};
use cortado_stream::DeadLetter;

use crate::job::job_entry;
use crate::outbox::Outbox;
use crate::purpose::Origin;
use crate::stream_task::StreamOutput;
use crate::task::TaskOutput;

/// Answers a client's request, without a tail.
pub(crate) fn answer(out: &mut Outbox, origin: Origin, response: ClientResponse) {
    out.answer(origin, response, Bytes::new());
}

/// Sends a chunk of a result that was read.
pub(crate) fn on_chunk(out: &mut Outbox, origin: Origin, output: TaskOutput) {
    match output {
        TaskOutput::Entries(entries) => {
            let bytes = entries.first().and_then(|entry| entry.delta(META_SLOT));
            out.answer(origin, ClientResponse::Chunk, bytes.unwrap_or_default());
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

/// Sends how a stream stood at its end.
pub(crate) fn on_stream_summary(out: &mut Outbox, origin: Origin, output: TaskOutput) {
    let TaskOutput::Entries(entries) = output else {
        return answer(out, origin, damaged());
    };
    let bytes = entries.first().and_then(|entry| entry.delta(META_SLOT)).unwrap_or_default();
    let response = match serde_json::from_slice(&bytes) {
        Ok(status) => ClientResponse::Stream(StreamResponse::Status(Box::new(status))),
        Err(_) => damaged(),
    };
    answer(out, origin, response);
}

/// Sends rows that a stream has published.
pub(crate) fn on_rows(out: &mut Outbox, origin: Origin, output: TaskOutput) {
    match output {
        TaskOutput::Stream(StreamOutput::Rows { rows, cursor, ended, gone }) => {
            let response = ClientResponse::Stream(StreamResponse::Rows { ended, cursor, gone });
            out.answer(origin, response, frame::to_postcard(&rows));
        }
        TaskOutput::Stream(StreamOutput::Cut(cut)) => {
            let response = StreamResponse::Cut(cut.edges().collect());
            answer(out, origin, ClientResponse::Stream(response));
        }
        TaskOutput::Stream(StreamOutput::Dead(Some(letter))) => {
            let DeadLetter { reason, path, raw, .. } = letter;
            let response = ClientResponse::Stream(StreamResponse::Dead { reason, path });
            out.answer(origin, response, raw);
        }
        // A row that was not delivered; why not stands in its dead letter.
        TaskOutput::Stream(StreamOutput::Row(_, Some(row))) => {
            let (reason, path) = ("not delivered".to_owned(), String::new());
            let response = ClientResponse::Stream(StreamResponse::Dead { reason, path });
            out.answer(origin, response, row.json.into());
        }
        TaskOutput::Stream(StreamOutput::Dead(None) | StreamOutput::Row(_, None)) => {
            let message = "there is no dead letter at this place; a conflict is a valid event";
            answer(out, origin, ClientResponse::error(ErrorKind::NotFound, message));
        }
        TaskOutput::Unreadable(_) => answer(out, origin, damaged()),
        TaskOutput::Failed(message) => {
            answer(out, origin, ClientResponse::error(ErrorKind::Ended, message));
        }
        other => tracing::error!(?other, "reading rows gave something else"),
    }
}

fn damaged() -> ClientResponse {
    ClientResponse::error(ErrorKind::Unavailable, "a record was damaged; refilling")
}
