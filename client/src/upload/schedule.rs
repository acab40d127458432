//! Decides which batch is sent to which node, and when it is sent again: a state machine without
//! clock or network. The upload drives it.
//!
//! A slow node does not hold the upload up. Once a batch takes several times as long as usual, and
//! there is nothing else to send, it is sent to another node too (a hedged request: Dean, Barroso,
//! "The Tail at Scale", 2013), and a node that is usually that slow gets a batch only now and then.
//! The first answer that the batch is durable is enough; nothing is counted twice, since nodes
//! identify a batch by its number.
//!
//! Invariant: every added batch is either waiting, in flight at one or two nodes, or done.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use cortado_membership::ring::{batch_key, owners};
use cortado_protocol::{JobId, NodeId};

/// Most batches in flight at one node.
pub(super) const WINDOW: usize = 8;
/// Most bytes of payload held at once; then no more is taken from the readers.
pub(super) const BUDGET_BYTES: usize = 32 << 20;
/// First pause after an answer "not now"; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A batch that takes this many times as long as usual is sent to another node too.
const SLOW_TIMES: u32 = 4;
/// Shortest time after which a batch is sent to another node too.
const SLOW_AFTER: Duration = Duration::from_millis(250);
/// A node that is usually that slow gets one batch, and then none for this many times its usual
/// time.
const REST_TIMES: u32 = 8;
/// Weight of a new answer in a node's usual time: one part in this many (as in RFC 6298, §2).
const NEWEST_WEIGHT: u32 = 8;
/// The same for an answer that came sooner than usual: the first batches wait for connections and
/// for the job to be known.
const SOONER_WEIGHT: u32 = 2;

/// A batch: table and number.
pub(super) type Key = (u16, u64);

/// The state of all batches of an upload.
#[derive(Debug)]
pub(super) struct Schedule {
    job: JobId,
    /// The nodes with an open link.
    nodes: BTreeMap<NodeId, Node>,
    /// All members that take work, with or without a link. The ring is computed over these, so that
    /// all clients and nodes get the same one.
    members: Vec<NodeId>,
    waiting: VecDeque<Waiting>,
    flying: HashMap<Key, Flying>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Node {
    /// Batches that it has not answered, and since when. They may be durable by another node's
    /// answer.
    owes: HashMap<Key, Instant>,
    /// How long a batch usually takes until this node reports it durable.
    usual: Option<Duration>,
    /// When it last reported a batch durable.
    answered: Option<Instant>,
}

impl Node {
    /// Whether it is slow and gets nothing for now. A single batch now and then shows when it is no
    /// longer slow.
    fn rests(&self, now: Instant, slow: Duration) -> bool {
        let Some((usual, answered)) = self.usual.zip(self.answered) else { return false };
        usual > slow && (!self.owes.is_empty() || now < answered + REST_TIMES * usual)
    }
}

#[derive(Debug)]
struct Waiting {
    key: Key,
    bytes: usize,
    /// How many times the batch was returned; also where to start in the ring's list.
    returns: u32,
    not_before: Option<Instant>,
    /// When it was first sent; `None` if it was not.
    began: Option<Instant>,
}

#[derive(Debug)]
struct Flying {
    first: NodeId,
    /// The second node that it was sent to, because the first is slow.
    second: Option<NodeId>,
    /// When it was first sent.
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

    /// Sets the members that take work, by the newest view.
    pub(super) fn set_members(&mut self, members: Vec<NodeId>) {
        self.members = members;
    }

    /// The node's link is open.
    pub(super) fn node_up(&mut self, node: NodeId) {
        self.nodes.entry(node).or_default();
    }

    /// The node's link is lost: batches that were in flight only there are sent to other nodes,
    /// before all others.
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

    /// Removes the batch from the node. Returns it if it is in flight at no other node.
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

    /// Whether every added batch is done.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.flying.is_empty()
    }

    /// Adds a batch.
    pub(super) fn add(&mut self, key: Key, bytes: usize) {
        self.bytes += bytes;
        let (not_before, began) = (None, None);
        self.waiting.push_back(Waiting { key, bytes, returns: 0, not_before, began });
    }

    /// The next batch to send and its node; `None` while nothing can be sent.
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

    /// The nodes that may get another batch now.
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

    /// The batch that has been under way longest of those that take too long, and a second node for
    /// it.
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

    /// The batches that are in flight at only one node, and since when.
    fn alone(&self) -> impl Iterator<Item = (Key, Instant)> {
        let alone = self.flying.iter().filter(|(_, flying)| flying.second.is_none());
        alone.filter_map(|(key, flying)| {
            let node = self.nodes.get(&flying.first)?;
            Some((*key, *node.owes.get(key)?))
        })
    }

    /// How long a batch may take, by the usual time of the faster half of the nodes. `None` while
    /// no time is known, or if there is no other node.
    fn slow_after(&self) -> Option<Duration> {
        if self.nodes.len() < 2 {
            return None;
        }
        let mut usual: Vec<_> = self.nodes.values().filter_map(|node| node.usual).collect();
        usual.sort_unstable();
        let middle = *usual.get(usual.len().checked_sub(1)? / 2)?;
        Some((SLOW_TIMES * middle).max(SLOW_AFTER))
    }

    /// The first owner of the batch that may get another batch and does not have this one. Any node
    /// may map a batch, so a full one is skipped; a node that returned the batch comes last the
    /// next time.
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

    /// The node reports that the batch is durable. Returns the time since it was first sent; `None`
    /// if that was known already, or the batch is unknown.
    pub(super) fn durable(&mut self, now: Instant, node: NodeId, key: Key) -> Option<Duration> {
        self.answered(node, key, Some(now));
        let (bytes, began) = match self.flying.remove(&key) {
            Some(flying) => (flying.bytes, flying.began),
            None => {
                // A late answer of a node whose link was lost: it is valid all the same.
                let at = self.waiting.iter().position(|waiting| waiting.key == key)?;
                let waiting = self.waiting.remove(at)?;
                (waiting.bytes, waiting.began.unwrap_or(now))
            }
        };
        self.bytes -= bytes;
        Some(now.saturating_duration_since(began))
    }

    /// The node answered "not now": the batch is sent again after a pause, to another node if
    /// possible.
    pub(super) fn retry(&mut self, now: Instant, node: NodeId, key: Key) {
        self.answered(node, key, None);
        if let Some(flying) = self.lost(node, key) {
            let pause = FIRST_PAUSE.saturating_mul(1 << flying.returns.min(10)).min(LONGEST_PAUSE);
            self.waiting.push_back(flying.back(key, Some(now + pause)));
        }
    }

    /// The node has answered for the batch. If the batch is durable, updates the node's usual time.
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

    /// When something may be sent again: when a pause ends, or a batch has taken too long.
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
