//! Placement: the owners of each slot, computed from this node's view. The router keeps it among
//! the facts.

use std::collections::BTreeMap;
use std::sync::Arc;

use cortado_membership::{MemberState, View, ring};
use cortado_protocol::client::{MemberState as ShownState, MemberView};
use cortado_protocol::{JobId, META_SLOT, NodeId, Slot, SlotSet};

/// The membership as the core needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// Grows with each change.
    pub version: u64,
    /// Members that take roles, ordered by id.
    pub live: Vec<NodeId>,
    /// Members that answer: the live ones and those that drain, ordered by id.
    pub reachable: Vec<NodeId>,
    /// All known members, for listings.
    pub views: Vec<MemberView>,
    /// All members in the view, whether they answer or not, ordered by id.
    pub known: Vec<NodeId>,
    /// Members that answer and report that they are ill, ordered by id.
    pub ill: Vec<NodeId>,
    /// For each member, the nodes that report that they do not reach it.
    pub unreached: BTreeMap<NodeId, Vec<NodeId>>,
}

impl Members {
    /// A cluster of this node only.
    #[must_use]
    pub fn alone(me: NodeId) -> Self {
        Self {
            version: 0,
            live: vec![me],
            reachable: vec![me],
            views: Vec::new(),
            known: vec![me],
            ill: Vec::new(),
            unreached: BTreeMap::new(),
        }
    }

    /// The members of a view.
    #[must_use]
    pub fn of(view: &View) -> Self {
        let state = |state| match state {
            MemberState::Alive => ShownState::Alive,
            MemberState::Draining => ShownState::Draining,
            MemberState::Down => ShownState::Down,
            MemberState::Ill(_) => ShownState::Ill,
        };
        let reason = |state| match state {
            MemberState::Ill(ill) => Some(ill.to_string()),
            _ => None,
        };
        let views = view.members.iter().map(|member| MemberView {
            id: member.identity.id,
            state: state(member.state),
            client_addr: member.identity.client_addr(),
            http_addr: member.identity.http_addr,
            generation: member.identity.generation,
            jobs: None,
            reason: reason(member.state),
        });
        let ill = view.members.iter().filter(|m| matches!(m.state, MemberState::Ill(_)));
        Self {
            version: view.version,
            live: view.live(),
            reachable: view.reachable(),
            views: views.collect(),
            known: view.members.iter().map(|member| member.identity.id).collect(),
            ill: ill.map(|member| member.identity.id).collect(),
            unreached: view.unreached.clone(),
        }
    }

    /// The member's generation, if the view has it.
    #[must_use]
    pub fn generation(&self, node: NodeId) -> Option<u64> {
        self.views.iter().find(|view| view.id == node).map(|view| view.generation)
    }

    /// Whether messages can be sent to the member.
    #[must_use]
    pub fn is_reachable(&self, node: NodeId) -> bool {
        self.reachable.binary_search(&node).is_ok()
    }
}

/// The owners of a job's slots: the first R live members of each slot's list.
#[derive(Debug)]
pub(crate) struct Placement {
    /// Owners of each slot below the job's count, and of the meta slot at the end.
    owners: Vec<Vec<NodeId>>,
    /// The slots of each owner, ordered by id.
    pub(crate) by_owner: Vec<(NodeId, SlotSet)>,
}

impl Placement {
    fn new(job: JobId, slots: u8, replicas: usize, live: &[NodeId]) -> Self {
        let mut owners = Vec::with_capacity(slots as usize + 1);
        let mut by_owner: BTreeMap<NodeId, SlotSet> = BTreeMap::new();
        for slot in (0..slots).map(Slot).chain([META_SLOT]) {
            let mut ordered = ring::owners(ring::slot_key(job, slot), live);
            ordered.truncate(replicas);
            for owner in &ordered {
                by_owner.entry(*owner).or_default().insert(slot);
            }
            owners.push(ordered);
        }
        Self { owners, by_owner: by_owner.into_iter().collect() }
    }

    /// The owners of a slot, the first one first.
    pub(crate) fn owners(&self, slot: Slot) -> &[NodeId] {
        let last = self.owners.len() - 1;
        let at = if slot == META_SLOT { last } else { (slot.0 as usize).min(last) };
        &self.owners[at]
    }

    /// The slots a node owns.
    pub(crate) fn slots_of(&self, node: NodeId) -> SlotSet {
        let found = self.by_owner.binary_search_by_key(&node, |(owner, _)| *owner);
        found.map_or(SlotSet::EMPTY, |at| self.by_owner[at].1)
    }
}

/// Placements by job and number of slots, computed once for each view.
#[derive(Default)]
pub(crate) struct Placements(BTreeMap<(JobId, u8), Arc<Placement>>);

/// Limit of the placements kept. They are cheap to compute again.
const KEPT: usize = 256;

impl Placements {
    /// Drops all placements, because the view has changed.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The owners of a job with so many slots.
    pub(crate) fn of(
        &mut self,
        job: JobId,
        slots: u8,
        replicas: usize,
        live: &[NodeId],
    ) -> Arc<Placement> {
        if self.0.len() >= KEPT {
            self.0.clear();
        }
        let make = || Arc::new(Placement::new(job, slots, replicas, live));
        Arc::clone(self.0.entry((job, slots)).or_insert_with(make))
    }
}

/// Formats names as `a`, `a and b`, `a, b and c`.
pub(crate) fn names_of(nodes: &[NodeId]) -> String {
    match nodes.split_last() {
        Some((last, rest)) if !rest.is_empty() => {
            format!("{} and {last}", NodeId::join(rest, ", "))
        }
        _ => NodeId::join(nodes, ""),
    }
}
