//! The trait of revivers. Supervision calls it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use cortado_membership::Evidence;
use cortado_protocol::NodeId;
use tokio::sync::mpsc;

/// Queue of ended nodes that were not handled yet.
pub(super) const ENDS: usize = 64;

/// An action of a reviver in progress.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The means to inspect and start nodes.
///
/// Starting a node that runs does nothing, and two supervisors may start a node at once. A node
/// that was stopped on purpose is never started. A reviver touches only nodes of this cluster.
pub trait Reviver: Send + Sync + 'static {
    /// Its name in the configuration and in events.
    fn name(&self) -> &'static str;

    /// Whether it can revive nodes at all.
    fn is_able(&self) -> bool {
        true
    }

    /// Finds out a node's health on its machine, without the cluster's network.
    fn inspect(&self, node: NodeId) -> Pending<'_, Evidence>;

    /// Starts a node that has ended.
    ///
    /// # Errors
    /// A sentence that says why it was not started.
    fn start(&self, node: NodeId) -> Pending<'_, Result<(), String>>;

    /// Kills a node and starts it again.
    ///
    /// # Errors
    /// A sentence that says why it was not restarted.
    fn restart(&self, node: NodeId) -> Pending<'_, Result<(), String>>;

    /// Notes that this node ends on purpose and must not be started.
    fn retire(&self, me: NodeId);

    /// Nodes that end from now on, reported sooner than by the failure detector. These are hints:
    /// some may be missing or wrong.
    fn ends(self: Arc<Self>) -> mpsc::Receiver<NodeId>;
}
