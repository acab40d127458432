//! The state that the tasks of all clients share, and the events that they report to the core.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cortado_protocol::JobId;
use cortado_protocol::client::{ClientRequest, ClientResponse};
use cortado_protocol::job::BatchHeader;
use cortado_transport::{BufferPool, Endpoint, ReadError};
use tokio::sync::{mpsc, oneshot};

use super::gate::{Gate, Room};
use crate::chaos::Chaos;
use crate::history::History;
use crate::meters::Meters;

/// Batches read and not yet answered.
pub(super) const BATCHES: usize = 64;
/// How long a frame may take from its first byte to its last: it occupies room meanwhile.
pub(super) const FRAME_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a stream ends early.
#[derive(Debug)]
pub(super) enum Ended {
    /// The client has left, or wants no answer.
    ClientLeft,
    /// The client broke the protocol.
    Misbehaved(String),
    /// The node stops.
    Stopped,
}

impl From<Stopped> for Ended {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<ReadError> for Ended {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Frame(error) => Self::Misbehaved(error.to_string()),
            ReadError::Lost(_) => Self::ClientLeft,
        }
    }
}

/// What clients send to the core.
#[derive(Debug)]
pub enum ClientEvent {
    /// A request; answer with [`super::Clients::reply`].
    Request {
        /// Its ticket.
        ticket: u64,
        /// The request. Uploads, `Log` and `Chaos` are handled in this module and never get here.
        request: ClientRequest,
    },
    /// A batch, whose payload matches the hash in its header; answer with
    /// [`super::Clients::batch_reply`].
    Batch {
        /// Its ticket.
        ticket: u64,
        /// Its job.
        job: JobId,
        /// Hash of its client's name.
        client: u64,
        /// Its header.
        header: BatchHeader,
        /// Its bytes.
        payload: Bytes,
    },
    /// The client has left: nobody waits for this answer any more.
    ClientLeft {
        /// The request's or batch's ticket.
        ticket: u64,
    },
}

/// State shared by the tasks of all clients.
pub(super) struct Shared {
    pub(super) endpoint: Endpoint,
    pub(super) events: mpsc::Sender<ClientEvent>,
    pub(super) history: History,
    pub(super) chaos: Option<Chaos>,
    pub(super) meters: Arc<Meters>,
    pub(super) waiting: Mutex<HashMap<u64, Waiting>>,
    pub(super) next_ticket: AtomicU64,
    pub(super) requests: Gate,
    pub(super) batches: Gate,
    pub(super) buffers: BufferPool,
}

/// Where an answer goes.
pub(super) enum Waiting {
    Request(oneshot::Sender<Bytes>),
    /// The answer and its tail, for a part of this process.
    Inside(oneshot::Sender<(ClientResponse, Bytes)>),
    Batch(WaitingBatch),
}

/// A batch that waits for its answer.
pub(super) struct WaitingBatch {
    pub(super) answers: mpsc::UnboundedSender<(Bytes, Room)>,
    /// Given back when the answer is written.
    pub(super) room: Room,
    /// When it came.
    pub(super) since: Instant,
    /// Its size.
    pub(super) bytes: usize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "clients of {:?}", self.endpoint.local_addr())
    }
}

/// A new ticket for a request or batch.
pub(super) fn next_ticket(shared: &Shared) -> u64 {
    shared.next_ticket.fetch_add(1, Ordering::Relaxed)
}

/// The core takes no more events.
#[derive(Debug)]
pub(super) struct Stopped;

/// Reports an event to the core; waits while the core is behind.
pub(super) async fn report(shared: &Shared, event: ClientEvent) -> Result<(), Stopped> {
    shared.events.send(event).await.map_err(|_| Stopped)
}
