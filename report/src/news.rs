//! Rows of an output as readers get them: each with a cursor, and without what two coordinators
//! published at the same time.

use std::collections::HashMap;

use cortado_protocol::stream::{Cursor, Place, Row};
use serde_json::{Map, Value};

/// Windows, metrics and alerts whose last revision is remembered.
const REMEMBERED: usize = 10_000;

/// A row for a reader.
#[derive(Clone, Debug)]
pub struct Line {
    /// Where it is: the edge of the coordinator that published it, its batch, and its number in the batch.
    pub place: Place,
    /// Where a reader stands that has this row.
    pub cursor: String,
    /// The row, with its cursor in it.
    pub row: Map<String, Value>,
}

/// Makes lines of answers.
#[derive(Clone, Debug)]
pub struct News {
    /// The cursor of a line, which may stand before rows of other outputs that an answer skipped.
    at: Cursor,
    revisions: HashMap<String, u64>,
}

impl News {
    /// Begins at a cursor.
    #[must_use]
    pub fn after(cursor: Cursor) -> Self {
        Self { at: cursor, revisions: HashMap::new() }
    }

    /// The lines of an answer, which began where the one before ended.
    pub fn take(&mut self, rows: Vec<Row>, end: &Cursor) -> Vec<Line> {
        let parsed = rows.into_iter().filter_map(|row| match serde_json::from_str(&row.json) {
            Ok(Value::Object(line)) => Some((row, line)),
            _ => None,
        });
        let mut lines: Vec<(Row, Map<String, Value>)> = parsed.collect();
        // Of two coordinators one after the other, the second one's rows may come first in an answer. Those
        // of one coordinator keep their order, so the cursors are right.
        lines.sort_by_key(|(_, line)| line.get("revision").and_then(Value::as_u64));
        let news = lines.into_iter().filter_map(|(row, mut line)| {
            self.at.advance(row.edge, row.batch, row.row + 1);
            if !self.is_news(&line) {
                return None;
            }
            let cursor = self.at.to_text();
            line.insert("cursor".into(), cursor.as_str().into());
            let place = Place { edge: row.edge, batch: row.batch, position: row.row };
            Some(Line { place, cursor, row: line })
        });
        let news = news.collect();
        self.at = end.clone();
        news
    }

    /// Whether a row is news: of a window, a metric or an alert only a newer revision is.
    fn is_news(&mut self, line: &Map<String, Value>) -> bool {
        let text = |field: &str| line.get(field)?.as_str().map(str::to_owned);
        let of = ["alert_id", "metric_id", "window_start"].into_iter().find_map(text);
        let revision = line.get("revision").and_then(Value::as_u64);
        let (Some(of), Some(revision)) = (of, revision) else { return true };
        if self.revisions.len() >= REMEMBERED {
            self.revisions.clear();
        }
        if self.revisions.get(&of).is_some_and(|last| *last >= revision) {
            return false;
        }
        self.revisions.insert(of, revision);
        true
    }
}

#[cfg(test)]
mod tests {
    use cortado_protocol::Edge;

    use super::*;

    #[test]
    fn the_older_of_two_coordinators_is_no_news_and_cursors_go_on() {
        let edge = |name: &str| Edge::output(name.parse().unwrap(), 1);
        let row = |name: &str, batch: u64, revision: u64| Row {
            edge: edge(name),
            batch,
            row: 0,
            json: format!(r#"{{"window_start":"t","revision":{revision}}}"#),
        };
        let mut end = Cursor::default();
        end.advance(edge("a"), 1, 0);
        end.advance(edge("b"), 2, 0);
        let mut news = News::after(Cursor::default());
        let lines = news.take(vec![row("a", 0, 5), row("b", 0, 3), row("b", 1, 5)], &end);
        let revisions: Vec<_> = lines.iter().map(|line| line.row["revision"].as_u64()).collect();
        assert_eq!(revisions, [Some(3), Some(5)]);
        let cursor = Cursor::from_text(&lines[0].cursor).unwrap();
        assert_eq!((cursor.of(edge("b")), cursor.of(edge("a"))), ((0, 1), (0, 0)));
        assert!(news.take(vec![row("b", 2, 4)], &end).is_empty());
        assert_eq!(news.take(vec![row("b", 2, 6)], &end).len(), 1);
    }
}
