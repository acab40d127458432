//! Ids of jobs, and values in their statuses.

use serde_json::Value;

/// The share of a job's bytes that is durable, in percent.
#[must_use]
pub fn uploaded_percent(status: &Value) -> u64 {
    let tables = status["tables"].as_array().map(Vec::as_slice).unwrap_or_default();
    let sum = |key: &str| tables.iter().filter_map(|table| table[key].as_u64()).sum::<u64>();
    sum("bytes") * 100 / sum("total_bytes").max(1)
}

/// A job's id that is the same in every run, so that its records have the same owners.
#[must_use]
pub fn job_id(number: u64) -> String {
    format!("01890a5d-ac96-774b-bcce-{number:012x}")
}
