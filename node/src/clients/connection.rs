//! One client's connection: accepts its streams and serves a request on each.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cortado_protocol::client::ClientRequest;
use cortado_protocol::limits::CLIENT_FRAME_BYTES;
use cortado_protocol::{client_key, frame};
use cortado_transport::{FrameReader, FrameWriter, Handshake, Refusal};
use quinn::{RecvStream, SendStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::chaos;

use super::shared::{ClientEvent, Ended, FRAME_TIMEOUT, Shared, Waiting, next_ticket, report};
use super::upload::{self, Upload};
use crate::lock::lock;

/// Serves one client from its first packet to its end.
pub(super) async fn serve(shared: Arc<Shared>, handshake: Handshake) {
    let remote = handshake.remote_address();
    // A failed handshake was counted and logged already.
    let Ok((connection, identity)) = handshake.complete().await else { return };
    tracing::debug!(%remote, %identity, "client connected");
    let client = client_key(&identity.to_string());
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_bi() => match stream {
                Ok((send, recv)) => {
                    streams.spawn(request(shared.clone(), client, send, recv));
                }
                Err(reason) => {
                    tracing::debug!(%remote, %identity, %reason, "client disconnected");
                    break;
                }
            },
            Some(ended) = streams.join_next() => match ended {
                Ok(Err(Ended::Misbehaved(what))) => {
                    let refusals = shared.endpoint.refusals();
                    refusals.note(Refusal::Misbehaved, remote, &what);
                    connection.close(Refusal::Misbehaved.code(), what.as_bytes());
                    break;
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "client request failed"),
            },
        }
    }
    // The streams fail with their connection; their tasks end and report it.
    while streams.join_next().await.is_some() {}
}

/// Serves one request.
async fn request(
    shared: Arc<Shared>,
    client: u64,
    send: SendStream,
    recv: RecvStream,
) -> Result<(), Ended> {
    let mut reader = FrameReader::with_buffers(recv, CLIENT_FRAME_BYTES, shared.buffers.clone());
    let writer = FrameWriter::new(send);
    let gone = writer.unwanted();
    tokio::pin!(gone);
    let Some(bytes) = reader.peek_len().await? else { return Ok(()) };
    let room = tokio::select! {
        room = shared.requests.enter(bytes) => room,
        () = &mut gone => return Err(Ended::ClientLeft),
    };
    let frame = tokio::time::timeout(FRAME_TIMEOUT, reader.message::<ClientRequest>()).await;
    let Some((request, _)) = frame.map_err(|_| Ended::ClientLeft)?? else { return Ok(()) };
    if let ClientRequest::Upload(job) = request {
        drop(room);
        return upload::serve(&shared, Upload { job, client }, reader, writer).await;
    }
    if let ClientRequest::Log { boot, after, wait_ms } = request {
        drop(room);
        let wait = Duration::from_millis(wait_ms.into());
        let response = tokio::select! {
            response = shared.history.after(boot, after, wait) => response,
            () = &mut gone => return Err(Ended::ClientLeft),
        };
        return answer(writer, frame::encode(&response, b"")).await;
    }
    if let ClientRequest::Chaos(order) = request {
        let response = chaos::obey(shared.chaos.as_ref(), order, &shared.history);
        return answer(writer, frame::encode(&response, b"")).await;
    }
    let ticket = next_ticket(&shared);
    let (sender, answered) = oneshot::channel();
    lock(&shared.waiting).insert(ticket, Waiting::Request(sender));
    report(&shared, ClientEvent::Request { ticket, request }).await?;
    tokio::select! {
        frame = answered => {
            // The sender is dropped only after an answer, or when the node stops.
            answer(writer, frame.map_err(|_| Ended::Stopped)?).await
        }
        () = &mut gone => {
            if lock(&shared.waiting).remove(&ticket).is_some() {
                report(&shared, ClientEvent::ClientLeft { ticket }).await?;
            }
            Err(Ended::ClientLeft)
        }
    }
}

/// Writes the only answer on a stream.
async fn answer(mut writer: FrameWriter, frame: Bytes) -> Result<(), Ended> {
    writer.write(frame).await.map_err(|_| Ended::ClientLeft)?;
    writer.finish();
    Ok(())
}
