//! `cortado events`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cortado_protocol::JobId;
use cortado_protocol::stream::{Cursor, Place, PublisherStatus, StreamStatus};
use cortado_stream::time_text;
use serde_json::{Map, Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::args::{DeadArguments, DeadCommand, EventsCommand, PublishArguments};
use super::output::{self, Output, grouped, table};
use crate::generate::events::name_of;
use crate::publish::{Options, Source, Synthetic, publish};
use crate::stream::{self, POLL_EVERY, StreamSource};
use crate::{Cluster, Error, Observer, Progress};

pub(super) async fn run(
    cluster: Arc<Cluster>,
    command: EventsCommand,
    output: Output,
) -> Result<(), Error> {
    match command {
        EventsCommand::Start { plan, schemas, stream } => {
            let source = StreamSource::load(&plan, schemas.as_deref())?;
            let name = stream.stream;
            let (job, new) = stream::start(&cluster, &name, &source).await?;
            let outputs: Vec<_> = source.plan.outputs().collect();
            let value = json!({ "stream": name, "job": job, "new": new, "outputs": outputs });
            output.show(&value, |_| {
                let state = if new { "runs" } else { "runs already" };
                format!("stream {name} {state} (job {job}); its outputs: {}", outputs.join(", "))
            })
        }
        EventsCommand::Stop { stream } => {
            let job = stream::find(&cluster, &stream.stream).await?;
            stream::stop(&cluster, job).await?;
            let status = stream::status(&cluster, job).await?;
            let open: Vec<_> = open_publishers(&status).collect();
            output.show(&json!({ "stream": stream.stream, "job": job, "waits_for": open }), |_| {
                if open.is_empty() {
                    return "the stream ends: its last windows are being published".to_owned();
                }
                format!("the stream ends when these publishers have ended: {}", open.join(", "))
            })
        }
        EventsCommand::Publish(arguments) => run_publish(cluster, arguments, output).await,
        EventsCommand::Tail { output: name, after, no_follow, stream } => {
            let job = stream::find(&cluster, &stream.stream).await?;
            tail(&cluster, job, &name, after.unwrap_or_default(), no_follow, output).await
        }
        EventsCommand::Status { stream } => {
            let job = stream::find(&cluster, &stream.stream).await?;
            let status = stream::status(&cluster, job).await?;
            output.show(&status_json(&stream.stream, job, &status), |_| status_text(&status))
        }
        EventsCommand::Reload { schemas, stream } => {
            let job = stream::find(&cluster, &stream.stream).await?;
            let files = match schemas {
                Some(folder) => stream::read_schemas(&folder)?,
                None => stream::built_in(),
            };
            let set = stream::status(&cluster, job).await?.schema_set.map_or(0, |set| set + 1);
            stream::put_schemas(&cluster, job, set, files).await?;
            output.show(&json!({ "stream": stream.stream, "schema_set": set }), |_| {
                format!("schema set {set} is in force")
            })
        }
        EventsCommand::Metrics { mut wanted, region, date, source, output: name, stream } => {
            let job = stream::find(&cluster, &stream.stream).await?;
            let more = [("region", region), ("date", date)];
            let more = more.into_iter().filter_map(|(field, text)| Some((field.to_owned(), text?)));
            wanted.extend(more);
            metrics(&cluster, (job, &name), (&wanted, source.as_deref()), output).await
        }
        EventsCommand::Dead { command: None, list } => dead(&cluster, &list, output).await,
        EventsCommand::Dead { command: Some(DeadCommand::Show { id, stream }), .. } => {
            let job = stream::find(&cluster, &stream.stream).await?;
            let (reason, path, raw) = stream::dead(&cluster, job, id).await?;
            output::note(&format!("{reason}{}{path}", if path.is_empty() { "" } else { " at " }));
            output.bytes(&raw)
        }
        EventsCommand::Dead { command: Some(DeadCommand::Replay(list)), .. } => {
            replay(cluster, &list, output).await
        }
        EventsCommand::Check { stream } => {
            let job = stream::find(&cluster, &stream.stream).await?;
            check(&stream::status(&cluster, job).await?, output)
        }
    }
}

fn open_publishers(status: &StreamStatus) -> impl Iterator<Item = &str> {
    let open = status.publishers.iter().filter(|publisher| !publisher.ended);
    open.map(|publisher| publisher.publisher.name.as_str())
}

/// What a publisher has done, for its last line.
#[derive(Default)]
struct Counts {
    events: AtomicU64,
    dead: AtomicU64,
    known: AtomicU64,
    /// Microseconds from the first sending of each batch to its acknowledgement.
    took: std::sync::Mutex<Vec<u32>>,
    printed: std::sync::Mutex<Option<Instant>>,
}

/// Batches of which the time is kept.
const TIMES: usize = 1 << 20;
/// Pause between two lines of progress.
const LINE_EVERY: Duration = Duration::from_secs(5);

impl Observer for Counts {
    fn note(&self, progress: Progress<'_>) {
        match progress {
            Progress::Durable { rows, rejected, took, .. } => {
                let mut all = self.took.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if all.len() < TIMES {
                    all.push(took.as_micros().try_into().unwrap_or(u32::MAX));
                }
                drop(all);
                self.events.fetch_add(rows, Ordering::Relaxed);
                self.dead.fetch_add(rejected, Ordering::Relaxed);
            }
            Progress::Known { .. } => {
                self.known.fetch_add(1, Ordering::Relaxed);
            }
            Progress::Waiting(reason) => return self.line(&format!("waits: {reason}")),
            _ => return,
        }
        let events = self.events.load(Ordering::Relaxed);
        self.line(&format!("{} events on disk", grouped(events)));
    }
}

impl Counts {
    /// The time in milliseconds within which this share of the batches was acknowledged.
    fn within(&self, share: f64) -> f64 {
        let mut all = self.took.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.sort_unstable();
        let at = (all.len() as f64 * share) as usize;
        let micros = all.get(at.min(all.len().saturating_sub(1))).copied().unwrap_or_default();
        f64::from(micros) / 1_000.0
    }

    fn line(&self, text: &str) {
        let mut printed = self.printed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if printed.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
            *printed = Some(Instant::now());
            output::note(text);
        }
    }
}

async fn run_publish(
    cluster: Arc<Cluster>,
    arguments: PublishArguments,
    output: Output,
) -> Result<(), Error> {
    let PublishArguments { rate, lasts, count, seed, duplicates, out_of_order, invalid, .. } =
        arguments;
    let named = arguments.publisher.is_some();
    let publisher =
        arguments.publisher.unwrap_or_else(|| name_of(crate::job::new_job_id().0 as u64));
    let source = match arguments.from {
        Some(path) if path.as_os_str() == "-" => Source::Stdin,
        Some(path) => Source::File(path),
        None => {
            let count = count.or_else(|| lasts.map(|seconds| (seconds * rate) as u64));
            Source::Synthetic(Synthetic { seed, rate, count, duplicates, invalid })
        }
    };
    let options = Options {
        publisher: publisher.clone(),
        backfill: arguments.backfill,
        disorder_ms: (out_of_order * 1_000.0) as i64,
        source,
    };
    let job = stream::find(&cluster, &arguments.stream.stream).await?;
    if !named {
        output::note(&format!("publisher {publisher}"));
    }
    let counts = Counts::default();
    let failed = |error| Error::io("wait for", "signals".as_ref(), error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let done = tokio::select! {
        done = publish(&cluster, job, &options, &counts) => done,
        _ = interrupt.recv() => {
            output::note(&format!(
                "interrupted: publisher {publisher} has not ended. To go on, use the same command with \
                 --publisher {publisher}"
            ));
            Err(Error::Detached(job))
        }
    };
    done?;
    let events = counts.events.load(Ordering::Relaxed);
    let (dead, known) = (counts.dead.load(Ordering::Relaxed), counts.known.load(Ordering::Relaxed));
    let value = json!({
        "publisher": publisher, "events": events, "dead": dead, "batches_known": known,
        "acknowledged_ms": { "p50": counts.within(0.5), "p99": counts.within(0.99) },
    });
    output.show(&value, |_| {
        let before = match known {
            0 => String::new(),
            known => format!(", {} batches were there before", grouped(known)),
        };
        format!(
            "publisher {publisher}: {} events sent, {} of them dead letters{before}",
            grouped(events),
            grouped(dead)
        )
    })
}

/// Prints the last revision of each metric.
async fn metrics(
    cluster: &Cluster,
    (job, name): (JobId, &str),
    (wanted, source): (&[(String, String)], Option<&str>),
    output: Output,
) -> Result<(), Error> {
    let mut last: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for row in stream::all_rows(cluster, job, name).await? {
        let id = row.get("metric_id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let fits = |(field, text): &(String, String)| row.get(field) == Some(&json!(text));
        let revision = |row: &Map<String, Value>| row.get("revision").and_then(Value::as_u64);
        let newer = last.get(&id).is_none_or(|known| revision(known) < revision(&row));
        if newer && wanted.iter().all(fits) {
            last.insert(id, row);
        }
    }
    for row in last.values_mut() {
        // What a revision added says nothing about the metrics as they stand.
        row.remove("input_event_ids");
        row.remove("input_event_count");
        if let (Some(source), Some(Value::Object(parts))) = (source, row.get_mut("metrics")) {
            parts.retain(|part, _| part == source);
        }
    }
    let rows: Vec<_> = last.into_values().collect();
    output.show(&rows, |rows| {
        if rows.is_empty() {
            return "no metrics yet".to_owned();
        }
        let mut lines = Vec::new();
        for row in rows {
            let parts = row.get("metrics").and_then(Value::as_object);
            let id = row.get("metric_id").and_then(Value::as_str).unwrap_or_default();
            for (part, metrics) in parts.into_iter().flatten() {
                let count = metrics.get("count").and_then(Value::as_u64).unwrap_or_default();
                let others = metrics.as_object().into_iter().flatten();
                let others = others.filter(|(name, _)| *name != "count");
                let others = others.map(|(name, value)| format!("{name} {value}"));
                let others = others.collect::<Vec<_>>().join(", ").replace('"', "");
                lines.push(vec![id.to_owned(), part.clone(), grouped(count), others]);
            }
        }
        table(&["METRIC", "PART", "COUNT", "MORE"], &[2], lines)
    })
}

/// Publishers that send dead letters again.
const REPLAY: &str = "dead-replay-";

/// The dead letters of both outputs.
async fn letters(
    cluster: &Cluster,
    job: JobId,
    reason: Option<&str>,
) -> Result<Vec<Map<String, Value>>, Error> {
    let mut all = Vec::new();
    for name in ["deadletter.validation", "deadletter.processing"] {
        all.extend(stream::all_rows(cluster, job, name).await?);
    }
    // Two coordinators may have told of the same one.
    let mut seen = BTreeSet::new();
    all.retain(|row| {
        let text = |field: &str| row.get(field).and_then(Value::as_str).unwrap_or_default();
        let wanted = reason.is_none_or(|reason| text("reason").contains(reason));
        wanted && seen.insert(text("dead_id").to_owned())
    });
    Ok(all)
}

async fn dead(cluster: &Cluster, list: &DeadArguments, output: Output) -> Result<(), Error> {
    let job = stream::find(cluster, &list.stream.stream).await?;
    let all = letters(cluster, job, list.reason.as_deref()).await?;
    if output.json {
        return all.into_iter().try_for_each(|row| output.line(&Value::Object(row).to_string()));
    }
    if all.is_empty() {
        return output.line("no dead letters");
    }
    let text = |row: &Map<String, Value>, field: &str| {
        row.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let rows = all
        .iter()
        .map(|row| {
            let id = text(row, "dead_id");
            vec![id, text(row, "publisher"), text(row, "path"), text(row, "reason")]
        })
        .collect();
    output.line(table(&["ID", "PUBLISHER", "PATH", "REASON"], &[], rows).trim_end())
}

/// Sends dead letters again, under a new name.
async fn replay(cluster: Arc<Cluster>, list: &DeadArguments, output: Output) -> Result<(), Error> {
    let job = stream::find(&cluster, &list.stream.stream).await?;
    let mut lines = Vec::new();
    let mut sent = 0_u64;
    for row in letters(&cluster, job, list.reason.as_deref()).await? {
        let text = |field: &str| row.get(field).and_then(Value::as_str).unwrap_or_default();
        // A conflict is no dead letter of its batch, and what was replayed is still listed where it
        // was at first.
        if row.contains_key("counts") || text("publisher").starts_with(REPLAY) {
            continue;
        }
        let Some(place) = Place::from_text(text("dead_id")) else { continue };
        let (_, _, raw) = stream::dead(&cluster, job, place).await?;
        lines.extend_from_slice(&raw);
        lines.push(b'\n');
        sent += 1;
    }
    if sent == 0 {
        return output.show(&json!({ "replayed": 0 }), |_| "no dead letters to replay".to_owned());
    }
    let publisher = format!("{REPLAY}{:08x}", crate::job::new_job_id().0 as u32);
    let source = Source::Lines(lines.into());
    let options = Options { publisher: publisher.clone(), backfill: true, disorder_ms: 0, source };
    let counts = Counts::default();
    publish(&cluster, job, &options, &counts).await?;
    let dead = counts.dead.load(Ordering::Relaxed);
    output.show(&json!({ "publisher": publisher, "replayed": sent, "dead": dead }), |_| {
        format!(
            "{} dead letters sent again, {} of them are dead letters again",
            grouped(sent),
            grouped(dead)
        )
    })
}

/// Windows whose last revision is remembered.
const REMEMBERED: usize = 10_000;

/// Prints rows, and leaves out what two coordinators published at the same time.
async fn tail(
    cluster: &Cluster,
    job: JobId,
    name: &str,
    mut cursor: Cursor,
    no_follow: bool,
    output: Output,
) -> Result<(), Error> {
    let mut revisions: HashMap<String, u64> = HashMap::new();
    // The cursor of a line, which may stand before rows of other outputs that the answer skipped.
    let mut at = cursor.clone();
    loop {
        let answer = stream::rows(cluster, job, name, cursor.clone()).await?;
        let more = answer.cursor != cursor;
        for row in answer.rows {
            at.advance(row.edge, row.batch, row.row + 1);
            let Ok(Value::Object(mut line)) = serde_json::from_str(&row.json) else { continue };
            let window = line.get("window_start").and_then(Value::as_str).map(str::to_owned);
            let revision = line.get("revision").and_then(Value::as_u64);
            if let (Some(window), Some(revision)) = (window, revision) {
                if revisions.len() >= REMEMBERED {
                    revisions.clear();
                }
                if revisions.get(&window).is_some_and(|last| *last >= revision) {
                    continue;
                }
                revisions.insert(window, revision);
            }
            line.insert("cursor".into(), at.to_text().into());
            output.line(&Value::Object(line).to_string())?;
        }
        cursor = answer.cursor;
        at = cursor.clone();
        if answer.ended || (no_follow && !more) {
            return Ok(());
        }
        if !more {
            tokio::time::sleep(POLL_EVERY).await;
        }
    }
}

fn check(status: &StreamStatus, output: Output) -> Result<(), Error> {
    let events = status.events;
    let sum = events.counted + events.duplicates + events.dead + events.open;
    let fine = events.received == sum;
    let value = json!({
        "ok": fine,
        "received": events.received,
        "counted": events.counted,
        "duplicates": events.duplicates,
        "dead": events.dead,
        "open": events.open,
    });
    output.show(&value, |_| {
        format!(
            "received {} = counted {} + duplicates {} + dead letters {} + in open windows {}{}",
            grouped(events.received),
            grouped(events.counted),
            grouped(events.duplicates),
            grouped(events.dead),
            grouped(events.open),
            if fine { "" } else { ": WRONG" }
        )
    })?;
    if fine {
        return Ok(());
    }
    Err(Error::Incomplete(format!("{} events were received, {sum} are found", events.received)))
}

fn time_json(ms: Option<i64>) -> Value {
    match ms {
        None | Some(i64::MAX) => Value::Null,
        Some(ms) => time_text(ms).into(),
    }
}

fn status_json(name: &str, job: JobId, status: &StreamStatus) -> Value {
    let publisher = |of: &PublisherStatus| {
        json!({
            "name": of.publisher.name,
            "generation": of.publisher.generation,
            "backfill": of.publisher.backfill,
            "opened_ms": of.publisher.opened_ms,
            "prefix": of.prefix,
            "beyond_gap": of.beyond_gap,
            "watermark": time_json(of.watermark_ms),
            "events": of.events,
            "dead": of.dead,
            "ended": of.ended,
            "idle": of.idle,
        })
    };
    json!({
        "stream": name,
        "job": job,
        "coordinator": status.coordinator,
        "schema_set": status.schema_set,
        "stopping": status.stopping,
        "ended": status.ended,
        "watermark": time_json(status.watermark_ms),
        "events": {
            "received": status.events.received,
            "counted": status.events.counted,
            "duplicates": status.events.duplicates,
            "dead": status.events.dead,
            "open": status.events.open,
        },
        "open_windows": status.open_windows,
        "closed_windows": status.closed_windows,
        "published": status.published,
        "waits_for": status.waits_for,
        "publishers": status.publishers.iter().map(publisher).collect::<Vec<_>>(),
    })
}

fn status_text(status: &StreamStatus) -> String {
    let state = match (status.ended, status.stopping) {
        (true, _) => "ended",
        (false, true) => "is to end",
        (false, false) => "runs",
    };
    let watermark = match status.watermark_ms {
        None => "none yet".to_owned(),
        Some(i64::MAX) => "no publisher is waited for".to_owned(),
        Some(ms) => time_text(ms),
    };
    let events = status.events;
    let mut text = format!(
        "the stream {state}\nwatermark: {watermark}\nwindows: {} open, {} closed, {} rows published\n\
         events: {} received, {} counted, {} duplicates, {} dead letters, {} in open windows\n",
        status.open_windows,
        status.closed_windows,
        status.published,
        grouped(events.received),
        grouped(events.counted),
        grouped(events.duplicates),
        grouped(events.dead),
        grouped(events.open),
    );
    if let Some(waits) = &status.waits_for {
        text.push_str(&format!("it waits: {waits}\n"));
    }
    if status.publishers.is_empty() {
        return text;
    }
    let row = |of: &PublisherStatus| {
        let state = match of {
            _ if of.ended => "ended",
            _ if of.beyond_gap > 0 => "has a gap",
            _ if of.idle => "idle",
            _ => "open",
        };
        let watermark = match of.watermark_ms {
            None | Some(i64::MAX) => "-".to_owned(),
            Some(ms) => time_text(ms),
        };
        let name = match of.publisher.generation {
            0 => of.publisher.name.clone(),
            generation => format!("{} ({generation})", of.publisher.name),
        };
        vec![
            name,
            state.into(),
            grouped(of.prefix),
            grouped(of.events),
            grouped(of.dead),
            watermark,
        ]
    };
    let rows = status.publishers.iter().map(row).collect();
    text.push_str(&table(
        &["PUBLISHER", "STATE", "BATCHES", "EVENTS", "DEAD", "WATERMARK"],
        &[2, 3, 4],
        rows,
    ));
    text
}
