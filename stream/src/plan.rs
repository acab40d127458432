//! The plan of a stream: which field of an event is what, how events are validated, which windows
//! are counted. A plan is data (TOML); no code here or below knows any particular events.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;

/// Longest plan in bytes.
const PLAN_BYTES: usize = 256 << 10;
/// Most windows of a plan.
const WINDOWS: usize = 16;
/// Most fields by which a window groups.
const GROUP_BY: usize = 8;
/// The longest span that a plan can name.
const LONGEST_MS: i64 = 366 * 24 * 3_600_000;

/// A window of a stream: its number in the plan, and where it starts (milliseconds since the Unix
/// epoch).
pub type WindowKey = (u16, i64);

/// A parsed and checked plan of a stream. Cloning is cheap.
///
/// # The format
/// Unknown keys are errors.
/// ```
/// let plan = cortado_stream::StreamPlan::parse(r#"
/// name = "clicks"
///
/// [stream]
/// id = "click_id"            # field of an event that is its id
/// time = "at"                # field with its time (RFC 3339)
/// lateness = "2s"            # how long after its end a window is closed, in event time; default 0s
/// idle = "10s"               # windows do not wait for a publisher that was silent so long
/// skew = "1m"                # a publisher's clock may be ahead of a node's by so much
/// future = "1m"              # an event may be later than its batch was sent by so much
///
/// [schemas]                  # may be left out: then every JSON object with id and time is valid
/// envelope = "click.json"    # JSON Schema (draft 2020-12) of an event
/// payload = { field = "data", file = "{kind}-{version}.json" }   # of a field, chosen by others
///
/// [[windows]]
/// output = "clicks.window"
/// every = "10s"
/// group_by = ["page", "data.button"]
/// stats = "by_page"          # the field of the row that holds the counts; default: stats
/// ids = true                 # whether rows name the events; default: false
///
/// [[rollups]]                # sums of the windows of the first kind
/// output = "clicks.daily"
/// every = "1d"               # a multiple of the windows' length
/// per = ["page"]             # a row for each
/// by = "kind"                # and in it a part for each
/// [rollups.metrics."buy"]    # what a part has beside its count: how often each text of a field,
/// by_size = "data.size"      # or the share of events in which a field is true
/// gift_rate = "rate(data.gift)"
///
/// [[alerts]]                 # counts of a window that are far above those of the windows before it
/// output = "clicks.anomaly"
/// window = "clicks.window"
/// history = 60               # windows before it that it is compared with; default: 60
/// least = 12                 # there is no alert before so many windows; default: 12
/// probability = 0.0001       # an alert's count is at most as likely as this; default: 0.0001
///
/// [audit]                    # may be left out; what the table of events in an audit file has
/// columns = ["page", "kind"] # fields with columns of their own
/// payload = "data"           # the field that is kept as JSON; default: the whole event
/// "#).unwrap();
/// assert_eq!(plan.outputs().next(), Some("clicks.window"));
/// let error = cortado_stream::StreamPlan::parse("name = 'x'\ncolour = 1").unwrap_err();
/// assert_eq!(error.line, 2);
/// ```
#[derive(Clone, Debug)]
pub struct StreamPlan(Arc<Checked>);

/// Where a plan is wrong, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct PlanError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, and what was expected.
    pub message: String,
}

#[derive(Debug)]
struct Checked {
    name: String,
    id: String,
    time: String,
    lateness_ms: i64,
    idle_ms: i64,
    skew_ms: i64,
    future_ms: i64,
    envelope: Option<String>,
    payload: Option<Payload>,
    windows: Vec<Window>,
    rollups: Vec<Rollup>,
    alerts: Vec<AlertRule>,
    audit: AuditTable,
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

/// What an audit file has of each event.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditTable {
    #[serde(default)]
    columns: Vec<String>,
    payload: Option<String>,
}

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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    name: String,
    stream: toml::Spanned<StreamTable>,
    schemas: Option<toml::Spanned<SchemasTable>>,
    windows: Vec<toml::Spanned<WindowTable>>,
    #[serde(default)]
    rollups: Vec<toml::Spanned<RollupTable>>,
    #[serde(default)]
    alerts: Vec<toml::Spanned<AlertTable>>,
    audit: Option<toml::Spanned<AuditTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AlertTable {
    output: String,
    window: String,
    history: Option<u32>,
    least: Option<u32>,
    probability: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamTable {
    id: String,
    time: String,
    #[serde(default)]
    lateness: Option<String>,
    idle: Option<String>,
    skew: Option<String>,
    future: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SchemasTable {
    envelope: Option<String>,
    payload: Option<PayloadTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PayloadTable {
    field: String,
    file: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RollupTable {
    output: String,
    every: String,
    per: Vec<String>,
    by: String,
    #[serde(default)]
    metrics: BTreeMap<String, BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowTable {
    output: String,
    every: String,
    group_by: Vec<String>,
    stats: Option<String>,
    #[serde(default)]
    ids: bool,
}

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

/// The outputs that every stream has.
pub(crate) const DEAD_VALIDATION: &str = "deadletter.validation";
/// Of events that are valid, but can't be counted.
pub(crate) const DEAD_PROCESSING: &str = "deadletter.processing";

impl StreamPlan {
    /// Whether a plan's text is that of a stream: whether it has a table `[stream]`.
    #[must_use]
    pub fn is_stream(text: &str) -> bool {
        let document = toml::from_str::<BTreeMap<String, toml::Value>>(text);
        document.is_ok_and(|document| document.contains_key("stream"))
    }

    /// Parses and checks a plan.
    ///
    /// # Errors
    /// If the plan has a mistake: the line, what is wrong and what was expected.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        let at = |offset: usize, message: String| {
            let line = 1 + text.as_bytes().iter().take(offset).filter(|b| **b == b'\n').count();
            PlanError { line, message }
        };
        if text.len() > PLAN_BYTES {
            return Err(at(0, format!("a plan has at most {PLAN_BYTES} bytes")));
        }
        let document: Document = toml::from_str(text).map_err(|error| {
            at(error.span().map_or(0, |span| span.start), error.message().to_owned())
        })?;
        let Document { name, stream, schemas, windows, rollups, alerts, audit } = document;
        let place = |span: Range<usize>| move |message: String| at(span.start, message);
        let here = place(stream.span());
        let stream = stream.into_inner();
        for (key, field) in [("id", &stream.id), ("time", &stream.time)] {
            if field.is_empty() {
                return Err(here(format!("'{key}' is empty: expected the name of a field")));
            }
        }
        let span = |text: &Option<String>, default: i64| {
            text.as_deref().map_or(Ok(default), |text| span_ms(text, 0)).map_err(&here)
        };
        let (envelope, payload) = match schemas {
            None => (None, None),
            Some(schemas) => {
                let here = place(schemas.span());
                let SchemasTable { envelope, payload } = schemas.into_inner();
                let payload = payload.map(|table| {
                    let file = pieces(&table.file).map_err(here)?;
                    Ok(Payload { field: table.field, file })
                });
                (envelope, payload.transpose()?)
            }
        };
        if windows.is_empty() || windows.len() > WINDOWS {
            return Err(at(0, format!("a plan of a stream has 1 to {WINDOWS} [[windows]]")));
        }
        let mut checked: Vec<Window> = Vec::with_capacity(windows.len());
        for window in windows {
            let here = place(window.span());
            let window = window.into_inner();
            let taken = |output: &str| {
                output == DEAD_VALIDATION
                    || output == DEAD_PROCESSING
                    || checked.iter().any(|other| other.output == output)
            };
            if window.output.is_empty() || taken(&window.output) {
                let message = format!("the output '{}' is empty or taken", window.output);
                return Err(here(message));
            }
            if window.group_by.is_empty() || window.group_by.len() > GROUP_BY {
                return Err(here(format!("'group_by' names 1 to {GROUP_BY} fields")));
            }
            let every_ms = span_ms(&window.every, 1).map_err(here)?;
            let stats = window.stats.unwrap_or_else(|| "stats".to_owned());
            if ROW_FIELDS.contains(&stats.as_str()) {
                return Err(here(format!("'stats' is '{stats}', which rows have already")));
            }
            checked.push(Window {
                output: window.output,
                every_ms,
                group_by: window.group_by.iter().map(|path| path_of(path)).collect(),
                stats,
                ids: window.ids,
            });
        }
        let mut sums: Vec<Rollup> = Vec::new();
        for rollup in rollups {
            let here = place(rollup.span());
            let rollup = rollup.into_inner();
            let names = checked.iter().map(|window| &window.output);
            let taken = |output: &String| output == DEAD_VALIDATION || output == DEAD_PROCESSING;
            let mut names = names.chain(sums.iter().map(|rollup| &rollup.output));
            if rollup.output.is_empty()
                || taken(&rollup.output)
                || names.any(|name| *name == rollup.output)
            {
                return Err(here(format!("the output '{}' is empty or taken", rollup.output)));
            }
            sums.push(check_rollup(rollup, checked[0].every_ms).map_err(here)?);
        }
        if sums.len() > WINDOWS {
            return Err(at(0, format!("a plan has at most {WINDOWS} [[rollups]]")));
        }
        let mut rules: Vec<AlertRule> = Vec::new();
        for alert in alerts {
            let here = place(alert.span());
            let rule = check_alert(alert.into_inner(), &checked).map_err(here)?;
            let mut names = checked.iter().map(|window| &window.output);
            let mut sums = sums.iter().map(|rollup| &rollup.output);
            let mut others = rules.iter().map(|rule| &rule.output);
            if [DEAD_VALIDATION, DEAD_PROCESSING, ""].contains(&rule.output.as_str())
                || names.any(|name| *name == rule.output)
                || sums.any(|name| *name == rule.output)
                || others.any(|name| *name == rule.output)
            {
                return Err(here(format!("the output '{}' is empty or taken", rule.output)));
            }
            rules.push(rule);
        }
        if rules.len() > WINDOWS {
            return Err(at(0, format!("a plan has at most {WINDOWS} [[alerts]]")));
        }
        let audit = match audit {
            None => AuditTable::default(),
            Some(audit) => {
                let here = place(audit.span());
                let audit = audit.into_inner();
                check_columns(&audit.columns).map_err(here)?;
                audit
            }
        };
        Ok(Self(Arc::new(Checked {
            name,
            id: stream.id,
            time: stream.time,
            lateness_ms: span(&stream.lateness, 0)?,
            idle_ms: span(&stream.idle, 10_000)?,
            skew_ms: span(&stream.skew, 60_000)?,
            future_ms: span(&stream.future, 60_000)?,
            envelope,
            payload,
            windows: checked,
            rollups: sums,
            alerts: rules,
            audit,
        })))
    }

    /// The plan's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub(crate) fn id(&self) -> &str {
        &self.0.id
    }

    /// The field with an event's time.
    #[must_use]
    pub fn time(&self) -> &str {
        &self.0.time
    }

    /// How long a publisher may be silent before windows do not wait for it, in milliseconds.
    #[must_use]
    pub fn idle_ms(&self) -> i64 {
        self.0.idle_ms
    }

    /// By how much a publisher's clock may be ahead of a node's, in milliseconds.
    #[must_use]
    pub fn skew_ms(&self) -> i64 {
        self.0.skew_ms
    }

    pub(crate) fn future_ms(&self) -> i64 {
        self.0.future_ms
    }

    pub(crate) fn envelope(&self) -> Option<&str> {
        self.0.envelope.as_deref()
    }

    pub(crate) fn payload(&self) -> Option<&Payload> {
        self.0.payload.as_ref()
    }

    pub(crate) fn windows(&self) -> &[Window] {
        &self.0.windows
    }

    pub(crate) fn rollups(&self) -> &[Rollup] {
        &self.0.rollups
    }

    /// The sums that a window of the plan's first kind belongs to: number of the roll-up, and where
    /// its span starts.
    pub fn spans_of(&self, (kind, start_ms): WindowKey) -> impl Iterator<Item = WindowKey> {
        let rollups = self.0.rollups.iter().enumerate().filter(move |_| kind == 0);
        rollups.map(move |(number, rollup)| (number as u16, start_of(start_ms, rollup.every_ms)))
    }

    /// Where the window of the plan's first kind starts that a time lies in.
    #[must_use]
    pub fn window_start(&self, at_ms: i64) -> i64 {
        start_of(at_ms, self.0.windows[0].every_ms)
    }

    /// Where the windows of the plan's first kind start and end that events of these times lie in.
    #[must_use]
    pub fn span_of(&self, first_ms: i64, last_ms: i64) -> Range<i64> {
        let end = self.window_start(last_ms).saturating_add(self.0.windows[0].every_ms);
        self.window_start(first_ms)..end
    }

    /// The fields of an event that have columns of their own in an audit file.
    #[must_use]
    pub fn audit_columns(&self) -> &[String] {
        &self.0.audit.columns
    }

    /// The field of an event that an audit file keeps as JSON; without one the whole event.
    #[must_use]
    pub fn audit_payload(&self) -> Option<&str> {
        self.0.audit.payload.as_deref()
    }

    /// The fields that the rows of roll-ups have one of each text of, in the order of the plan.
    #[must_use]
    pub fn rollup_fields(&self) -> Vec<&str> {
        let mut fields = Vec::new();
        let all = self.0.rollups.iter().flat_map(|rollup| &rollup.per);
        for name in all.filter_map(|path| path.last()) {
            if !fields.contains(&name.as_str()) {
                fields.push(name.as_str());
            }
        }
        fields
    }

    /// The alerts over windows of a kind.
    pub(crate) fn alerts_of(&self, kind: u16) -> impl Iterator<Item = &AlertRule> {
        self.0.alerts.iter().filter(move |rule| rule.kind == kind)
    }

    /// How many windows before one of a kind its counts are compared with.
    #[must_use]
    pub fn lookback(&self, kind: u16) -> u32 {
        self.alerts_of(kind).map(|rule| rule.history).max().unwrap_or(0)
    }

    /// Where the window starts that lies so many windows before another one.
    #[must_use]
    pub fn before(&self, (kind, start_ms): WindowKey, windows: u32) -> WindowKey {
        let every = self.0.windows.get(usize::from(kind)).map_or(0, |window| window.every_ms);
        (kind, start_ms.saturating_sub(every.saturating_mul(i64::from(windows))))
    }

    /// Whether an output has the rows of a window.
    #[must_use]
    pub fn is_window(&self, output: &str) -> bool {
        self.0.windows.iter().any(|window| window.output == output)
    }

    /// Whether an output has the rows of a roll-up.
    #[must_use]
    pub fn is_rollup(&self, output: &str) -> bool {
        self.0.rollups.iter().any(|rollup| rollup.output == output)
    }

    /// The names of all outputs.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        let windows = self.0.windows.iter().map(|window| window.output.as_str());
        let rollups = self.0.rollups.iter().map(|rollup| rollup.output.as_str());
        let alerts = self.0.alerts.iter().map(|rule| rule.output.as_str());
        windows.chain(rollups).chain(alerts).chain([DEAD_VALIDATION, DEAD_PROCESSING])
    }

    /// Whether the watermark closes a window.
    #[must_use]
    pub fn closes(&self, (window, start_ms): WindowKey, watermark_ms: i64) -> bool {
        let every = self.0.windows.get(usize::from(window)).map_or(0, |window| window.every_ms);
        let end = start_ms.saturating_add(every).saturating_add(self.0.lateness_ms);
        watermark_ms >= end
    }
}

/// The start of the window that a time lies in.
pub(crate) fn start_of(at_ms: i64, every_ms: i64) -> i64 {
    at_ms.saturating_sub(at_ms.rem_euclid(every_ms))
}

/// Columns that the table of events in an audit file has anyway.
const AUDIT_COLUMNS: [&str; 10] = [
    "event_id",
    "timestamp",
    "payload_json",
    "publisher",
    "generation",
    "batch",
    "position",
    "contribution_type",
    "window_ms",
    "content",
];
/// Most columns of a plan.
const COLUMNS: usize = 32;

fn check_columns(columns: &[String]) -> Result<(), String> {
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

fn check_alert(table: AlertTable, windows: &[Window]) -> Result<AlertRule, String> {
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

fn check_rollup(table: RollupTable, window_ms: i64) -> Result<Rollup, String> {
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
fn span_ms(text: &str, least: i64) -> Result<i64, String> {
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
fn pieces(text: &str) -> Result<Vec<Piece>, String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_that_is_built_in_is_right() {
        let plan = StreamPlan::parse(crate::EVENTS).unwrap();
        assert!(StreamPlan::is_stream(crate::EVENTS));
        assert!(plan.outputs().any(|output| output == "analytics.window"));
        assert!(!StreamPlan::is_stream("name = 'coffee'\n[tables]"));
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        let plan = |stream: &str, window: &str| {
            format!("name = 'x'\n[stream]\nid = 'i'\ntime = 't'\n{stream}\n[[windows]]\n{window}")
        };
        let window = "output = 'w'\nevery = '5s'\ngroup_by = ['a']";
        assert!(StreamPlan::parse(&plan("", window)).is_ok());
        for (text, line, part) in [
            (plan("lateness = '5 parsecs'", window), 2, "is not a span"),
            (plan("idle = '-1s'", window), 2, "is not a span"),
            (plan("", "output = 'w'\nevery = '0s'\ngroup_by = ['a']"), 6, "is not a span"),
            (plan("", "output = 'w'\nevery = '5s'\ngroup_by = []"), 6, "names 1 to"),
            (plan("", &window.replace('w', "deadletter.validation")), 6, "taken"),
            (plan("", &format!("{window}\nstats = 'total'")), 6, "have already"),
            (
                plan(
                    "",
                    &format!(
                        "{window}\n[[rollups]]\noutput = 'r'\nevery = '1d'\nper = ['cut']\nby = 'b'"
                    ),
                ),
                10,
                "have already",
            ),
            (
                plan(
                    "",
                    &format!(
                        "{window}\n[[rollups]]\noutput = 'r'\nevery = '7s'\nper = ['x']\nby = 'b'"
                    ),
                ),
                10,
                "multiple",
            ),
            (plan("colour = 1", window), 5, "colour"),
            (
                plan("", &format!("{window}\n[[alerts]]\noutput = 'a'\nwindow = 'v'")),
                10,
                "one of the [[windows]]",
            ),
            (
                plan("", &format!("{window}\n[[alerts]]\noutput = 'a'\nwindow = 'w'\nhistory = 0")),
                10,
                "'history' is",
            ),
            (
                plan(
                    "",
                    &format!("{window}\n[[alerts]]\noutput = 'a'\nwindow = 'w'\nprobability = 1.5"),
                ),
                10,
                "'probability'",
            ),
            (plan("", &format!("{window}\n[[alerts]]\noutput = 'w'\nwindow = 'w'")), 10, "taken"),
            (plan("", &format!("{window}\n[audit]\ncolumns = ['A b']")), 10, "is no column"),
            (plan("", &format!("{window}\n[audit]\ncolumns = ['batch']")), 10, "there already"),
            ("name = 'x'\nwindows = []\n[stream]\nid = 'i'\ntime = 't'".into(), 1, "has 1 to"),
        ] {
            let error = StreamPlan::parse(&text).unwrap_err();
            assert!(error.message.contains(part), "{text}: {error}");
            assert_eq!(error.line, line, "{text}: {error}");
        }
    }

    #[test]
    fn windows_start_at_multiples_of_their_length_before_the_epoch_too() {
        assert_eq!(start_of(12_345, 5_000), 10_000);
        assert_eq!(start_of(-1, 5_000), -5_000);
        assert_eq!(start_of(-5_000, 5_000), -5_000);
    }
}
