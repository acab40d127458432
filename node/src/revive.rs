//! Means to bring a node back. The supervisor decides ([`cortado_membership::Supervisor`]); a reviver
//! looks and acts.

mod docker;
mod none;
mod process;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::bail;
use cortado_membership::Evidence;
use cortado_protocol::NodeId;
use tokio::sync::mpsc;

use crate::config::Settings;
pub use docker::DockerReviver;
pub use none::NoReviver;
pub use process::ProcessReviver;

/// Ends seen and not yet looked at.
const ENDS: usize = 64;

/// What a reviver is still doing.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where nodes run, and how they are started there.
///
/// To start what runs is harmless, and so is to do it from two sides at once. What was stopped on
/// purpose is never started. Nothing but nodes of this cluster is ever touched.
pub trait Reviver: Send + Sync + 'static {
    /// Its name in the configuration and in events.
    fn name(&self) -> &'static str;

    /// Whether it can do anything at all.
    fn is_able(&self) -> bool {
        true
    }

    /// Finds out how a node is, on the spot: not by asking the network.
    fn inspect(&self, node: NodeId) -> Pending<'_, Evidence>;

    /// Starts a node that has ended.
    ///
    /// # Errors
    /// Why not, in a sentence.
    fn start(&self, node: NodeId) -> Pending<'_, Result<(), String>>;

    /// Ends a node at once and starts it anew.
    ///
    /// # Errors
    /// Why not, in a sentence.
    fn restart(&self, node: NodeId) -> Pending<'_, Result<(), String>>;

    /// This node ends on purpose: nobody shall start it.
    fn retire(&self, me: NodeId);

    /// Nodes that were seen to end, from now on, sooner than a failure detector can know. Hints: some
    /// may be missing, or wrong.
    fn ends(self: Arc<Self>) -> mpsc::Receiver<NodeId>;
}

/// The reviver a node's settings name.
///
/// # Errors
/// If they make no sense.
pub fn from_settings(settings: &Settings) -> anyhow::Result<Arc<dyn Reviver>> {
    match settings.reviver.as_str() {
        "none" => Ok(Arc::new(NoReviver)),
        "process" => Ok(Arc::new(ProcessReviver::beside(&settings.folder)?)),
        "docker" => {
            let host = &settings.docker_host;
            if !["unix://", "tcp://"].iter().any(|scheme| host.starts_with(scheme)) {
                bail!("docker_host = \"{host}\": expected unix:///PATH or tcp://HOST:PORT");
            }
            Ok(Arc::new(DockerReviver::new(host, &settings.cluster)))
        }
        other => {
            bail!("reviver = \"{other}\": expected \"none\", \"process\" or \"docker\"")
        }
    }
}
