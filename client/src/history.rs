//! What a stream has received and published, read in bulk: for audit files and second counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use cortado_protocol::stream::{Cursor, Publisher, Row, StoredEvent, StreamStatus};
use cortado_protocol::{Edge, JobId};
use cortado_stream::{Cut, Recount, Recounted, RowAt, StreamPlan};
use futures_util::{StreamExt, TryStreamExt};
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::stream::{self, POLL_EVERY};
use crate::{Cluster, Error, job};

/// Batches that a first request asks for.
const BATCHES: u16 = 8;
/// Most batches that a request asks for.
const MOST_BATCHES: u16 = 64;
/// An answer of fewer bytes is followed by a request for more batches.
const SMALL_ANSWER: usize = 1 << 20;
/// Answers that are read ahead.
const AHEAD: usize = 2;
/// Requests under way at the same time.
const AT_ONCE: usize = 8;

/// The plan of a stream, as it was submitted.
///
/// # Errors
/// Like [`Cluster::request`].
pub async fn plan(cluster: &Cluster, job: JobId) -> Result<StreamPlan, Error> {
    let text = job::spec(cluster, job).await?.plan_toml;
    StreamPlan::parse(&text).map_err(|error| Error::BadInput(error.to_string()))
}

/// Visits the valid events of a publisher from a batch on, up to what is durable without a gap, batches in
/// order; `visit` gets events and the number of the batch that comes after them. Returns that number at the
/// end, how many events are on no disk any more, and how many batches are gone because their time of
/// retention is over.
///
/// # Errors
/// What `visit` returns; otherwise like [`Cluster::request`].
pub async fn each_event(
    cluster: &Arc<Cluster>,
    job: JobId,
    (publisher, from): (&Publisher, u64),
    mut visit: impl FnMut(Vec<StoredEvent>, u64) -> Result<(), Error>,
) -> Result<(u64, u64, u64), Error> {
    let (sender, mut pages) = mpsc::channel(AHEAD);
    // Aborts the task when it is dropped.
    let mut reading = JoinSet::new();
    reading.spawn(read_pages(Arc::clone(cluster), job, (publisher.edge(), from), sender));
    let (mut end, mut all_lost, mut all_gone) = (from, 0, 0);
    while let Some(page) = pages.recv().await {
        let Page { events, next, lost, gone } = page?;
        tokio::task::block_in_place(|| visit(events, next))?;
        end = next;
        all_lost += lost;
        all_gone += gone;
    }
    Ok((end, all_lost, all_gone))
}

/// Events of some batches.
struct Page {
    events: Vec<StoredEvent>,
    next: u64,
    lost: u64,
    gone: u64,
}

async fn read_pages(
    cluster: Arc<Cluster>,
    job: JobId,
    (edge, mut from): (Edge, u64),
    sender: mpsc::Sender<Result<Page, Error>>,
) {
    let mut batches = BATCHES;
    loop {
        let page = match stream::events(&cluster, job, (edge, from, batches)).await {
            Ok(answer) if answer.next > from => {
                from = answer.next;
                if answer.bytes < SMALL_ANSWER {
                    batches = MOST_BATCHES.min(2 * batches);
                }
                let stream::Events { events, lost, gone, .. } = answer;
                Ok(Page { events, next: from, lost, gone })
            }
            Ok(answer) if answer.prefix <= from => return,
            // They do not fit one answer.
            Ok(_) if batches > 1 => {
                batches /= 2;
                continue;
            }
            Ok(_) => {
                let message = format!("the events of batch {from} do not fit an answer");
                Err(Error::Incomplete(message))
            }
            Err(error) => Err(error),
        };
        let failed = page.is_err();
        if sender.send(page).await.is_err() || failed {
            return;
        }
    }
}

/// The last row of a window or a metric.
struct Last {
    revision: u64,
    /// The output batch that it is in.
    batch: (Edge, u64),
    json: Map<String, Value>,
}

/// What a stream has published up to some moment.
pub struct Published {
    /// The last row of each window and metric, with its cut; ids of events are left out.
    pub rows: Vec<RowAt>,
    /// What all rows together include.
    pub cut: Cut,
}

/// Reads what was published last of each window and metric, all as of the same moment.
///
/// # Errors
/// Like [`Cluster::request`].
pub async fn published(
    cluster: &Cluster,
    job: JobId,
    plan: &StreamPlan,
) -> Result<Published, Error> {
    let mut last: BTreeMap<(String, String), Last> = BTreeMap::new();
    let mut moment = None;
    let compared = |output: &&str| plan.is_window(output) || plan.is_rollup(output);
    for output in plan.outputs().filter(compared) {
        let mut cursor = Cursor::default();
        loop {
            let answer = stream::rows(cluster, job, output, cursor.clone()).await?;
            for row in answer.rows.into_iter().filter(|row| is_before(row, moment.as_ref())) {
                let Ok(Value::Object(mut json)) = serde_json::from_str(&row.json) else { continue };
                // They may be many.
                json.retain(|field, _| field != "event_ids" && field != "input_event_ids");
                let text = |field: &str| json.get(field).and_then(Value::as_str);
                let Some(of) = text("metric_id").or(text("window_start")) else { continue };
                let of = (output.to_owned(), of.to_owned());
                let revision = json.get("revision").and_then(Value::as_u64).unwrap_or_default();
                if last.get(&of).is_none_or(|known| known.revision < revision) {
                    last.insert(of, Last { revision, batch: (row.edge, row.batch), json });
                }
            }
            if answer.cursor == cursor {
                break;
            }
            cursor = answer.cursor;
        }
        moment.get_or_insert(cursor);
    }
    let batches: BTreeSet<_> = last.values().map(|last| last.batch).collect();
    let cuts = batches
        .into_iter()
        .map(async |batch| Ok::<_, Error>((batch, stream::cut(cluster, job, batch).await?)));
    let cuts: BTreeMap<_, _> =
        futures_util::stream::iter(cuts).buffer_unordered(AT_ONCE).try_collect().await?;
    let mut cut = Cut::default();
    cuts.values().for_each(|of| cut.join(of));
    let row = |((output, _), last): ((String, String), Last)| RowAt {
        output,
        row: last.json,
        cut: cuts[&last.batch].clone(),
    };
    Ok(Published { rows: last.into_iter().map(row).collect(), cut })
}

/// Whether a row was published before the reader of another output stood at a cursor.
fn is_before(row: &Row, moment: Option<&Cursor>) -> bool {
    moment.is_none_or(|moment| (row.batch, row.row) < moment.of(row.edge))
}

/// How a stream stood when its events were read.
pub struct Stood {
    /// Its status, before.
    pub status: StreamStatus,
    /// Events that are on no disk any more; their batches were never acknowledged.
    pub lost: u64,
    /// Batches that were not read and are gone, because their time of retention is over.
    pub gone: u64,
}

/// Visits the valid events of a stream behind those that were read before, of each publisher at least the
/// batches that a cut includes; `visit` gets a publisher, events, and the number of the batch that comes
/// after them.
///
/// # Errors
/// What `visit` returns; [`Error::Unreachable`] if batches of the cut can't be read in time; otherwise
/// like [`Cluster::request`].
pub async fn all_events(
    cluster: &Arc<Cluster>,
    job: JobId,
    (mut read, cut): (Cut, &Cut),
    mut visit: impl FnMut(&Publisher, Vec<StoredEvent>, u64) -> Result<(), Error>,
) -> Result<Stood, Error> {
    let deadline = Instant::now() + cluster.patience();
    let (mut lost, mut gone) = (0, 0);
    loop {
        let status = stream::status(cluster, job).await?;
        for of in &status.publishers {
            let publisher = &of.publisher;
            let from = read.of(publisher.edge());
            let reading = each_event(cluster, job, (publisher, from), |events, next| {
                visit(publisher, events, next)
            });
            let (next, now_lost, now_gone) = reading.await?;
            read.include(publisher.edge(), next);
            lost += now_lost;
            gone += now_gone;
        }
        if read.contains(cut) {
            return Ok(Stood { status, lost, gone });
        }
        // A coordinator that has just begun may lack them.
        if Instant::now() >= deadline {
            return Err(cluster.unreachable("batches that were published can't be read"));
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

/// Counts all events of a stream a second time, at least those that a cut includes.
///
/// # Errors
/// [`Error::Incomplete`] if an event is kept as a valid one and is not; otherwise like [`all_events`].
pub async fn recount<'p>(
    cluster: &Arc<Cluster>,
    job: JobId,
    cut: &Cut,
    mut count: Recount<'p>,
) -> Result<(Recounted<'p>, Stood), Error> {
    let stood = all_events(cluster, job, (Cut::default(), cut), |publisher, events, _| {
        let add = |event: &StoredEvent| count.add(publisher.edge(), event);
        let added = events.iter().try_for_each(add);
        added.map_err(|error| Error::Incomplete(error.to_string()))
    });
    let stood = stood.await?;
    Ok((count.finish(), stood))
}
