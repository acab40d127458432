//! `cortado events`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cortado_protocol::JobId;
use cortado_protocol::stream::{Cursor, Row, StreamStatus};
use serde_json::{Map, Value, json};

use super::args::{DeadCommand, EventsCommand};
use super::events_text::{self, text_of};
use super::output::{self, Output, grouped, table};
use super::second_count::{self, Wanted};
use super::{audit_command, dead_letters, publish_command};
use crate::stream::{self, POLL_EVERY, StreamSource};
use crate::{Cluster, Error};

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
                let open = open.join(", ");
                format!(
                    "the stream ends when these publishers have ended, or are silent for a while: {open}"
                )
            })
        }
        EventsCommand::Publish(arguments) => publish_command::run(cluster, arguments, output).await,
        EventsCommand::Tail { output: name, after, no_follow, stream } => {
            let job = stream::find(&cluster, &stream.stream).await?;
            tail(&cluster, job, &name, after.unwrap_or_default(), no_follow, output).await
        }
        EventsCommand::Status { stream } => {
            let job = stream::find(&cluster, &stream.stream).await?;
            let status = stream::status(&cluster, job).await?;
            output.show(&events_text::status_json(&stream.stream, job, &status), |_| {
                events_text::status(&status)
            })
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
        EventsCommand::Dead { command: None, list } => {
            dead_letters::list(&cluster, &list, output).await
        }
        EventsCommand::Dead { command: Some(DeadCommand::Show { id, stream }), .. } => {
            let job = stream::find(&cluster, &stream.stream).await?;
            dead_letters::show(&cluster, job, id, output).await
        }
        EventsCommand::Dead { command: Some(DeadCommand::Replay(list)), .. } => {
            dead_letters::replay(cluster, &list, output).await
        }
        EventsCommand::Check { counts, stream } => {
            let job = stream::find(&cluster, &stream.stream).await?;
            second_count::check(&cluster, job, counts, output).await
        }
        EventsCommand::Trace { metric, stream } => {
            let job = stream::find(&cluster, &stream.stream).await?;
            second_count::trace(&cluster, job, &metric, output).await
        }
        EventsCommand::Replay { from, to, publisher, from_batch, out, stream } => {
            let job = stream::find(&cluster, &stream.stream).await?;
            let wanted = match publisher {
                Some(name) => Wanted::Publisher(name, from_batch),
                None => Wanted::Times(from.unwrap_or(i64::MIN)..to.unwrap_or(i64::MAX)),
            };
            second_count::replay(&cluster, job, wanted, out.as_deref(), output).await
        }
        EventsCommand::Audit { out, sql, follow, jsonl, stream } => {
            let job = stream::find(&cluster, &stream.stream).await?;
            match jsonl {
                Some(path) => audit_command::lines(&cluster, job, &path, output).await,
                None => {
                    let files = (out.as_deref(), sql.as_deref());
                    audit_command::run(&cluster, job, files, follow, output).await
                }
            }
        }
    }
}

fn open_publishers(status: &StreamStatus) -> impl Iterator<Item = &str> {
    let open = status.publishers.iter().filter(|publisher| !publisher.ended);
    open.map(|publisher| publisher.publisher.name.as_str())
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
        let id = text_of(&row, "metric_id").to_owned();
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
            let id = text_of(row, "metric_id");
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

/// Windows, metrics and alerts whose last revision is remembered.
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
        if answer.gone > 0 && cursor != Cursor::default() {
            let gone = grouped(answer.gone);
            output::note(&format!(
                "rows of {gone} batches are gone: their time of retention was over before they were read"
            ));
        }
        let lines =
            answer.rows.into_iter().filter_map(|row| match serde_json::from_str(&row.json) {
                Ok(Value::Object(line)) => Some((row, line)),
                _ => None,
            });
        let mut lines: Vec<(Row, Map<String, Value>)> = lines.collect();
        // Of two coordinators one after the other, the second one's rows may come first in an answer. Those
        // of one coordinator keep their order, so the cursors are right.
        lines.sort_by_key(|(_, line)| line.get("revision").and_then(Value::as_u64));
        for (row, mut line) in lines {
            at.advance(row.edge, row.batch, row.row + 1);
            // Of a window, a metric or an alert only a newer revision is news.
            let fields = ["alert_id", "metric_id", "window_start"];
            let text = |field: &str| line.get(field)?.as_str().map(str::to_owned);
            let of = fields.into_iter().find_map(text);
            let revision = line.get("revision").and_then(Value::as_u64);
            if let (Some(of), Some(revision)) = (of, revision) {
                if revisions.len() >= REMEMBERED {
                    revisions.clear();
                }
                if revisions.get(&of).is_some_and(|last| *last >= revision) {
                    continue;
                }
                revisions.insert(of, revision);
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
