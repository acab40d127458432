//! A second count of a stream's events, from the events as the ledgers keep them: not by way of the
//! facts, deltas and folds from which the first count was made. What was published is compared with
//! it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use cortado_protocol::stream::{Place, StoredEvent};
use cortado_protocol::{Edge, content_hash, wide_hash};
use serde_json::{Map, Value};

use crate::cut::Cut;
use crate::event::SEPARATOR;
use crate::map::counted_by;
use crate::plan::{StreamPlan, WindowKey, start_of};
use crate::rows::{metric_id, stats_of, tell};
use crate::texts::Interned;
use crate::time::{parse_time, time_text};

/// An event in one window.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    window: WindowKey,
    /// A hash of its id.
    id: u128,
    at_ms: i64,
    place: Place,
    content: u64,
    /// Numbers of what it is counted by.
    group: u32,
    paths: u32,
}

/// An event can't be counted: the ledgers keep valid ones only.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event at {place} is kept as a valid one, and is not: {why}")]
pub struct NotValid {
    /// The event's place as text.
    pub place: String,
    /// What is wrong with it.
    pub why: String,
}

/// The events with an id that lies in several windows, by time and place.
type Elsewhere = BTreeMap<u128, Vec<(i64, Place)>>;

/// The second count, while it is made. An event takes about 100 bytes.
pub struct Recount<'p> {
    plan: &'p StreamPlan,
    /// Only windows that start in this range are counted, in milliseconds since the Unix epoch.
    range: Range<i64>,
    /// Ids of the events that add to this metric are kept.
    traced: Option<String>,
    seen: Vec<Seen>,
    /// Events before the range that may come before others in it: hash of the id, time and place.
    before: Vec<(u128, i64, Place)>,
    elsewhere: Elsewhere,
    groups: Interned<[String]>,
    paths: Interned<[String]>,
    names: HashMap<u128, String>,
}

impl<'p> Recount<'p> {
    /// A count without events, of windows that start in the range (milliseconds since the Unix epoch).
    #[must_use]
    pub fn new(plan: &'p StreamPlan, range: Range<i64>) -> Self {
        Self {
            plan,
            range,
            traced: None,
            seen: Vec::new(),
            before: Vec::new(),
            elsewhere: Elsewhere::new(),
            groups: Interned::default(),
            paths: Interned::default(),
            names: HashMap::new(),
        }
    }

    /// Keeps the ids of the events that add to this metric, too.
    #[must_use]
    pub fn trace(self, metric: &str) -> Self {
        Self { traced: Some(metric.to_owned()), ..self }
    }

    /// Counts an event of a publisher's edge.
    ///
    /// # Errors
    /// If the event is not one that the stream's plan counts.
    pub fn add(&mut self, edge: Edge, event: &StoredEvent) -> Result<(), NotValid> {
        let place = Place { edge, batch: event.batch, position: event.position };
        let wrong = |why: String| NotValid { place: place.to_text(), why };
        let json: Value = serde_json::from_slice(&event.raw).map_err(|e| wrong(e.to_string()))?;
        let at_ms = json.get(self.plan.time()).and_then(Value::as_str).and_then(parse_time);
        let at_ms = at_ms.ok_or_else(|| wrong("it has no time".to_owned()))?;
        let (keys, paths) =
            counted_by(self.plan, &json).map_err(|(_, invalid)| wrong(invalid.reason))?;
        let id = wide_hash(event.id.as_bytes());
        if let Some(metric) = &self.traced
            && metrics_of(self.plan, &paths, at_ms).any(|of| of == *metric)
        {
            self.names.insert(id, event.id.clone());
        }
        let (paths, none) = (self.paths.number(&paths), self.paths.number(&[]));
        let content = content_hash(json.to_string().as_bytes());
        let mut keys = keys.as_slice();
        for (number, window) in self.plan.windows().iter().enumerate() {
            let (group, rest) = keys.split_at(window.group_by.len());
            let group = self.groups.number(group);
            keys = rest;
            let start = start_of(at_ms, window.every_ms);
            // Roll-ups are sums of windows of the first kind.
            let paths = if number == 0 { paths } else { none };
            if self.range.contains(&start) {
                let window = (number as u16, start);
                self.seen.push(Seen { window, id, at_ms, place, content, group, paths });
            } else if number == 0
                && (self.range.start.saturating_sub(self.plan.reach_ms())..self.range.start)
                    .contains(&start)
            {
                self.before.push((id, at_ms, place));
            }
        }
        Ok(())
    }

    /// All events were added.
    #[must_use]
    pub fn finish(mut self) -> Recounted<'p> {
        self.seen.sort_unstable();
        // Most ids lie in one window only.
        let mut windows: HashMap<u128, i64> = HashMap::new();
        let mut several = BTreeSet::new();
        let every = self.plan.shortest_ms();
        let first = || self.seen.iter().take_while(|seen| seen.window.0 == 0);
        let all = || {
            let of_range = first().map(|seen| (seen.id, seen.at_ms, seen.place));
            self.before.iter().copied().chain(of_range)
        };
        for (id, at_ms, _) in all() {
            let window = start_of(at_ms, every);
            if *windows.entry(id).or_insert(window) != window {
                several.insert(id);
            }
        }
        let mut elsewhere = Elsewhere::new();
        for (id, at_ms, place) in all().filter(|(id, ..)| several.contains(id)) {
            elsewhere.entry(id).or_default().push((at_ms, place));
        }
        self.elsewhere = elsewhere;
        Recounted(self)
    }
}

/// The metrics to which paths of an event add.
fn metrics_of(plan: &StreamPlan, paths: &[String], at_ms: i64) -> impl Iterator<Item = String> {
    let metric = move |path: &String| {
        let mut parts = path.split(SEPARATOR);
        let rollup = plan.rollups().get(parts.next()?.parse::<usize>().ok()?)?;
        let texts: Vec<_> = parts.by_ref().take(rollup.per.len()).collect();
        // Behind them only the part: a metric of it says the same once more.
        (parts.count() == 1).then(|| metric_id(rollup, start_of(at_ms, rollup.every_ms), &texts))
    };
    paths.iter().filter_map(metric)
}

/// The ids of the metrics to which a valid event of a stream adds.
#[must_use]
pub fn metric_ids(plan: &StreamPlan, event: &Value, at_ms: i64) -> Vec<String> {
    let paths = counted_by(plan, event).map(|(_, paths)| paths).unwrap_or_default();
    metrics_of(plan, &paths, at_ms).collect()
}

/// A row as it was published, and the batches that it includes.
#[derive(Clone, Debug)]
pub struct RowAt {
    /// The output.
    pub output: String,
    /// The row.
    pub row: Map<String, Value>,
    /// Its cut.
    pub cut: Cut,
}

/// Something that was published is not what the second count gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What differs: an output and a window or a metric.
    pub what: String,
    /// As it was published.
    pub published: Value,
    /// As it was counted a second time.
    pub recounted: Value,
}

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Windows that were compared.
    pub windows: u64,
    /// Metrics that were compared.
    pub metrics: u64,
    /// Events that count in the windows of the plan's first kind, copies and contradictions not among
    /// them.
    pub counted: u64,
    /// Events that no published window includes yet.
    pub open: u64,
    /// What differs.
    pub differences: Vec<Difference>,
}

/// A window in the second count.
#[derive(Clone, Debug, Default)]
struct Window {
    counts: BTreeMap<Vec<String>, u64>,
    duplicates: u64,
    conflicts: u64,
    paths: BTreeMap<String, u64>,
}

impl Window {
    fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// The fields of its row that are compared.
    fn fields(&self, plan: &StreamPlan, (kind, _): WindowKey) -> Map<String, Value> {
        let mut row = Map::new();
        row.insert("total".into(), self.total().into());
        row.insert("duplicates".into(), self.duplicates.into());
        row.insert("conflicts".into(), self.conflicts.into());
        let stats = &plan.windows()[usize::from(kind)].stats;
        row.insert(stats.clone(), stats_of(&self.counts));
        row
    }
}

/// The second count.
pub struct Recounted<'p>(Recount<'p>);

impl Recounted<'_> {
    /// The events of a window that a cut includes: copies together, and the one that counts first, if one does,
    /// because they are sorted by time and place.
    fn seen(&self, key: WindowKey, cut: &Cut) -> impl Iterator<Item = &Seen> {
        let all = &self.0.seen;
        let from = all.partition_point(|seen| seen.window < key);
        let of_window = all[from..].iter().take_while(move |seen| seen.window == key);
        of_window.filter(move |seen| cut.has(seen.place.edge, seen.place.batch))
    }

    /// Whether an event of another window that a cut includes comes before an event, and close to it.
    fn comes_late(&self, seen: &Seen, cut: &Cut) -> bool {
        let close = seen.at_ms.saturating_sub(self.0.plan.horizon_ms())..seen.at_ms;
        let others = self.0.elsewhere.get(&seen.id).into_iter().flatten();
        others.into_iter().any(|(at_ms, place)| {
            close.contains(at_ms) && *at_ms < seen.window.1 && cut.has(place.edge, place.batch)
        })
    }

    /// A window as of a cut.
    fn window(&self, key: WindowKey, cut: &Cut) -> Window {
        let mut window = Window::default();
        // The first event of an id, and whether it counts.
        let mut first: Option<(&Seen, bool)> = None;
        for seen in self.seen(key, cut) {
            match first.filter(|(first, _)| first.id == seen.id) {
                Some((first, true)) if first.content == seen.content => window.duplicates += 1,
                Some(_) => window.conflicts += 1,
                None if self.comes_late(seen, cut) => {
                    first = Some((seen, false));
                    window.conflicts += 1;
                }
                None => {
                    first = Some((seen, true));
                    let group = self.0.groups.value(seen.group).to_vec();
                    *window.counts.entry(group).or_default() += 1;
                    for path in self.0.paths.value(seen.paths) {
                        *window.paths.entry(path.clone()).or_default() += 1;
                    }
                }
            }
        }
        window
    }

    /// Compares what was published last of each window and metric with the second count. `rows` are all
    /// rows of all outputs up to some moment, in the order in which they were published.
    #[must_use]
    pub fn compare(&self, rows: &[RowAt]) -> Comparison {
        let Recount { plan, range, seen, .. } = &self.0;
        let mut done = Comparison::default();
        let windows = last_windows(plan, rows);
        let mut sums: BTreeMap<WindowKey, BTreeMap<String, u64>> = BTreeMap::new();
        for (key, row) in windows.iter().filter(|((_, start), _)| range.contains(start)) {
            let window = self.window(*key, &row.cut);
            done.windows += 1;
            if key.0 == 0 {
                done.counted += window.total();
            }
            let recounted = window.fields(plan, *key);
            let published: Map<_, _> =
                recounted.keys().map(|field| (field.clone(), row.row[field].clone())).collect();
            if published != recounted {
                let what = format!("{} {}", row.output, text(&row.row, "window_start"));
                let (published, recounted) = (published.into(), recounted.into());
                done.differences.push(Difference { what, published, recounted });
            }
            for span in plan.spans_of(*key) {
                let sum = sums.entry(span).or_default();
                window
                    .paths
                    .iter()
                    .for_each(|(path, n)| *sum.entry(path.clone()).or_default() += n);
            }
        }
        let first = seen.iter().take_while(|seen| seen.window.0 == 0);
        let included = |seen: &&Seen| {
            let row = windows.get(&seen.window);
            row.is_some_and(|row| row.cut.has(seen.place.edge, seen.place.batch))
        };
        done.open = first.filter(|seen| !included(seen)).count() as u64;
        self.compare_ids(&windows, &mut done);
        self.compare_metrics(rows, &sums, &mut done);
        done
    }

    /// Finds ids that count twice, in windows that were published with different batches.
    fn compare_ids(&self, windows: &BTreeMap<WindowKey, &RowAt>, done: &mut Comparison) {
        let plan = self.0.plan;
        for (id, places) in &self.0.elsewhere {
            let starts: BTreeSet<_> =
                places.iter().map(|(at_ms, _)| plan.window_start(*at_ms)).collect();
            let mut before: Option<&Seen> = None;
            for start in starts {
                let Some(row) = windows.get(&(0, start)) else { continue };
                let mut of_window = self.seen((0, start), &row.cut);
                let counts = of_window.find(|seen| seen.id == *id);
                let Some(counts) = counts.filter(|seen| !self.comes_late(seen, &row.cut)) else {
                    continue;
                };
                if let Some(before) = before
                    && counts.at_ms.saturating_sub(before.at_ms) <= plan.horizon_ms()
                {
                    let what = "an event that counts in two windows".to_owned();
                    let place = |seen: &Seen| Value::String(seen.place.to_text());
                    let (published, recounted) = (place(counts), place(before));
                    done.differences.push(Difference { what, published, recounted });
                }
                before = Some(counts);
            }
        }
    }

    /// Compares the last row of each metric whose whole span was counted.
    fn compare_metrics(
        &self,
        rows: &[RowAt],
        sums: &BTreeMap<WindowKey, BTreeMap<String, u64>>,
        done: &mut Comparison,
    ) {
        let Recount { plan, range, .. } = &self.0;
        let mut expected: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
        let mut partly = BTreeSet::new();
        for ((number, start), paths) in sums {
            let number = usize::from(*number);
            let Some(rollup) = plan.rollups().get(number) else { continue };
            let whole = range.start <= *start && start.saturating_add(rollup.every_ms) <= range.end;
            for (path, count) in paths {
                let mut parts = path.split(SEPARATOR);
                if parts.next().and_then(|of| of.parse().ok()) != Some(number) {
                    continue;
                }
                let texts: Vec<_> = parts.by_ref().take(rollup.per.len()).collect();
                let id = metric_id(rollup, *start, &texts);
                tell(rollup, expected.entry(id.clone()).or_default(), parts, *count);
                if !whole {
                    partly.insert(id);
                }
            }
        }
        let mut last: BTreeMap<&str, &RowAt> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.row.contains_key("metric_id")) {
            newest(&mut last, text(&row.row, "metric_id"), row);
        }
        for (id, row) in last {
            let all = *range == (i64::MIN..i64::MAX);
            let recounted = expected.remove(id);
            if partly.contains(id) || (recounted.is_none() && !all) {
                continue;
            }
            done.metrics += 1;
            let recounted = Value::Object(recounted.unwrap_or_default());
            let published = row.row.get("metrics").cloned().unwrap_or_default();
            if published != recounted {
                let what = id.to_owned();
                done.differences.push(Difference { what, published, recounted });
            }
        }
        for (id, recounted) in expected.into_iter().filter(|(id, _)| !partly.contains(id)) {
            let (published, recounted) = (Value::Null, recounted.into());
            done.differences.push(Difference { what: id, published, recounted });
        }
    }

    /// The ids of the events that the traced metric counts as it was published last, in order.
    #[must_use]
    pub fn traced(&self, rows: &[RowAt]) -> Vec<&str> {
        let Recount { plan, traced, names, .. } = &self.0;
        let Some(metric) = traced else { return Vec::new() };
        let mut ids: Vec<&str> = Vec::new();
        for (key, row) in last_windows(plan, rows).iter().filter(|((kind, _), _)| *kind == 0) {
            // A contradiction may say that it belongs to another metric than the event that counts.
            let mut before = None;
            for seen in self.seen(*key, &row.cut) {
                if before.replace(seen.id) == Some(seen.id) || self.comes_late(seen, &row.cut) {
                    continue;
                }
                let paths = self.0.paths.value(seen.paths);
                if metrics_of(plan, paths, seen.window.1).any(|of| of == *metric) {
                    ids.extend(names.get(&seen.id).map(String::as_str));
                }
            }
        }
        ids.sort_unstable();
        ids
    }

    /// The windows of the second count, with the fields that are compared, as of all its events.
    pub fn rows(&self) -> impl Iterator<Item = (String, Map<String, Value>)> {
        let mut all = Cut::default();
        for seen in &self.0.seen {
            all.include(seen.place.edge, seen.place.batch + 1);
        }
        let keys: BTreeSet<_> = self.0.seen.iter().map(|seen| seen.window).collect();
        keys.into_iter().map(move |key| {
            let mut row = self.window(key, &all).fields(self.0.plan, key);
            row.insert("window_start".into(), time_text(key.1).into());
            (self.0.plan.windows()[usize::from(key.0)].output.clone(), row)
        })
    }
}

/// What was published last of each window.
fn last_windows<'r>(plan: &StreamPlan, rows: &'r [RowAt]) -> BTreeMap<WindowKey, &'r RowAt> {
    let mut last = BTreeMap::new();
    for row in rows {
        let kind = plan.windows().iter().position(|window| window.output == row.output);
        let start = parse_time(text(&row.row, "window_start"));
        if let (Some(kind), Some(start)) = (kind, start) {
            newest(&mut last, (kind as u16, start), row);
        }
    }
    last
}

/// Keeps the row that includes more.
fn newest<'r, K: Ord>(last: &mut BTreeMap<K, &'r RowAt>, key: K, row: &'r RowAt) {
    let known = last.entry(key).or_insert(row);
    if row.cut.contains(&known.cut) {
        *known = row;
    }
}

fn text<'r>(row: &'r Map<String, Value>, field: &str) -> &'r str {
    row.get(field).and_then(Value::as_str).unwrap_or_default()
}
