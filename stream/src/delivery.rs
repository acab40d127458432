//! Deliveries: rows that go to a webhook, too.

use cortado_protocol::stream::{Place, Row};
use serde_json::{Map, Value};

use crate::outputs::{OutputRow, shortened};
use crate::plan::{DEAD_PROCESSING, Webhook};

/// What a receiver tells repetitions of a row by: equal rows have equal keys, whoever published them.
/// `None` if the row is not to be sent: it says that a delivery failed.
#[must_use]
pub fn key_of(output: &str, row: &str) -> Option<String> {
    let row: Map<String, Value> = serde_json::from_str(row).ok()?;
    if row.contains_key("webhook") {
        return None;
    }
    let field = |name: &str| Some(row.get(name)?.as_str()?.to_owned());
    // A dead letter is the same one in every cut.
    if let Some(dead) = field("dead_id") {
        return Some(dead);
    }
    let of_window = || Some(format!("{output}/{}", field("window_start")?));
    let of = field("alert_id").or_else(|| field("metric_id")).or_else(of_window)?;
    Some(format!("{of}/{}", field("cut").unwrap_or_default()))
}

/// The dead letter of a row that was not delivered.
#[must_use]
pub fn failed_row(webhook: &Webhook, row: &Row, attempts: u32, error: &str) -> OutputRow {
    let place = Place { edge: row.edge, batch: row.batch, position: row.row };
    let mut json = Map::new();
    json.insert("dead_id".into(), place.to_text().into());
    json.insert("reason".into(), format!("not delivered: {error}").into());
    json.insert("attempts".into(), attempts.into());
    json.insert("webhook".into(), webhook.url.as_str().into());
    json.insert("output".into(), webhook.output.as_str().into());
    json.insert("raw".into(), shortened(row.json.as_bytes()).into());
    json.insert("raw_bytes".into(), row.json.len().into());
    OutputRow { output: DEAD_PROCESSING.to_owned(), json: Value::Object(json).to_string() }
}
