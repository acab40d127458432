//! This node's link to one peer: dials, exchanges greetings, writes messages, reads
//! acknowledgements, and starts over when the link is lost.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cortado_protocol::NodeId;
use cortado_protocol::frame::encode;
use cortado_protocol::peer::{Hello, LinkFrame};
use cortado_transport::{ConnectError, FrameReader, FrameWriter, ReadError, Refusal, Side};
use quinn::Connection;
use tokio::sync::{mpsc, watch};

use super::shared::{Link, PeerEvent, Shared, Stopped};
use crate::lock::lock;

/// Largest frame that a listener sends: a greeting or an acknowledgement.
pub(super) const SMALL_FRAME_BYTES: usize = 4 << 10;
/// Time limit for the other side's greeting.
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Frames written at once.
const WRITE_BATCH: usize = 64;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A link on which both sides have greeted.
struct Greeted {
    connection: Connection,
    reader: FrameReader,
    writer: FrameWriter,
    hello: Hello,
    /// The lowest number that this node's greeting named.
    resume: u64,
}

/// Keeps a link to `peer` while `target` has an address. Ends when the core does.
pub(super) async fn keep_link(
    shared: Arc<Shared>,
    peer: NodeId,
    mut target: watch::Receiver<Option<SocketAddr>>,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let Ok(address) = target.wait_for(Option::is_some).await.map(|address| *address) else {
            return;
        };
        let Some(address) = address else { continue };
        // `wait_for` has marked the present address as seen; `changed` reports only later ones.
        let greeted = tokio::select! {
            greeted = greet(&shared, peer, address) => greeted,
            changed = target.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        match greeted {
            Ok(link) => {
                pause = FIRST_PAUSE;
                if run(&shared, peer, address, link, &mut target).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                let kind = error.refusal().unwrap_or(Refusal::Closed);
                shared.dial_refusals.note(kind, address, &format_args!("{peer}: {error}"));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(jittered(pause)) => {}
            // Dials a new address at once.
            changed = target.changed() => if changed.is_err() { return },
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// A random time from half the pause to all of it, so that nodes do not dial at the same moment.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(0u8);
    pause / 2 + (pause / 2).mul_f64(random as f64 / u64::MAX as f64)
}

async fn greet(
    shared: &Shared,
    peer: NodeId,
    address: SocketAddr,
) -> Result<Greeted, ConnectError> {
    let connection = shared.endpoint.dial(address, Some(peer)).await?;
    let refuse = |refusal: Refusal| {
        connection.close(refusal.code(), b"greeting refused");
        ConnectError::Refused { refusal, side: Side::Us }
    };
    let greeting = async {
        let (send, recv) = connection.open_bi().await?;
        let mut writer = FrameWriter::new(send);
        let mut reader = FrameReader::new(recv, SMALL_FRAME_BYTES);
        let resume = (shared.resume)(peer);
        let sent = writer.write(encode(&shared.hello(resume), b"")).await;
        let hello = match reader.message::<Hello>().await {
            Ok(Some((hello, _))) if sent.is_ok() => hello,
            Err(ReadError::Frame(_)) => return Err(refuse(Refusal::Misbehaved)),
            // The connection has the exact reason of its loss.
            _ => return Err(lost(&connection)),
        };
        shared.check(&hello, peer).map_err(refuse)?;
        Ok(Greeted { connection: connection.clone(), reader, writer, hello, resume })
    };
    match tokio::time::timeout(HELLO_TIMEOUT, greeting).await {
        Ok(greeted) => greeted,
        Err(_) => Err(refuse(Refusal::Timeout)),
    }
}

pub(super) fn lost(connection: &Connection) -> ConnectError {
    let closed = ConnectError::Refused { refusal: Refusal::Closed, side: Side::Them };
    connection.close_reason().map_or(closed, ConnectError::from)
}

/// Reports `LinkUp`, carries frames until the link is lost or its target has changed, and reports
/// `LinkDown`.
async fn run(
    shared: &Shared,
    peer: NodeId,
    address: SocketAddr,
    link: Greeted,
    target: &mut watch::Receiver<Option<SocketAddr>>,
) -> Result<(), Stopped> {
    let Greeted { connection, reader, writer, hello, resume } = link;
    let (queue, queued) = mpsc::unbounded_channel();
    lock(&shared.links).insert(peer, Link { queue, next: hello.seq.max(resume) });
    tracing::info!(%peer, %address, boot = hello.boot, "link up");
    shared.report(PeerEvent::LinkUp { peer, hello }).await?;
    let reason = tokio::select! {
        reason = write(writer, queued, &connection) => Ok(reason.to_string()),
        reason = read(shared, peer, reader, &connection) => reason,
        // It fails only when the sender of targets is gone.
        _ = target.wait_for(|wanted| *wanted != Some(address)) => {
            connection.close(0u32.into(), b"no longer wanted");
            Ok("no longer wanted".into())
        }
    };
    lock(&shared.links).remove(&peer);
    tracing::info!(%peer, reason = reason.as_deref().unwrap_or("stopping"), "link down");
    reason?;
    let by_them = ConnectError::Refused { refusal: Refusal::Misbehaved, side: Side::Them };
    let refused = lost(&connection) == by_them;
    shared.report(PeerEvent::LinkDown { peer, refused }).await
}

async fn write(
    mut writer: FrameWriter,
    mut queued: mpsc::UnboundedReceiver<Bytes>,
    connection: &Connection,
) -> ConnectError {
    let mut frames = Vec::with_capacity(WRITE_BATCH);
    loop {
        if queued.recv_many(&mut frames, WRITE_BATCH).await == 0
            || writer.write_many(&mut frames).await.is_err()
        {
            return lost(connection);
        }
        frames.clear();
    }
}

async fn read(
    shared: &Shared,
    peer: NodeId,
    mut reader: FrameReader,
    connection: &Connection,
) -> Result<String, Stopped> {
    loop {
        match reader.message::<LinkFrame>().await {
            Ok(Some((LinkFrame::Ack { next }, _))) => {
                shared.report(PeerEvent::LinkAck { peer, next }).await?;
            }
            Ok(Some(_)) | Err(ReadError::Frame(_)) => {
                connection.close(Refusal::Misbehaved.code(), b"not an acknowledgement");
                return Ok("what came back was no acknowledgement".into());
            }
            Ok(None) | Err(ReadError::Lost(_)) => return Ok(lost(connection).to_string()),
        }
    }
}
