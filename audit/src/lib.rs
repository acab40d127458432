//! The audit file of a stream, as SQLite: its valid events, its metrics, and which event counts in
//! which metric.
//!
//! | table | has |
//! |---|---|
//! | `events_in` | every valid event, copies and contradictions too: `event_id`, `timestamp` (UTC), the columns that the plan names, `payload_json`, `publisher`, `batch`, `position` (line in the batch), `generation` of the publisher, `contribution_type` (`counted`, `duplicate` or `conflict`) |
//! | `metrics_out` | every row of the plan's roll-ups, all revisions: `metric_id`, `date`, the fields that a row is for, `revision`, `cut`, `metrics_json` |
//! | `trace` | `event_id`, `metric_id`, `contribution_type`: a metric's events are those with `counted` |
//! | `publishers` | how far each publisher was read: `next_batch` |
//!
//! A batch's events and how far its publisher was read are one transaction. So a file can be continued
//! after any interruption, and has each event once. Who writes the file adds the events that rows
//! include before the rows.

mod counts;
mod error;
mod events;
mod file;
mod query;
mod rows;
#[cfg(test)]
mod tests;

pub use counts::AuditCounts;
pub use error::AuditError;
pub use file::AuditFile;
pub use query::{Table, query};
