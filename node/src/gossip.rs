//! The thread of the failure detector and the election. It has its own socket, so that bulk data
//! never delays a probe. [`cortado_membership::Membership`] decides; this module carries datagrams,
//! reads clocks, looks up seeds, and persists generations and known peers. The node's start creates
//! it.

mod driver;
mod links;
mod saving;
mod seeds;
#[cfg(test)]
mod tests;
mod types;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use cortado_membership::{Lead, Trouble, View};
use cortado_protocol::NodeId;
use cortado_protocol::health::Illness;
use tokio::sync::{mpsc, oneshot, watch};

use types::Command;
pub use types::{GossipConfig, GossipError, Memory, Refused};

/// Reports this node's health to the membership. Clones report for the same node.
#[derive(Clone, Debug)]
pub struct HealthReporter(mpsc::UnboundedSender<Command>);

impl HealthReporter {
    /// Reports that this cause of illness is present or not.
    pub fn set_ill(&self, illness: Illness, is_bad: bool) {
        // If the thread has ended, the closed view channel shows it.
        let _ = self.0.send(Command::Ill(illness, is_bad));
    }

    /// Reports the members to which no data link works. `cut_off` says that this node itself is cut
    /// off.
    pub fn set_unreached(&self, nodes: Vec<NodeId>, cut_off: bool) {
        let _ = self.0.send(Command::Unreached(nodes, cut_off));
    }
}

/// A running detector. Dropping it stops it without announcing a departure: other nodes see a
/// crash.
#[derive(Debug)]
pub struct Gossip {
    local: SocketAddr,
    views: watch::Receiver<View>,
    leaders: watch::Receiver<Lead>,
    refused: watch::Receiver<Refused>,
    commands: mpsc::UnboundedSender<Command>,
    thread: Option<JoinHandle<Result<(), GossipError>>>,
}

impl Gossip {
    /// Starts the thread and returns once the port is bound.
    ///
    /// # Errors
    /// If the port or the certificates can't be used, or the system refuses a thread.
    pub fn start(config: GossipConfig, memory: impl Memory) -> Result<Self, GossipError> {
        let (commands, orders) = mpsc::unbounded_channel();
        let (showing, views) = watch::channel(View::default());
        let (electing, leaders) = watch::channel(Lead::default());
        let (counting, refused) = watch::channel(Refused::default());
        let (bound, binding) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("gossip".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(GossipError::Thread)?;
                let ended = runtime.block_on(async {
                    let driver = driver::Driver::bind(
                        config,
                        Arc::new(memory),
                        driver::News { views: showing, leaders: electing, refused: counting },
                    )?;
                    // `start` waits for this.
                    let _ = bound.send(driver.local_addr());
                    driver.run(orders).await
                });
                // A name lookup may still block; the thread does not wait for it.
                runtime.shutdown_background();
                ended
            })
            .map_err(GossipError::Thread)?;
        match binding.recv() {
            Ok(local) => {
                Ok(Self { local, views, leaders, refused, commands, thread: Some(thread) })
            }
            Err(_) => Err(thread
                .join()
                .map_or(GossipError::Failed, |ended| ended.err().unwrap_or(GossipError::Failed))),
        }
    }

    /// The address it listens on, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The current membership. The channel closes when the detector ends.
    #[must_use]
    pub fn views(&self) -> watch::Receiver<View> {
        self.views.clone()
    }

    /// The current leader.
    #[must_use]
    pub fn leaders(&self) -> watch::Receiver<Lead> {
        self.leaders.clone()
    }

    /// A function that reports the nodes which this node, as supervisor, had to revive.
    pub fn troubles(&self) -> impl Fn(Vec<Trouble>) + Send + use<> {
        let commands = self.commands.clone();
        move |troubles| {
            // If the thread has ended, the closed view channel shows it.
            let _ = commands.send(Command::Troubles(troubles));
        }
    }

    /// A handle that reports this node's health to the other nodes.
    #[must_use]
    pub fn health(&self) -> HealthReporter {
        HealthReporter(self.commands.clone())
    }

    /// Numbers of refused connections by kind, and of faulty datagrams.
    #[must_use]
    pub fn refused(&self) -> Refused {
        self.refused.borrow().clone()
    }

    /// Announces that this node takes no new work, or takes it again.
    pub fn set_draining(&self, draining: bool) {
        // If the thread has ended, the closed view channel shows it.
        let _ = self.commands.send(Command::Draining(draining));
    }

    /// Marks these nodes as gone for good, each up to a generation.
    pub fn forget(&self, nodes: Vec<(NodeId, u64)>) {
        let _ = self.commands.send(Command::Forget(nodes));
    }

    /// Announces that this node leaves for good; returns once the announcement is sent. Call
    /// [`Gossip::stop`] afterwards.
    pub async fn leave(&self) {
        let (said, saying) = oneshot::channel();
        let _ = self.commands.send(Command::Leave(said));
        // An error means that the thread has ended already.
        let _ = saying.await;
    }

    /// Stops the thread and waits for it, a few milliseconds at most.
    ///
    /// # Errors
    /// If the thread had failed before.
    pub fn stop(mut self) -> Result<(), GossipError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), GossipError> {
        let _ = self.commands.send(Command::Stop);
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(ended)) => ended,
            Some(Err(_)) => Err(GossipError::Failed),
        }
    }
}

impl Drop for Gossip {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "membership had failed");
        }
    }
}
