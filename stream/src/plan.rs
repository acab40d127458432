//! The plan of a stream: which field of an event is what, how events are validated, which windows
//! are counted. A plan is data (TOML); no code here or below knows any particular events.

mod check;
mod document;
mod parts;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use check::{
    Outputs, WINDOWS, check_alert, check_columns, check_horizon, check_retention, check_rollup,
    check_webhook, check_window, pieces, span_ms,
};
use document::{AuditTable, Document, SchemasTable};
pub(crate) use parts::{
    AlertRule, DEAD_PROCESSING, DEAD_VALIDATION, Payload, Piece, Rollup, Window, start_of,
};
pub use parts::{Retry, Webhook};

/// Longest plan in bytes.
const PLAN_BYTES: usize = 256 << 10;

/// Steps in which a time of retention passes.
const RETENTION_STEPS: i64 = 8;

/// Spans of ids in a horizon.
const ID_SPANS: i64 = 6;

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
/// seal = "10m"               # a publisher that is silent so long, with a batch missing, is ended
/// horizon = "10m"            # events with one id contradict each other if they are at most so far apart
/// retention = "7d"           # how long events and rows are kept, in event time; default: for ever
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
///
/// [[webhooks]]               # rows of an output that are sent with POST, too, at least once each
/// output = "clicks.anomaly"
/// webhook = "http://alarms.example:8080/clicks"
/// retry = "exponential"      # or "linear", or "fixed": pauses between attempts; default: exponential
/// first = "1s"               # the first pause
/// longest = "1m"             # and the longest
/// attempts = 8               # then the row is a dead letter
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
    seal_ms: i64,
    horizon_ms: i64,
    retention_ms: Option<i64>,
    envelope: Option<String>,
    payload: Option<Payload>,
    windows: Vec<Window>,
    rollups: Vec<Rollup>,
    alerts: Vec<AlertRule>,
    audit: AuditTable,
    webhooks: Vec<Webhook>,
}

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
        let Document { name, stream, schemas, windows, rollups, alerts, audit, webhooks } =
            document;
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
        let mut outputs = Outputs::new();
        let mut checked: Vec<Window> = Vec::with_capacity(windows.len());
        for window in windows {
            let here = place(window.span());
            let window = window.into_inner();
            outputs.claim(&window.output).map_err(here)?;
            checked.push(check_window(window).map_err(here)?);
        }
        let mut sums: Vec<Rollup> = Vec::with_capacity(rollups.len());
        for rollup in rollups {
            let here = place(rollup.span());
            let rollup = rollup.into_inner();
            outputs.claim(&rollup.output).map_err(here)?;
            sums.push(check_rollup(rollup, checked[0].every_ms).map_err(here)?);
        }
        let mut rules: Vec<AlertRule> = Vec::with_capacity(alerts.len());
        for alert in alerts {
            let here = place(alert.span());
            let rule = check_alert(alert.into_inner(), &checked).map_err(here)?;
            outputs.claim(&rule.output).map_err(here)?;
            rules.push(rule);
        }
        let mut hooks: Vec<Webhook> = Vec::with_capacity(webhooks.len());
        for webhook in webhooks {
            let here = place(webhook.span());
            let hook = check_webhook(webhook.into_inner(), &outputs, &hooks).map_err(here)?;
            hooks.push(hook);
        }
        for (what, count) in
            [("rollups", sums.len()), ("alerts", rules.len()), ("webhooks", hooks.len())]
        {
            if count > WINDOWS {
                return Err(at(0, format!("a plan has at most {WINDOWS} [[{what}]]")));
            }
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
        let lateness_ms = span(&stream.lateness, 0)?;
        let retention_ms = match &stream.retention {
            None => None,
            Some(_) => {
                let retention_ms = span(&stream.retention, 0)?;
                check_retention(retention_ms, lateness_ms, (&checked, &rules)).map_err(&here)?;
                Some(retention_ms)
            }
        };
        let asked_ms = stream.horizon.as_deref().map(|text| span_ms(text, 0)).transpose();
        let asked_ms = asked_ms.map_err(&here)?;
        let kept_ms = retention_ms.map(|retention| retention - lateness_ms);
        let horizon_ms = check_horizon(asked_ms, kept_ms, &checked).map_err(&here)?;
        Ok(Self(Arc::new(Checked {
            name,
            id: stream.id,
            time: stream.time,
            lateness_ms,
            horizon_ms,
            retention_ms,
            seal_ms: span(&stream.seal, 600_000)?,
            idle_ms: span(&stream.idle, 10_000)?,
            skew_ms: span(&stream.skew, 60_000)?,
            future_ms: span(&stream.future, 60_000)?,
            envelope,
            payload,
            windows: checked,
            rollups: sums,
            alerts: rules,
            audit,
            webhooks: hooks,
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

    /// After how long a silent publisher of which a batch is missing is sealed, in milliseconds.
    #[must_use]
    pub fn seal_ms(&self) -> i64 {
        self.0.seal_ms
    }

    /// By how much an event may be later than its batch was sent, in milliseconds.
    #[must_use]
    pub fn future_ms(&self) -> i64 {
        self.0.future_ms
    }

    /// How far apart two events with one id may be and still contradict each other, in milliseconds.
    #[must_use]
    pub fn horizon_ms(&self) -> i64 {
        self.0.horizon_ms
    }

    /// The length of a span in which ids are looked for, in milliseconds: a multiple of the length of
    /// windows of the plan's first kind.
    pub(crate) fn id_span_ms(&self) -> i64 {
        let every = self.0.windows[0].every_ms;
        (self.0.horizon_ms / ID_SPANS / every).max(1).saturating_mul(every)
    }

    /// The length of the plan's shortest windows, in milliseconds.
    pub(crate) fn shortest_ms(&self) -> i64 {
        self.0.windows.iter().map(|window| window.every_ms).min().unwrap_or(1)
    }

    /// How long before a window ends an event may be on which depends what counts in it, in milliseconds.
    #[must_use]
    pub fn reach_ms(&self) -> i64 {
        let longest = self.0.windows.iter().map(|window| window.every_ms).max().unwrap_or(0);
        self.0.horizon_ms.saturating_add(longest)
    }

    /// Windows that end by then are to be retired when the watermark stands here (milliseconds since the
    /// Unix epoch), if the plan names a time of retention. The time moves in steps of an eighth of it.
    #[must_use]
    pub fn retires_before(&self, watermark_ms: i64) -> Option<i64> {
        let step = self.retention_step_ms()?;
        Some(start_of(watermark_ms.saturating_sub(self.0.retention_ms?), step))
    }

    /// The step, in milliseconds: a multiple of the length of windows of the plan's first kind.
    #[must_use]
    pub fn retention_step_ms(&self) -> Option<i64> {
        let every = self.0.windows[0].every_ms;
        Some((self.0.retention_ms? / RETENTION_STEPS / every).max(1).saturating_mul(every))
    }

    /// When a window ends, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn end_of(&self, (window, start_ms): WindowKey) -> i64 {
        let every = self.0.windows.get(usize::from(window)).map_or(0, |window| window.every_ms);
        start_ms.saturating_add(every)
    }

    /// When the span of a roll-up ends, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn span_end(&self, (rollup, start_ms): WindowKey) -> i64 {
        let every = self.0.rollups.get(usize::from(rollup)).map_or(0, |rollup| rollup.every_ms);
        start_ms.saturating_add(every)
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

    /// Where rows are sent, too.
    #[must_use]
    pub fn webhooks(&self) -> &[Webhook] {
        &self.0.webhooks
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

    /// The outputs of windows.
    pub fn window_outputs(&self) -> impl Iterator<Item = &str> {
        self.0.windows.iter().map(|window| window.output.as_str())
    }

    /// The outputs of roll-ups.
    pub fn rollup_outputs(&self) -> impl Iterator<Item = &str> {
        self.0.rollups.iter().map(|rollup| rollup.output.as_str())
    }

    /// Whether the watermark closes a window.
    #[must_use]
    pub fn closes(&self, window: WindowKey, watermark_ms: i64) -> bool {
        watermark_ms >= self.end_of(window).saturating_add(self.0.lateness_ms)
    }
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
    fn a_time_of_retention_passes_in_steps_of_whole_windows() {
        let plan = |retention: &str| {
            let text = format!(
                "name = 'x'\n[stream]\nid = 'i'\ntime = 't'\n{retention}\n[[windows]]\noutput = 'w'\n\
                 every = '5s'\ngroup_by = ['a']"
            );
            StreamPlan::parse(&text).unwrap()
        };
        let (none, short, long) = (plan(""), plan("retention = '12s'"), plan("retention = '2m'"));
        assert_eq!((none.retention_step_ms(), none.retires_before(100_000)), (None, None));
        assert_eq!(
            (short.retention_step_ms(), short.retires_before(100_000)),
            (Some(5_000), Some(85_000))
        );
        assert_eq!(
            (long.retention_step_ms(), long.retires_before(149_999)),
            (Some(15_000), Some(15_000))
        );
        assert_eq!(long.retires_before(150_000), Some(30_000));
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
            (plan("seal = 'soon'", window), 2, "is not a span"),
            (plan("retention = '9s'", window), 2, "it is at least 10 s"),
            (
                plan(
                    "retention = '5m'",
                    &format!("{window}\n[[alerts]]\noutput = 'a'\nwindow = 'w'"),
                ),
                2,
                "it is at least 310 s",
            ),
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
            (
                plan("", &format!("{window}\n[[webhooks]]\noutput = 'x'\nwebhook = 'http://h'")),
                10,
                "one of the outputs",
            ),
            (
                plan("", &format!("{window}\n[[webhooks]]\noutput = 'w'\nwebhook = 'https://h'")),
                10,
                "expected http://",
            ),
            (
                plan(
                    "",
                    &format!(
                        "{window}\n[[webhooks]]\noutput = 'w'\nwebhook = 'http://h'\nattempts = 0"
                    ),
                ),
                10,
                "'attempts'",
            ),
            (
                plan(
                    "",
                    &format!(
                        "{window}\n[[webhooks]]\noutput = 'w'\nwebhook = 'http://h'\nretry = 'x'"
                    ),
                ),
                13,
                "unknown variant",
            ),
            (
                plan(
                    "",
                    &format!(
                        "{window}\n[[webhooks]]\noutput = 'w'\nwebhook = 'http://h'\n\
                         [[webhooks]]\noutput = 'w'\nwebhook = 'http://g'"
                    ),
                ),
                13,
                "has a webhook already",
            ),
            (plan("horizon = '1s'", &window.replace("5s", "9s")), 2, "shorter than a window"),
            (plan("horizon = '1m'\nretention = '50s'", window), 2, "longer than 'retention'"),
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
