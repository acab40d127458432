//! The parts of a checked plan.

use std::collections::BTreeMap;

/// The outputs that every stream has.
pub(crate) const DEAD_VALIDATION: &str = "deadletter.validation";
/// Of events that are valid, but can't be counted.
pub(crate) const DEAD_PROCESSING: &str = "deadletter.processing";

/// A roll-up: a sum of the windows of the plan's first kind.
#[derive(Debug)]
pub(crate) struct Rollup {
    pub(crate) output: String,
    pub(crate) every_ms: i64,
    pub(crate) per: Vec<Vec<String>>,
    pub(crate) by: Vec<String>,
    /// What is counted of events, by the text of `by`.
    pub(crate) metrics: BTreeMap<String, Vec<Metric>>,
}

/// A metric of a part of a roll-up.
#[derive(Debug)]
pub(crate) struct Metric {
    pub(crate) name: String,
    pub(crate) path: Vec<String>,
    /// The share of events in which the field is true, instead of how often each text.
    pub(crate) is_rate: bool,
}

/// How the schema of a part of an event is chosen.
#[derive(Debug)]
pub(crate) struct Payload {
    pub(crate) field: String,
    /// The file's name: texts and, between them, fields of the event.
    pub(crate) file: Vec<Piece>,
}

/// A piece of a file's name.
#[derive(Debug)]
pub(crate) enum Piece {
    Text(String),
    Field(String),
}

/// A window of the plan.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) output: String,
    pub(crate) every_ms: i64,
    pub(crate) group_by: Vec<Vec<String>>,
    pub(crate) stats: String,
    pub(crate) ids: bool,
}

/// When a count of a window is an alert.
#[derive(Debug)]
pub(crate) struct AlertRule {
    pub(crate) output: String,
    /// The number of the window.
    pub(crate) kind: u16,
    pub(crate) history: u32,
    pub(crate) least: u32,
    pub(crate) probability: f64,
}

/// How the pauses between attempts grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Retry {
    /// Each is twice as long as the one before.
    #[default]
    Exponential,
    /// Each is longer by the first one.
    Linear,
    /// All are equally long.
    Fixed,
}

/// Where the rows of an output are sent, too.
#[derive(Debug)]
pub struct Webhook {
    /// The output's name.
    pub output: String,
    /// An `http` URL.
    pub url: String,
    /// Attempts for each row.
    pub attempts: u32,
    pub(super) retry: Retry,
    pub(super) first_ms: i64,
    pub(super) longest_ms: i64,
}

impl Webhook {
    /// The pause before the next attempt, after so many that failed, in milliseconds.
    #[must_use]
    pub fn pause_ms(&self, failed: u32) -> i64 {
        let times = match self.retry {
            Retry::Exponential => 1_i64.checked_shl(failed.saturating_sub(1)).unwrap_or(i64::MAX),
            Retry::Linear => i64::from(failed),
            Retry::Fixed => 1,
        };
        self.first_ms.saturating_mul(times.max(1)).min(self.longest_ms)
    }
}

/// The start of the window that a time lies in.
pub(crate) fn start_of(at_ms: i64, every_ms: i64) -> i64 {
    at_ms.saturating_sub(at_ms.rem_euclid(every_ms))
}
