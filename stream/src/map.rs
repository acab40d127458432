//! Turns a batch of events into deltas, one for each slot: a pure function of the batch, the plan and
//! the schema set that the batch names. Mappers call it.

use std::collections::BTreeMap;

use bytes::Bytes;
use cortado_engine::{MapError, Mapped, slot_of};
use cortado_protocol::limits::{ENTRY_BYTES, EVENT_BYTES, EVENTS_PER_BATCH};
use cortado_protocol::stream::StreamHeader;
use cortado_protocol::{META_SLOT, content_hash};
use serde_json::Value;

use crate::event::{Fact, Facts, SEPARATOR};
use crate::plan::{StreamPlan, WindowKey, start_of};
use crate::schema::{Invalid, SchemaSet};
use crate::summary::{DeadLetter, Kind, Summary, WindowCount};
use crate::texts::Texts;
use crate::time::{parse_time, time_text};

/// Longest id of an event, in bytes.
const ID_BYTES: usize = 256;
/// Longest text by which a window groups, in bytes.
const KEY_BYTES: usize = 1_024;

/// Turns a batch of events, one JSON object a line, into deltas for `slots` slots.
///
/// # Errors
/// If the deltas are larger than an entry.
pub fn map_events(
    plan: &StreamPlan,
    schemas: &SchemaSet,
    slots: usize,
    header: &StreamHeader,
    payload: &[u8],
) -> Result<Mapped, MapError> {
    let lines = payload.iter().filter(|byte| **byte == b'\n').count();
    if lines > EVENTS_PER_BATCH {
        return Err(MapError::Events(lines));
    }
    let mut deltas: BTreeMap<_, Delta<'_>> = BTreeMap::new();
    let mut windows: BTreeMap<WindowKey, u32> = BTreeMap::new();
    let mut dead = Vec::new();
    let (mut received, mut valid) = (0, 0);
    for (position, line) in payload.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        received += 1;
        let position = position as u32;
        match read(plan, schemas, header, line) {
            Ok(event) => {
                valid += 1;
                for (number, window) in plan.windows().iter().enumerate() {
                    let start = start_of(event.at_ms, window.every_ms);
                    *windows.entry((number as u16, start)).or_default() += 1;
                }
                let delta = deltas.entry(slot_of(event.id.as_bytes(), slots)).or_default();
                let Event { id, at_ms, content, keys, paths } = event;
                let mut numbers =
                    |texts: &[String]| texts.iter().map(|text| delta.texts.number(text)).collect();
                let (keys, paths) = (numbers(&keys), numbers(&paths));
                delta.facts.push(Fact { id, at_ms, content, position, keys, paths });
                delta.lines.push(line);
            }
            Err((kind, Invalid { reason, path })) => {
                dead.push(DeadLetter {
                    position,
                    kind,
                    reason,
                    path,
                    raw: Bytes::copy_from_slice(line),
                });
            }
        }
    }
    let rejected = dead.len() as u32;
    let windows = windows.into_iter().map(|(key, events)| WindowCount { key, events }).collect();
    let summary = Summary { header: header.clone(), received, valid, windows, dead };
    let encode = |Delta { texts, facts, lines }: Delta<'_>| {
        Facts { texts: texts.all().map(str::to_owned).collect(), facts }.encode(&lines)
    };
    let mut deltas: Vec<(_, Bytes)> =
        deltas.into_iter().map(|(slot, delta)| (slot, encode(delta))).collect();
    deltas.push((META_SLOT, summary.encode()));
    if deltas.iter().map(|(_, delta)| delta.len()).sum::<usize>() > ENTRY_BYTES / 2 {
        return Err(MapError::Output(payload.len()));
    }
    Ok(Mapped { deltas, rows: received, rejected })
}

/// The delta of a slot.
#[derive(Default)]
struct Delta<'a> {
    texts: Texts,
    facts: Vec<Fact>,
    lines: Vec<&'a [u8]>,
}

/// What windows need of an event.
struct Event {
    id: String,
    at_ms: i64,
    content: u64,
    keys: Vec<String>,
    paths: Vec<String>,
}

/// Reads and validates an event.
fn read(
    plan: &StreamPlan,
    schemas: &SchemaSet,
    header: &StreamHeader,
    line: &[u8],
) -> Result<Event, (Kind, Invalid)> {
    let at = |path: &str, reason: String| {
        let path = if path.is_empty() { String::new() } else { format!("/{path}") };
        (Kind::Validation, Invalid { reason, path })
    };
    if line.len() > EVENT_BYTES {
        let reason = format!("{} bytes: an event has at most {EVENT_BYTES}", line.len());
        return Err(at("", reason));
    }
    let event: Value = serde_json::from_slice(line)
        .map_err(|error| at("", format!("not a JSON object: {error}")))?;
    if !event.is_object() {
        return Err(at("", "not a JSON object".to_owned()));
    }
    schemas.check(plan, &event).map_err(|invalid| (Kind::Validation, invalid))?;
    let id = event.get(plan.id()).and_then(Value::as_str).unwrap_or_default();
    if id.is_empty() || id.len() > ID_BYTES {
        let reason = format!("the id is no text of 1 to {ID_BYTES} bytes");
        return Err(at(plan.id(), reason));
    }
    let time = event.get(plan.time()).and_then(Value::as_str);
    let Some(at_ms) = time.and_then(parse_time) else {
        let reason = "the time is not RFC 3339, such as 2024-01-31T10:06:50Z".to_owned();
        return Err(at(plan.time(), reason));
    };
    let latest = header.sent_at_ms.saturating_add(plan.future_ms());
    if at_ms > latest {
        let reason = format!(
            "the time is too far in the future: its batch was sent at {}",
            time_text(header.sent_at_ms)
        );
        return Err(at(plan.time(), reason));
    }
    let (keys, paths) = counted_by(plan, &event)?;
    // Maps are sorted, so the order of fields does not count.
    let content = content_hash(event.to_string().as_bytes());
    Ok(Event { id: canonical(id), at_ms, content, keys, paths })
}

/// The texts by which an event is counted: for each field by which a window groups, window by window;
/// and the paths of what it adds one to in roll-ups. A path has the number of the roll-up, the texts
/// of its rows and of the part, and for a metric its name and text.
pub(crate) fn counted_by(
    plan: &StreamPlan,
    event: &Value,
) -> Result<(Vec<String>, Vec<String>), (Kind, Invalid)> {
    let mut keys = Vec::new();
    for path in plan.windows().iter().flat_map(|window| &window.group_by) {
        keys.push(wanted_at(event, path)?);
    }
    let mut paths = Vec::new();
    for (number, rollup) in plan.rollups().iter().enumerate() {
        let mut path = number.to_string();
        for field in rollup.per.iter().chain([&rollup.by]) {
            path.push(SEPARATOR);
            path.push_str(&wanted_at(event, field)?);
        }
        let by = path.rsplit(SEPARATOR).next().unwrap_or_default();
        for metric in rollup.metrics.get(by).into_iter().flatten() {
            let text = wanted_at(event, &metric.path)?;
            if !metric.is_rate || text == "true" {
                paths.push(format!("{path}{SEPARATOR}{}{SEPARATOR}{text}", metric.name));
            }
        }
        paths.push(path);
    }
    Ok((keys, paths))
}

/// The same id for all spellings of a UUID (RFC 9562 §4: letters of either case).
fn canonical(id: &str) -> String {
    let is_uuid = id.len() == 36
        && id.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    if is_uuid { id.to_ascii_lowercase() } else { id.to_owned() }
}

/// The text at a path that the plan counts by.
fn wanted_at(event: &Value, path: &[String]) -> Result<String, (Kind, Invalid)> {
    text_at(event, path).ok_or_else(|| {
        let reason = format!(
            "the plan counts by {}, which is no text of up to {KEY_BYTES} bytes, number or boolean",
            path.join(".")
        );
        (Kind::Processing, Invalid { reason, path: format!("/{}", path.join("/")) })
    })
}

fn text_at(event: &Value, path: &[String]) -> Option<String> {
    let value = path.iter().try_fold(event, |value, field| value.get(field))?;
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(bool) => bool.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    (text.len() <= KEY_BYTES && !text.contains(SEPARATOR)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EVENTS, EVENTS_SCHEMAS};

    fn schemas(plan: &StreamPlan) -> SchemaSet {
        let files = EVENTS_SCHEMAS.map(|(name, text)| cortado_protocol::stream::SchemaFile {
            name: name.to_owned(),
            text: text.to_owned(),
        });
        SchemaSet::compile(plan, &files).unwrap()
    }

    fn header() -> StreamHeader {
        StreamHeader {
            publisher: "p".into(),
            generation: 0,
            schema_set: 0,
            low_watermark_ms: 0,
            sent_at_ms: parse_time("2024-01-01T12:00:00Z").unwrap(),
            last: false,
        }
    }

    const VALID: &str = r#"{"event_id":"01890a5d-ac96-774b-bcce-b302099a8057","timestamp":"2024-01-01T11:59:58Z","region":"norte","source":"migration.case","schema_version":"1.0","payload":{"case_id":"c","case_type":"asylum","status":"pending","origin_country":"Xanadu","application_date":"2023-12-30"}}"#;

    fn summary(payload: &[u8]) -> Summary {
        let plan = StreamPlan::parse(EVENTS).unwrap();
        let mapped = map_events(&plan, &schemas(&plan), 4, &header(), payload).unwrap();
        let (slot, bytes) = mapped.deltas.last().unwrap();
        assert_eq!(*slot, META_SLOT);
        Summary::decode(bytes).unwrap()
    }

    /// The reason and the path for which a line becomes a dead letter.
    fn dead(line: &[u8]) -> (String, String) {
        let mut summary = summary(line);
        assert_eq!((summary.received, summary.valid), (1, 0), "{}", String::from_utf8_lossy(line));
        let DeadLetter { reason, path, raw, .. } = summary.dead.remove(0);
        assert_eq!(raw, line);
        (reason, path)
    }

    #[test]
    fn a_valid_event_is_counted_whatever_the_spelling_of_its_id_and_the_order_of_its_fields() {
        let plan = StreamPlan::parse(EVENTS).unwrap();
        let map = |text: &str| {
            let mapped = map_events(&plan, &schemas(&plan), 4, &header(), text.as_bytes()).unwrap();
            Facts::decode(&mapped.deltas[0].1).unwrap()
        };
        let facts = map(VALID);
        assert_eq!(facts.facts.len(), 1);
        assert_eq!(facts.texts[..2], ["norte", "migration.case"]);
        assert!(facts.texts.iter().any(|text| text.ends_with("by_status\u{1f}pending")));
        let reordered = format!(
            "{{{}, \"region\": \"norte\"}}",
            VALID[1..VALID.len() - 1].replace("\"region\":\"norte\",", "")
        );
        let upper = reordered.replace("ac96-774b-bcce-b302099a8057", "AC96-774B-BCCE-B302099A8057");
        assert_eq!(map(&reordered), facts);
        assert_eq!(map(&upper).facts[0].id, facts.facts[0].id);
    }

    #[test]
    fn each_bad_line_costs_itself_and_says_why() {
        let with = |from: &str, to: &str| {
            assert!(VALID.contains(from));
            VALID.replace(from, to).into_bytes()
        };
        for (line, part, path) in [
            (b"{\"a\": 1".to_vec(), "not a JSON object", ""),
            (b"[1]".to_vec(), "not a JSON object", ""),
            (b"{\"a\": \"\xff\"}".to_vec(), "not a JSON object", ""),
            (br#"{"a": "\ud800"}"#.to_vec(), "not a JSON object", ""),
            ([b"[".repeat(2_000), b"]".repeat(2_000)].concat(), "not a JSON object", ""),
            (with("\"region\":\"norte\",", ""), "region", ""),
            (with("norte", "atlantis"), "atlantis", "/region"),
            (with("migration.case", "weather.report"), "weather.report", "/source"),
            (with("\"1.0\"", "\"9.0\""), "9.0", ""),
            (with("pending", "lost"), "lost", "/payload/status"),
            (with("2023-12-30", "2023-02-30"), "date", "/payload/application_date"),
            (with("01890a5d-", "x"), "uuid", "/event_id"),
            (with("11:59:58Z", "25:00:00Z"), "date-time", "/timestamp"),
            (with("2024-01-01T11", "2025-01-01T11"), "future", "/timestamp"),
            (with("Xanadu", &"x".repeat(EVENT_BYTES)), "at most", ""),
        ] {
            let (reason, at) = dead(&line);
            assert!(reason.contains(part), "{reason} / {part}");
            assert!(at.starts_with(path), "{at} / {path}");
        }
        let mixed = [VALID.as_bytes(), b"\r\n\n{\n  \n", VALID.as_bytes(), b"\n"].concat();
        let summary = summary(&mixed);
        assert_eq!((summary.received, summary.valid), (3, 2));
        assert_eq!(summary.dead[0].position, 2);
        assert_eq!(summary.windows.iter().map(|window| window.events).sum::<u32>(), 2);
    }

    #[test]
    fn what_a_window_groups_by_must_be_there() {
        let text = EVENTS.replacen("\"region\", \"source\"", "\"region\", \"payload.severity\"", 1);
        let plan = StreamPlan::parse(&text).unwrap();
        let mapped = map_events(&plan, &schemas(&plan), 4, &header(), VALID.as_bytes()).unwrap();
        let summary = Summary::decode(&mapped.deltas.last().unwrap().1).unwrap();
        assert_eq!(
            (summary.dead[0].kind, &*summary.dead[0].path),
            (Kind::Processing, "/payload/severity")
        );
    }
}
