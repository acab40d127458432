//! Whatever the order in which batches arrive and rounds take them, and whatever the number of slots:
//! what is published last is what one process counts.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cortado_protocol::stream::StreamHeader;
use cortado_protocol::{Coverage, Edge, META_SLOT, Slot};
use cortado_stream::{
    Cut, Fresh, IdIndex, IdSpan, Known, Made, OutputBatch, Recent, Recount, Recounted, RowAt,
    SchemaSet, Span, StreamPlan, Summary, Touch, Wanted, WantedWindow, WindowFold, WindowKey,
    map_events, publish, stored_events, time_text,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const PLAN: &str = r#"
name = "model"
[stream]
id = "id"
time = "at"
horizon = "2s"
[[windows]]
output = "windows"
every = "1s"
group_by = ["key"]
ids = true
[[rollups]]
output = "days"
every = "1d"
per = ["key"]
by = "kind"
[rollups.metrics."a"]
by_size = "size"
[rollups.metrics."b"]
big_rate = "rate(big)"
[[alerts]]
output = "alerts"
window = "windows"
history = 5
least = 1
probability = 0.1
"#;

/// An event: its id, its content, and whether its time is another one than that of most events with the id.
type Event = (u8, u8, u8);

/// Most events with an id have one time.
fn time_of((id, _, shift): Event) -> i64 {
    let shift = [0, 0, 0, 0, 300, 900, 1_700, 2_600][usize::from(shift)];
    1_700_000_000_000 + i64::from(id) * 137 + shift
}

fn line(event: Event) -> String {
    let (id, content, _) = event;
    let at = time_text(time_of(event));
    let kind = if content % 2 == 0 { "a" } else { "b" };
    let (key, size, big) = (content % 3, content % 4, content > 4);
    json!({ "id": format!("e{id}"), "at": at, "key": format!("k{key}"), "kind": kind,
            "size": size, "big": big })
    .to_string()
}

struct Mapped {
    deltas: BTreeMap<Slot, Bytes>,
    summary: Summary,
}

/// A cluster without a network: batches that are mapped, and what was published.
struct Bench {
    plan: StreamPlan,
    slots: u8,
    batches: BTreeMap<(Edge, u64), Mapped>,
    published: Vec<OutputBatch>,
    /// The ids that each slot knows.
    ids: BTreeMap<u8, IdIndex>,
    /// Windows to be published again, with these batches.
    touched: BTreeMap<WindowKey, Cut>,
}

impl Bench {
    fn new(slots: u8) -> Self {
        let plan = StreamPlan::parse(PLAN).unwrap();
        let (batches, touched) = (BTreeMap::new(), BTreeMap::new());
        Self { plan, slots, batches, published: Vec::new(), ids: BTreeMap::new(), touched }
    }

    fn add(&mut self, publisher: usize, number: u64, events: &[Event]) {
        let text: String = events.iter().map(|event| line(*event) + "\n").collect();
        let publisher = format!("p{publisher}");
        let edge = Edge::publisher(&publisher, 0);
        let header = StreamHeader {
            publisher,
            generation: 0,
            schema_set: 0,
            low_watermark_ms: 0,
            sent_at_ms: 1_800_000_000_000,
            last: false,
        };
        let schemas = SchemaSet::compile(&self.plan, &[]).unwrap();
        let slots = usize::from(self.slots);
        let mapped = map_events(&self.plan, &schemas, slots, &header, text.as_bytes()).unwrap();
        let mut deltas: BTreeMap<_, _> = mapped.deltas.into_iter().collect();
        let summary = Summary::decode(&deltas.remove(&META_SLOT).unwrap()).unwrap();
        self.batches.insert((edge, number), Mapped { deltas, summary });
    }

    /// Publishes all windows of the batches up to a cut that were not published with them, and those that are
    /// touched, until there are none.
    fn publish_all(&mut self, cut: &Cut, reverse: bool) {
        while self.round(cut, reverse) {}
    }

    /// One round of it; returns whether another one has to follow.
    fn round(&mut self, cut: &Cut, reverse: bool) -> bool {
        let mut ids = std::mem::take(&mut self.ids);
        let within = || self.batches.iter().filter(|((edge, number), _)| cut.has(*edge, *number));
        let mut windows: BTreeMap<WindowKey, (BTreeMap<Edge, Coverage>, u64)> = BTreeMap::new();
        for ((edge, number), batch) in within() {
            for count in &batch.summary.windows {
                let window = windows.entry(count.key).or_default();
                window.0.entry(*edge).or_default().insert(*number);
                window.1 += u64::from(count.events);
            }
        }
        let last = |key: WindowKey| {
            let of = |batch: &OutputBatch| {
                let found = batch.windows.iter().find(|window| window.key == key)?;
                Some((batch.cut.clone(), found.clone()))
            };
            self.published.iter().rev().find_map(of)
        };
        let mut near: BTreeMap<i64, BTreeMap<Edge, Coverage>> = BTreeMap::new();
        for (key, (batches, _)) in &windows {
            let span = self.plan.id_spans(key.1..key.1 + 1).next().unwrap();
            for (edge, numbers) in batches {
                near.entry(span).or_default().entry(*edge).or_default().union(numbers);
            }
        }
        let span = |(start_ms, batches): (i64, BTreeMap<Edge, Coverage>)| IdSpan {
            start_ms,
            batches: batches.into_iter().collect(),
        };
        let near = near.into_iter().map(span).collect();
        windows.retain(|key, (batches, _)| {
            let new = |edge: &Edge, numbers: &Coverage, cut: &Cut| {
                numbers.iter().any(|number| !cut.has(*edge, number))
            };
            let touched = self.touched.get(key);
            last(*key).is_none_or(|(cut, _)| {
                batches.iter().any(|(e, n)| new(e, n, &cut))
                    || touched.is_some_and(|touched| !cut.contains(touched))
            })
        });
        let before = |key: &WindowKey| last(*key).map(|(cut, _)| cut);
        let wanted = Wanted {
            near,
            windows: windows
                .iter()
                .map(|(key, (batches, valid))| WantedWindow {
                    key: *key,
                    batches: batches.clone().into_iter().collect(),
                    valid: *valid,
                    before: before(key),
                })
                .collect(),
        };
        let parts: Vec<_> = (0..self.slots)
            .map(|slot| {
                let mut fold = WindowFold::new(&self.plan, &wanted);
                let mut all: Vec<_> = within().collect();
                if reverse {
                    all.reverse();
                }
                for ((edge, number), batch) in all {
                    let delta = batch.deltas.get(&Slot(slot)).cloned().unwrap_or_default();
                    fold.add(ids.entry(slot).or_default(), (*edge, *number), &delta).unwrap();
                }
                let ids = ids.entry(slot).or_default();
                wanted.near.iter().for_each(|span| fold.look_up(ids, span));
                loop {
                    let unsure = fold.unsure();
                    if unsure.is_empty() {
                        break;
                    }
                    for of in unsure {
                        let delta = self.batches[&of].deltas.get(&Slot(slot)).unwrap();
                        fold.check(of, delta).unwrap();
                    }
                    fold.checked();
                }
                (Slot(slot), fold.finish())
            })
            .collect();
        let no_letters: &[Fresh] = &[];
        let made = publish(&self.plan, cut, &wanted, &parts, (no_letters, &Known::default()));
        let mut left_out = BTreeSet::new();
        if let Made::Touched(touches) = made.unwrap() {
            let lacks = |touch: &Touch| {
                last(touch.later).is_some_and(|(cut, _)| !cut.contains(&touch.batches))
            };
            let touches: Vec<_> = touches.into_iter().filter(lacks).collect();
            // A window waits for those that it touches and that are published again later.
            for touch in touches.iter().rev() {
                if !windows.contains_key(&touch.later) {
                    self.touched.entry(touch.later).or_default().join(&touch.batches);
                }
                if !windows.contains_key(&touch.later) || left_out.contains(&touch.later) {
                    left_out.insert(touch.window);
                }
            }
            windows.retain(|key, _| !left_out.contains(key));
        }
        let mut spans: BTreeMap<WindowKey, Span> = BTreeMap::new();
        let latest: BTreeMap<_, _> = self
            .published
            .iter()
            .flat_map(|batch| &batch.windows)
            .map(|window| (window.key, window.paths.clone()))
            .collect();
        for key in windows.keys().flat_map(|key| self.plan.spans_of(*key)) {
            let (mut others, mut before) = (BTreeMap::new(), Vec::new());
            for (window, paths) in &latest {
                for (path, count) in paths {
                    if windows.contains_key(window) {
                        before.push(path.clone());
                    } else {
                        *others.entry(path.clone()).or_default() += count;
                    }
                }
            }
            let of_span = latest.keys().chain(windows.keys());
            let of_span = of_span.filter(|window| self.plan.spans_of(**window).any(|of| of == key));
            let windows = of_span.collect::<BTreeSet<_>>().len() as u64;
            spans.insert(key, Span { key, others, before, windows });
        }
        let spans: Vec<_> = spans.into_values().collect();
        let mut near: BTreeMap<WindowKey, Recent> = BTreeMap::new();
        for batch in &self.published {
            for window in &batch.windows {
                let (counts, alerts) = (window.groups.clone(), window.alerts.clone());
                let revision = batch.cut.batches();
                near.insert(window.key, Recent { key: window.key, revision, counts, alerts });
            }
        }
        let first = near.keys().chain(windows.keys()).min().copied().into_iter().collect();
        let recent = near.into_values().collect();
        let again = !left_out.is_empty();
        let known = Known { spans, recent, first, left_out: Some(left_out), ..Known::default() };
        let made = publish(&self.plan, cut, &wanted, &parts, (no_letters, &known)).unwrap();
        let Made::Batch(batch) = made else { panic!("it was said what is left out") };
        self.published.push(batch);
        self.ids = ids;
        again
    }

    /// All rows that were published, with their cuts.
    fn published_rows(&self) -> Vec<RowAt> {
        let rows =
            self.published.iter().flat_map(|batch| batch.rows.iter().map(move |row| (batch, row)));
        rows.map(|(batch, row)| RowAt {
            output: row.output.clone(),
            row: serde_json::from_str(&row.json).unwrap(),
            cut: batch.cut.clone(),
        })
        .collect()
    }

    /// The second count of all batches.
    fn recount(&self, metric: &str) -> Recounted<'_> {
        let mut recount = Recount::new(&self.plan, i64::MIN..i64::MAX).trace(metric);
        for ((edge, number), batch) in &self.batches {
            for delta in batch.deltas.values() {
                for event in stored_events(*number, delta).unwrap() {
                    recount.add(*edge, &event).unwrap();
                }
            }
        }
        recount.finish()
    }

    /// The last rows of an output, by a field.
    fn rows(&self, output: &str, field: &str) -> BTreeMap<String, Value> {
        let rows = self.published.iter().flat_map(|batch| &batch.rows);
        let rows = rows.filter(|row| row.output == output);
        let rows = rows.map(|row| serde_json::from_str::<Value>(&row.json).unwrap());
        rows.map(|row| (row[field].as_str().unwrap().to_owned(), row)).collect()
    }
}

/// What one process counts: the events before which there is none with the same id that is close.
fn model(feeds: &[Vec<Vec<Event>>]) -> Vec<(u8, u8)> {
    /// Time, publisher, batch and position.
    type Origin = (i64, Edge, usize, usize);
    let mut all: BTreeMap<u8, BTreeMap<Origin, u8>> = BTreeMap::new();
    for (publisher, batches) in feeds.iter().enumerate() {
        let edge = Edge::publisher(&format!("p{publisher}"), 0);
        for (number, events) in batches.iter().enumerate() {
            for (position, event) in events.iter().enumerate() {
                let of_id = all.entry(event.0).or_default();
                of_id.insert((time_of(*event), edge, number, position), event.1);
            }
        }
    }
    let mut counted = Vec::new();
    for (id, events) in all {
        let mut before: Option<i64> = None;
        for ((at_ms, ..), content) in events {
            if before.is_none_or(|before| at_ms - before > 2_000) {
                counted.push((id, content));
            }
            before = Some(at_ms);
        }
    }
    counted
}

proptest! {
    #[test]
    fn what_is_published_last_is_what_one_process_counts(
        feeds in prop::collection::vec(
            prop::collection::vec(prop::collection::vec((0_u8..40, 0_u8..7, 0_u8..8), 0..6), 1..5), 1..4),
        slots in 1_u8..5,
        steps in prop::collection::vec((0_usize..4, 0_usize..5), 0..6),
        reverse: bool,
    ) {
        let mut bench = Bench::new(slots);
        for (publisher, batches) in feeds.iter().enumerate() {
            for (number, events) in batches.iter().enumerate() {
                bench.add(publisher, number as u64, events);
            }
        }
        let edge = |publisher: usize| Edge::publisher(&format!("p{publisher}"), 0);
        let mut cut = Cut::default();
        for (publisher, batches) in steps {
            let end = feeds.get(publisher).map_or(0, Vec::len);
            cut.include(edge(publisher), batches.min(end) as u64);
            bench.publish_all(&cut, reverse);
            // Events that no row includes yet are no difference.
            let compared = bench.recount("").compare(&bench.published_rows());
            prop_assert_eq!(compared.differences, []);
        }
        for (publisher, batches) in feeds.iter().enumerate() {
            cut.include(edge(publisher), batches.len() as u64);
        }
        bench.publish_all(&cut, reverse);

        let expected = model(&feeds);
        let windows = bench.rows("windows", "window_start");
        let mut ids: Vec<_> = windows.values().flat_map(|row| row["event_ids"].as_array().unwrap())
            .map(|id| id.as_str().unwrap().to_owned()).collect();
        ids.sort();
        let mut all: Vec<_> = expected.iter().map(|(id, _)| format!("e{id}")).collect();
        all.sort();
        prop_assert_eq!(&ids, &all);
        let total: u64 = windows.values().map(|row| row["total"].as_u64().unwrap()).sum();
        prop_assert_eq!(total, expected.len() as u64);

        let days = bench.rows("days", "key");
        for key in 0..3_u8 {
            let of_key = expected.iter().map(|(_, content)| content);
            let of_key = of_key.filter(|content| **content % 3 == key);
            let part = |kind: u8| of_key.clone().filter(move |content| **content % 2 == kind);
            let row = days.get(&format!("k{key}")).map_or(&Value::Null, |row| &row["metrics"]);
            let count = |kind: &str| row[kind]["count"].as_u64().unwrap_or(0);
            prop_assert_eq!(count("a"), part(0).count() as u64);
            prop_assert_eq!(count("b"), part(1).count() as u64);
            for size in 0..4_u8 {
                let of_size = part(0).filter(|content| **content % 4 == size).count() as u64;
                let told = row["a"]["by_size"][size.to_string()].as_u64().unwrap_or(0);
                prop_assert_eq!(told, of_size);
            }
            let big = part(1).filter(|content| **content > 4).count();
            if part(1).count() > 0 {
                let share = row["b"]["big_rate"].as_f64().unwrap();
                prop_assert!((share - big as f64 / part(1).count() as f64).abs() < 0.0001);
            }
        }
        // A second count by other means finds the same, and the events of each metric.
        let day = "days/2023-11-14/k1";
        let recount = bench.recount(day);
        let mut published = bench.published_rows();
        let compared = recount.compare(&published);
        prop_assert_eq!(&compared.differences, &[]);
        prop_assert_eq!((compared.counted, compared.open), (expected.len() as u64, 0));
        let mut of_day: Vec<_> =
            expected.iter().filter(|(_, n)| n % 3 == 1).map(|(id, _)| format!("e{id}")).collect();
        of_day.sort();
        prop_assert_eq!(recount.traced(&published), of_day);
        if let Some(row) = published.iter_mut().rev().find(|row| row.output == "windows") {
            row.row["total"] = json!(row.row["total"].as_u64().unwrap() + 1);
            prop_assert_eq!(recount.compare(&published).differences.len(), 1);
        }

        // An alert has the count that its window has in the same batch, and what was raised and no longer
        // is an alert is withdrawn.
        let mut raised = BTreeMap::new();
        for batch in &bench.published {
            let rows = batch.rows.iter().map(|row| {
                (row.output.as_str(), serde_json::from_str::<Value>(&row.json).unwrap())
            });
            let rows: Vec<_> = rows.collect();
            for (_, alert) in rows.iter().filter(|(output, _)| *output == "alerts") {
                let of = |row: &&(&str, Value)| {
                    row.0 == "windows" && row.1["window_start"] == alert["window_start"]
                };
                let window = &rows.iter().find(of).unwrap().1;
                let key = alert["key"].as_str().unwrap();
                prop_assert_eq!(window["stats"][key].as_u64().unwrap_or(0), alert["count"].as_u64().unwrap());
                raised.insert(alert["alert_id"].to_string(), alert["state"] == "raised");
            }
        }
        let standing: BTreeSet<_> =
            raised.into_iter().filter(|(_, stands)| *stands).map(|(id, _)| id).collect();
        let mut last = BTreeMap::new();
        for window in bench.published.iter().flat_map(|batch| &batch.windows) {
            last.insert(window.key, window);
        }
        let expected_alerts = last.values().flat_map(|window| {
            let start = time_text(window.key.1);
            window.alerts.iter().map(move |(_, group)| json!(format!("alerts/{start}/{}", group[0])).to_string())
        });
        prop_assert_eq!(standing, expected_alerts.collect::<BTreeSet<_>>());

        // What revisions say that they added, all together, is every event. One that was counted at another
        // time before comes again.
        let rows = bench.published.iter().flat_map(|batch| &batch.rows);
        let rows = rows.filter(|row| row.output == "days");
        let mut added: Vec<_> = rows
            .flat_map(|row| {
                let row: Value = serde_json::from_str(&row.json).unwrap();
                row["input_event_ids"].as_array().unwrap().clone()
            })
            .map(|id| id.as_str().unwrap().to_owned())
            .collect();
        added.sort();
        if feeds.iter().flatten().flatten().all(|(_, _, shift)| *shift < 4) {
            prop_assert_eq!(added, all);
        } else {
            let (added, all): (BTreeSet<_>, BTreeSet<_>) =
                (added.into_iter().collect(), all.into_iter().collect());
            prop_assert!(added.is_superset(&all));
        }
    }
}
