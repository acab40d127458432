//! Metrics as they stand.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::text::text_of;

/// Which metrics are wanted.
#[derive(Clone, Debug, Default)]
pub struct MetricFilter {
    /// Fields of the row, and the text that each must have.
    pub fields: Vec<(String, String)>,
    /// The only part of `metrics` that is wanted.
    pub source: Option<String>,
}

/// The last revision of each metric among rows, in the order of their ids, without what that revision
/// added: it says nothing about the metrics as they stand.
#[must_use]
pub fn latest_metrics(
    rows: impl IntoIterator<Item = Map<String, Value>>,
    wanted: &MetricFilter,
) -> Vec<Map<String, Value>> {
    let mut last: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let revision = |row: &Map<String, Value>| row.get("revision").and_then(Value::as_u64);
    let fits = |row: &Map<String, Value>| {
        wanted.fields.iter().all(|(field, text)| row.get(field) == Some(&json!(text)))
    };
    for row in rows.into_iter().filter(fits) {
        let id = text_of(&row, "metric_id").to_owned();
        if last.get(&id).is_none_or(|known| revision(known) < revision(&row)) {
            last.insert(id, row);
        }
    }
    for row in last.values_mut() {
        row.remove("input_event_ids");
        row.remove("input_event_count");
        if let (Some(source), Some(Value::Object(parts))) = (&wanted.source, row.get_mut("metrics"))
        {
            parts.retain(|part, _| part == source);
        }
    }
    last.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_revision_of_each_metric_stands() {
        let row = |id: &str, region: &str, revision: u64, n: u64| {
            let row = json!({ "metric_id": id, "region": region, "revision": revision,
                "input_event_ids": ["x"], "metrics": { "a": { "count": n }, "b": { "count": 1 } } });
            row.as_object().unwrap().clone()
        };
        let rows = || [row("m1", "norte", 2, 5), row("m1", "norte", 1, 4), row("m2", "sur", 1, 3)];
        let all = latest_metrics(rows(), &MetricFilter::default());
        let counts: Vec<_> = all.iter().map(|row| row["metrics"]["a"]["count"].clone()).collect();
        assert_eq!(
            (counts, all[0].contains_key("input_event_ids")),
            (vec![json!(5), json!(3)], false)
        );
        let norte = MetricFilter {
            fields: vec![("region".into(), "norte".into())],
            source: Some("b".into()),
        };
        let found = latest_metrics(rows(), &norte);
        assert_eq!((found.len(), &found[0]["metrics"]), (1, &json!({ "b": { "count": 1 } })));
    }
}
