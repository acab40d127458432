//! The upload stream to one node: sends batches, and receives replies in any order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cortado_protocol::client::{BatchReply, ClientRequest};
use cortado_protocol::{JobId, NodeId, frame};
use tokio::sync::mpsc;

use crate::Cluster;
use crate::dataset::Batch;

/// How long a node may take for a reply before its link is given up. Nodes answer "not now" much
/// sooner.
const REPLY_TIMEOUT: Duration = Duration::from_secs(15);

/// An event of a link.
#[derive(Debug)]
pub(super) enum LinkEvent {
    /// The link is open: batches may be sent.
    Up(NodeId),
    /// A reply.
    Reply(NodeId, BatchReply),
    /// The link is lost, and with it all missing replies.
    Down(NodeId, String),
}

/// Runs a link until it is lost or `batches` closes.
pub(super) async fn run(
    cluster: Arc<Cluster>,
    job: JobId,
    node: NodeId,
    addr: SocketAddr,
    batches: mpsc::Receiver<Batch>,
    events: mpsc::Sender<LinkEvent>,
) {
    let reason = match exchange(&cluster, job, node, addr, batches, &events).await {
        Ok(()) => return,
        Err(reason) => reason,
    };
    // Fails only if the upload is over.
    let _ = events.send(LinkEvent::Down(node, reason)).await;
}

async fn exchange(
    cluster: &Cluster,
    job: JobId,
    node: NodeId,
    addr: SocketAddr,
    mut batches: mpsc::Receiver<Batch>,
    events: &mpsc::Sender<LinkEvent>,
) -> Result<(), String> {
    let (mut writer, mut reader) = cluster.open(addr).await.map_err(|error| error.to_string())?;
    let request = frame::encode(&ClientRequest::Upload(job), &[]);
    writer.write(request).await.map_err(|error| error.to_string())?;
    let _ = events.send(LinkEvent::Up(node)).await;

    let owed = AtomicUsize::new(0);
    let write = async {
        while let Some(batch) = batches.recv().await {
            owed.fetch_add(1, Ordering::Relaxed);
            let head = frame::encode_head(&batch.header, batch.payload.len());
            let mut frame = [head, batch.payload];
            writer.write_many(&mut frame).await.map_err(|error| error.to_string())?;
        }
        writer.finish();
        Ok(())
    };
    let read = async {
        loop {
            let before = owed.load(Ordering::Relaxed);
            match tokio::time::timeout(REPLY_TIMEOUT, reader.message::<BatchReply>()).await {
                Ok(Ok(Some((reply, _)))) => {
                    let _ = owed
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
                    if events.send(LinkEvent::Reply(node, reply)).await.is_err() {
                        return Ok(());
                    }
                }
                Ok(Ok(None)) => return Err("the node closed the upload".to_owned()),
                Ok(Err(error)) => return Err(error.to_string()),
                Err(_) if before > 0 => {
                    cluster.disconnect(addr);
                    return Err(format!("no reply for {} s", REPLY_TIMEOUT.as_secs()));
                }
                Err(_) => {}
            }
        }
    };
    tokio::select! {
        result = write => result,
        result = read => result,
    }
}
