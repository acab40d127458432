//! Answers that a node gives its clients from its own facts: the members, the owners of slots, and
//! whether a member may be forgotten. The router calls these functions.

use cortado_protocol::client::{
    ClientError, ClusterView, ErrorKind, MemberState, Overdue, RingView,
};
use cortado_protocol::{JobId, META_SLOT, NodeId, Slot};

use crate::expiry::{self, Works};
use crate::facts::Facts;
use crate::placement::names_of;
use crate::reach::is_unreached_by_most;

/// The members, as this node sees them.
pub(crate) fn cluster(facts: &Facts, works: Works<'_>) -> ClusterView {
    let config = &facts.config;
    let mut members = facts.told.views.clone();
    for member in &mut members {
        if member.id == config.node {
            member.jobs = Some(facts.ledger.jobs().count() as u32);
        }
        let by = facts.reach.unreached_by(config.node, &facts.told, member.id);
        // Most others may pass the member over before this node notices that its links fail.
        let serves = facts.members.live.contains(&member.id)
            && !is_unreached_by_most(&facts.told, member.id);
        if member.state == MemberState::Alive && !serves && !by.is_empty() {
            member.state = MemberState::Ill;
            member.reason = Some(format!("{} can not reach its data port", names_of(&by)));
        }
    }
    let away = facts.lacks_members();
    let overdue = away.map(|away| Overdue { jobs: expiry::overdue(facts, works), away });
    let overdue = overdue.filter(|overdue| overdue.jobs > 0);
    ClusterView {
        cluster: config.cluster.clone(),
        answered_by: config.node,
        replicas: config.replicas,
        min_copies: config.min_copies,
        slots: config.slots,
        expected_nodes: facts.expected_members() as u16,
        formed: facts.roster.known().len() >= facts.expected_members(),
        members,
        supervisor: None,
        crash_looping: Vec::new(),
        overdue,
    }
}

/// The owners of each slot; `moves` are the entries still to be moved, by job and owner.
pub(crate) fn ring(facts: &Facts, moves: Vec<(JobId, NodeId, u64)>) -> RingView {
    // Owners depend on the job; the nil job stands for jobs in general.
    let placement = facts.placement(JobId(0));
    let slots = (0..facts.config.slots).map(Slot).chain([META_SLOT]);
    let slots = slots.map(|slot| (slot, placement.owners(slot).to_vec())).collect();
    RingView { version: facts.members.version, slots, moves }
}

/// Checks whether a member can be forgotten for good. A minority of members must not do that: on
/// the other side of a cut the member may be alive.
pub(crate) fn may_forget(facts: &Facts, node: NodeId) -> Result<(), ClientError> {
    let here = facts.roster.known().filter(|n| facts.members.is_reachable(*n)).count();
    let known = facts.roster.known().len();
    if !facts.roster.is_known(node) {
        let names: Vec<_> = facts.roster.known().collect();
        let names = names_of(&names);
        let message = format!("there is no node '{node}'; there are {names}");
        Err(ClientError::new(ErrorKind::NotFound, message))
    } else if node == facts.config.node || facts.told.is_reachable(node) {
        let message = format!(
            "{node} lives, and only a dead node can be forgotten: `cortado drain {node}` moves \
             everything off it and lets it leave"
        );
        Err(ClientError::new(ErrorKind::BadInput, message))
    } else if 2 * here <= known {
        let message = format!(
            "{here} of {known} members answer here, and it takes more than half to forget one: \
             start the others first"
        );
        Err(ClientError::new(ErrorKind::BadInput, message))
    } else {
        Ok(())
    }
}
