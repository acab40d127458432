//! `cortado events audit`.

use std::collections::BTreeSet;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cortado_audit::{AuditError, AuditFile, Table, query};
use cortado_protocol::JobId;
use cortado_protocol::stream::{Cursor, Publisher, StoredEvent};
use cortado_stream::{Cut, StreamPlan};
use serde_json::{Map, Value, json};

use super::output::{self, Output, grouped, table};
use super::publish_command::new_name;
use crate::stream::{self, POLL_EVERY};
use crate::{Cluster, Error, history};

/// Pause between two lines that say how far a file is behind.
const LINE_EVERY: Duration = Duration::from_secs(5);

fn wrong(error: AuditError) -> Error {
    match error {
        AuditError::Event(_) => Error::Incomplete(error.to_string()),
        error => Error::BadInput(error.to_string()),
    }
}

/// A file that is deleted in the end.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Nobody needs it; where files can't be deleted, it stays.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Writes or continues an audit file, and queries it.
pub(super) async fn run(
    cluster: &Arc<Cluster>,
    job: JobId,
    (out, sql): (Option<&Path>, Option<&str>),
    follow: bool,
    output: Output,
) -> Result<(), Error> {
    let temporary = match out {
        Some(_) => None,
        None => Some(Temporary(std::env::temp_dir().join(new_name("cortado-audit-")))),
    };
    let path = out.or(temporary.as_ref().map(|of| of.0.as_path())).unwrap_or_else(|| Path::new(""));
    let plan = history::plan(cluster, job).await?;
    let mut file = AuditFile::open(path, &job.to_string(), &plan).map_err(wrong)?;
    let moment = now(cluster, job, &plan, &file).await?;
    let before = file.counts().map_err(wrong)?;
    let mut written = before.counted + before.duplicates + before.conflicts;
    let mut told = Instant::now();
    let lag = loop {
        let step = advance(cluster, job, &plan, (&mut file, &mut written)).await?;
        let done = if follow { step.ended && !step.news } else { step.rows.reaches(&moment) };
        if done {
            break step.lag;
        }
        if told.elapsed() >= LINE_EVERY {
            told = Instant::now();
            output::note(&format!("{} events behind", grouped(step.lag)));
        }
        if !step.news {
            tokio::time::sleep(POLL_EVERY).await;
        }
    };
    let counts = file.counts().map_err(wrong)?;
    drop(file);
    if let Some(sql) = sql {
        return show(&query(path, sql).map_err(wrong)?, output);
    }
    let value = json!({
        "file": path, "counted": counts.counted, "duplicates": counts.duplicates,
        "conflicts": counts.conflicts, "metrics": counts.metrics, "lag": lag,
    });
    output.show(&value, |_| {
        format!(
            "{}: {} events that count, {} duplicates, {} conflicts, {} rows of metrics, {} events behind",
            path.display(),
            grouped(counts.counted),
            grouped(counts.duplicates),
            grouped(counts.conflicts),
            grouped(counts.metrics),
            grouped(lag),
        )
    })
}

/// How far a reader of outputs is now who has read all of them.
async fn now(
    cluster: &Cluster,
    job: JobId,
    plan: &StreamPlan,
    file: &AuditFile,
) -> Result<Cursor, Error> {
    // Cursors of all outputs move on together; this one has the fewest rows.
    let fewest = "deadletter.processing";
    let first = plan.outputs().find(|output| plan.is_rollup(output)).unwrap_or(fewest);
    let mut cursor = file.cursor(first).map_err(wrong)?;
    loop {
        let answer = stream::rows(cluster, job, fewest, cursor.clone()).await?;
        if answer.cursor == cursor {
            return Ok(cursor);
        }
        cursor = answer.cursor;
    }
}

/// What one turn did.
struct Step {
    /// Whether anything was added.
    news: bool,
    /// How far the rows of all outputs were read, at least.
    rows: Cursor,
    ended: bool,
    /// Events that the file lacks.
    lag: u64,
}

/// Adds what is new: of events as much as the new rows include, at least, and then the rows.
async fn advance(
    cluster: &Arc<Cluster>,
    job: JobId,
    plan: &StreamPlan,
    (file, written): (&mut AuditFile, &mut u64),
) -> Result<Step, Error> {
    let mut news = false;
    let mut wanted = Vec::new();
    let mut cut = Cut::default();
    let mut rows: Option<Cursor> = None;
    // A plan without roll-ups has no metrics, and its events are read all the same.
    for output in plan.outputs().filter(|output| plan.is_rollup(output)) {
        let before = file.cursor(output).map_err(wrong)?;
        let answer = stream::rows(cluster, job, output, before.clone()).await?;
        news |= answer.cursor != before;
        let batches: BTreeSet<_> = answer.rows.iter().map(|row| (row.edge, row.batch)).collect();
        for batch in batches {
            match stream::cut(cluster, job, batch).await {
                Ok(of) => cut.join(&of),
                // It was retired after its rows were read, and so were its events.
                Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        if rows.as_ref().is_none_or(|rows| rows.reaches(&answer.cursor)) {
            rows = Some(answer.cursor.clone());
        }
        wanted.push((output, answer));
    }
    let rows = match rows {
        Some(rows) => rows,
        None => now(cluster, job, plan, file).await?,
    };
    let before = file.read_so_far().map_err(wrong)?;
    let add = |publisher: &Publisher, events: Vec<StoredEvent>, next| {
        *written += events.len() as u64;
        news = true;
        file.add_events(publisher, &events, next).map_err(wrong)
    };
    let stood = history::all_events(cluster, job, (before, &cut), add).await?;
    if stood.lost > 0 {
        let lost = grouped(stood.lost);
        output::note(&format!(
            "{lost} events are on no disk any more; they were never acknowledged"
        ));
    }
    if stood.gone > 0 {
        let gone = grouped(stood.gone);
        output::note(&format!(
            "{gone} batches of events are missing: their time of retention is over"
        ));
    }
    for (output, answer) in wanted {
        file.add_rows(output, &answer.rows, &answer.cursor).map_err(wrong)?;
    }
    let now = stream::status(cluster, job).await?;
    let dead = now.publishers.iter().map(|of| of.dead).sum::<u64>();
    let lag = now.events.received.saturating_sub(dead).saturating_sub(*written);
    Ok(Step { news, rows, ended: stood.status.ended, lag })
}

/// Writes the valid events of a stream, one JSON object a line.
pub(super) async fn lines(
    cluster: &Arc<Cluster>,
    job: JobId,
    path: &Path,
    output: Output,
) -> Result<(), Error> {
    let failed = |source| Error::io("write", path, source);
    let mut file = BufWriter::new(std::fs::File::create(path).map_err(failed)?);
    let mut written = 0_u64;
    let write = |publisher: &Publisher, mut events: Vec<StoredEvent>, _| {
        events.sort_by_key(|event| (event.batch, event.position));
        for StoredEvent { batch, position, raw, .. } in events {
            let event: Value = serde_json::from_slice(&raw)
                .map_err(|error| Error::Incomplete(format!("an event can't be read: {error}")))?;
            let (name, generation) = (&publisher.name, publisher.generation);
            let line = json!({ "publisher": name, "generation": generation, "batch": batch,
                               "position": position, "event": event });
            writeln!(file, "{line}").map_err(failed)?;
            written += 1;
        }
        Ok(())
    };
    history::all_events(cluster, job, (Cut::default(), &Cut::default()), write).await?;
    file.flush().map_err(failed)?;
    output.show(&json!({ "file": path, "events": written }), |_| {
        format!("{}: {} events", path.display(), grouped(written))
    })
}

/// Prints what a query gave.
fn show(found: &Table, output: Output) -> Result<(), Error> {
    let Table { columns, rows } = found;
    if output.json {
        let row = |row: &Vec<Value>| -> Map<String, Value> {
            columns.iter().cloned().zip(row.iter().cloned()).collect()
        };
        return output.show(&rows.iter().map(row).collect::<Vec<_>>(), |_| String::new());
    }
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let is_number = |column: usize| {
        rows.iter().all(|row| row[column].is_number() || row[column].is_null()) && !rows.is_empty()
    };
    let right: Vec<_> = (0..columns.len()).filter(|column| is_number(*column)).collect();
    let names: Vec<_> = columns.iter().map(String::as_str).collect();
    let cells = rows.iter().map(|row| row.iter().map(text).collect()).collect();
    output.line(&table(&names, &right, cells))
}
