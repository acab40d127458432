//! What nodes send each other about revived nodes, so that the limit of revivals holds for a node
//! and not for each supervisor, and the next supervisor knows which nodes were given up.
//!
//! A node keeps the highest count it has seen, and counts expire by themselves. So it may learn
//! them from any node, twice and in any order. [`Membership`](crate::Membership) owns the list, and
//! sends it with the messages of the election.

use std::collections::BTreeMap;
use std::time::Duration;

use cortado_protocol::NodeId;
use serde::{Deserialize, Serialize};

use crate::{MemberState, View};

/// Most nodes in one datagram, which then fits however long their names are.
pub(crate) const NAMED: usize = 32;

/// A node that was revived lately, or was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// The node.
    pub node: NodeId,
    /// How often it was revived within the last minutes.
    pub revivals: u8,
    /// Seconds for which that still counts.
    pub counts_for_s: u16,
    /// It is left to the operator until it is seen alive.
    pub given_up: bool,
}

impl Trouble {
    /// Whether this says at least as much as `other`.
    fn covers(&self, other: &Self) -> bool {
        self.revivals >= other.revivals && self.given_up >= other.given_up
    }
}

#[derive(Debug, Default)]
struct Known {
    revivals: u8,
    /// Until when the revivals count.
    until: Duration,
    given_up: bool,
}

/// The troubles that a node knows.
#[derive(Debug, Default)]
pub(crate) struct Troubles(BTreeMap<NodeId, Known>);

impl Troubles {
    /// Takes in troubles from another node or the own supervisor; returns whether any were new.
    pub(crate) fn learn(&mut self, now: Duration, view: &View, told: &[Trouble]) -> bool {
        let mut news = false;
        for trouble in told {
            let Some(member) = view.get(trouble.node) else { continue };
            let given_up = trouble.given_up && member.state == MemberState::Down;
            let counts = trouble.counts_for_s > 0;
            if !given_up && !counts {
                continue;
            }
            let known = self.0.entry(trouble.node).or_default();
            if counts && trouble.revivals > known.revivals {
                known.revivals = trouble.revivals;
                known.until = now + Duration::from_secs(trouble.counts_for_s.into());
                news = true;
            }
            news |= given_up && !known.given_up;
            known.given_up |= given_up;
        }
        news
    }

    /// A node that answers or has left is no longer given up. Returns whether that changed
    /// anything.
    pub(crate) fn look(&mut self, view: &View) -> bool {
        let mut news = false;
        for (node, known) in &mut self.0 {
            let down = view.get(*node).is_some_and(|member| member.state == MemberState::Down);
            news |= known.given_up && !down;
            known.given_up &= down;
        }
        news
    }

    /// The troubles known now, at most as many as one datagram names; given-up nodes first.
    pub(crate) fn list(&mut self, now: Duration) -> Vec<Trouble> {
        for known in self.0.values_mut().filter(|known| known.until <= now) {
            known.revivals = 0;
        }
        self.0.retain(|_, known| known.revivals > 0 || known.given_up);
        let trouble = |(node, known): (&NodeId, &Known)| Trouble {
            node: *node,
            revivals: known.revivals,
            counts_for_s: known.until.saturating_sub(now).as_secs().try_into().unwrap_or(u16::MAX),
            given_up: known.given_up,
        };
        let mut list: Vec<_> = self.0.iter().map(trouble).collect();
        list.sort_by_key(|trouble| !trouble.given_up);
        list.truncate(NAMED);
        list
    }

    /// Whether this node knows a trouble that `told` does not cover.
    pub(crate) fn exceed(&mut self, now: Duration, told: &[Trouble]) -> bool {
        let known = |trouble: &Trouble| {
            told.iter().any(|other| other.node == trouble.node && other.covers(trouble))
        };
        told.len() < NAMED && !self.list(now).iter().all(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Identity, Member};

    fn view(down: bool) -> View {
        let node = "node-1".parse().unwrap();
        let identity = Identity::addressee(node, "10.0.0.1:1".parse().unwrap());
        let state = if down { MemberState::Down } else { MemberState::Alive };
        View { version: 1, members: vec![Member { identity, state }], ..View::default() }
    }

    fn told(node: &str, revivals: u8, counts_for_s: u16, given_up: bool) -> Trouble {
        Trouble { node: node.parse().unwrap(), revivals, counts_for_s, given_up }
    }

    #[test]
    fn facts_add_up_in_any_order_and_expire() {
        let at = Duration::from_secs;
        let mut troubles = Troubles::default();
        assert!(troubles.learn(at(1), &view(true), &[told("node-1", 2, 300, false)]));
        assert!(!troubles.learn(at(2), &view(true), &[told("node-1", 2, 300, false)]));
        assert!(!troubles.learn(at(2), &view(true), &[told("node-1", 1, 300, false)]));
        assert!(!troubles.learn(at(2), &view(true), &[told("stranger", 3, 300, true)]));
        assert_eq!(troubles.list(at(2)), [told("node-1", 2, 299, false)]);
        assert!(troubles.learn(at(3), &view(true), &[told("node-1", 0, 0, true)]));
        assert_eq!(troubles.list(at(3)), [told("node-1", 2, 298, true)]);
        assert!(troubles.exceed(at(3), &[told("node-1", 2, 1, false)]));
        assert!(!troubles.exceed(at(3), &[told("node-1", 3, 1, true)]));
        assert_eq!(troubles.list(at(301)), [told("node-1", 0, 0, true)]);
        assert!(troubles.look(&view(false)));
        assert_eq!(troubles.list(at(301)), []);
        assert!(!troubles.learn(at(301), &view(false), &[told("node-1", 0, 0, true)]), "it lives");
    }
}
