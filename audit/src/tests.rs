//! Audit files, filled as a reader of a stream fills them.

use std::path::Path;

use bytes::Bytes;
use cortado_protocol::stream::{Cursor, Publisher, Row, StoredEvent};
use cortado_protocol::{Edge, content_hash};
use cortado_stream::{EVENTS, StreamPlan};
use serde_json::{Value, json};

use super::*;

const AT_MS: i64 = 1_704_110_398_000;

fn plan() -> StreamPlan {
    StreamPlan::parse(EVENTS).unwrap()
}

fn publisher(name: &str) -> Publisher {
    Publisher { name: name.into(), generation: 0, opened_ms: 0, backfill: false }
}

fn event(batch: u64, position: u32, id: &str, status: &str) -> StoredEvent {
    let line = format!(
        "{{\"event_id\":\"{id}\",\"timestamp\":\"2024-01-01T11:59:58Z\",\"region\":\"norte\",\
         \"source\":\"migration.case\",\"schema_version\":\"1.0\",\"payload\":{{\"status\":\"{status}\"}}}}"
    );
    let (content, raw) = (content_hash(status.as_bytes()), Bytes::from(line));
    StoredEvent { batch, position, at_ms: AT_MS, id: id.into(), content, raw }
}

/// The same at another time, so many milliseconds later.
fn later(event: StoredEvent, by_ms: i64) -> StoredEvent {
    let at_ms = event.at_ms + by_ms;
    let raw = String::from_utf8(event.raw.to_vec()).unwrap();
    let raw = raw.replace("2024-01-01T11:59:58Z", &cortado_stream::time_text(at_ms));
    let content = content_hash(raw.as_bytes());
    StoredEvent { at_ms, raw: Bytes::from(raw), content, ..event }
}

fn all(path: &Path, sql: &str) -> Vec<Vec<Value>> {
    query(path, sql).unwrap().rows
}

#[test]
fn each_event_is_there_once_and_the_one_with_the_smallest_origin_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    // Edges are ordered by a hash of their names.
    let mut names = ["a", "b"];
    names.sort_by_key(|name| Edge::publisher(name, 0));
    let [first, second] = names.map(publisher);
    let mut file = AuditFile::open(&path, "job", &plan()).unwrap();
    let of_second = [event(0, 0, "x", "pending"), event(0, 1, "y", "approved")];
    file.add_events(&second, &of_second, 1).unwrap();
    file.add_events(&second, &[event(1, 0, "x", "pending"), event(1, 3, "y", "lost")], 2).unwrap();
    let kinds =
        "SELECT event_id, publisher, batch, contribution_type FROM events_in ORDER BY 1, 2, 3";
    let name = &second.name;
    assert_eq!(
        all(&path, kinds),
        [
            vec![json!("x"), json!(name), json!(0), json!("counted")],
            vec![json!("x"), json!(name), json!(1), json!("duplicate")],
            vec![json!("y"), json!(name), json!(0), json!("counted")],
            vec![json!("y"), json!(name), json!(1), json!("conflict")],
        ]
    );
    drop(file);

    // Another process goes on, and an event with a smaller origin takes the place.
    let mut file = AuditFile::open(&path, "job", &plan()).unwrap();
    let read = file.read_so_far().unwrap();
    assert_eq!((read.of(second.edge()), read.of(first.edge())), (2, 0));
    file.add_events(&first, &[event(7, 0, "y", "lost")], 8).unwrap();
    let expected = AuditCounts { counted: 2, duplicates: 2, conflicts: 1, metrics: 0 };
    assert_eq!(file.counts().unwrap(), expected);
    let counted = "SELECT publisher, batch FROM events_in WHERE event_id = 'y'
                   AND contribution_type = 'counted'";
    assert_eq!(all(&path, counted), [vec![json!(first.name), json!(7)]]);
    let traced = "SELECT event_id FROM trace WHERE metric_id = 'metrics.daily/2024-01-01/norte'
                  AND contribution_type = 'counted' ORDER BY 1";
    assert_eq!(all(&path, traced), [vec![json!("x")], vec![json!("y")]]);
    let columns = "SELECT timestamp, region, source, schema_version, correlation_id, payload_json
                   FROM events_in LIMIT 1";
    let payload = "{\"status\":\"pending\"}";
    let texts = ["2024-01-01T11:59:58Z", "norte", "migration.case", "1.0"].map(Value::from);
    let row = [&texts[..], &[Value::Null, payload.into()]].concat();
    assert_eq!(all(&path, columns), [row]);
}

#[test]
fn of_events_with_one_id_and_several_times_the_first_counts_within_the_horizon() {
    let folder = tempfile::tempdir().unwrap();
    let of = publisher("a");
    let at = |batch: u64, by_ms: i64| later(event(batch, 0, "x", "pending"), by_ms);
    // Ten minutes are the horizon: the third is close to the second, which does not count.
    let times = [0, 590_000, 1_180_000, 1_790_000];
    let expected = ["counted", "conflict", "conflict", "counted"];
    let orders = [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]];
    for (number, order) in orders.into_iter().enumerate() {
        let path = folder.path().join(format!("{number}.db"));
        let mut file = AuditFile::open(&path, "job", &plan()).unwrap();
        for (batch, which) in (0..).zip(order) {
            file.add_events(&of, &[at(batch, times[which])], batch + 1).unwrap();
        }
        let kinds = "SELECT contribution_type FROM events_in ORDER BY timestamp";
        assert_eq!(all(&path, kinds), expected.map(|kind| vec![json!(kind)]), "{order:?}");
    }
    // All events in the window of one that comes late contradict what comes before.
    let path = folder.path().join("window.db");
    let mut file = AuditFile::open(&path, "job", &plan()).unwrap();
    let events = [at(0, 30_000), at(0, 30_000), at(0, 31_000)];
    let events = (0..).zip(events).map(|(position, event)| StoredEvent { position, ..event });
    file.add_events(&of, &events.collect::<Vec<_>>(), 1).unwrap();
    let counts = file.counts().unwrap();
    assert_eq!((counts.counted, counts.duplicates, counts.conflicts), (1, 1, 1));
    file.add_events(&of, &[at(1, 0)], 2).unwrap();
    let counts = file.counts().unwrap();
    assert_eq!((counts.counted, counts.duplicates, counts.conflicts), (1, 0, 3));
}

#[test]
fn what_fails_in_the_middle_adds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let mut file = AuditFile::open(&path, "job", &plan()).unwrap();
    let of = publisher("a");
    let bad = StoredEvent { raw: Bytes::from_static(b"{"), ..event(0, 1, "y", "pending") };
    let failed = file.add_events(&of, &[event(0, 0, "x", "pending"), bad], 1);
    assert!(matches!(failed, Err(AuditError::Event(_))), "{failed:?}");
    assert_eq!(file.counts().unwrap(), AuditCounts::default());
    assert_eq!(file.read_so_far().unwrap().of(of.edge()), 0);
    // The metric that the failed transaction named gets its number now.
    file.add_events(&of, &[event(0, 0, "x", "pending")], 1).unwrap();
    assert_eq!(all(&path, "SELECT count(*) FROM trace"), [vec![json!(1)]]);
}

#[test]
fn rows_of_metrics_are_there_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let edge = Edge::output("n".parse().unwrap(), 1);
    let row = |batch: u64, cut: &str| Row {
        edge,
        batch,
        row: 0,
        json: json!({ "metric_id": "m", "date": "2024-01-01", "region": "sur", "revision": batch,
                      "cut": cut, "metrics": { "migration.case": { "count": batch } } })
        .to_string(),
    };
    let mut cursor = Cursor::default();
    cursor.advance(edge, 3, 0);
    let mut file = AuditFile::open(&path, "job", &plan()).unwrap();
    let rows = [row(1, "aa"), row(2, "bb"), row(2, "bb")];
    file.add_rows("metrics.daily", &rows, &cursor).unwrap();
    let file = AuditFile::open(&path, "job", &plan()).unwrap();
    assert_eq!(file.cursor("metrics.daily").unwrap(), cursor);
    assert_eq!(file.cursor("other").unwrap(), Cursor::default());
    assert_eq!(
        all(&path, "SELECT region, revision, metrics_json FROM metrics_out ORDER BY revision"),
        [1, 2].map(|n| {
            vec![json!("sur"), json!(n), json!(format!("{{\"migration.case\":{{\"count\":{n}}}}}"))]
        })
    );
}

#[test]
fn only_the_audit_file_of_the_same_stream_goes_on_and_queries_do_not_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    drop(AuditFile::open(&path, "job", &plan()).unwrap());
    let message = |result: Result<AuditFile, AuditError>| result.err().unwrap().to_string();
    assert!(message(AuditFile::open(&path, "other", &plan())).contains("another stream: job"));
    let foreign = folder.path().join("b.db");
    let db = rusqlite::Connection::open(&foreign).unwrap();
    db.execute_batch("CREATE TABLE t (x)").unwrap();
    assert!(message(AuditFile::open(&foreign, "job", &plan())).contains("is no audit file"));
    let text = folder.path().join("c.db");
    std::fs::write(&text, "no database at all, but longer than a header: ".repeat(40)).unwrap();
    assert!(message(AuditFile::open(&text, "job", &plan())).contains("not a database"));
    for sql in ["DELETE FROM events_in", "CREATE TABLE x (y)"] {
        assert!(query(&path, sql).unwrap_err().to_string().contains("would write"), "{sql}");
    }
    assert!(query(&path, "SELECT missing").unwrap_err().to_string().contains("no such column"));
    assert!(query(&folder.path().join("none.db"), "SELECT 1").is_err());
}
