//! Where ids were seen: finds events of other windows with the id of an event.
//!
//! Equal copies of an event have one time, so they meet in one window. Only an event that contradicts
//! another one can lie elsewhere. An [`IdIndex`] says which batches may have an event with some id, and
//! in which window; the batches are read to be sure. It keeps a hash of each id (64 bits), so what it finds
//! is nearly always there. It is a cache: what is looked up in it depends on the batches only.

use std::collections::BTreeMap;
use std::ops::Range;

use cortado_engine::DeltaError;
use cortado_protocol::{Coverage, Edge, content_hash};
use hashbrown::HashTable;
use serde::{Deserialize, Serialize};

use crate::event::{Fact, facts_of};
use crate::plan::{StreamPlan, start_of};

/// Folds after which a span that none of them looked into is dropped.
const UNUSED_FOLDS: u64 = 20;

/// A span of event time in which ids are looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdSpan {
    /// Where it starts, in milliseconds since the Unix epoch: see [`StreamPlan::id_span`].
    pub start_ms: i64,
    /// The batches that have events in it, of each edge in order.
    pub batches: Vec<(Edge, Coverage)>,
}

impl IdSpan {
    /// Whether it has a batch.
    #[must_use]
    pub fn has(&self, edge: Edge, batch: u64) -> bool {
        let of = self.batches.binary_search_by_key(&edge, |(of, _)| *of);
        of.is_ok_and(|at| self.batches[at].1.contains(batch))
    }
}

/// A batch, and the start of the window in which an event of it lies, of the plan's shortest windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sighting {
    pub(crate) window_ms: i64,
    pub(crate) edge: Edge,
    pub(crate) batch: u64,
}

/// An id, and where it was seen.
#[derive(Debug)]
struct Seen {
    /// The hash of the id, in two parts, which takes less room.
    hash: [u32; 2],
    /// Number of the sighting in its span.
    sighting: u32,
}

impl Seen {
    fn new(hash: u64, sighting: u32) -> Self {
        Self { hash: [hash as u32, (hash >> 32) as u32], sighting }
    }

    fn hash(&self) -> u64 {
        u64::from(self.hash[1]) << 32 | u64::from(self.hash[0])
    }
}

/// The ids of a span.
#[derive(Debug, Default)]
struct Ids {
    /// The batches whose events are in it.
    covered: BTreeMap<Edge, Coverage>,
    sightings: Vec<Sighting>,
    seen: HashTable<Seen>,
    /// The fold that looked into it last.
    used: u64,
}

/// The ids of a slot.
#[derive(Debug, Default)]
pub struct IdIndex {
    spans: BTreeMap<i64, Ids>,
    folds: u64,
}

impl IdIndex {
    /// The batches of a span that are not in the index.
    pub fn missing(&self, span: &IdSpan) -> impl Iterator<Item = (Edge, Coverage)> {
        let ids = self.spans.get(&span.start_ms);
        let missing = span.batches.iter().map(move |(edge, wanted)| {
            let covered = ids.and_then(|ids| ids.covered.get(edge));
            (*edge, covered.map_or_else(|| wanted.clone(), |covered| wanted.minus(covered)))
        });
        missing.filter(|(_, missing)| !missing.is_empty())
    }

    /// Adds the events of a batch that lie in a span, from its delta.
    ///
    /// # Errors
    /// If the bytes are no delta of events.
    pub fn learn(
        &mut self,
        plan: &StreamPlan,
        start_ms: i64,
        of: (Edge, u64),
        delta: &[u8],
    ) -> Result<(), DeltaError> {
        self.add(plan, start_ms, of, &facts_of(delta)?.facts);
        Ok(())
    }

    /// Adds the events of a batch that lie in a span, unless they are there.
    pub(crate) fn add(
        &mut self,
        plan: &StreamPlan,
        start_ms: i64,
        (edge, batch): (Edge, u64),
        facts: &[Fact],
    ) {
        let folds = self.folds;
        let ids =
            self.spans.entry(start_ms).or_insert_with(|| Ids { used: folds, ..Ids::default() });
        if !ids.covered.entry(edge).or_default().insert(batch) {
            return;
        }
        let (range, shortest) = (plan.id_span(start_ms), plan.shortest_ms());
        let first = ids.sightings.len();
        for fact in facts.iter().filter(|fact| range.contains(&fact.at_ms)) {
            let window_ms = start_of(fact.at_ms, shortest);
            let own = ids.sightings[first..].iter().position(|of| of.window_ms == window_ms);
            let sighting = first + own.unwrap_or(ids.sightings.len() - first);
            if own.is_none() {
                ids.sightings.push(Sighting { window_ms, edge, batch });
            }
            let (hash, sighting) = (content_hash(fact.id.as_bytes()), sighting as u32);
            let same = |seen: &Seen| seen.hash() == hash && seen.sighting == sighting;
            if ids.seen.find(hash, same).is_none() {
                ids.seen.insert_unique(hash, Seen::new(hash, sighting), Seen::hash);
            }
        }
    }

    /// Where in a span an id may have been seen.
    pub(crate) fn find(&self, start_ms: i64, id: &str) -> impl Iterator<Item = Sighting> {
        let hash = content_hash(id.as_bytes());
        let ids = self.spans.get(&start_ms);
        ids.into_iter().flat_map(move |ids| {
            let of_id = ids.seen.iter_hash(hash).filter(move |seen| seen.hash() == hash);
            of_id.map(|seen| ids.sightings[seen.sighting as usize])
        })
    }

    /// A fold begins: spans that were not looked into for a while are dropped.
    pub fn begin(&mut self, spans: &[IdSpan]) {
        self.folds += 1;
        for span in spans {
            if let Some(ids) = self.spans.get_mut(&span.start_ms) {
                ids.used = self.folds;
            }
        }
        let folds = self.folds;
        self.spans.retain(|_, ids| ids.used + UNUSED_FOLDS > folds);
    }

    /// Drops a span.
    pub fn drop_span(&mut self, start_ms: i64) {
        self.spans.remove(&start_ms);
    }

    /// About how many bytes of memory it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let bytes = self.spans.values().map(|ids| {
            ids.seen.capacity() * (size_of::<Seen>() + 1)
                + ids.sightings.capacity() * size_of::<Sighting>()
        });
        bytes.sum()
    }
}

impl StreamPlan {
    /// The span of ids that starts then, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn id_span(&self, start_ms: i64) -> Range<i64> {
        start_ms..start_ms.saturating_add(self.id_span_ms())
    }

    /// Where the spans start that have times of a range.
    pub fn id_spans(&self, range: Range<i64>) -> impl Iterator<Item = i64> {
        let every = self.id_span_ms();
        let first = start_of(range.start, every);
        std::iter::successors(Some(first), move |at| at.checked_add(every))
            .take_while(move |at| *at < range.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> StreamPlan {
        let text = "name = 's'\n[stream]\nid = 'i'\ntime = 't'\nhorizon = '6s'\n\
                    [[windows]]\noutput = 'w'\nevery = '1s'\ngroup_by = ['g']\n";
        StreamPlan::parse(text).unwrap()
    }

    fn fact(id: &str, at_ms: i64) -> Fact {
        let (content, position, keys, paths) = (0, 0, Vec::new(), Vec::new());
        Fact { id: id.to_owned(), at_ms, content, position, keys, paths }
    }

    #[test]
    fn an_id_is_found_in_each_batch_and_window_that_has_it_and_unused_spans_go() {
        let (plan, edge) = (plan(), Edge::publisher("p", 0));
        assert_eq!(plan.id_spans(-10..2_500).collect::<Vec<_>>(), [-1_000, 0, 1_000, 2_000]);
        let mut index = IdIndex::default();
        let facts = [fact("a", 100), fact("a", 200), fact("b", 300), fact("a", 1_100)];
        for batch in [7, 8, 8] {
            index.add(&plan, 0, (edge, batch), &facts);
        }
        index.add(&plan, 1_000, (edge, 8), &facts);
        let found = |start, id: &str| {
            let found = index.find(start, id).map(|of| (of.window_ms, of.batch));
            let mut found: Vec<_> = found.collect();
            found.sort_unstable();
            found
        };
        assert_eq!(found(0, "a"), [(0, 7), (0, 8)]);
        assert_eq!(found(1_000, "a"), [(1_000, 8)]);
        assert_eq!((found(0, "c"), found(2_000, "a")), (vec![], vec![]));
        let span = |start_ms| IdSpan { start_ms, batches: vec![(edge, Coverage::range(7, 9))] };
        assert!(span(0).has(edge, 8) && !span(0).has(edge, 9) && index.bytes() > 0);
        let missing = |index: &IdIndex, start| index.missing(&span(start)).collect::<Vec<_>>();
        assert_eq!(missing(&index, 0), []);
        assert_eq!(missing(&index, 1_000), [(edge, Coverage::range(7, 8))]);
        for _ in 0..=UNUSED_FOLDS {
            index.begin(&[span(1_000)]);
        }
        assert_eq!((missing(&index, 0).len(), missing(&index, 1_000).len()), (1, 1));
        assert_eq!(index.find(1_000, "a").count(), 1);
    }
}
