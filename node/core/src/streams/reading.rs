//! What a coordinator has to read next, and which batches it lacks.

use std::collections::BTreeSet;

use cortado_protocol::{Coverage, Edge, EntryKey, JobId, SlotSet};

use super::state::State;
use crate::facts::Facts;
use crate::ledger::index::EdgeIndex;
use crate::record::Located;
use crate::stream_task::{DEAD_LETTERS, StreamTask};

/// Entries that one task reads.
const AT_ONCE: usize = 256;

/// What to read next: outputs first, so that nothing is published twice.
pub(super) fn next(facts: &Facts, job: JobId, state: &State) -> Option<StreamTask> {
    // The newest checkpoint before all: without it nothing behind the floors can be read.
    let floors = facts.retention.floors(job);
    let news = floors.filter(|floors| state.gone_before() < Some(floors.before_ms));
    if let Some(floors) = news {
        let (edge, number) = floors.checkpoint;
        let located = facts.located_at(job, edge, number)?;
        return Some(StreamTask::Published(vec![located]));
    }
    let unread = |which| following(facts, job, which, |edge| state.read_of(edge)).0;
    let outputs = unread(Edge::is_output);
    if !outputs.is_empty() {
        return Some(StreamTask::Published(outputs));
    }
    if state.is_full(DEAD_LETTERS) {
        return None;
    }
    let summaries = unread(Edge::is_publisher);
    (!summaries.is_empty()).then_some(StreamTask::Summaries(summaries))
}

/// Durable entries of some edges that follow those read, without a gap, as many as one task reads;
/// and whether no others are here.
pub(super) fn following(
    facts: &Facts,
    job: JobId,
    which: fn(Edge) -> bool,
    read: impl Fn(Edge) -> u64,
) -> (Vec<Located>, bool) {
    let mut entries = Vec::new();
    let mut all = true;
    let held = facts.ledger.job(job).into_iter().flat_map(|held| held.edges());
    for (edge, index) in held.filter(|(edge, _)| which(*edge)) {
        let from = read(edge);
        let seal = facts.seal(job, edge);
        let mut next = from;
        for (number, record) in index.meta_from(from) {
            match seal {
                // Nothing behind it counts.
                Some(seal) if number >= seal.end => break,
                Some(seal) if !seal.counts(number) => continue,
                Some(seal) => next = seal.next(next),
                None => {}
            }
            if number != next || entries.len() == AT_ONCE {
                all = false;
                break;
            }
            next += 1;
            entries.push((EntryKey { job, edge, number }, record, SlotSet::META));
        }
    }
    (entries, all)
}

/// Batches that are missing here, though later ones of their edge are not, or some output includes
/// them.
pub(super) fn gaps(facts: &Facts, job: JobId, state: &State) -> Vec<(Edge, Coverage)> {
    let held = facts.ledger.job(job);
    let edges = held.into_iter().flat_map(|held| held.edges().map(|(edge, _)| edge));
    let edges = edges.filter(|edge| edge.is_publisher());
    let edges: BTreeSet<_> = edges.chain(state.included().edges().map(|(edge, _)| edge)).collect();
    let gap = |edge: Edge| {
        let read = state.read_of(edge);
        let here = held.and_then(|held| held.edge(edge)).map(EdgeIndex::meta);
        let last = here.and_then(|here| here.intervals().last()).map_or(0, |(_, end)| *end);
        let last = facts.seal(job, edge).map_or(last, |seal| seal.end);
        let end = last.max(state.included().of(edge));
        let wanted = facts.not_void(job, edge, Coverage::range(read.min(end), end));
        lacks(facts, job, (edge, wanted))
    };
    edges.into_iter().filter_map(gap).collect()
}

/// Those of some batches of an edge that are missing here, if any are.
pub(super) fn lacks(
    facts: &Facts,
    job: JobId,
    (edge, wanted): (Edge, Coverage),
) -> Option<(Edge, Coverage)> {
    let missing = match facts.ledger.edge(job, edge) {
        Some(index) => wanted.minus(index.meta()),
        None => wanted,
    };
    (!missing.is_empty()).then_some((edge, missing))
}

/// How many batches of an edge are durable here without a gap, and how many behind one. Batches that do
/// not count are no gap.
pub(super) fn beyond_gap(facts: &Facts, job: JobId, edge: Edge) -> (u64, u64) {
    let Some(index) = facts.ledger.edge(job, edge) else { return (0, 0) };
    let here = match facts.seal(job, edge) {
        None => index.meta().clone(),
        Some(seal) => {
            let mut here = index.meta().and(&Coverage::range(0, seal.end));
            here.union(&seal.void);
            here
        }
    };
    let prefix = match here.intervals().first() {
        Some((0, end)) => *end,
        _ => 0,
    };
    (prefix, here.count() - prefix)
}
