//! Parses the tables of a plan.

use cortado_protocol::limits::TABLES;

use super::document::{PlanError, Value};
use super::types::LIST_LIMIT;
use crate::types::ColumnType;

/// A table: files of one kind, and their needed columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSchema {
    /// Its name in the plan.
    pub name: String,
    /// Pattern of its files below the dataset's directory; see [`TableSchema::matches`].
    pub pattern: String,
    /// The needed columns, in the order of the text.
    pub columns: Vec<ColumnSchema>,
}

/// A needed column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnSchema {
    /// Its name in headers.
    pub name: String,
    /// Its type.
    pub ty: ColumnType,
}

impl TableSchema {
    /// Whether a path below the dataset's directory (parts separated by `/`) is a file of the
    /// table. In the pattern `*` stands for any characters except `/`, `?` for one such character.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        glob(self.pattern.as_bytes(), path.as_bytes())
    }
}

/// Matches with one backtracking point: only the last `*` ever needs another try.
fn glob(pattern: &[u8], path: &[u8]) -> bool {
    let (mut p, mut at) = (0, 0);
    let mut star = None;
    while at < path.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, at));
                p += 1;
            }
            Some(b'?') if path[at] != b'/' => (p, at) = (p + 1, at + 1),
            Some(byte) if *byte == path[at] => (p, at) = (p + 1, at + 1),
            _ => match star {
                Some((star_p, star_at)) if path[star_at] != b'/' => {
                    star = Some((star_p, star_at + 1));
                    (p, at) = (star_p + 1, star_at + 1);
                }
                _ => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

const TYPES: &str =
    "int, decimal, decimal(SCALE), text, date or timestamp, with '?' if it may be empty";

pub(super) fn parse(value: &Value<'_>) -> Result<Vec<TableSchema>, PlanError> {
    let mut tables = Vec::new();
    for (name, table) in value.table()?.entries() {
        let table = table.table()?;
        table.only(&["files", "columns"])?;
        let pattern = table.required("files")?;
        let mut columns = Vec::new();
        let columns_value = table.required("columns")?;
        for (column, ty) in columns_value.table()?.entries() {
            let text = ty.text()?.text;
            let ty = ColumnType::parse(&text)
                .ok_or_else(|| ty.error(format!("'{text}' is no type; expected {TYPES}")))?;
            columns.push(ColumnSchema { name: column.text.clone(), ty });
        }
        if columns.is_empty() || columns.len() > LIST_LIMIT {
            return Err(columns_value.error(format!("a table has 1 to {LIST_LIMIT} columns")));
        }
        let path = pattern.text()?.text;
        if path.is_empty() || path.starts_with('/') || path.split('/').any(|part| part == "..") {
            return Err(pattern.error(format!(
                "'{path}' is no file pattern; expected a path below the dataset such as 'sales/*.csv'"
            )));
        }
        tables.push(TableSchema { name: name.text.clone(), pattern: path, columns });
    }
    if tables.is_empty() || tables.len() > TABLES {
        return Err(value.error(format!("a plan has 1 to {TABLES} tables")));
    }
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn patterns_stay_within_a_folder() {
        for (pattern, path, expected) in [
            ("sales/*.csv", "sales/2024.csv", true),
            ("sales/*.csv", "sales/a/b.csv", false),
            ("sales/*.csv", "sales/a.csv.bak", false),
            ("*/*.csv", "a/b.csv", true),
            ("*", "a/b", false),
            ("s?les.csv", "sales.csv", true),
            ("a/?.csv", "a//.csv", false),
            ("**", "abc", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("", "", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), path.as_bytes()), expected, "{pattern} {path}");
        }
    }
}
