//! Which batch goes to which node, and when again: a state machine without clock or network.
//!
//! Invariant: every batch that was added is either waiting, in flight at exactly one node, or done.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use cortado_membership::ring::{batch_key, owners};
use cortado_protocol::{JobId, NodeId};

/// Most batches in flight at one node.
pub(super) const WINDOW: usize = 8;
/// Payload held at once; more is not taken from the readers.
pub(super) const BUDGET_BYTES: usize = 32 << 20;
/// First pause after a node said "not now"; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A batch: table and number.
pub(super) type Key = (u16, u64);

/// The upload's bookkeeping.
#[derive(Debug)]
pub(super) struct Schedule {
    job: JobId,
    /// Batches in flight per node that can be sent to.
    nodes: BTreeMap<NodeId, usize>,
    /// All members that take work, reachable or not: the ring is computed over these, so that all
    /// clients and nodes agree on it.
    members: Vec<NodeId>,
    waiting: VecDeque<Waiting>,
    flying: HashMap<Key, Flying>,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    key: Key,
    bytes: usize,
    /// Times it came back; also the place in the ring's list to begin with.
    returns: u32,
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Flying {
    node: NodeId,
    bytes: usize,
    returns: u32,
}

impl Schedule {
    pub(super) fn new(job: JobId) -> Self {
        Self {
            job,
            nodes: BTreeMap::new(),
            members: Vec::new(),
            waiting: VecDeque::new(),
            flying: HashMap::new(),
            bytes: 0,
        }
    }

    /// The members that take work, by the newest view.
    pub(super) fn set_members(&mut self, members: Vec<NodeId>) {
        self.members = members;
    }

    /// The node can be sent to.
    pub(super) fn node_up(&mut self, node: NodeId) {
        self.nodes.entry(node).or_insert(0);
    }

    /// The node can't be sent to any more: what was in flight there goes elsewhere, at once and
    /// before everything else.
    pub(super) fn node_down(&mut self, node: NodeId) {
        if self.nodes.remove(&node).is_none() {
            return;
        }
        let mut lost: Vec<_> =
            self.flying.iter().filter(|(_, f)| f.node == node).map(|(key, _)| *key).collect();
        lost.sort_unstable_by(|a, b| b.cmp(a));
        for key in lost {
            if let Some(Flying { bytes, returns, .. }) = self.flying.remove(&key) {
                let back = Waiting { key, bytes, returns: returns + 1, not_before: None };
                self.waiting.push_front(back);
            }
        }
    }

    /// Whether another batch may be added.
    pub(super) fn has_room(&self) -> bool {
        self.bytes < BUDGET_BYTES
    }

    /// Whether every batch that was added is done.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.flying.is_empty()
    }

    /// Takes a batch.
    pub(super) fn add(&mut self, key: Key, bytes: usize) {
        self.bytes += bytes;
        self.waiting.push_back(Waiting { key, bytes, returns: 0, not_before: None });
    }

    /// The next batch to send, and where; none while all that wait must wait on.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Key, NodeId)> {
        let (at, node) = self.waiting.iter().enumerate().find_map(|(at, waiting)| {
            if waiting.not_before.is_some_and(|time| time > now) {
                return None;
            }
            Some((at, self.place(waiting)?))
        })?;
        let Waiting { key, bytes, returns, .. } = self.waiting.remove(at)?;
        *self.nodes.get_mut(&node)? += 1;
        self.flying.insert(key, Flying { node, bytes, returns });
        Some((key, node))
    }

    /// The first of the batch's owners that can be sent to and has room in its window. Any node may
    /// turn a batch into deltas, so a full one is passed over; one that sent the batch back comes
    /// last the next time.
    fn place(&self, waiting: &Waiting) -> Option<NodeId> {
        let (table, number) = waiting.key;
        let mut order = owners(batch_key(self.job, table, number), &self.members);
        order.retain(|node| self.nodes.contains_key(node));
        if order.is_empty() {
            return None;
        }
        let turn = waiting.returns as usize % order.len();
        order.rotate_left(turn);
        order.into_iter().find(|node| self.nodes[node] < WINDOW)
    }

    /// The batch is durable. False if that was known already, or the batch is not one of ours.
    pub(super) fn durable(&mut self, key: Key) -> bool {
        if let Some(flying) = self.flying.remove(&key) {
            self.landed(flying.node);
            self.bytes -= flying.bytes;
            return true;
        }
        // A late answer of a node that was given up: it counts all the same.
        match self.waiting.iter().position(|waiting| waiting.key == key) {
            Some(at) => {
                self.bytes -= self.waiting.remove(at).map_or(0, |waiting| waiting.bytes);
                true
            }
            None => false,
        }
    }

    /// The node said "not now": again after a pause, elsewhere if possible.
    pub(super) fn retry(&mut self, now: Instant, node: NodeId, key: Key) {
        if self.flying.get(&key).is_none_or(|flying| flying.node != node) {
            return;
        }
        if let Some(Flying { bytes, returns, .. }) = self.flying.remove(&key) {
            self.landed(node);
            let pause = FIRST_PAUSE.saturating_mul(1 << returns.min(10)).min(LONGEST_PAUSE);
            let not_before = Some(now + pause);
            self.waiting.push_back(Waiting { key, bytes, returns: returns + 1, not_before });
        }
    }

    fn landed(&mut self, node: NodeId) {
        if let Some(in_flight) = self.nodes.get_mut(&node) {
            *in_flight = in_flight.saturating_sub(1);
        }
    }

    /// When a batch that waits for a pause to end may go.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        self.waiting.iter().filter_map(|waiting| waiting.not_before).filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests;
