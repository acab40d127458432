//! What a coordinator has to read next, and which batches it lacks.

use std::collections::BTreeSet;

use cortado_protocol::{Coverage, Edge, EntryKey, JobId, SlotSet};

use super::state::State;
use crate::facts::Facts;
use crate::ledger::index::EdgeIndex;
use crate::record::Located;
use crate::stream_task::StreamTask;

/// Entries that one task reads.
const AT_ONCE: usize = 256;
/// While so many dead letters wait to be published, no more batches are read.
const DEAD_LETTERS: u64 = 1_000;

/// What to read next: outputs first, so that nothing is published twice.
pub(super) fn next(facts: &Facts, job: JobId, state: &State) -> Option<StreamTask> {
    let read = |edge: Edge| state.outputs.get(&edge).copied().unwrap_or_default();
    let outputs = unread(facts, job, Edge::is_output, read);
    if !outputs.is_empty() {
        return Some(StreamTask::Published(outputs));
    }
    if state.is_full(DEAD_LETTERS) {
        return None;
    }
    let read = |edge: Edge| state.sources.get(&edge).map_or(0, |source| source.read);
    let summaries = unread(facts, job, Edge::is_publisher, read);
    (!summaries.is_empty()).then_some(StreamTask::Summaries(summaries))
}

/// Durable entries of some edges that follow those read, without a gap.
fn unread(
    facts: &Facts,
    job: JobId,
    which: impl Fn(Edge) -> bool,
    read: impl Fn(Edge) -> u64,
) -> Vec<Located> {
    let Some(held) = facts.ledger.job(job) else { return Vec::new() };
    let mut all = Vec::new();
    for (edge, index) in held.edges().filter(|(edge, _)| which(*edge)) {
        let from = read(edge);
        let records = index.meta_from(from);
        let next = (from..).zip(records).take_while(|(number, (found, _))| number == found);
        all.extend(
            next.take(AT_ONCE - all.len()).map(|(number, (_, record))| {
                (EntryKey { job, edge, number }, record, SlotSet::META)
            }),
        );
        if all.len() == AT_ONCE {
            break;
        }
    }
    all
}

/// Batches that are missing here, though later ones of their edge are not, or some output includes
/// them.
pub(super) fn gaps(facts: &Facts, job: JobId, state: &State) -> Vec<(Edge, Coverage)> {
    let held = facts.ledger.job(job);
    let edges = held.into_iter().flat_map(|held| held.edges().map(|(edge, _)| edge));
    let edges = edges.filter(|edge| edge.is_publisher());
    let edges: BTreeSet<_> = edges.chain(state.included().edges().map(|(edge, _)| edge)).collect();
    let gap = |edge: Edge| {
        let read = state.sources.get(&edge).map_or(0, |source| source.read);
        let here = held.and_then(|held| held.edge(edge)).map(EdgeIndex::meta);
        let last = here.and_then(|here| here.intervals().last()).map_or(0, |(_, end)| *end);
        let end = last.max(state.included().of(edge));
        let wanted = Coverage::range(read.min(end), end);
        let missing = here.map_or_else(|| wanted.clone(), |here| wanted.minus(here));
        (!missing.is_empty()).then_some((edge, missing))
    };
    edges.into_iter().filter_map(gap).collect()
}

/// How many batches of an edge are durable here without a gap, and how many behind one.
pub(super) fn beyond_gap(facts: &Facts, job: JobId, edge: Edge) -> (u64, u64) {
    let Some(index) = facts.ledger.edge(job, edge) else { return (0, 0) };
    let prefix = match index.meta().intervals().first() {
        Some((0, end)) => *end,
        _ => 0,
    };
    (prefix, index.meta().count() - prefix)
}
