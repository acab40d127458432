//! Runs failure detector and election on a thread of their own, with their own socket: bulk data must
//! never delay a probe. They decide ([`cortado_membership::Membership`]); this module carries
//! datagrams, reads clocks, looks seeds up, and persists what must be persisted.

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

/// Tells the membership how this node is. Clones tell the same one.
#[derive(Clone, Debug)]
pub struct HealthReporter(mpsc::UnboundedSender<Command>);

impl HealthReporter {
    /// This node is ill, or not, as far as this cause goes.
    pub fn set_ill(&self, illness: Illness, is_bad: bool) {
        // If it has ended, the closed view channel tells.
        let _ = self.0.send(Command::Ill(illness, is_bad));
    }

    /// No data link to these members works; with `cut_off` this node is the one that is cut off.
    pub fn set_unreached(&self, nodes: Vec<NodeId>, cut_off: bool) {
        let _ = self.0.send(Command::Unreached(nodes, cut_off));
    }
}

/// A running detector. Dropping it stops it without leaving: to the others it looks like a crash.
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
    /// If the port, the certificates or a thread can't be had.
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
                    // The one who started us waits for this.
                    let _ = bound.send(driver.local_addr());
                    driver.run(orders).await
                });
                // A name may be looked up for as long as the resolver is patient: not waited for.
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

    /// The membership, always the newest. The channel closes when the detector ends.
    #[must_use]
    pub fn views(&self) -> watch::Receiver<View> {
        self.views.clone()
    }

    /// The elected node, always the newest.
    #[must_use]
    pub fn leaders(&self) -> watch::Receiver<Lead> {
        self.leaders.clone()
    }

    /// A way to tell the others, as elected node, whom it had to revive.
    pub fn troubles(&self) -> impl Fn(Vec<Trouble>) + Send + use<> {
        let commands = self.commands.clone();
        move |troubles| {
            // If it has ended, the closed view channel tells.
            let _ = commands.send(Command::Troubles(troubles));
        }
    }

    /// A way to tell the others how this node is.
    #[must_use]
    pub fn health(&self) -> HealthReporter {
        HealthReporter(self.commands.clone())
    }

    /// Connections refused, by kind, and what was wrong with datagrams.
    #[must_use]
    pub fn refused(&self) -> Refused {
        self.refused.borrow().clone()
    }

    /// Tells the others that this node takes no new work, or takes it again.
    pub fn set_draining(&self, draining: bool) {
        // If it has ended, the closed view channel tells.
        let _ = self.commands.send(Command::Draining(draining));
    }

    /// These nodes are gone for good, each up to a generation.
    pub fn forget(&self, nodes: Vec<(NodeId, u64)>) {
        let _ = self.commands.send(Command::Forget(nodes));
    }

    /// Tells the others that this node goes for good; returns once that is said. Stop it then.
    pub async fn leave(&self) {
        let (said, saying) = oneshot::channel();
        let _ = self.commands.send(Command::Leave(said));
        // An error means that it has ended already.
        let _ = saying.await;
    }

    /// Stops the thread and waits for it, a few milliseconds at most.
    ///
    /// # Errors
    /// If it had failed before.
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
