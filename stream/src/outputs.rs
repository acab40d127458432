//! Outputs: puts the parts of all slots together, proves that nothing is missing, and makes rows.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cortado_protocol::frame::{self, FrameError};
use cortado_protocol::stream::{Cursor, Place};
use cortado_protocol::{Edge, Slot};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::alerts::{Alert, Counts, Recent, alerts};
use crate::cut::Cut;
use crate::event::SEPARATOR;
use crate::fold::{Conflict, Wanted, WindowPart};
use crate::plan::{DEAD_PROCESSING, DEAD_VALIDATION, StreamPlan, WindowKey};
use crate::retirement::Checkpoint;
use crate::rows::{is_days, metric_id, span_text, stats_of, tell, window_head};
use crate::summary::{Kind, Summary};
use crate::time::time_text;

/// A row names its events if they are no more than this.
const IDS: usize = 10_000;
/// Most characters of a dead letter's text in its row.
const RAW_CHARS: usize = 512;

/// A span of a roll-up that windows of the round belong to.
#[derive(Clone, Debug)]
pub struct Span {
    /// Number of the roll-up, and where the span starts.
    pub key: WindowKey,
    /// The sum of its other windows, as they were published last.
    pub others: BTreeMap<String, u64>,
    /// Paths to which the round's windows added something when they were published last.
    pub before: Vec<String>,
    /// Its windows that are published, those of the round included.
    pub windows: u64,
}

/// A batch that is included for the first time.
#[derive(Clone, Debug)]
pub struct Fresh {
    /// The edge of its publisher.
    pub edge: Edge,
    /// Its number.
    pub number: u64,
    /// Its summary.
    pub summary: Summary,
}

/// What is published together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputBatch {
    /// When the first window of which there is a row ends, in milliseconds since the Unix epoch;
    /// `i64::MAX` without rows of windows. It stands first, see [`OutputBatch::peek_oldest`].
    pub oldest_ms: i64,
    /// No event of the batches that it includes, and no row, is of a later time than this.
    pub until_ms: i64,
    /// The batches that it includes.
    pub cut: Cut,
    /// The windows of which there is a row.
    pub windows: Vec<PublishedWindow>,
    /// The rows, as readers get them.
    pub rows: Vec<OutputRow>,
    /// Of the last batch of a stream: how many batches a reader has had of each edge of a coordinator
    /// when it has had all rows, this batch included.
    pub end: Option<Vec<(Edge, u64)>>,
    /// What is left of windows that are retired with this batch.
    pub retired: Option<Box<Checkpoint>>,
    /// How many batches of each edge of outputs the coordinator had read when it began this one.
    pub outputs: Vec<(Edge, u64)>,
    /// How far the rows of outputs were delivered to their webhooks.
    pub delivered: Vec<(String, Cursor)>,
}

/// What was published of a window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedWindow {
    /// The window.
    pub key: WindowKey,
    /// Events that count.
    pub counted: u64,
    /// Copies of them.
    pub duplicates: u64,
    /// Events that contradict one of them.
    pub conflicts: u64,
    /// What it adds to roll-ups, by path.
    pub paths: Vec<(String, u64)>,
    /// Its counts by the texts that it is grouped by, if the plan has alerts over it.
    pub groups: Vec<(Vec<String>, u64)>,
    /// The groups of which there is an alert: number of the alert among those over this window, and texts.
    pub alerts: Vec<(u16, Vec<String>)>,
}

/// What the coordinator knows beside the slots' parts.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The spans of roll-ups that the windows belong to.
    pub spans: Vec<Span>,
    /// What was published last of these windows, and of those that their alerts compare them with.
    pub recent: Vec<Recent>,
    /// The first window of each kind that the stream has.
    pub first: Vec<WindowKey>,
    /// No event of the batches that the round includes is of a later time.
    pub until_ms: i64,
    /// How many batches of each edge of outputs were read.
    pub outputs: Vec<(Edge, u64)>,
    /// Windows that are left out, once it was said which windows are touched.
    pub left_out: Option<BTreeSet<WindowKey>>,
}

/// What becomes of a round.
#[derive(Clone, Debug)]
pub enum Made {
    /// It can be published.
    Batch(OutputBatch),
    /// Windows that are not in it may be touched: these are all that may be.
    Touched(Vec<Touch>),
}

/// What is new in a window may contradict events of a later one. If that one was published without it, it
/// has to be published again first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    /// The window.
    pub window: WindowKey,
    /// The later one.
    pub later: WindowKey,
    /// The batches that brought what is new.
    pub batches: Cut,
}

/// A row of an output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputRow {
    /// The output's name.
    pub output: String,
    /// A JSON object.
    pub json: String,
}

impl OutputBatch {
    /// A batch without rows.
    #[must_use]
    pub fn new(cut: Cut, until_ms: i64) -> Self {
        let (windows, rows, outputs) = (Vec::new(), Vec::new(), Vec::new());
        let (end, retired, delivered) = (None, None, Vec::new());
        let oldest_ms = i64::MAX;
        Self { oldest_ms, until_ms, cut, windows, rows, end, retired, outputs, delivered }
    }

    /// Reads when the first window of an encoded batch ends, and nothing else; `None` if the bytes are no
    /// output batch.
    #[must_use]
    pub fn peek_oldest(bytes: &[u8]) -> Option<i64> {
        frame::first_of_postcard(bytes).ok()
    }

    /// The bytes of the entry.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        frame::to_postcard(self)
    }

    /// Reads what [`OutputBatch::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are no output batch.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        frame::from_postcard(bytes)
    }
}

/// Why nothing is published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// A slot's part can't be read.
    #[error("the part of a slot can't be read")]
    Part,
    /// The events of a window are not those of its batches.
    #[error("a window has {found} events, and its batches say {valid}")]
    Events {
        /// Events that count, copies and contradictions.
        found: u64,
        /// Events that the summaries of the batches say it has.
        valid: u64,
    },
}

/// Makes the rows of a round.
///
/// # Errors
/// If the slots have not folded exactly the events of the batches: then nothing may be published.
pub fn publish(
    plan: &StreamPlan,
    cut: &Cut,
    wanted: &Wanted,
    parts: &[(Slot, Bytes)],
    (fresh, known): (&[Fresh], &Known),
) -> Result<Made, Mismatch> {
    let Known { spans, recent, first, .. } = known;
    let mut totals = vec![WindowPart::default(); wanted.windows.len()];
    for (_, bytes) in parts {
        let parts: Vec<WindowPart> = frame::from_postcard(bytes).map_err(|_| Mismatch::Part)?;
        if parts.len() != totals.len() {
            return Err(Mismatch::Part);
        }
        for (total, part) in totals.iter_mut().zip(parts) {
            for (key, count) in part.counts {
                *total.counts.entry(key).or_default() += count;
            }
            total.ids.extend(part.ids);
            total.duplicates += part.duplicates;
            total.conflicts.extend(part.conflicts);
            total.added.extend(part.added);
            total.touches.extend(part.touches);
            for (path, count) in part.paths {
                *total.paths.entry(path).or_default() += count;
            }
        }
    }
    let touches = touches(wanted, &totals);
    let is_in = |of: &Touch| wanted.windows.iter().any(|window| window.key == of.later);
    let left_out = match &known.left_out {
        None if !touches.iter().all(is_in) => return Ok(Made::Touched(touches)),
        left_out => left_out.clone().unwrap_or_default(),
    };
    let mut batch = OutputBatch::new(cut.clone(), known.until_ms);
    batch.outputs.clone_from(&known.outputs);
    let included = || wanted.windows.iter().filter(|window| !left_out.contains(&window.key));
    let ends = included().map(|window| plan.end_of(window.key));
    batch.oldest_ms = ends.min().unwrap_or(i64::MAX);
    let mut sums: Vec<_> = spans.iter().map(|span| Sum::new(plan, span)).collect();
    let recent_counts = recent.iter().map(|of| {
        let by_group = of.counts.iter().cloned().collect();
        (of.key, Counts { revision: of.revision, by_group })
    });
    let mut counts: BTreeMap<WindowKey, Counts> = recent_counts.collect();
    let totals = wanted.windows.iter().zip(totals);
    for (window, mut total) in totals.filter(|(window, _)| !left_out.contains(&window.key)) {
        let key = window.key;
        let counted = total.counts.values().sum::<u64>();
        let (duplicates, conflicts) = (total.duplicates, total.conflicts.len() as u64);
        let found = counted + duplicates + conflicts;
        if found != window.valid {
            return Err(Mismatch::Events { found, valid: window.valid });
        }
        total.ids.sort_unstable();
        total.conflicts.sort_unstable();
        batch.rows.push(window_row(plan, cut, key, &total, counted));
        // One that was told before is not told again.
        let news = total.conflicts.iter().filter(|conflict| conflict.is_news);
        batch.rows.extend(news.map(|conflict| conflict_row(cut, conflict)));
        for span in plan.spans_of(key) {
            let sum = spans.iter().zip(&mut sums).find(|(other, _)| other.key == span);
            if let Some((_, sum)) = sum {
                sum.add(&total);
            }
        }
        let paths = total.paths.into_iter().collect();
        let mut groups = Vec::new();
        if plan.lookback(key.0) > 0 {
            groups = total.counts.iter().map(|(texts, count)| (texts.clone(), *count)).collect();
            counts.insert(key, Counts { revision: cut.batches(), by_group: total.counts });
        }
        let alerts = Vec::new();
        let window = PublishedWindow { key, counted, duplicates, conflicts, paths, groups, alerts };
        batch.windows.push(window);
    }
    // Windows of the round are compared with each other as of this cut, too.
    for window in &mut batch.windows {
        let of_kind = first.iter().find(|(kind, _)| *kind == window.key.0);
        let first_ms = of_kind.map_or(window.key.1, |(_, start)| *start);
        let before = recent.iter().find(|of| of.key == window.key);
        let before = before.map_or(&[][..], |of| &of.alerts);
        for alert in alerts(plan, cut, (window.key, first_ms), &counts, before) {
            let Alert { output, row, group, rule, raised } = alert;
            batch.rows.push(OutputRow { output, json: text(row) });
            if raised {
                window.alerts.push((rule, group));
            }
        }
    }
    for (span, sum) in spans.iter().zip(sums) {
        batch.rows.extend(sum.rows(plan, cut, span.key));
    }
    for Fresh { edge, number, summary } in fresh {
        for letter in &summary.dead {
            let origin = Place { edge: *edge, batch: *number, position: letter.position };
            let output = match letter.kind {
                Kind::Validation => DEAD_VALIDATION,
                Kind::Processing => DEAD_PROCESSING,
            };
            let mut row = dead_row(cut, origin, &letter.reason);
            row.insert("path".into(), letter.path.as_str().into());
            row.insert("publisher".into(), summary.header.publisher.as_str().into());
            row.insert("generation".into(), summary.header.generation.into());
            row.insert("sent_at".into(), time_text(summary.header.sent_at_ms).into());
            row.insert("raw".into(), shortened(&letter.raw).into());
            row.insert("raw_bytes".into(), letter.raw.len().into());
            batch.rows.push(OutputRow { output: output.to_owned(), json: text(row) });
        }
    }
    Ok(Made::Batch(batch))
}

/// What a dead letter's row says of its text.
pub(crate) fn shortened(raw: &[u8]) -> String {
    String::from_utf8_lossy(raw).chars().take(RAW_CHARS).collect()
}

/// The windows that are touched, by the windows that touch them.
fn touches(wanted: &Wanted, totals: &[WindowPart]) -> Vec<Touch> {
    let mut all: BTreeMap<(WindowKey, WindowKey), Cut> = BTreeMap::new();
    for (of, total) in wanted.windows.iter().zip(totals) {
        for (later, batches) in &total.touches {
            all.entry((of.key, *later)).or_default().join(batches);
        }
    }
    let touch = |((window, later), batches)| Touch { window, later, batches };
    all.into_iter().map(touch).collect()
}

fn window_row(
    plan: &StreamPlan,
    cut: &Cut,
    (number, start_ms): WindowKey,
    total: &WindowPart,
    counted: u64,
) -> OutputRow {
    let window = &plan.windows()[usize::from(number)];
    let mut row = window_head(window, start_ms, cut);
    row.insert("total".into(), counted.into());
    row.insert("duplicates".into(), total.duplicates.into());
    row.insert("conflicts".into(), total.conflicts.len().into());
    row.insert(window.stats.clone(), stats_of(&total.counts));
    if window.ids && total.ids.len() <= IDS {
        row.insert("event_ids".into(), json!(total.ids));
    }
    OutputRow { output: window.output.clone(), json: text(row) }
}

/// The sum of a span, while it is made.
struct Sum {
    number: usize,
    /// Parts of a path before the parts that stand for the roll-up's fields.
    depth: usize,
    /// Windows that it is the sum of.
    windows: u64,
    paths: BTreeMap<String, u64>,
    /// The rows that are told: those that the round's windows add to, or did.
    told: BTreeSet<Vec<String>>,
    added: BTreeMap<Vec<String>, Vec<String>>,
}

impl Sum {
    fn new(plan: &StreamPlan, span: &Span) -> Self {
        let number = usize::from(span.key.0);
        let depth = plan.rollups().get(number).map_or(0, |rollup| rollup.per.len());
        let (paths, added) = (span.others.clone(), BTreeMap::new());
        let windows = span.windows;
        let mut sum = Self { number, depth, windows, paths, told: BTreeSet::new(), added };
        sum.told = span.before.iter().filter_map(|path| sum.row_of(path)).collect();
        sum
    }

    /// The texts of the row that a path belongs to, if it is one of this roll-up.
    fn row_of(&self, path: &str) -> Option<Vec<String>> {
        let mut parts = path.split(SEPARATOR);
        let of = parts.next().and_then(|number| number.parse().ok()) == Some(self.number);
        of.then(|| parts.take(self.depth).map(str::to_owned).collect())
    }

    fn add(&mut self, window: &WindowPart) {
        for (path, count) in &window.paths {
            let Some(row) = self.row_of(path) else { continue };
            *self.paths.entry(path.clone()).or_default() += count;
            self.told.insert(row);
        }
        for (path, id) in &window.added {
            let Some(row) = self.row_of(path) else { continue };
            self.added.entry(row).or_default().push(id.clone());
        }
    }

    fn rows(mut self, plan: &StreamPlan, cut: &Cut, (_, start_ms): WindowKey) -> Vec<OutputRow> {
        let Some(rollup) = plan.rollups().get(self.number) else { return Vec::new() };
        let mut metrics: BTreeMap<Vec<String>, Map<String, Value>> = BTreeMap::new();
        let told = std::mem::take(&mut self.told);
        for (path, count) in self.paths.iter().filter(|(_, count)| **count > 0) {
            let Some(row) = self.row_of(path).filter(|row| told.contains(row)) else { continue };
            let parts = metrics.entry(row).or_default();
            tell(rollup, parts, path.split(SEPARATOR).skip(1 + self.depth), *count);
        }
        let mut rows = Vec::new();
        for texts in told {
            let mut row = Map::new();
            let span = span_text(start_ms, rollup.every_ms);
            row.insert("metric_id".into(), metric_id(rollup, start_ms, &texts).into());
            row.insert(if is_days(rollup.every_ms) { "date" } else { "start" }.into(), span.into());
            for (field, text) in rollup.per.iter().zip(&texts) {
                let name = field.last().map_or("", String::as_str);
                row.insert(name.to_owned(), text.as_str().into());
            }
            // Windows may be closed by silence alone: then the same batches give another sum.
            row.insert("revision".into(), (cut.batches() + self.windows).into());
            row.insert("cut".into(), cut.hash_text().into());
            let parts = metrics.remove(&texts).unwrap_or_default();
            row.insert("metrics".into(), Value::Object(parts));
            let mut added = self.added.remove(&texts).unwrap_or_default();
            row.insert("input_event_count".into(), added.len().into());
            if added.len() <= IDS {
                added.sort_unstable();
                row.insert("input_event_ids".into(), json!(added));
            }
            rows.push(OutputRow { output: rollup.output.clone(), json: text(row) });
        }
        rows
    }
}

fn dead_row(cut: &Cut, origin: Place, reason: &str) -> Map<String, Value> {
    let mut row = Map::new();
    row.insert("dead_id".into(), origin.to_text().into());
    row.insert("reason".into(), reason.into());
    row.insert("batch".into(), origin.batch.into());
    row.insert("position".into(), origin.position.into());
    row.insert("cut".into(), cut.hash_text().into());
    row
}

fn conflict_row(cut: &Cut, conflict: &Conflict) -> OutputRow {
    let reason = "conflict: an event with this id and other content counts";
    let mut row = dead_row(cut, conflict.origin, reason);
    row.insert("event_id".into(), conflict.id.as_str().into());
    row.insert("counts".into(), conflict.counts.to_text().into());
    OutputRow { output: DEAD_VALIDATION.to_owned(), json: text(row) }
}

fn text(row: Map<String, Value>) -> String {
    Value::Object(row).to_string()
}
