//! The roster: all members of the cluster, whether they answer or not. The router changes it; every
//! component reads it as a fact.
//!
//! An irreversible step (dropping a job, answering "there is no such job") depends on the number of
//! members, not on the number that answers. So each member that was ever seen stays in the roster,
//! on disk, until it has handed everything over and left, or is forgotten. It returns with its next
//! start.

use std::collections::{BTreeMap, BTreeSet};

use cortado_protocol::NodeId;
use serde::{Deserialize, Serialize};

use crate::placement::Members;

/// A member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// The highest generation it was seen with.
    generation: u64,
    /// Hashes of the certificates that it has used.
    certificates: BTreeSet<u64>,
}

/// Members by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Roster {
    known: BTreeMap<NodeId, Known>,
    /// Members that left or were forgotten, with the last generation that this covers.
    departed: BTreeMap<NodeId, u64>,
    /// Certificates of members that were forgotten.
    barred: BTreeSet<u64>,
}

/// Certificates kept for each member.
const CERTIFICATES: usize = 8;

impl Roster {
    /// Adds the members of a view; returns whether the roster has changed.
    pub(crate) fn see(&mut self, members: &Members) -> bool {
        let mut news = false;
        for node in &members.known {
            let generation = members.generation(*node).unwrap_or_default();
            if self.departed.get(node).is_some_and(|left| generation <= *left) {
                continue;
            }
            news |= self.departed.remove(node).is_some();
            let known = self.known.entry(*node).or_insert_with(|| {
                news = true;
                Known::default()
            });
            known.generation = generation.max(known.generation);
        }
        news
    }

    /// A member has used these certificates; returns whether one is new.
    pub(crate) fn certified(&mut self, node: NodeId, certificates: Vec<u64>) -> bool {
        let Some(known) = self.known.get_mut(&node) else { return false };
        let before = known.certificates.len();
        known.certificates.extend(certificates);
        while known.certificates.len() > CERTIFICATES {
            known.certificates.pop_first();
        }
        known.certificates.len() > before
    }

    /// A member is dead and will not return: bars its certificates.
    pub(crate) fn forget(&mut self, node: NodeId) {
        let known = self.known.get(&node).cloned().unwrap_or_default();
        self.barred.extend(known.certificates);
        self.depart(node, known.generation);
    }

    /// Adds certificates that other nodes bar; returns whether one is new.
    pub(crate) fn bar(&mut self, certificates: &[u64]) -> bool {
        let before = self.barred.len();
        self.barred.extend(certificates);
        self.barred.len() > before
    }

    /// Certificates that are refused.
    pub(crate) fn barred(&self) -> Vec<u64> {
        self.barred.iter().copied().collect()
    }

    pub(crate) fn is_known(&self, node: NodeId) -> bool {
        self.known.contains_key(&node)
    }

    /// A member has left; returns whether this is new.
    pub(crate) fn depart(&mut self, node: NodeId, generation: u64) -> bool {
        let back = self.known.get(&node).is_some_and(|seen| seen.generation > generation);
        let told = self.departed.get(&node).is_some_and(|left| *left >= generation);
        if back || told {
            return false;
        }
        self.known.remove(&node);
        self.departed.insert(node, generation);
        true
    }

    /// Members that have left or were forgotten, with the generations that this covers.
    pub(crate) fn departed(&self) -> Vec<(NodeId, u64)> {
        self.departed.iter().map(|(node, generation)| (*node, *generation)).collect()
    }

    pub(crate) fn has_left(&self, node: NodeId) -> bool {
        self.departed.contains_key(&node)
    }

    /// The members, ordered by name.
    pub(crate) fn known(&self) -> impl ExactSizeIterator<Item = NodeId> + '_ {
        self.known.keys().copied()
    }

    /// The expected number of members: the known ones, but at least the number that the cluster was
    /// made for, less those that have left.
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
            http_addr: None,
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

    #[test]
    fn a_forgotten_member_leaves_its_certificates_barred_even_when_it_is_back_with_a_new_one() {
        let mut roster = Roster::default();
        roster.see(&view(&[("a", 1), ("b", 5)]));
        assert!(roster.certified(node("b"), vec![7]) && !roster.certified(node("b"), vec![7]));
        roster.forget(node("b"));
        assert_eq!(
            (roster.known().len(), roster.barred(), roster.departed()),
            (1, vec![7], vec![(node("b"), 5)])
        );
        assert!(roster.see(&view(&[("b", 6)])));
        assert_eq!((roster.known().len(), roster.barred()), (2, vec![7]));
        assert!(roster.bar(&[7, 8]) && !roster.bar(&[8]));
    }
}
