//! Rows of metrics.

use cortado_protocol::stream::{Cursor, Row};
use rusqlite::params_from_iter;
use serde_json::{Map, Value};

use crate::error::AuditError;
use crate::events::sql_of;
use crate::file::{AuditFile, columns};

impl AuditFile {
    /// Adds rows of a roll-up, behind which the reader stands at `cursor`.
    ///
    /// # Errors
    /// If SQLite can't write the file.
    pub fn add_rows(
        &mut self,
        output: &str,
        rows: &[Row],
        cursor: &Cursor,
    ) -> Result<(), AuditError> {
        let Self { db, path, plan, .. } = self;
        let failed = |source| AuditError::Sqlite { path: path.clone(), source };
        let fields = plan.rollup_fields();
        let names = columns(&fields);
        let put = format!(
            "INSERT OR IGNORE INTO metrics_out (metric_id, date, {names} revision, cut, metrics_json)
             VALUES (?, ?{}, ?, ?, ?)",
            ", ?".repeat(fields.len())
        );
        let transaction = db.transaction().map_err(failed)?;
        let mut insert = transaction.prepare(&put).map_err(failed)?;
        for row in rows {
            let Ok(row) = serde_json::from_str::<Map<String, Value>>(&row.json) else { continue };
            let metrics = row.get("metrics").map(Value::to_string).map(Value::String);
            let of = |field: &str| sql_of(row.get(field));
            let date = row.get("date").or_else(|| row.get("start"));
            let values = [of("metric_id"), sql_of(date)];
            let values = values.into_iter().chain(fields.iter().map(|field| of(field)));
            let last = [of("revision"), of("cut"), sql_of(metrics.as_ref())];
            insert.execute(params_from_iter(values.chain(last))).map_err(failed)?;
        }
        drop(insert);
        let put = "INSERT OR REPLACE INTO audit VALUES (?1, ?2)";
        let state = (format!("cursor {output}"), cursor.to_text());
        transaction.execute(put, state).map_err(failed)?;
        transaction.commit().map_err(failed)
    }
}
