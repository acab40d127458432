//! Checks of the parts of a plan.

use std::collections::BTreeSet;

use super::document::{AlertTable, RollupTable, WebhookTable, WindowTable};
use super::parts::{
    AlertRule, DEAD_PROCESSING, DEAD_VALIDATION, Metric, Piece, Rollup, Webhook, Window,
};

/// Most windows of a plan.
pub(super) const WINDOWS: usize = 16;
/// Most fields by which a window groups.
const GROUP_BY: usize = 8;
/// The longest span that a plan can name.
const LONGEST_MS: i64 = 366 * 24 * 3_600_000;

/// Fields that the rows of windows and roll-ups have, whatever the plan says.
const ROW_FIELDS: [&str; 14] = [
    "window_start",
    "window_end",
    "revision",
    "cut",
    "total",
    "duplicates",
    "conflicts",
    "event_ids",
    "metric_id",
    "date",
    "start",
    "metrics",
    "input_event_ids",
    "input_event_count",
];

/// Fields that the rows of alerts have beside those of windows.
const ALERT_FIELDS: [&str; 6] =
    ["alert_id", "state", "count", "history", "probability", "threshold"];
/// Most windows that an alert compares with.
const HISTORY: u32 = 1_000;

/// The names of the outputs, each of which is given once.
pub(super) struct Outputs(BTreeSet<String>);

impl Outputs {
    /// The names that every stream has.
    pub(super) fn new() -> Self {
        Self([DEAD_VALIDATION, DEAD_PROCESSING].map(str::to_owned).into())
    }

    /// Gives a name to an output.
    pub(super) fn claim(&mut self, output: &str) -> Result<(), String> {
        if output.is_empty() || !self.0.insert(output.to_owned()) {
            return Err(format!("the output '{output}' is empty or taken"));
        }
        Ok(())
    }
}

/// Windows must be kept as long as late events may change them, and as long as alerts compare others with
/// them.
pub(super) fn check_retention(
    retention_ms: i64,
    lateness_ms: i64,
    (windows, alerts): (&[Window], &[AlertRule]),
) -> Result<(), String> {
    let compared = |number: u16| {
        let alerts = alerts.iter().filter(move |rule| rule.kind == number);
        i64::from(alerts.map(|rule| rule.history).max().unwrap_or(0))
    };
    let windows = (0..).zip(windows);
    let needed =
        windows.map(|(number, window)| window.every_ms.saturating_mul(2 + compared(number)));
    let least = needed.max().unwrap_or(0).saturating_add(lateness_ms);
    if retention_ms < least {
        return Err(format!(
            "'retention' is shorter than the windows, their lateness and what alerts compare with: it is \
             at least {} s",
            (least + 999) / 1_000
        ));
    }
    Ok(())
}

/// The horizon of a plan that names none, in milliseconds.
const HORIZON_MS: i64 = 600_000;

/// In a window an event with an id contradicts all others with it, and so it must around the window. What
/// contradicts something is kept: `kept_ms` is how long late events may change windows.
pub(super) fn check_horizon(
    asked_ms: Option<i64>,
    kept_ms: Option<i64>,
    windows: &[Window],
) -> Result<i64, String> {
    let longest = windows.iter().map(|window| window.every_ms).max().unwrap_or(0);
    let kept_ms = kept_ms.unwrap_or(i64::MAX);
    let Some(horizon_ms) = asked_ms else {
        return Ok(HORIZON_MS.min(kept_ms).max(longest));
    };
    if horizon_ms < longest {
        let seconds = (longest + 999) / 1_000;
        return Err(format!("'horizon' is shorter than a window: it is at least {seconds} s"));
    }
    if horizon_ms > kept_ms {
        let seconds = kept_ms / 1_000;
        return Err(format!(
            "'horizon' is longer than 'retention' without 'lateness': it is at most {seconds} s"
        ));
    }
    Ok(horizon_ms)
}

pub(super) fn check_window(table: WindowTable) -> Result<Window, String> {
    let WindowTable { output, every, group_by, stats, ids } = table;
    if group_by.is_empty() || group_by.len() > GROUP_BY {
        return Err(format!("'group_by' names 1 to {GROUP_BY} fields"));
    }
    let every_ms = span_ms(&every, 1)?;
    let stats = stats.unwrap_or_else(|| "stats".to_owned());
    if ROW_FIELDS.contains(&stats.as_str()) {
        return Err(format!("'stats' is '{stats}', which rows have already"));
    }
    let group_by = group_by.iter().map(|path| path_of(path)).collect();
    Ok(Window { output, every_ms, group_by, stats, ids })
}

/// Longest URL of a webhook, in bytes.
const URL_BYTES: usize = 2_048;
/// Most attempts to deliver a row.
const ATTEMPTS: u32 = 100;

pub(super) fn check_webhook(
    table: WebhookTable,
    outputs: &Outputs,
    others: &[Webhook],
) -> Result<Webhook, String> {
    let WebhookTable { output, webhook: url, retry, first, longest, attempts } = table;
    if !outputs.0.contains(&output) {
        return Err(format!("'output' is '{output}': expected the name of one of the outputs"));
    }
    if others.iter().any(|of| of.output == output) {
        return Err(format!("the output '{output}' has a webhook already"));
    }
    let host = url.strip_prefix("http://").map(|rest| rest.split('/').next().unwrap_or_default());
    let plain = url.len() <= URL_BYTES && url.bytes().all(|byte| byte.is_ascii_graphic());
    let host = host.filter(|host| plain && !host.is_empty() && !host.contains(['@', '?', '#']));
    if host.is_none() {
        return Err(format!(
            "'webhook' is '{url}': expected http://HOST:PORT/PATH, without a user name, in up to \
             {URL_BYTES} bytes (no https yet: put a proxy in between)"
        ));
    }
    let first_ms = span_ms(first.as_deref().unwrap_or("1s"), 1)?;
    let longest_ms = span_ms(longest.as_deref().unwrap_or("1m"), 1)?;
    let attempts = attempts.unwrap_or(8);
    if longest_ms < first_ms || !(1..=ATTEMPTS).contains(&attempts) {
        return Err(format!(
            "'longest' is at least as long as 'first', and 'attempts' is 1 to {ATTEMPTS}"
        ));
    }
    let retry = retry.unwrap_or_default();
    Ok(Webhook { output, url, attempts, retry, first_ms, longest_ms })
}

/// Columns that the table of events in an audit file has anyway.
const AUDIT_COLUMNS: [&str; 11] = [
    "event_id",
    "timestamp",
    "payload_json",
    "publisher",
    "generation",
    "batch",
    "position",
    "contribution_type",
    "window_ms",
    "at_ms",
    "content",
];
/// Most columns of a plan.
const COLUMNS: usize = 32;

pub(super) fn check_columns(columns: &[String]) -> Result<(), String> {
    if columns.len() > COLUMNS {
        return Err(format!("'columns' names up to {COLUMNS} fields"));
    }
    for (at, column) in columns.iter().enumerate() {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let fine = column.len() <= 64
            && column.starts_with(|c: char| c.is_ascii_lowercase())
            && column.bytes().all(plain);
        if !fine {
            return Err(format!("'{column}' is no column: expected small letters, digits and _"));
        }
        if AUDIT_COLUMNS.contains(&column.as_str()) || columns[..at].contains(column) {
            return Err(format!("the column '{column}' is there already"));
        }
    }
    Ok(())
}

pub(super) fn check_alert(table: AlertTable, windows: &[Window]) -> Result<AlertRule, String> {
    let AlertTable { output, window, history, least, probability } = table;
    let kind = windows.iter().position(|of| of.output == window).ok_or_else(|| {
        format!("'window' is '{window}': expected the output of one of the [[windows]]")
    })?;
    let (history, least) = (history.unwrap_or(60), least.unwrap_or(12));
    if !(1..=HISTORY).contains(&history) || !(1..=history).contains(&least) {
        return Err(format!("'history' is 1 to {HISTORY} windows, and 'least' 1 to 'history'"));
    }
    let probability = probability.unwrap_or(0.0001);
    if !(probability > 0.0 && probability <= 0.1) {
        return Err("'probability' is above 0, and at most 0.1".to_owned());
    }
    let names: Vec<_> = windows[kind].group_by.iter().filter_map(|path| path.last()).collect();
    let unusable = |at: usize| {
        let name = names[at].as_str();
        ROW_FIELDS.contains(&name)
            || ALERT_FIELDS.contains(&name)
            || names[..at].contains(&names[at])
    };
    if let Some(at) = (0..names.len()).find(|at| unusable(*at)) {
        return Err(format!("the windows group by '{}', which rows have already", names[at]));
    }
    Ok(AlertRule { output, kind: kind as u16, history, least, probability })
}

pub(super) fn check_rollup(table: RollupTable, window_ms: i64) -> Result<Rollup, String> {
    let RollupTable { output, every, per, by, metrics } = table;
    let every_ms = span_ms(&every, 1)?;
    if every_ms % window_ms != 0 {
        return Err(format!("'every' is '{every}': expected a multiple of the windows' length"));
    }
    if per.is_empty() || per.len() > GROUP_BY {
        return Err(format!("'per' names 1 to {GROUP_BY} fields"));
    }
    let names: Vec<_> =
        per.iter().map(|path| path.rsplit('.').next().unwrap_or_default()).collect();
    let unusable = |at: usize| ROW_FIELDS.contains(&names[at]) || names[..at].contains(&names[at]);
    if let Some(at) = (0..names.len()).find(|at| unusable(*at)) {
        return Err(format!("'per' has '{}', which rows have already", per[at]));
    }
    if let Some(part) = metrics.iter().find(|(_, metrics)| metrics.contains_key("count")) {
        return Err(format!("the metrics of '{}' have a count already", part.0));
    }
    let metric = |(name, text): (String, String)| {
        let rate = text.strip_prefix("rate(").and_then(|rest| rest.strip_suffix(')'));
        Metric { name, path: path_of(rate.unwrap_or(&text)), is_rate: rate.is_some() }
    };
    let metrics = metrics
        .into_iter()
        .map(|(part, metrics)| (part, metrics.into_iter().map(metric).collect()))
        .collect();
    let per = per.iter().map(|path| path_of(path)).collect();
    Ok(Rollup { output, every_ms, per, by: path_of(&by), metrics })
}

fn path_of(path: &str) -> Vec<String> {
    path.split('.').map(str::to_owned).collect()
}

/// Reads a span such as `5s`.
pub(super) fn span_ms(text: &str, least: i64) -> Result<i64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 24 * 3_600_000,
        _ => 0,
    };
    let span = digits.parse::<i64>().ok().and_then(|number| number.checked_mul(unit));
    span.filter(|ms| unit > 0 && (least..=LONGEST_MS).contains(ms)).ok_or_else(|| {
        format!("'{text}' is not a span: expected a number and ms, s, m, h or d, such as 5s")
    })
}

/// Reads a file's name with fields in braces.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        let close = rest[open..].find('}').map(|close| open + close);
        let close = close.ok_or_else(|| format!("'{text}' has a brace that is not closed"))?;
        pieces.push(Piece::Text(rest[..open].to_owned()));
        pieces.push(Piece::Field(rest[open + 1..close].to_owned()));
        rest = &rest[close + 1..];
    }
    pieces.push(Piece::Text(rest.to_owned()));
    Ok(pieces)
}
