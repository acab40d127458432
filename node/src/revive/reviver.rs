//! What a reviver can do.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use cortado_membership::Evidence;
use cortado_protocol::NodeId;
use tokio::sync::mpsc;

/// Ends seen and not yet looked at.
pub(super) const ENDS: usize = 64;

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
