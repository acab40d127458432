//! Readers of a feed, and the description of what can be asked.

use cortado_protocol::Edge;
use cortado_protocol::stream::{Cursor, Place};
use cortado_report::Line;
use serde_json::{Map, json};

use super::feed::{Feed, Next};

fn line(batch: u64, start: &str, revision: u64, ids: usize) -> Line {
    let edge = Edge::output("node-1".parse().unwrap(), 1);
    let place = Place { edge, batch, position: 0 };
    let mut cursor = Cursor::default();
    cursor.advance(edge, batch, 1);
    let ids: Vec<_> = (0..ids).map(|n| format!("{n:036}")).collect();
    let row = json!({ "window_start": start, "revision": revision, "event_ids": ids });
    let row: Map<_, _> = row.as_object().unwrap().clone();
    Line { place, cursor: cursor.to_text(), row }
}

#[tokio::test]
async fn a_feed_keeps_the_newest_rows_and_the_last_revision_of_windows() {
    let feed = Feed::empty();
    feed.fill(vec![line(0, "t0", 1, 1), line(1, "t1", 1, 1), line(2, "t0", 2, 1)], false);
    assert_eq!(feed.range(), (0, 3));
    let Next::Row(row) = feed.next(2) else { panic!("it is there") };
    assert!(row.text(false).contains("event_ids") && !row.text(true).contains("event_ids"));
    assert!(matches!(feed.next(3), Next::Later));
    let windows = feed.windows().await.unwrap();
    let revisions: Vec<_> = windows.iter().map(|window| window["revision"].clone()).collect();
    assert_eq!(revisions, [json!(2), json!(1)]);
    assert!(!windows[0].contains_key("event_ids"));

    // Rows with long lists push the oldest ones out; who stood there has to read for itself.
    feed.fill((3..20).map(|batch| line(batch, "t2", batch, 5_000)).collect(), true);
    let (first, end) = feed.range();
    assert!(first > 3 && end == 20, "{first}..{end}");
    assert!(matches!(feed.next(0), Next::Gone));
    assert!(matches!(feed.next(20), Next::Ended));
}

#[test]
fn all_that_can_be_asked_is_described() {
    use utoipa::OpenApi;
    let routes = include_str!("routes.rs");
    let described = super::openapi::Document::openapi();
    let mut paths = 0;
    for path in routes.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        paths += 1;
        let is_page = path == "/" || path.starts_with("/page/");
        assert!(is_page || described.paths.paths.contains_key(path), "{path} is not described");
    }
    assert_eq!(paths, described.paths.paths.len() + 2);
}

#[test]
fn each_file_of_the_page_is_served() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/page");
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        assert!(name == "index.html" || super::page::has(&name), "{name} is not served");
        bytes += entry.metadata().unwrap().len();
    }
    assert!(bytes <= 150_000, "the page has {bytes} bytes");
}
