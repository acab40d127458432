//! Which batch goes to which node, and when again: a state machine without clock or network.
//!
//! A node that is slow does not hold the upload up. Once a batch takes several times as long as is
//! usual, and there is nothing else to send, another node gets it too (a hedged request: Dean, Barroso,
//! "The Tail at Scale", 2013), and who is mostly that slow gets a batch only now and then. Whoever is
//! first counts; nothing is counted twice, since a batch is known by its number.
//!
//! Invariant: every batch that was added is either waiting, in flight at one or two nodes, or done.

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
/// A batch is sent to another node too when it takes so many times as long as is usual,
const SLOW_TIMES: u32 = 4;
/// and at least so long.
const SLOW_AFTER: Duration = Duration::from_millis(250);
/// A node that is usually that slow gets a batch, and then none for so many times as long as it took.
const REST_TIMES: u32 = 8;
/// The newest answer's weight in a node's usual time is one in so many (as in RFC 6298, §2),
const NEWEST_WEIGHT: u32 = 8;
/// or in so many if it came sooner: the first batches wait for connections and for the job to be known.
const SOONER_WEIGHT: u32 = 2;

/// A batch: table and number.
pub(super) type Key = (u16, u64);

/// The upload's bookkeeping.
#[derive(Debug)]
pub(super) struct Schedule {
    job: JobId,
    /// The nodes that can be sent to.
    nodes: BTreeMap<NodeId, Node>,
    /// All members that take work, reachable or not: the ring is computed over these, so that all
    /// clients and nodes agree on it.
    members: Vec<NodeId>,
    waiting: VecDeque<Waiting>,
    flying: HashMap<Key, Flying>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Node {
    /// What it owes an answer for, and since when. It may be durable by another node's answer.
    owes: HashMap<Key, Instant>,
    /// How long it usually takes until a batch is durable.
    usual: Option<Duration>,
    /// When it said last that one is.
    answered: Option<Instant>,
}

impl Node {
    /// Whether it is slow, and gets nothing for now. One batch now and then shows when it is no longer
    /// slow.
    fn rests(&self, now: Instant, slow: Duration) -> bool {
        let Some((usual, answered)) = self.usual.zip(self.answered) else { return false };
        usual > slow && (!self.owes.is_empty() || now < answered + REST_TIMES * usual)
    }
}

#[derive(Debug)]
struct Waiting {
    key: Key,
    bytes: usize,
    /// Times it came back; also the place in the ring's list to begin with.
    returns: u32,
    not_before: Option<Instant>,
    /// When it was sent for the first time, if it was.
    began: Option<Instant>,
}

#[derive(Debug)]
struct Flying {
    first: NodeId,
    /// The node that got it too because the first was slow.
    second: Option<NodeId>,
    /// When it was sent for the first time.
    began: Instant,
    bytes: usize,
    returns: u32,
}

impl Flying {
    /// The other node that has it, if there is one.
    fn without(&self, node: NodeId) -> Option<NodeId> {
        [Some(self.first), self.second].into_iter().flatten().find(|other| *other != node)
    }

    fn back(self, key: Key, not_before: Option<Instant>) -> Waiting {
        let Self { bytes, returns, began, .. } = self;
        Waiting { key, bytes, returns: returns + 1, not_before, began: Some(began) }
    }
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
        self.nodes.entry(node).or_default();
    }

    /// The node can't be sent to any more: what was in flight only there goes elsewhere, at once and
    /// before everything else.
    pub(super) fn node_down(&mut self, node: NodeId) {
        let Some(gone) = self.nodes.remove(&node) else { return };
        let mut lost: Vec<_> = gone.owes.into_keys().collect();
        lost.sort_unstable_by(|a, b| b.cmp(a));
        for key in lost {
            if let Some(flying) = self.lost(node, key) {
                self.waiting.push_front(flying.back(key, None));
            }
        }
    }

    /// The batch is not in flight at the node any more; returned if it is nowhere else.
    fn lost(&mut self, node: NodeId, key: Key) -> Option<Flying> {
        let flying = self.flying.get_mut(&key)?;
        if flying.first != node && flying.second != Some(node) {
            return None;
        }
        let Some(other) = flying.without(node) else { return self.flying.remove(&key) };
        flying.first = other;
        flying.second = None;
        None
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
        let (not_before, began) = (None, None);
        self.waiting.push_back(Waiting { key, bytes, returns: 0, not_before, began });
    }

    /// The next batch to send, and where; none while all that wait must wait on.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Key, NodeId)> {
        let slow = self.slow_after();
        let open = self.open_nodes(now, slow);
        if open.is_empty() {
            return None;
        }
        let (key, node) =
            self.next_waiting(now, &open).or_else(|| self.next_slow(now, slow?, &open))?;
        self.nodes.get_mut(&node)?.owes.insert(key, now);
        Some((key, node))
    }

    /// The nodes that may be sent another batch now.
    fn open_nodes(&self, now: Instant, slow: Option<Duration>) -> Vec<NodeId> {
        let rests = |node: &Node| slow.is_some_and(|slow| node.rests(now, slow));
        let open = |node: &Node| node.owes.len() < WINDOW && !rests(node);
        self.nodes.iter().filter(|(_, node)| open(node)).map(|(id, _)| *id).collect()
    }

    fn next_waiting(&mut self, now: Instant, open: &[NodeId]) -> Option<(Key, NodeId)> {
        let (at, node) = self.waiting.iter().enumerate().find_map(|(at, waiting)| {
            if waiting.not_before.is_some_and(|time| time > now) {
                return None;
            }
            Some((at, self.place(open, waiting.key, waiting.returns)?))
        })?;
        let Waiting { key, bytes, returns, began, .. } = self.waiting.remove(at)?;
        let began = began.unwrap_or(now);
        self.flying.insert(key, Flying { first: node, second: None, began, bytes, returns });
        Some((key, node))
    }

    /// A batch that takes too long where it is, the longest under way first, and who gets it too.
    fn next_slow(
        &mut self,
        now: Instant,
        slow: Duration,
        open: &[NodeId],
    ) -> Option<(Key, NodeId)> {
        let mut late: Vec<_> = self.alone().filter(|(_, since)| now >= *since + slow).collect();
        late.sort_unstable_by_key(|(key, since)| (*since, *key));
        let (key, node) = late.into_iter().find_map(|(key, _)| {
            let returns = self.flying[&key].returns;
            Some((key, self.place(open, key, returns + 1)?))
        })?;
        self.flying.get_mut(&key)?.second = Some(node);
        Some((key, node))
    }

    /// What is in flight at one node only, and since when.
    fn alone(&self) -> impl Iterator<Item = (Key, Instant)> {
        let alone = self.flying.iter().filter(|(_, flying)| flying.second.is_none());
        alone.filter_map(|(key, flying)| {
            let node = self.nodes.get(&flying.first)?;
            Some((*key, *node.owes.get(key)?))
        })
    }

    /// How long a batch may take: by what is usual at the faster half of the nodes. None while nothing
    /// is known, and if there is nobody else to send to.
    fn slow_after(&self) -> Option<Duration> {
        if self.nodes.len() < 2 {
            return None;
        }
        let mut usual: Vec<_> = self.nodes.values().filter_map(|node| node.usual).collect();
        usual.sort_unstable();
        let middle = *usual.get(usual.len().checked_sub(1)? / 2)?;
        Some((SLOW_TIMES * middle).max(SLOW_AFTER))
    }

    /// The first of the batch's owners that is open and does not have it. Any node may turn a batch into
    /// deltas, so a full one is passed over; one that sent the batch back comes last the next time.
    fn place(&self, open: &[NodeId], (table, number): Key, returns: u32) -> Option<NodeId> {
        let mut order = owners(batch_key(self.job, table, number), &self.members);
        order.retain(|node| self.nodes.contains_key(node));
        if order.is_empty() {
            return None;
        }
        let turn = returns as usize % order.len();
        order.rotate_left(turn);
        let has_it = |node: &NodeId| self.nodes[node].owes.contains_key(&(table, number));
        order.into_iter().find(|node| open.contains(node) && !has_it(node))
    }

    /// The node says that the batch is durable. Tells how long that took, from the first time it was
    /// sent; none if it was known already, or the batch is not one of ours.
    pub(super) fn durable(&mut self, now: Instant, node: NodeId, key: Key) -> Option<Duration> {
        self.answered(node, key, Some(now));
        let (bytes, began) = match self.flying.remove(&key) {
            Some(flying) => (flying.bytes, flying.began),
            None => {
                // A late answer of a node that was given up: it counts all the same.
                let at = self.waiting.iter().position(|waiting| waiting.key == key)?;
                let waiting = self.waiting.remove(at)?;
                (waiting.bytes, waiting.began.unwrap_or(now))
            }
        };
        self.bytes -= bytes;
        Some(now.saturating_duration_since(began))
    }

    /// The node said "not now": again after a pause, elsewhere if possible.
    pub(super) fn retry(&mut self, now: Instant, node: NodeId, key: Key) {
        self.answered(node, key, None);
        if let Some(flying) = self.lost(node, key) {
            let pause = FIRST_PAUSE.saturating_mul(1 << flying.returns.min(10)).min(LONGEST_PAUSE);
            self.waiting.push_back(flying.back(key, Some(now + pause)));
        }
    }

    /// The node owes nothing for the batch any more. If it is durable now, that tells how fast it is.
    fn answered(&mut self, node: NodeId, key: Key, durable: Option<Instant>) {
        let Some(node) = self.nodes.get_mut(&node) else { return };
        let Some(since) = node.owes.remove(&key) else { return };
        if let Some(now) = durable {
            node.answered = Some(now);
            let took = now.saturating_duration_since(since);
            node.usual = Some(node.usual.map_or(took, |usual| {
                let weight = if took < usual { SOONER_WEIGHT } else { NEWEST_WEIGHT };
                (usual * (weight - 1) + took) / weight
            }));
        }
    }

    /// When there may be something to send again: a pause ends, or a batch has taken too long.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let paused = self.waiting.iter().filter_map(|waiting| waiting.not_before);
        let slow = self.slow_after();
        let slow =
            slow.into_iter().flat_map(|slow| self.alone().map(move |(_, since)| since + slow));
        paused.chain(slow).filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests;
