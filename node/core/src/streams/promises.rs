//! What members were asked to promise, and what they have answered: to retire windows, and to seal a
//! publisher that is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cortado_protocol::{Coverage, Edge, NodeId, Slot, SlotSet};

use super::state::State;
use crate::facts::Facts;

/// Pause between two requests to members that have not answered yet.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// A question to all known members, which is repeated until they have answered.
#[derive(Default)]
pub(super) struct Asked {
    answered: BTreeSet<NodeId>,
    at: Option<Duration>,
}

impl Asked {
    /// A member has answered.
    pub(super) fn heard(&mut self, node: NodeId) {
        self.answered.insert(node);
    }

    /// Known members that have not answered.
    pub(super) fn open(&self, facts: &Facts) -> Vec<NodeId> {
        facts.roster.known().filter(|node| !self.answered.contains(node)).collect()
    }

    /// Whether all known members have answered, and as many as there should be.
    pub(super) fn is_complete(&self, facts: &Facts) -> bool {
        self.answered.len() >= facts.expected_members() && self.open(facts).is_empty()
    }

    /// Whom to ask now.
    pub(super) fn due(&mut self, facts: &Facts) -> Vec<NodeId> {
        if self.at.is_some_and(|at| facts.now < at + ASK_EVERY) {
            return Vec::new();
        }
        self.at = Some(facts.now);
        self.open(facts)
    }
}

/// Windows that are to be retired.
pub(super) struct Retiring {
    /// Those that end by then.
    pub(super) before_ms: i64,
    /// Who has promised it.
    pub(super) asked: Asked,
    /// What members hold of outputs: of each edge the number behind the last batch.
    pub(super) outputs: BTreeMap<Edge, u64>,
    /// Batches that are settled as late, and are whole.
    pub(super) whole: BTreeMap<Edge, Coverage>,
    /// Those of which it is asked whether they are.
    pub(super) checking: Option<(Edge, Coverage)>,
}

impl Retiring {
    pub(super) fn new(before_ms: i64) -> Self {
        let (asked, outputs) = (Asked::default(), BTreeMap::new());
        Self { before_ms, asked, outputs, whole: BTreeMap::new(), checking: None }
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
}

/// A publisher that is to be sealed.
pub(super) struct Sealing {
    pub(super) edge: Edge,
    /// Number of the question to all members; another one for each round.
    pub(super) round: u64,
    /// Who has answered in this round.
    pub(super) asked: Asked,
    /// What they hold, by slot.
    pub(super) held: BTreeMap<Slot, Coverage>,
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
            asked: Asked::default(),
            held: BTreeMap::new(),
            before: None,
            whole: None,
            checking: Checking::Not,
        }
    }

    /// The batches of which all slots are there.
    pub(super) fn whole(&self, slots: SlotSet, wanted: &Coverage) -> Coverage {
        let nothing = Coverage::default();
        let held = |slot| self.held.get(&slot).unwrap_or(&nothing);
        slots.or(SlotSet::META).iter().fold(wanted.clone(), |whole, slot| whole.and(held(slot)))
    }
}
