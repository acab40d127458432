//! One catch-up: who was asked, and who waits for it.

use std::collections::BTreeSet;
use std::time::Duration;

use cortado_protocol::NodeId;
use cortado_protocol::client::ClientRequest;

use crate::purpose::Origin;

/// See the module's description.
pub(super) struct Search {
    pub(super) round: u64,
    pub(super) asked: BTreeSet<NodeId>,
    pub(super) open: BTreeSet<NodeId>,
    /// Somebody did not answer.
    pub(super) silent: bool,
    pub(super) until: Duration,
    pub(super) parked: Vec<(Origin, ClientRequest)>,
}

impl Search {
    /// These members will not answer any more.
    pub(super) fn give_up(&mut self, gone: impl Fn(&NodeId) -> bool) {
        let before = self.open.len();
        self.open.retain(|node| !gone(node));
        self.silent |= self.open.len() < before;
    }
}
