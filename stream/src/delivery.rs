//! Deliveries: rows that go to a webhook, too.

use std::fmt::Write;

use cortado_protocol::stream::{Place, Row};
use cortado_protocol::wide_hash;
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
    Some(plain(&format!("{of}/{}", field("cut").unwrap_or_default())))
}

/// Longest key; of a longer one its hash is taken.
const KEY_BYTES: usize = 512;

/// A key as a header can have it: in visible ASCII characters, others percent-encoded (RFC 3986 §2.1).
fn plain(key: &str) -> String {
    let mut plain = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            plain.push(char::from(byte));
        } else {
            let _ = write!(plain, "%{byte:02X}");
        }
    }
    if plain.len() > KEY_BYTES { format!("{:032x}", wide_hash(key.as_bytes())) } else { plain }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_rows_have_equal_keys_and_headers_can_have_them() {
        let key = |row: &str| key_of("w", row);
        let window = r#"{"window_start":"2026-01-01T00:00:00Z","cut":"ab","total":3}"#;
        assert_eq!(key(window).unwrap(), "w/2026-01-01T00:00:00Z/ab");
        assert_eq!(
            key(r#"{"metric_id":"d/1/ñ b%\n","cut":"c"}"#).unwrap(),
            "d/1/%C3%B1%20b%25%0A/c"
        );
        assert_eq!(key(r#"{"alert_id":"a","window_start":"x","cut":"c"}"#).unwrap(), "a/c");
        assert_eq!(key(r#"{"dead_id":"1-2-3","cut":"c"}"#).unwrap(), "1-2-3");
        let long = format!(r#"{{"metric_id":"{}","cut":"c"}}"#, "x".repeat(600));
        assert_eq!(key(&long).unwrap().len(), 32);
        // One that says that a row was not delivered is not delivered.
        assert_eq!(key(r#"{"dead_id":"1-2-3","webhook":"http://h"}"#), None);
        assert_eq!(key("{"), None);
    }
}
