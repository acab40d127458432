//! `cortado events check`, `trace` and `replay`: a second count of a stream's events.

use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use cortado_protocol::JobId;
use cortado_protocol::stream::StreamStatus;
use cortado_stream::{Comparison, Difference, Recount, Recounted, StreamPlan, time_text};
use serde_json::{Map, Value, json};

use super::output::{self, Output, grouped};
use crate::history::{Published, Stood};
use crate::{Cluster, Error, history, stream};

/// All windows.
const ALL: Range<i64> = i64::MIN..i64::MAX;
/// Differences that are printed.
const SHOWN: usize = 10;

/// How often a second count begins again because windows were retired meanwhile.
const TRIES: usize = 5;

/// A second count, and what it is compared with.
struct SecondCount<'p> {
    count: Recounted<'p>,
    published: Published,
    stood: Stood,
    /// How the stream stands after it.
    status: StreamStatus,
}

/// Counts the windows of a stream that start in a range a second time, without those that are retired.
async fn count_again<'p>(
    cluster: &Arc<Cluster>,
    job: JobId,
    plan: &'p StreamPlan,
    (range, traced): (Range<i64>, Option<&str>),
) -> Result<SecondCount<'p>, Error> {
    let mut before = stream::status(cluster, job).await?;
    for _ in 0..TRIES {
        let retired = before.retired.map(|retired| retired.before_ms);
        let from = retired.map_or(range.start, |retired| retired.max(range.start));
        let counted = async {
            let published = history::published(cluster, job, plan).await?;
            let count = Recount::new(plan, from..range.end.max(from));
            let count = match traced {
                Some(metric) => count.trace(metric),
                None => count,
            };
            let (count, stood) = history::recount(cluster, job, &published.cut, count).await?;
            Ok::<_, Error>((published, count, stood))
        };
        // What was read may be gone before the rest is read, and that is an error then.
        let counted = counted.await;
        let status = stream::status(cluster, job).await?;
        if status.retired.map(|retired| retired.before_ms) == retired {
            let (published, count, stood) = counted?;
            return Ok(SecondCount { count, published, stood, status });
        }
        before = status;
    }
    let message = "windows are retired faster than they can be counted: is 'retention' too short?";
    Err(Error::Incomplete(message.to_owned()))
}

/// Says if events are gone that were once there.
fn tell_gone(stood: &Stood) {
    if stood.gone > 0 {
        let gone = grouped(stood.gone);
        output::note(&format!(
            "events of {gone} batches are not among them: their time of retention is over"
        ));
    }
}

/// Checks the counts of a stream, and unless only these are wanted, what it has published.
pub(super) async fn check(
    cluster: &Arc<Cluster>,
    job: JobId,
    only_counts: bool,
    output: Output,
) -> Result<(), Error> {
    let status = stream::status(cluster, job).await?;
    let mut wrong = wrong_counts(&status);
    let mut value = json!(status.events);
    let mut text = counts_text(&status);
    if !only_counts {
        let plan = history::plan(cluster, job).await?;
        let counted = count_again(cluster, job, &plan, (ALL, None)).await?;
        let SecondCount { count, published, stood, status: after } = counted;
        let compared = count.compare(&published.rows);
        wrong.extend(compared.differences.iter().map(tell));
        if stood.lost > 0 {
            let lost = grouped(stood.lost);
            wrong.push(format!(
                "{lost} events are on no disk any more: of batches that were never acknowledged"
            ));
        }
        if after.ended && compared.open > 0 {
            let open = grouped(compared.open);
            wrong.push(format!("the stream has ended, and {open} events are in no window"));
        }
        let retired = after.retired.map_or(0, |retired| retired.counted);
        if after.ended && compared.counted + retired != after.events.counted {
            let said = after.events.counted.saturating_sub(retired);
            let (found, said) = (grouped(compared.counted), grouped(said));
            wrong.push(format!("{found} events count, and the stream says {said}"));
        }
        let cut = published.cut.hash_text();
        value["windows"] = compared.windows.into();
        value["metrics"] = compared.metrics.into();
        value["recounted"] = compared.counted.into();
        value["cut"] = cut.as_str().into();
        value["differences"] = differences_json(&compared);
        text.push_str(&format!("\n{}, as of cut {cut}", compared_text(&compared)));
        if retired > 0 {
            let retired = grouped(retired);
            text.push_str(&format!("\n{retired} more events count in windows that are retired"));
        }
        value["retired_counted"] = retired.into();
    }
    value["ok"] = wrong.is_empty().into();
    output.show(&value, |_| text)?;
    verdict(&wrong)
}

fn wrong_counts(status: &StreamStatus) -> Vec<String> {
    let events = status.events;
    let sum = events.counted + events.duplicates + events.dead + events.retired + events.open;
    let wrong = (events.received != sum)
        .then(|| format!("{} events were received, {} are found", events.received, sum));
    wrong.into_iter().collect()
}

fn counts_text(status: &StreamStatus) -> String {
    let events = status.events;
    format!(
        "received {} = counted {} + duplicates {} + dead letters {} + too late {} + in open windows {}",
        grouped(events.received),
        grouped(events.counted),
        grouped(events.duplicates),
        grouped(events.dead),
        grouped(events.retired),
        grouped(events.open),
    )
}

fn compared_text(compared: &Comparison) -> String {
    format!(
        "{} windows and {} metrics were counted a second time: {} events count, {} differences",
        grouped(compared.windows),
        grouped(compared.metrics),
        grouped(compared.counted),
        compared.differences.len(),
    )
}

fn tell(difference: &Difference) -> String {
    let Difference { what, published, recounted } = difference;
    format!("{what}: published {published}, counted {recounted}")
}

fn differences_json(compared: &Comparison) -> Value {
    let one = |difference: &Difference| {
        let Difference { what, published, recounted } = difference;
        json!({ "what": what, "published": published, "recounted": recounted })
    };
    compared.differences.iter().map(one).collect()
}

fn verdict(wrong: &[String]) -> Result<(), Error> {
    if wrong.is_empty() {
        return Ok(());
    }
    let mut message = wrong.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("\n");
    if wrong.len() > SHOWN {
        message.push_str(&format!("\nand {} more; --json has all", wrong.len() - SHOWN));
    }
    Err(Error::Incomplete(message))
}

/// Prints the events that a metric counts.
pub(super) async fn trace(
    cluster: &Arc<Cluster>,
    job: JobId,
    metric: &str,
    output: Output,
) -> Result<(), Error> {
    let plan = history::plan(cluster, job).await?;
    let counted = count_again(cluster, job, &plan, (ALL, Some(metric))).await?;
    let SecondCount { count, published, stood, .. } = counted;
    let of = |row: &&cortado_stream::RowAt| row.row.get("metric_id") == Some(&metric.into());
    let Some(row) = published.rows.iter().find(of) else {
        let message = format!("there is no metric '{metric}': cortado events metrics lists them");
        return Err(Error::NotFound(message));
    };
    tell_gone(&stood);
    let ids = count.traced(&published.rows);
    if output.json {
        let metrics = row.row.get("metrics");
        return output
            .show(&json!({ "metric_id": metric, "metrics": metrics, "event_ids": ids }), |_| {
                String::new()
            });
    }
    let text: String = ids.iter().map(|id| format!("{id}\n")).collect();
    output.bytes(text.as_bytes())
}

/// Which windows are counted a second time.
pub(super) enum Wanted {
    /// Those that start within these times.
    Times(Range<i64>),
    /// Those that events of a publisher lie in, from a batch on.
    Publisher(String, u64),
}

/// Counts windows a second time.
pub(super) async fn replay(
    cluster: &Arc<Cluster>,
    job: JobId,
    wanted: Wanted,
    out: Option<&Path>,
    output: Output,
) -> Result<(), Error> {
    let plan = history::plan(cluster, job).await?;
    let range = match wanted {
        Wanted::Times(range) => range,
        Wanted::Publisher(name, from) => {
            let status = stream::status(cluster, job).await?;
            let of_name = status.publishers.iter().map(|of| &of.publisher);
            let of_name = of_name.filter(|publisher| publisher.name == name);
            let Some(publisher) = of_name.max_by_key(|publisher| publisher.generation) else {
                let message = format!("there is no publisher '{name}': cortado events status");
                return Err(Error::NotFound(message));
            };
            let mut times = (i64::MAX, i64::MIN);
            history::each_event(cluster, job, (publisher, from), |events, _| {
                for event in events {
                    times = (times.0.min(event.at_ms), times.1.max(event.at_ms));
                }
                Ok(())
            })
            .await?;
            if times.0 > times.1 {
                let message = format!("publisher '{name}' has no event in batch {from} or later");
                return Err(Error::NotFound(message));
            }
            plan.span_of(times.0, times.1)
        }
    };
    let counted = count_again(cluster, job, &plan, (range.clone(), None)).await?;
    let SecondCount { count, published, stood, .. } = counted;
    tell_gone(&stood);
    let compared = count.compare(&published.rows);
    if let Some(path) = out {
        let write = |rows: &mut dyn Iterator<Item = (String, Map<String, Value>)>| {
            let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
            for (output, mut row) in rows {
                row.insert("output".into(), output.into());
                writeln!(file, "{}", Value::Object(row))?;
            }
            file.flush()
        };
        write(&mut count.rows()).map_err(|source| Error::io("write", path, source))?;
    }
    let end =
        |ms| if ms == i64::MIN || ms == i64::MAX { Value::Null } else { time_text(ms).into() };
    let value = json!({
        "from": end(range.start), "to": end(range.end), "windows": compared.windows,
        "metrics": compared.metrics, "counted": compared.counted, "open": compared.open,
        "differences": differences_json(&compared),
    });
    output.show(&value, |_| match compared.open {
        0 => compared_text(&compared),
        open => {
            format!("{}; {} events are in no window yet", compared_text(&compared), grouped(open))
        }
    })?;
    verdict(&compared.differences.iter().map(tell).collect::<Vec<_>>())
}
