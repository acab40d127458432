//! Connections that peers opened: exchanges greetings, reads messages, writes acknowledgements.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cortado_protocol::NodeId;
use cortado_protocol::frame::encode;
use cortado_protocol::limits::PEER_FRAME_BYTES;
use cortado_protocol::peer::{Hello, LinkFrame};
use cortado_transport::{
    ConnectError, FrameReader, FrameWriter, Handshake, Identity, ReadError, Refusal, Side,
};
use quinn::Connection;
use tokio::sync::watch;

use super::dialler::{HELLO_TIMEOUT, lost};
use super::shared::{Answer, PeerEvent, Seat, Shared, Stopped};
use crate::lock::lock;

/// Serves one connection from its first packet to its end.
pub(super) async fn serve(shared: Arc<Shared>, handshake: Handshake) {
    let remote = handshake.remote_address();
    // A failed handshake was counted and logged already.
    let Ok((connection, identity)) = handshake.complete().await else { return };
    let Identity::Node { node, .. } = identity else { return };
    let greeted = tokio::time::timeout(HELLO_TIMEOUT, greet(&shared, node, &connection)).await;
    let greeted = greeted.unwrap_or_else(|_| Err(refused(Refusal::Timeout)));
    let (reader, writer, hello) = match greeted {
        Ok(greeted) => greeted,
        Err(error) => {
            let kind = error.refusal().unwrap_or(Refusal::Closed);
            shared.endpoint.refusals().note(kind, remote, &format_args!("{node}: {error}"));
            connection.close(kind.code(), b"greeting refused");
            return;
        }
    };
    let seat = take_seat(&shared, node, &connection);
    let _taken = seat.taken.lock().await;
    let conn = shared.next_conn.fetch_add(1, Ordering::Relaxed);
    let (answer, answers) = watch::channel(Answer::default());
    lock(&shared.inbound).insert(conn, answer);
    let mut code = 0u32.into();
    let report = async {
        shared.report(PeerEvent::Inbound { conn, hello }).await?;
        let reason = tokio::select! {
            // Ends the task also when the peer is replaced or gone.
            reason = connection.closed() => ConnectError::from(reason),
            reason = acknowledge(&shared, writer, answers, &connection) => reason,
            reason = read(&shared, conn, node, reader, &connection) => reason?,
        };
        if let ConnectError::Refused { refusal: kind @ Refusal::Misbehaved, side: Side::Us } =
            reason
        {
            shared.endpoint.refusals().note(kind, remote, &format_args!("{node}: {reason}"));
            // The code keeps the peer from sending the same frame for ever.
            code = kind.code();
        }
        tracing::info!(%node, %remote, conn, %reason, "inbound link closed");
        Ok::<(), Stopped>(())
    };
    let alive = report.await.is_ok();
    lock(&shared.inbound).remove(&conn);
    connection.close(code, b"closed");
    if alive {
        // If the core has ended, there is no receiver.
        let _ = shared.report(PeerEvent::InboundClosed { conn }).await;
    }
}

fn refused(refusal: Refusal) -> ConnectError {
    ConnectError::Refused { refusal, side: Side::Us }
}

async fn greet(
    shared: &Shared,
    node: NodeId,
    connection: &Connection,
) -> Result<(FrameReader, FrameWriter, Hello), ConnectError> {
    let (send, recv) = connection.accept_bi().await?;
    let mut writer = FrameWriter::new(send);
    let mut reader = FrameReader::new(recv, PEER_FRAME_BYTES);
    // The greeting is small; the limit of a peer's frames applies to the frames after it.
    if reader.peek_len().await.is_ok_and(|len| len > Some(super::dialler::SMALL_FRAME_BYTES)) {
        return Err(refused(Refusal::Misbehaved));
    }
    let hello = match reader.message::<Hello>().await {
        Ok(Some((hello, _))) => hello,
        Err(ReadError::Frame(_)) => return Err(refused(Refusal::Misbehaved)),
        Ok(None) | Err(ReadError::Lost(_)) => return Err(lost(connection)),
    };
    if let Err(refusal) = shared.check(&hello, node) {
        // This node's greeting shows the other side what differs.
        if writer.write(encode(&shared.hello(0), b"")).await.is_ok() {
            writer.finish();
            writer.delivered().await;
        }
        return Err(refused(refusal));
    }
    Ok((reader, writer, hello))
}

/// Makes this connection the peer's current one, and closes the older one.
fn take_seat(shared: &Shared, node: NodeId, connection: &Connection) -> Seat {
    let mut seats = lock(&shared.seats);
    let seat = seats.entry(node).or_default();
    if let Some(old) = seat.connection.replace(connection.clone()) {
        old.close(0u32.into(), b"replaced by a newer link");
    }
    seat.clone()
}

/// Writes the greeting, then each time the newest acknowledgement.
async fn acknowledge(
    shared: &Shared,
    mut writer: FrameWriter,
    mut answers: watch::Receiver<Answer>,
    connection: &Connection,
) -> ConnectError {
    let mut welcomed = false;
    let mut written = None;
    loop {
        let answer = *answers.borrow_and_update();
        if answer.refused {
            return ConnectError::Other("refused by this node".into());
        }
        if let Some(seq) = answer.welcome.filter(|_| !welcomed) {
            welcomed = true;
            if writer.write(encode(&shared.hello(seq), b"")).await.is_err() {
                return lost(connection);
            }
        }
        if let Some(next) = answer.ack.filter(|next| welcomed && written < Some(*next)) {
            written = Some(next);
            if writer.write(encode(&LinkFrame::Ack { next }, b"")).await.is_err() {
                return lost(connection);
            }
        }
        if answers.changed().await.is_err() {
            return lost(connection);
        }
    }
}

async fn read(
    shared: &Shared,
    conn: u64,
    from: NodeId,
    mut reader: FrameReader,
    connection: &Connection,
) -> Result<ConnectError, Stopped> {
    loop {
        match reader.message::<LinkFrame>().await {
            Ok(Some((LinkFrame::Message { seq, message, .. }, tail))) => {
                shared.report(PeerEvent::Message { conn, from, seq, message, tail }).await?;
            }
            Ok(Some(_)) | Err(ReadError::Frame(_)) => return Ok(refused(Refusal::Misbehaved)),
            Ok(None) | Err(ReadError::Lost(_)) => return Ok(lost(connection)),
        }
    }
}
