//! Texts of rows.

use serde_json::{Map, Value};

/// The text in a field of a row.
#[must_use]
pub fn text_of<'r>(row: &'r Map<String, Value>, field: &str) -> &'r str {
    row.get(field).and_then(Value::as_str).unwrap_or_default()
}
