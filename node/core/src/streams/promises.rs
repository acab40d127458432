//! What members were asked to promise, and what they have answered: to retire windows, and to seal a
//! publisher that is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cortado_protocol::{Coverage, Edge, NodeId, Slot, SlotSet};

use super::state::State;
use crate::facts::Facts;

/// Windows that are to be retired.
pub(super) struct Retiring {
    /// Those that end by then.
    pub(super) before_ms: i64,
    /// The members that have promised it.
    pub(super) promised: BTreeSet<NodeId>,
    /// What members hold of outputs: of each edge the number behind the last batch.
    pub(super) outputs: BTreeMap<Edge, u64>,
    pub(super) asked_at: Option<Duration>,
}

impl Retiring {
    pub(super) fn new(before_ms: i64) -> Self {
        let (promised, outputs) = (BTreeSet::new(), BTreeMap::new());
        Self { before_ms, promised, outputs, asked_at: None }
    }

    /// Batches of outputs that members hold and that were not read.
    pub(super) fn unread<'r>(
        &'r self,
        state: &'r State,
    ) -> impl Iterator<Item = (Edge, Coverage)> + 'r {
        let outputs = self.outputs.iter().map(|(edge, end)| (*edge, state.read_of(*edge), *end));
        let unread = outputs.filter(|(_, read, end)| read < end);
        unread.map(|(edge, read, end)| (edge, Coverage::range(read, end)))
    }

    /// Known members that have not promised.
    pub(super) fn waits_for(&self, facts: &Facts) -> Vec<NodeId> {
        facts.roster.known().filter(|node| !self.promised.contains(node)).collect()
    }

    /// Those that can't be reached.
    pub(super) fn away(&self, facts: &Facts) -> Vec<NodeId> {
        let mut away = self.waits_for(facts);
        away.retain(|node| !facts.members.is_reachable(*node));
        away
    }
}

/// A publisher that is to be sealed.
pub(super) struct Sealing {
    pub(super) edge: Edge,
    /// Number of the question to all members; another one for each round.
    pub(super) round: u64,
    /// The members that have answered in this round.
    pub(super) answered: BTreeSet<NodeId>,
    /// What they hold, by slot.
    pub(super) held: BTreeMap<Slot, Coverage>,
    pub(super) asked_at: Option<Duration>,
    /// Batches of which all slots were there in the round before.
    pub(super) before: Option<Coverage>,
    /// Batches of which all slots are there, once that is known.
    pub(super) whole: Option<Coverage>,
    /// Whether the summaries of these were fetched, and it is checked that W nodes have them.
    pub(super) checking: Checking,
}

/// How far the check is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Checking {
    Not,
    Gathered,
    Asked,
    Done,
}

impl Sealing {
    pub(super) fn new(edge: Edge, round: u64) -> Self {
        Self {
            edge,
            round,
            answered: BTreeSet::new(),
            held: BTreeMap::new(),
            asked_at: None,
            before: None,
            whole: None,
            checking: Checking::Not,
        }
    }

    /// Known members that have not answered.
    pub(super) fn waits_for(&self, facts: &Facts) -> Vec<NodeId> {
        facts.roster.known().filter(|node| !self.answered.contains(node)).collect()
    }

    /// Members that can't be reached.
    pub(super) fn away(&self, facts: &Facts) -> Vec<NodeId> {
        facts.roster.known().filter(|node| !facts.members.is_reachable(*node)).collect()
    }

    /// The batches of which all slots are there.
    pub(super) fn whole(&self, slots: SlotSet, wanted: &Coverage) -> Coverage {
        let nothing = Coverage::default();
        let held = |slot| self.held.get(&slot).unwrap_or(&nothing);
        slots.or(SlotSet::META).iter().fold(wanted.clone(), |whole, slot| whole.and(held(slot)))
    }
}
