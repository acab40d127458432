//! Writes generations to disk for the driver. No datagram leaves before the generation that it may
//! mention is durable. The node receives and handles datagrams meanwhile, also while the disk
//! hangs.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use cortado_protocol::NodeId;
use tokio::task::JoinHandle;

use super::types::Memory;

/// Datagrams held back at most; beyond this number the oldest is dropped.
const HELD: usize = 256;

/// A datagram: its address, the node that must be there, its bytes.
pub(super) type Datagram = (SocketAddr, Option<NodeId>, Bytes);

/// Holds datagrams back while a generation is written.
pub(super) struct Saving {
    memory: Arc<dyn Memory>,
    /// Writes one generation.
    task: Option<JoinHandle<io::Result<()>>>,
    /// The generation to write afterwards.
    next: Option<u64>,
    held: VecDeque<Datagram>,
}

impl Saving {
    pub(super) fn new(memory: Arc<dyn Memory>) -> Self {
        Self { memory, task: None, next: None, held: VecDeque::new() }
    }

    /// Writes a generation. Of several that wait, only the newest is written.
    pub(super) fn save(&mut self, generation: u64) {
        if self.task.is_some() {
            self.next = Some(generation);
            return;
        }
        let memory = Arc::clone(&self.memory);
        self.task = Some(tokio::task::spawn_blocking(move || memory.persist(generation)));
    }

    /// Whether datagrams are held back.
    pub(super) const fn is_busy(&self) -> bool {
        self.task.is_some()
    }

    /// Holds a datagram back until all generations are written.
    pub(super) fn hold(&mut self, datagram: Datagram) {
        if self.held.len() == HELD {
            self.held.pop_front();
        }
        self.held.push_back(datagram);
    }

    /// Waits until a generation is written; for ever if none is being written. Dropping the future
    /// loses nothing.
    pub(super) async fn written(&mut self) -> io::Result<()> {
        let Some(task) = &mut self.task else { return std::future::pending().await };
        let written = task.await.map_err(io::Error::other).flatten();
        self.task = None;
        if let Some(next) = self.next.take() {
            self.save(next);
        }
        written
    }

    /// The datagrams that may be sent now.
    pub(super) fn released(&mut self) -> VecDeque<Datagram> {
        if self.is_busy() { VecDeque::new() } else { std::mem::take(&mut self.held) }
    }
}
