//! What rows of outputs are made of.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::cut::Cut;
use crate::plan::{Rollup, Window};
use crate::time::time_text;

/// What a row about a window begins with.
pub(crate) fn window_head(window: &Window, start_ms: i64, cut: &Cut) -> Map<String, Value> {
    let mut row = Map::new();
    row.insert("window_start".into(), time_text(start_ms).into());
    row.insert("window_end".into(), time_text(start_ms.saturating_add(window.every_ms)).into());
    row.insert("revision".into(), cut.batches().into());
    row.insert("cut".into(), cut.hash_text().into());
    row
}

/// Counts by texts, as nested objects.
pub(crate) fn stats_of(counts: &BTreeMap<Vec<String>, u64>) -> Value {
    let mut stats = Map::new();
    for (key, count) in counts {
        let Some((last, outer)) = key.split_last() else { continue };
        let mut level = &mut stats;
        for text in outer {
            let next = level.entry(text.clone()).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(next) = next else { unreachable!("only the last level has counts") };
            level = next;
        }
        level.insert(last.clone(), (*count).into());
    }
    Value::Object(stats)
}

/// Adds a count to the parts of a roll-up's row. `rest` is what a path has behind the texts of the row. A
/// part's own path comes before those of its metrics.
pub(crate) fn tell<'t>(
    rollup: &Rollup,
    parts: &mut Map<String, Value>,
    mut rest: impl Iterator<Item = &'t str>,
    count: u64,
) {
    let Some(by) = rest.next() else { return };
    let part = parts.entry(by).or_insert_with(|| Value::Object(Map::new()));
    let Value::Object(part) = part else { return };
    let own = || rollup.metrics.get(by).into_iter().flatten();
    match (rest.next(), rest.next()) {
        (Some(name), Some(text)) => {
            let all = part.get("count").and_then(Value::as_u64).unwrap_or(0);
            if own().any(|metric| metric.is_rate && metric.name == name) {
                part.insert(name.to_owned(), rate(count, all));
            } else if let Value::Object(counts) =
                part.entry(name).or_insert_with(|| Value::Object(Map::new()))
            {
                counts.insert(text.to_owned(), count.into());
            }
        }
        _ => {
            part.insert("count".into(), count.into());
            for metric in own().filter(|metric| metric.is_rate) {
                part.insert(metric.name.clone(), rate(0, count));
            }
        }
    }
}

/// The id of a metric: the same for all its revisions.
pub(crate) fn metric_id(rollup: &Rollup, start_ms: i64, texts: &[impl AsRef<str>]) -> String {
    let mut id = format!("{}/{}", rollup.output, span_text(start_ms, rollup.every_ms));
    for text in texts {
        id.push('/');
        id.push_str(text.as_ref());
    }
    id
}

/// A share, rounded to four digits.
fn rate(count: u64, all: u64) -> Value {
    let all = u128::from(all.max(1));
    let share = (u128::from(count) * 10_000 + all / 2) / all;
    json!(share as f64 / 10_000.0)
}

pub(crate) fn is_days(every_ms: i64) -> bool {
    every_ms % (24 * 3_600_000) == 0
}

/// Where a span starts: a date, if spans are whole days.
pub(crate) fn span_text(start_ms: i64, every_ms: i64) -> String {
    let text = time_text(start_ms);
    let date = text.split('T').next().unwrap_or_default();
    if is_days(every_ms) { date.to_owned() } else { text }
}
