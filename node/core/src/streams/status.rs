//! How a stream stands, for clients.

use cortado_protocol::entry::Entry;
use cortado_protocol::stream::{Publisher, PublisherStatus, StreamStatus};
use cortado_protocol::{Edge, EntryKey, JobId, NodeId};

use super::reading;
use super::stream::{Step, Stream};
use crate::facts::Facts;
use crate::job::JobLog;
use crate::stream_log::StreamLog;

/// How a stream stands; not who says so, and not what it waits for.
pub(super) fn status_of(
    facts: &Facts,
    job: JobId,
    (log, stream): (&JobLog, &Stream),
) -> StreamStatus {
    let mut publishers: Vec<_> = log.stream.publishers.values().collect();
    publishers.sort_by_key(|publisher| (&publisher.name, publisher.generation));
    let of =
        |publisher: &&Publisher| publisher_status(facts, job, (&log.stream, stream), publisher);
    let (open_windows, closed_windows) = stream.state.window_counts();
    StreamStatus {
        coordinator: None,
        schema_set: log.stream.newest_set(),
        stopping: log.stream.stopping,
        ended: false,
        publishers: publishers.iter().map(of).collect(),
        watermark_ms: stream.state.watermark(&log.stream, &stream.plan, facts.now),
        events: stream.state.counts(),
        open_windows,
        closed_windows,
        published: stream.state.rows,
        retired: stream.state.retirement(),
        webhooks: stream.deliveries.status(&stream.plan),
        waits_for: None,
    }
}

/// The result of a stream that has ended. Two coordinators that end it write the same bytes: all its
/// publishers have ended, so both have read the same batches.
pub(super) fn summary(facts: &Facts, job: JobId, of: (&JobLog, &Stream)) -> Entry {
    let status = status_of(facts, job, of);
    // How often a window was published depends on the coordinators.
    let mut status = StreamStatus { ended: true, published: status.closed_windows, ..status };
    status.publishers.iter_mut().for_each(|publisher| publisher.idle = false);
    status.webhooks.clear();
    let bytes = serde_json::to_vec_pretty(&status).unwrap_or_default();
    Entry::meta(EntryKey { job, edge: Edge::RESULT, number: 0 }, bytes.into())
}

fn publisher_status(
    facts: &Facts,
    job: JobId,
    (log, stream): (&StreamLog, &Stream),
    publisher: &Publisher,
) -> PublisherStatus {
    let edge = publisher.edge();
    let source = stream.state.sources.get(&edge);
    let (prefix, beyond_gap) = reading::beyond_gap(facts, job, edge);
    PublisherStatus {
        publisher: publisher.clone(),
        prefix,
        beyond_gap,
        watermark_ms: source.and_then(|source| source.watermark_ms),
        events: source.map_or(0, |source| source.received),
        dead: source.map_or(0, |source| source.dead),
        ended: stream.state.has_ended(publisher),
        idle: source.is_some_and(|source| source.is_idle(&stream.plan, facts.now)),
        sealed: log.seals.get(&edge).cloned(),
    }
}

/// A sentence that says what the stream waits for.
pub(super) fn waits_for(
    facts: &Facts,
    (log, stream): (&JobLog, &Stream),
    status: &StreamStatus,
) -> Option<String> {
    if let Err(reason) = facts.replicas_suffice() {
        return Some(reason);
    }
    if log.stream.schemas.is_empty() {
        return Some("waits for a schema set: cortado events reload".to_owned());
    }
    if let Some(trouble) = &stream.trouble {
        return Some(format!("a round could not be published: {trouble}"));
    }
    if let Some(nodes) = stream.sealing.as_ref().and_then(|_| names(facts.unreached())) {
        return Some(format!(
            "a publisher is gone, and what counts of it is known once {nodes} are there: start them, or \
             cortado forget"
        ));
    }
    let named = |publisher: &PublisherStatus| publisher.publisher.name.clone();
    let gaps = status.publishers.iter().filter(|publisher| publisher.beyond_gap > 0);
    let gaps: Vec<_> = gaps.map(named).collect();
    if !gaps.is_empty() {
        return Some(format!(
            "waits for missing batches of {}: start it again under its name, with the same options",
            gaps.join(", ")
        ));
    }
    if log.stream.stopping {
        let open = status.publishers.iter().filter(|publisher| !publisher.ended);
        let open: Vec<_> = open.map(named).collect();
        if !open.is_empty() {
            return Some(format!("is to end, and waits for the publishers {}", open.join(", ")));
        }
    }
    let waiting = status.webhooks.iter().find(|of| of.waiting > 0);
    if let Some(of) = waiting.filter(|_| log.stream.stopping) {
        let (rows, webhook) = (of.waiting, &of.webhook);
        let why = of.error.as_ref().map_or_else(String::new, |error| format!(" ({error})"));
        return Some(format!("is to end, and delivers {rows} rows to {webhook}{why}"));
    }
    if log.stream.stopping && facts.misses_too_many() {
        return Some("is to end, and waits: too many members are away".to_owned());
    }
    let missed = stream.retiring.as_ref().and_then(|retiring| {
        let open = retiring.asked.open(facts);
        names(facts.unreached().filter(|node| open.contains(node)))
    });
    if let Some(nodes) = missed {
        return Some(format!(
            "keeps what is older than its time of retention until {nodes} agree: start them, or cortado forget"
        ));
    }
    match &stream.step {
        Step::Fold { slots, .. } => Some(format!("waits for {} slots", slots.open.len())),
        Step::Write { .. } | Step::Seal { .. } => {
            Some("writes what it publishes to the replicas".to_owned())
        }
        Step::Idle
        | Step::Read
        | Step::Gather(_)
        | Step::Ask(_)
        | Step::Publish
        | Step::Close { .. } => None,
    }
}

/// The names of nodes, if there are any.
fn names(nodes: impl Iterator<Item = NodeId>) -> Option<String> {
    let names: Vec<_> = nodes.map(|node| node.to_string()).collect();
    (!names.is_empty()).then(|| names.join(", "))
}
