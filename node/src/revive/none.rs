//! The reviver for nodes that systemd, Kubernetes or a person brings back.

use std::sync::Arc;

use cortado_membership::Evidence;
use cortado_protocol::NodeId;
use tokio::sync::mpsc;

use super::reviver::{Pending, Reviver};

/// Does nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoReviver;

impl Reviver for NoReviver {
    fn name(&self) -> &'static str {
        "none"
    }

    fn is_able(&self) -> bool {
        false
    }

    fn inspect(&self, _: NodeId) -> Pending<'_, Evidence> {
        Box::pin(async { Evidence::Unknown })
    }

    fn start(&self, _: NodeId) -> Pending<'_, Result<(), String>> {
        Box::pin(async { Err("this node revives nobody: reviver = \"none\"".into()) })
    }

    fn restart(&self, node: NodeId) -> Pending<'_, Result<(), String>> {
        self.start(node)
    }

    fn retire(&self, _: NodeId) {}

    fn ends(self: Arc<Self>) -> mpsc::Receiver<NodeId> {
        mpsc::channel(1).1
    }
}
