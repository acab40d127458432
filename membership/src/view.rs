//! A node's view of the cluster at a moment: the members and their states. Every view comes from
//! [`Membership`](crate::Membership); core, shell and supervisor read it.

use std::collections::BTreeMap;

use cortado_protocol::NodeId;
use cortado_protocol::event::Happening;
use cortado_protocol::health::Ill;

use crate::Identity;

/// The state of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemberState {
    /// Serves, and takes new work. A suspected member is still alive.
    Alive,
    /// Serves, but hands its roles over and gets no new ones.
    Draining,
    /// Did not answer, directly or through others. A hint, never a proof.
    Down,
    /// Serves, but reports that something is wrong with it: it gets no roles.
    Ill(Ill),
}

/// A node of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// The latest identity that it announced. For a node that is known from an earlier start but
    /// was not heard of since this one, only the name and the gossip address are valid; its
    /// generation is 0.
    pub identity: Identity,
    /// Its state.
    pub state: MemberState,
}

/// A node's view of the membership, itself included. Views of different nodes may differ for a
/// while, and nothing may depend on them being equal.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct View {
    /// Counts the changes this node saw; means nothing to another node.
    pub version: u64,
    /// All members, ordered by name. Nodes that left are not in it; nodes that crashed stay.
    pub members: Vec<Member>,
    /// For each member, the nodes that reported no working data link to it.
    pub unreached: BTreeMap<NodeId, Vec<NodeId>>,
}

impl View {
    /// The member of that name.
    #[must_use]
    pub fn get(&self, id: NodeId) -> Option<&Member> {
        let place = self.members.binary_search_by_key(&id, |member| member.identity.id).ok()?;
        self.members.get(place)
    }

    /// Nodes that may own something: alive, well and not draining. Ordered by name.
    #[must_use]
    pub fn live(&self) -> Vec<NodeId> {
        self.ids(|state| state == MemberState::Alive)
    }

    /// Nodes that answer: alive, ill or draining. Ordered by name.
    #[must_use]
    pub fn reachable(&self) -> Vec<NodeId> {
        self.ids(|state| state != MemberState::Down)
    }

    /// Nodes that are down. Ordered by name.
    #[must_use]
    pub fn down(&self) -> Vec<NodeId> {
        self.ids(|state| state == MemberState::Down)
    }

    /// Whether the reachable members are more than half of all that are known: what a supervisor
    /// needs before it touches a node that runs but cannot be reached.
    #[must_use]
    pub fn has_majority(&self) -> bool {
        2 * self.reachable().len() > self.members.len()
    }

    /// The members that joined, left or changed their state since an earlier view. A member that
    /// was down when it was first named is no change.
    #[must_use]
    pub fn changes_since(&self, earlier: &Self) -> Vec<Happening> {
        let mut before: BTreeMap<NodeId, MemberState> =
            earlier.members.iter().map(|member| (member.identity.id, member.state)).collect();
        let mut changes = Vec::new();
        for Member { identity, state } in &self.members {
            let id = identity.id;
            match (before.remove(&id), state) {
                (Some(before), now) if before == *now => {}
                (Some(MemberState::Ill(_)), MemberState::Ill(_)) => {}
                (_, MemberState::Ill(ill)) => {
                    changes.push(Happening::MemberIll { node: id, ill: *ill });
                }
                (_, MemberState::Alive) => changes.push(Happening::MemberAlive(id)),
                (_, MemberState::Draining) => changes.push(Happening::MemberDraining(id)),
                (Some(_), MemberState::Down) => changes.push(Happening::MemberDown(id)),
                (None, MemberState::Down) => {}
            }
        }
        changes.extend(before.into_keys().map(Happening::MemberLeft));
        changes
    }

    fn ids(&self, keep: impl Fn(MemberState) -> bool) -> Vec<NodeId> {
        self.members.iter().filter(|m| keep(m.state)).map(|m| m.identity.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_once() {
        let view = |states: &[MemberState]| {
            let member = |(n, state): (usize, &MemberState)| Member {
                identity: Identity::addressee(
                    format!("node-{n}").parse().unwrap(),
                    "10.0.0.1:1".parse().unwrap(),
                ),
                state: *state,
            };
            View {
                version: 1,
                members: states.iter().enumerate().map(member).collect(),
                ..View::default()
            }
        };
        let id = |n: usize| format!("node-{n}").parse().unwrap();
        use MemberState::{Alive, Down, Draining};
        let early = view(&[Alive, Alive, Down]);
        assert_eq!(
            early.changes_since(&View::default()),
            [Happening::MemberAlive(id(0)), Happening::MemberAlive(id(1))]
        );
        assert_eq!(
            view(&[Down, Draining]).changes_since(&early),
            [
                Happening::MemberDown(id(0)),
                Happening::MemberDraining(id(1)),
                Happening::MemberLeft(id(2))
            ]
        );
        assert_eq!(
            view(&[Alive, Alive, Alive]).changes_since(&early),
            [Happening::MemberAlive(id(2))]
        );
        assert!(early.changes_since(&early).is_empty());
    }

    #[test]
    fn helpers_tell_the_states_apart() {
        let states = [MemberState::Alive, MemberState::Draining, MemberState::Down];
        let member = |(n, state): (usize, &MemberState)| Member {
            identity: Identity::addressee(
                format!("node-{n}").parse().unwrap(),
                "10.0.0.1:1".parse().unwrap(),
            ),
            state: *state,
        };
        let view = View {
            version: 1,
            members: states.iter().enumerate().map(member).collect(),
            ..View::default()
        };
        let ids: Vec<NodeId> = view.members.iter().map(|m| m.identity.id).collect();
        assert_eq!(view.live(), ids[..1]);
        assert_eq!(view.reachable(), ids[..2]);
        assert_eq!(view.down(), ids[2..]);
        assert!(view.has_majority());
        assert_eq!(view.get(ids[1]).unwrap().state, MemberState::Draining);
        assert_eq!(view.get("nobody".parse().unwrap()), None);
    }
}
