//! Queries that read only.

use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::error::AuditError;

/// What a query gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<Value>>,
}

/// Runs one statement that reads, on a file that is opened for reading only.
///
/// # Errors
/// If the file can't be opened, or the statement has a mistake or would write.
pub fn query(path: &Path, sql: &str) -> Result<Table, AuditError> {
    let failed = |source| AuditError::Sqlite { path: path.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(failed)?;
    let wrong = |error: rusqlite::Error| AuditError::Other(format!("the query: {error}"));
    let mut statement = db.prepare(sql).map_err(wrong)?;
    if !statement.readonly() {
        let message = "the query would write: expected one that reads, such as SELECT".to_owned();
        return Err(AuditError::Other(message));
    }
    let columns: Vec<_> = statement.column_names().map(str::to_owned).collect();
    let mut rows = Vec::new();
    let mut found = statement.query([]).map_err(wrong)?;
    while let Some(row) = found.next().map_err(wrong)? {
        let value = |at| {
            Ok(match row.get_ref(at)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(int) => int.into(),
                ValueRef::Real(float) => float.into(),
                ValueRef::Text(text) | ValueRef::Blob(text) => {
                    String::from_utf8_lossy(text).into_owned().into()
                }
            })
        };
        let row: rusqlite::Result<Vec<_>> = (0..columns.len()).map(value).collect();
        rows.push(row.map_err(wrong)?);
    }
    Ok(Table { columns, rows })
}
