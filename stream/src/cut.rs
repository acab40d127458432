//! Cuts: how many batches of each publisher are included.

use cortado_protocol::{Edge, content_hash, frame};
use serde::{Deserialize, Serialize};

/// The gap-free prefix of each edge that an output includes.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cut(Vec<(Edge, u64)>);

impl Cut {
    /// The number of batches that are included of an edge.
    #[must_use]
    pub fn of(&self, edge: Edge) -> u64 {
        let at = self.0.binary_search_by_key(&edge, |(edge, _)| *edge);
        at.map_or(0, |at| self.0[at].1)
    }

    /// Includes at least so many batches of an edge.
    pub fn include(&mut self, edge: Edge, batches: u64) {
        match self.0.binary_search_by_key(&edge, |(edge, _)| *edge) {
            Ok(at) => self.0[at].1 = self.0[at].1.max(batches),
            Err(_) if batches == 0 => {}
            Err(at) => self.0.insert(at, (edge, batches)),
        }
    }

    /// Includes what another cut includes.
    pub fn join(&mut self, other: &Self) {
        other.edges().for_each(|(edge, batches)| self.include(edge, batches));
    }

    /// Whether it includes all that another cut includes.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        other.edges().all(|(edge, batches)| self.of(edge) >= batches)
    }

    /// Whether it includes this batch.
    #[must_use]
    pub fn has(&self, edge: Edge, number: u64) -> bool {
        number < self.of(edge)
    }

    /// The edges of which anything is included, in order.
    pub fn edges(&self) -> impl Iterator<Item = (Edge, u64)> + '_ {
        self.0.iter().copied()
    }

    /// The number of batches that are included: it grows along every chain of cuts.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.0.iter().map(|(_, batches)| batches).sum()
    }

    /// A hash, by which readers compare cuts.
    #[must_use]
    pub fn hash_text(&self) -> String {
        format!("{:016x}", content_hash(&frame::to_postcard(self)))
    }
}

impl FromIterator<(Edge, u64)> for Cut {
    fn from_iter<T: IntoIterator<Item = (Edge, u64)>>(edges: T) -> Self {
        let mut cut = Self::default();
        edges.into_iter().for_each(|(edge, batches)| cut.include(edge, batches));
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_are_compared_by_what_they_include() {
        let (a, b) = (Edge::publisher("a", 0), Edge::publisher("b", 0));
        let small: Cut = [(a, 2), (b, 0)].into_iter().collect();
        let other: Cut = [(b, 1)].into_iter().collect();
        assert!(!small.contains(&other) && !other.contains(&small));
        assert!(small.has(a, 1) && !small.has(a, 2) && !small.has(b, 0));
        let mut both = small.clone();
        both.join(&other);
        assert!(both.contains(&small) && both.contains(&other));
        assert_eq!(both.batches(), 3);
        let same: Cut = [(b, 1), (a, 1), (a, 2)].into_iter().collect();
        assert_eq!((both.hash_text(), &both), (same.hash_text(), &same));
        assert_ne!(both.hash_text(), small.hash_text());
    }
}
