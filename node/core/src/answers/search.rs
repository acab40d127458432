//! The state of one catch-up: the members that were asked, and the requests that wait for it.

use std::collections::BTreeSet;
use std::time::Duration;

use cortado_protocol::NodeId;
use cortado_protocol::client::ClientRequest;

use crate::purpose::Origin;

/// A catch-up in progress.
pub(super) struct Search {
    pub(super) round: u64,
    pub(super) asked: BTreeSet<NodeId>,
    pub(super) open: BTreeSet<NodeId>,
    /// A member did not answer.
    pub(super) silent: bool,
    pub(super) until: Duration,
    pub(super) parked: Vec<(Origin, ClientRequest)>,
}

impl Search {
    /// Stops waiting for these members.
    pub(super) fn give_up(&mut self, gone: impl Fn(&NodeId) -> bool) {
        let before = self.open.len();
        self.open.retain(|node| !gone(node));
        self.silent |= self.open.len() < before;
    }
}
