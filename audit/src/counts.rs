//! What a file has.

use crate::error::AuditError;
use crate::events;
use crate::file::AuditFile;

/// What a file has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditCounts {
    /// Events that count.
    pub counted: u64,
    /// Copies of them.
    pub duplicates: u64,
    /// Events that contradict one of them.
    pub conflicts: u64,
    /// Rows of metrics.
    pub metrics: u64,
}

impl AuditFile {
    /// What the file has.
    ///
    /// # Errors
    /// If SQLite can't read the file.
    pub fn counts(&self) -> Result<AuditCounts, AuditError> {
        let mut counts = AuditCounts::default();
        let all = "SELECT contribution_type, count(*) FROM events_in GROUP BY contribution_type";
        let mut statement = self.sql(self.db.prepare(all))?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)));
        for row in self.sql(rows)? {
            let (kind, count) = self.sql(row)?;
            match kind.as_str() {
                events::COUNTED => counts.counted = count,
                events::DUPLICATE => counts.duplicates = count,
                _ => counts.conflicts = count,
            }
        }
        let metrics = "SELECT count(*) FROM metrics_out";
        counts.metrics = self.sql(self.db.query_row(metrics, [], |row| row.get(0)))?;
        Ok(counts)
    }
}
