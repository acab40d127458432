//! The file and its tables.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use cortado_protocol::stream::Cursor;
use cortado_stream::StreamPlan;
use rusqlite::{Connection, OptionalExtension, params};

use crate::error::AuditError;

/// Version of the tables.
const FORMAT: &str = "2";

/// An audit file that is open for writing.
pub struct AuditFile {
    pub(crate) db: Connection,
    pub(crate) path: PathBuf,
    pub(crate) plan: StreamPlan,
    /// Numbers of metrics.
    pub(crate) metrics: HashMap<String, i64>,
}

impl AuditFile {
    /// Opens the audit file of a stream, or makes it. `stream` is the stream's job id.
    ///
    /// # Errors
    /// If the file is that of another stream, or none at all.
    pub fn open(path: &Path, stream: &str, plan: &StreamPlan) -> Result<Self, AuditError> {
        let failed = |source| AuditError::Sqlite { path: path.to_owned(), source };
        let db = Connection::open(path).map_err(failed)?;
        let file = Self { db, path: path.to_owned(), plan: plan.clone(), metrics: HashMap::new() };
        // One that is not there, or is empty, has no tables.
        let tables = "SELECT count(*) FROM sqlite_schema";
        let tables: i64 = file.sql(file.db.query_row(tables, [], |row| row.get(0)))?;
        if tables == 0 {
            file.sql(file.db.execute_batch(&file.schema(stream)))?;
        }
        let get = "SELECT value FROM audit WHERE key = 'stream'";
        let of = file.db.query_row(get, [], |row| row.get::<_, String>(0)).optional();
        match of {
            Ok(Some(of)) if of == format!("{stream} {FORMAT}") => {}
            Ok(of) => {
                let of = of.unwrap_or_default();
                let message =
                    format!("{} is the audit file of another stream: {of}", path.display());
                return Err(AuditError::Other(message));
            }
            Err(_) => {
                let message = format!("{} is no audit file", path.display());
                return Err(AuditError::Other(message));
            }
        }
        file.sql(
            file.db.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA cache_size = -65536;"),
        )?;
        Ok(file)
    }

    fn schema(&self, stream: &str) -> String {
        let (events, metrics) =
            (columns(self.plan.audit_columns()), columns(&self.plan.rollup_fields()));
        format!(
            "BEGIN;
             CREATE TABLE audit (key TEXT PRIMARY KEY, value TEXT NOT NULL);
             INSERT INTO audit VALUES ('stream', '{stream} {FORMAT}');
             CREATE TABLE publishers (publisher TEXT, generation INTEGER, next_batch INTEGER NOT NULL,
                 PRIMARY KEY (publisher, generation));
             CREATE TABLE events_in (event_id TEXT NOT NULL, timestamp TEXT NOT NULL, {events}
                 payload_json TEXT NOT NULL, publisher TEXT NOT NULL, batch INTEGER NOT NULL,
                 position INTEGER NOT NULL, generation INTEGER NOT NULL,
                 contribution_type TEXT NOT NULL, window_ms INTEGER NOT NULL,
                 at_ms INTEGER NOT NULL, content INTEGER NOT NULL, event INTEGER PRIMARY KEY);
             CREATE INDEX events_by_id ON events_in (event_id, at_ms);
             CREATE TABLE metric_names (metric INTEGER PRIMARY KEY, metric_id TEXT NOT NULL UNIQUE);
             CREATE TABLE event_metrics (metric INTEGER NOT NULL, event INTEGER NOT NULL,
                 PRIMARY KEY (metric, event)) WITHOUT ROWID;
             CREATE VIEW trace AS SELECT event_id, metric_id, contribution_type
                 FROM metric_names JOIN event_metrics USING (metric) JOIN events_in USING (event);
             CREATE TABLE metrics_out (metric_id TEXT NOT NULL, date TEXT NOT NULL, {metrics}
                 revision INTEGER NOT NULL, cut TEXT NOT NULL, metrics_json TEXT NOT NULL,
                 UNIQUE (metric_id, cut));
             COMMIT;"
        )
    }

    /// How far the rows of an output were read.
    ///
    /// # Errors
    /// If SQLite can't read the file.
    pub fn cursor(&self, output: &str) -> Result<Cursor, AuditError> {
        let key = format!("cursor {output}");
        let get = "SELECT value FROM audit WHERE key = ?1";
        let text = self.db.query_row(get, params![key], |row| row.get::<_, String>(0)).optional();
        let text = self.sql(text)?;
        Ok(text.and_then(|text| Cursor::from_text(&text)).unwrap_or_default())
    }

    /// Names the file in an error.
    pub(crate) fn sql<T>(&self, result: rusqlite::Result<T>) -> Result<T, AuditError> {
        result.map_err(|source| AuditError::Sqlite { path: self.path.clone(), source })
    }
}

/// Names of columns, quoted, with a comma behind each.
pub(crate) fn columns(names: &[impl AsRef<str>]) -> String {
    let quoted = |name: &str| format!("\"{}\", ", name.replace('"', "\"\""));
    names.iter().map(|name| quoted(name.as_ref())).collect()
}
