//! An upload: reads batches, and writes their answers in any order.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Instant;

use bytes::Bytes;
use cortado_protocol::client::{BatchOutcome, BatchReply, ClientError, ErrorKind};
use cortado_protocol::frame::encode;
use cortado_protocol::job::BatchHeader;
use cortado_protocol::limits::BATCH_BYTES;
use cortado_protocol::{JobId, content_hash};
use cortado_transport::{FrameReader, FrameWriter};
use tokio::sync::mpsc;

use super::gate::Room;
use super::shared::{
    BATCHES, ClientEvent, Ended, FRAME_TIMEOUT, Shared, Waiting, WaitingBatch, next_ticket, report,
};
use crate::lock::lock;

/// Answers written at once.
const WRITE_BATCH: usize = 64;

/// The job and the client of an upload.
#[derive(Clone, Copy)]
pub(super) struct Upload {
    pub(super) job: JobId,
    /// Hash of the client's name.
    pub(super) client: u64,
}

/// Serves an upload until the client has sent all and received all answers, or has left.
pub(super) async fn serve(
    shared: &Shared,
    upload: Upload,
    reader: FrameReader,
    writer: FrameWriter,
) -> Result<(), Ended> {
    let gone = writer.unwanted();
    let (answers, answered) = mpsc::unbounded_channel();
    let tickets = Mutex::new(HashSet::new());
    // The writer ends when the reader and all waiting batches have dropped their senders.
    let both = async {
        tokio::try_join!(read(shared, upload, reader, answers, &tickets), write(writer, answered))
    };
    let ended = tokio::select! {
        ended = both => ended.map(|_| ()),
        () = gone => Err(Ended::ClientLeft),
    };
    if ended.is_err() {
        let open: Vec<u64> = {
            let mut waiting = lock(&shared.waiting);
            lock(&tickets).drain().filter(|ticket| waiting.remove(ticket).is_some()).collect()
        };
        for ticket in open {
            report(shared, ClientEvent::ClientLeft { ticket }).await?;
        }
    }
    ended
}

async fn read(
    shared: &Shared,
    Upload { job, client }: Upload,
    mut reader: FrameReader,
    answers: mpsc::UnboundedSender<(Bytes, Room)>,
    tickets: &Mutex<HashSet<u64>>,
) -> Result<(), Ended> {
    while let Some(bytes) = reader.peek_len().await? {
        let room = shared.batches.enter(bytes).await;
        let frame = tokio::time::timeout(FRAME_TIMEOUT, reader.message::<BatchHeader>()).await;
        let frame = frame.map_err(|_| Ended::Misbehaved("a batch came too slowly".into()))??;
        let Some((header, payload)) = frame else { return Err(Ended::ClientLeft) };
        if let Some(reply) = refusal(&header, &payload) {
            // The receiver lives as long as this function.
            let _ = answers.send((encode(&reply, b""), room));
            continue;
        }
        let ticket = next_ticket(shared);
        {
            let mut waiting = lock(&shared.waiting);
            let (answers, since, bytes) = (answers.clone(), Instant::now(), payload.len());
            let batch = WaitingBatch { answers, room, since, bytes };
            waiting.insert(ticket, Waiting::Batch(batch));
            let mut tickets = lock(tickets);
            tickets.insert(ticket);
            // Removes answered tickets, seldom enough to cost little.
            if tickets.len() > 4 * BATCHES {
                tickets.retain(|ticket| waiting.contains_key(ticket));
            }
        }
        report(shared, ClientEvent::Batch { ticket, job, client, header, payload }).await?;
    }
    Ok(())
}

/// Returns an answer if the batch is too large or damaged.
fn refusal(header: &BatchHeader, payload: &Bytes) -> Option<BatchReply> {
    let message = if payload.len() > BATCH_BYTES {
        format!("a batch of {} bytes is over the limit of {BATCH_BYTES}", payload.len())
    } else if content_hash(payload) != header.content {
        "the batch was damaged on its way or in memory: its content does not match its hash".into()
    } else {
        return None;
    };
    let outcome = BatchOutcome::Refused(ClientError::new(ErrorKind::BadInput, message));
    Some(BatchReply { table: header.table, number: header.number, outcome })
}

async fn write(
    mut writer: FrameWriter,
    mut answered: mpsc::UnboundedReceiver<(Bytes, Room)>,
) -> Result<(), Ended> {
    let (mut batch, mut frames) = (Vec::new(), Vec::new());
    while answered.recv_many(&mut batch, WRITE_BATCH).await > 0 {
        frames.extend(batch.iter().map(|(frame, _)| frame.clone()));
        writer.write_many(&mut frames).await.map_err(|_| Ended::ClientLeft)?;
        frames.clear();
        batch.clear();
    }
    writer.finish();
    Ok(())
}
