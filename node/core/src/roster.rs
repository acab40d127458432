//! The roster: who belongs to the cluster, whether it answers or not.
//!
//! A step that nobody can take back (the end of a job's life, "there is no such job") is judged by how
//! many members there are, not by how many answer. So everyone ever seen stays in the roster, on disk,
//! until it has handed everything over and left. It comes back with its next start.

use std::collections::BTreeMap;

use cortado_protocol::NodeId;
use serde::{Deserialize, Serialize};

use crate::Members;

/// Members by name, each with the highest generation it was seen with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Roster {
    known: BTreeMap<NodeId, u64>,
    /// Members that left, with the generation they left with.
    departed: BTreeMap<NodeId, u64>,
}

impl Roster {
    /// Takes in whom a view names; returns whether the roster is another one now.
    pub(crate) fn see(&mut self, members: &Members) -> bool {
        let mut news = false;
        for node in &members.known {
            let generation = members.generation(*node).unwrap_or_default();
            if self.departed.get(node).is_some_and(|left| generation <= *left) {
                continue;
            }
            news |= self.departed.remove(node).is_some();
            let highest = self.known.entry(*node).or_insert_with(|| {
                news = true;
                generation
            });
            *highest = generation.max(*highest);
        }
        news
    }

    /// A member has left; returns whether that is news.
    pub(crate) fn depart(&mut self, node: NodeId, generation: u64) -> bool {
        let back = self.known.get(&node).is_some_and(|seen| *seen > generation);
        let told = self.departed.get(&node).is_some_and(|left| *left >= generation);
        if back || told {
            return false;
        }
        self.known.remove(&node);
        self.departed.insert(node, generation);
        true
    }

    /// Members that have left, with the generations they left with.
    pub(crate) fn departed(&self) -> Vec<(NodeId, u64)> {
        self.departed.iter().map(|(node, generation)| (*node, *generation)).collect()
    }

    pub(crate) fn has_left(&self, node: NodeId) -> bool {
        self.departed.contains_key(&node)
    }

    /// Whom the roster names, ordered by name.
    pub(crate) fn known(&self) -> impl ExactSizeIterator<Item = NodeId> + '_ {
        self.known.keys().copied()
    }

    /// How many members there are, or should be: of the nodes that the cluster was made for, those that
    /// left are wanted no more.
    pub(crate) fn expected(&self, made_for: u16) -> usize {
        self.known.len().max(usize::from(made_for).saturating_sub(self.departed.len()))
    }
}

#[cfg(test)]
mod tests {
    use cortado_protocol::client::{MemberState, MemberView};

    use super::*;

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn view(members: &[(&str, u64)]) -> Members {
        let view = |(name, generation): &(&str, u64)| MemberView {
            id: node(name),
            state: MemberState::Alive,
            client_addr: "127.0.0.1:1".parse().unwrap(),
            generation: *generation,
            jobs: None,
            reason: None,
        };
        Members {
            known: members.iter().map(|(name, _)| node(name)).collect(),
            views: members.iter().map(view).collect(),
            ..Members::alone(node("a"))
        }
    }

    #[test]
    fn who_was_seen_counts_until_it_has_left_and_again_when_it_is_back() {
        let mut roster = Roster::default();
        assert!(roster.see(&view(&[("a", 1), ("b", 5), ("c", 7)])));
        assert!(!roster.see(&view(&[("a", 1)])), "away is not gone");
        assert_eq!((roster.known().len(), roster.expected(5)), (3, 5));

        assert!(!roster.depart(node("b"), 4), "that was an earlier start of it");
        assert!(roster.depart(node("b"), 5));
        assert!(!roster.depart(node("b"), 5));
        assert!(!roster.see(&view(&[("a", 1), ("b", 5)])), "an old view still shows it");
        assert_eq!((roster.known().len(), roster.expected(5)), (2, 4));
        assert!(roster.has_left(node("b")));

        assert!(roster.see(&view(&[("b", 6)])));
        assert_eq!((roster.known().len(), roster.expected(5)), (3, 5));
        assert!(roster.departed().is_empty());
    }
}
