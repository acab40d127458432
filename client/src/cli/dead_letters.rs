//! `cortado events dead`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cortado_protocol::JobId;
use cortado_protocol::stream::Place;
use serde_json::{Map, Value, json};

use super::args::DeadArguments;
use super::output::{self, Output, grouped, table};
use super::publish_command::{Counts, new_name};
use crate::publish::{Options, Source, publish};
use crate::{Cluster, Error, stream};
use cortado_report::text_of;

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
        let wanted = reason.is_none_or(|reason| text_of(row, "reason").contains(reason));
        wanted && seen.insert(text_of(row, "dead_id").to_owned())
    });
    Ok(all)
}

/// Prints the dead letters of a stream.
pub(super) async fn list(
    cluster: &Cluster,
    list: &DeadArguments,
    output: Output,
) -> Result<(), Error> {
    let job = stream::find(cluster, &list.stream.stream).await?;
    let all = letters(cluster, job, list.reason.as_deref()).await?;
    if output.json {
        return all.into_iter().try_for_each(|row| output.line(&Value::Object(row).to_string()));
    }
    if all.is_empty() {
        return output.line("no dead letters");
    }
    let row = |row: &Map<String, Value>| {
        let from = if row.contains_key("webhook") { "output" } else { "publisher" };
        ["dead_id", from, "path", "reason"].map(|field| text_of(row, field).into()).to_vec()
    };
    let rows = all.iter().map(row).collect();
    output.line(table(&["ID", "PUBLISHER OR OUTPUT", "PATH", "REASON"], &[], rows).trim_end())
}

/// Prints an event that is not counted, as it was sent.
pub(super) async fn show(
    cluster: &Cluster,
    job: JobId,
    id: Place,
    output: Output,
) -> Result<(), Error> {
    let (reason, path, raw) = stream::dead(cluster, job, id).await?;
    output::note(&format!("{reason}{}{path}", if path.is_empty() { "" } else { " at " }));
    output.bytes(&raw)
}

/// Sends dead letters again, under a new name; rows that were not delivered only to their webhooks.
pub(super) async fn replay(
    cluster: Arc<Cluster>,
    list: &DeadArguments,
    output: Output,
) -> Result<(), Error> {
    let job = stream::find(&cluster, &list.stream.stream).await?;
    let mut lines = Vec::new();
    let (mut sent, mut rows) = (0_u64, 0_u64);
    for row in letters(&cluster, job, list.reason.as_deref()).await? {
        // A conflict is no dead letter of its batch, and what was replayed is still listed where it
        // was at first.
        if row.contains_key("counts") || text_of(&row, "publisher").starts_with(REPLAY) {
            continue;
        }
        let Some(place) = Place::from_text(text_of(&row, "dead_id")) else { continue };
        if row.contains_key("webhook") {
            stream::deliver(&cluster, job, place).await?;
            rows += 1;
            continue;
        }
        let (_, _, raw) = stream::dead(&cluster, job, place).await?;
        lines.extend_from_slice(&raw);
        lines.push(b'\n');
        sent += 1;
    }
    let of_rows = format!("{} rows are sent to their webhooks again", grouped(rows));
    if sent == 0 {
        let text = if rows > 0 { of_rows } else { "no dead letters to replay".to_owned() };
        return output.show(&json!({ "replayed": 0, "rows": rows }), |_| text);
    }
    let publisher = new_name(REPLAY);
    let source = Source::Lines(lines.into());
    let options = Options { publisher: publisher.clone(), backfill: true, disorder_ms: 0, source };
    let counts = Counts::default();
    publish(&cluster, job, &options, &counts).await?;
    let dead = counts.dead.load(Ordering::Relaxed);
    let value = json!({ "publisher": publisher, "replayed": sent, "dead": dead, "rows": rows });
    output.show(&value, |_| {
        let mut text = format!(
            "{} dead letters sent again, {} of them are dead letters again",
            grouped(sent),
            grouped(dead)
        );
        if rows > 0 {
            text.push_str(&format!("; {of_rows}"));
        }
        text
    })
}
