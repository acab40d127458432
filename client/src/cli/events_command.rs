//! `cortado events`.

use std::sync::Arc;

use cortado_protocol::JobId;
use cortado_protocol::stream::{Cursor, StreamStatus};
use cortado_report::{MetricFilter, News, latest_metrics, text_of};
use serde_json::{Value, json};

use super::args::{DeadCommand, EventsCommand};
use super::events_text;
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
            output.show(&cortado_report::Stream::new(&stream.stream, job, &status), |_| {
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
            let wanted = MetricFilter { fields: wanted, source };
            metrics(&cluster, (job, &name), &wanted, output).await
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
    wanted: &MetricFilter,
    output: Output,
) -> Result<(), Error> {
    let rows = latest_metrics(stream::all_rows(cluster, job, name).await?, wanted);
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

/// Prints rows, and leaves out what two coordinators published at the same time.
async fn tail(
    cluster: &Cluster,
    job: JobId,
    name: &str,
    mut cursor: Cursor,
    no_follow: bool,
    output: Output,
) -> Result<(), Error> {
    let mut news = News::after(cursor.clone());
    loop {
        let answer = stream::rows(cluster, job, name, cursor.clone()).await?;
        let more = answer.cursor != cursor;
        if answer.gone > 0 && cursor != Cursor::default() {
            let gone = grouped(answer.gone);
            output::note(&format!(
                "rows of {gone} batches are gone: their time of retention was over before they were read"
            ));
        }
        for line in news.take(answer.rows, &answer.cursor) {
            output.value(&line.row)?;
        }
        cursor = answer.cursor;
        if answer.ended || (no_follow && !more) {
            return Ok(());
        }
        if !more {
            tokio::time::sleep(POLL_EVERY).await;
        }
    }
}
