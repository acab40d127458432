//! Events that publishers send, schemas and plans of streams that users write, and what nodes make
//! of them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use cortado_protocol::stream::{Cursor, Place, SchemaFile, StreamHeader};
use cortado_protocol::{Coverage, META_SLOT, Slot};
use cortado_stream::{
    Cut, EVENTS, EVENTS_SCHEMAS, IdIndex, IdSpan, Known, Made, OutputBatch, OutputRow, Recount,
    RowAt, SchemaSet, Span, StreamPlan, Summary, Wanted, WantedWindow, WindowCount, WindowFold,
    map_events, publish, stored_events,
};

const SLOTS: usize = 2;

fn header() -> StreamHeader {
    StreamHeader {
        publisher: "p".to_owned(),
        generation: 0,
        schema_set: 0,
        low_watermark_ms: 0,
        sent_at_ms: 1_800_000_000_000,
        last: false,
    }
}

fn plan() -> (StreamPlan, SchemaSet) {
    let plan = StreamPlan::parse(EVENTS).unwrap();
    let file = |(name, text): (&str, &str)| SchemaFile { name: name.into(), text: text.into() };
    let schemas = SchemaSet::compile(&plan, &EVENTS_SCHEMAS.map(file)).unwrap();
    (plan, schemas)
}

/// Each line of a batch is counted, or is a dead letter with a reason. No bytes break a decoder.
pub fn check(bytes: &[u8]) {
    let (plan, schemas) = plan();
    as_events(&plan, &schemas, bytes);
    as_delta(&plan, bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Err(error) = StreamPlan::parse(text) {
            assert!(!error.message.is_empty());
        }
        let file = SchemaFile { name: "envelope.json".to_owned(), text: text.to_owned() };
        let _ = SchemaSet::compile(&plan, &[file]);
        if let Some(cursor) = Cursor::from_text(text) {
            assert_eq!(Cursor::from_text(&cursor.to_text()), Some(cursor));
        }
        if let Some(place) = Place::from_text(text) {
            assert_eq!(Place::from_text(&place.to_text()), Some(place));
        }
    }
}

fn as_events(plan: &StreamPlan, schemas: &SchemaSet, bytes: &[u8]) {
    let Ok(mapped) = map_events(plan, schemas, SLOTS, &header(), bytes) else { return };
    let of = |slot| mapped.deltas.iter().find(|(other, _)| *other == slot).map(|(_, delta)| delta);
    let summary = Summary::decode(of(META_SLOT).unwrap()).unwrap();
    assert_eq!(u64::from(summary.received), u64::from(summary.valid) + summary.dead.len() as u64);
    assert!(summary.dead.iter().all(|letter| !letter.reason.is_empty()));
    let (edge, batches) = (header().edge(), Coverage::range(0, 1));
    let window = |count: &WindowCount| {
        let (key, valid) = (count.key, u64::from(count.events));
        WantedWindow { key, batches: vec![(edge, batches.clone())], valid, before: None }
    };
    let windows = summary.windows.iter();
    let spans = windows.clone().flat_map(|count| plan.id_spans(count.key.1..count.key.1 + 1));
    let span = |start_ms| IdSpan { start_ms, batches: vec![(edge, batches.clone())] };
    let near = spans.collect::<BTreeSet<_>>().into_iter().map(span).collect();
    let wanted = Wanted { windows: windows.map(window).collect(), near };
    let part = |slot| {
        let (mut fold, mut ids) = (WindowFold::new(plan, &wanted), IdIndex::default());
        let nothing = Bytes::new();
        let delta = of(slot).unwrap_or(&nothing);
        fold.add(&mut ids, (edge, 0), delta).unwrap();
        wanted.near.iter().for_each(|span| fold.look_up(&ids, span));
        while !fold.unsure().is_empty() {
            fold.check((edge, 0), delta).unwrap();
            fold.checked();
        }
        (slot, fold.finish())
    };
    let parts: Vec<_> = (0..SLOTS as u8).map(|slot| part(Slot(slot))).collect();
    let cut: Cut = [(edge, 1)].into_iter().collect();
    let keys = wanted.windows.iter().flat_map(|window| plan.spans_of(window.key));
    let keys: BTreeSet<_> = keys.collect();
    let span = |key| Span { key, others: BTreeMap::new(), before: Vec::new(), windows: 1 };
    let known = Known { spans: keys.into_iter().map(span).collect(), ..Known::default() };
    let made = publish(plan, &cut, &wanted, &parts, (&[], &known)).unwrap();
    let Made::Batch(batch) = made else { panic!("all windows are in the round") };
    assert_eq!(OutputBatch::decode(&batch.encode()).unwrap(), batch);

    // A second count, from the events as they are kept, finds the same.
    let mut recount = Recount::new(plan, i64::MIN..i64::MAX);
    let mut kept = 0;
    for slot in (0..SLOTS as u8).map(Slot) {
        for event in stored_events(0, of(slot).unwrap_or(&Bytes::new())).unwrap() {
            recount.add(edge, &event).unwrap();
            kept += 1;
        }
    }
    assert_eq!(kept, summary.valid);
    let row = |row: &OutputRow| {
        let (output, cut) = (row.output.clone(), cut.clone());
        RowAt { output, row: serde_json::from_str(&row.json).unwrap(), cut }
    };
    let rows: Vec<_> = batch.rows.iter().map(row).collect();
    let compared = recount.finish().compare(&rows);
    assert_eq!((compared.open, compared.differences), (0, Vec::new()));
}

fn as_delta(plan: &StreamPlan, bytes: &[u8]) {
    let edge = header().edge();
    let batches = vec![(edge, Coverage::range(0, 1))];
    let window = WantedWindow { key: (0, 0), batches, valid: 0, before: None };
    let wanted = Wanted { windows: vec![window], near: Vec::new() };
    let mut fold = WindowFold::new(plan, &wanted);
    let mut ids = IdIndex::default();
    let learned = ids.learn(plan, 0, (edge, 0), bytes);
    assert_eq!(fold.check((edge, 0), bytes), learned);
    if fold.add(&mut ids, (edge, 0), bytes).is_ok() {
        let _ = fold.finish();
    }
    let _ = stored_events(0, bytes);
    let _ = Summary::decode(bytes);
    let _ = OutputBatch::decode(bytes);
}

const EVENT: &str = r#"{"event_id":"01890a5d-ac96-774b-bcce-b302099a8057","timestamp":"2026-01-01T11:59:58Z","region":"norte","source":"security.incident","schema_version":"1.0","payload":{"crime_type":"theft","severity":"low","location":{"latitude":1.5,"longitude":-2},"reported_by":"x"}}"#;

/// A batch with a copy, a contradiction and a line that is no event, its delta, the plan, a schema, a cursor.
pub fn samples() -> Vec<Vec<u8>> {
    let (plan, schemas) = plan();
    let later = EVENT.replace("11:59:58", "12:01:58");
    let batch = format!("{later}\n{EVENT}\n{{\n{EVENT}\r\n");
    let mapped = map_events(&plan, &schemas, 1, &header(), batch.as_bytes()).unwrap();
    let mut all = vec![batch.into_bytes(), EVENTS.as_bytes().to_vec()];
    all.extend(mapped.deltas.iter().map(|(_, delta)| delta.to_vec()));
    all.extend(EVENTS_SCHEMAS.iter().map(|(_, text)| text.as_bytes().to_vec()));
    all.push(b"4000000000000001.2.3".to_vec());
    all
}
